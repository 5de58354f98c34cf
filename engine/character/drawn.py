"""The drawn set of a pack: the cuts that a live stream may take, with the pictures of their transitions.

    live/live.json           what drew them, which pack they belong to, hashes
    live/cuts.npy            int32 (C, 2), ascending: node before, node after
    live/sizes.npy           int32 (C, 8): bytes of each encoded picture in live.h264
    live/half_sha256.npy     uint8 (2 C, 32): SHA-256 of the 4 encoded pictures of each half
    live/live.h264           8 pictures a cut, two closed groups of 4

It is complete or absent, like a pack. Its cuts and all kept nodes form a graph in which every path can go on: with it
no stream ever waits for a transition, and which nodes are shown does not depend on what happens to be cached.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from engine.character.arrays import MAX_EDGES_PER_NODE, npy_bytes, read_npy
from engine.character.checks import MAX_NODE_BYTES
from engine.character.video import StoredVideo, node_digest
from engine.errors import InputError
from engine.files import read_plain, reading
from engine.folders import atomic_folder
from engine.motion_graph.graph import Cut, MotionGraph
from engine.motion_graph.live_graph import live_graph
from engine.records import as_object, as_record, check_printable, is_sha256
from engine.timebase import FRAMES_PER_NODE

__all__ = ["FOLDER", "DrawnSet", "drawn_files", "read_drawn", "write_drawn"]

FOLDER = "live"
_MARKER = "live.json"
_VIDEO = "live.h264"
_PICTURES = 2 * FRAMES_PER_NODE
_ARRAYS = {"cuts": ("int32", 1, 2), "sizes": ("int32", 1, _PICTURES), "half_sha256": ("uint8", 2, 32)}
"""Name -> dtype, rows a cut, columns."""
_FILES = (*(f"{name}.npy" for name in _ARRAYS), _VIDEO)
_MAX_JSON_BYTES = 1 << 16
_DAMAGED, _REDRAW = "are damaged", "draw them again with 'tango-rt character warm'"


@dataclass(frozen=True)
class _Record:
    """Content of live.json."""

    pack: str  # sha256 of its pack
    blender: str
    version: int
    settings: str
    n_cuts: int
    sha256: dict[str, str]  # of the arrays, by name


@dataclass(frozen=True, eq=False)
class DrawnSet:
    """The drawn cuts of an open pack; any thread may read."""

    blender: str  # what drew them
    version: int
    settings: str
    cuts: np.ndarray  # int32 (C, 2), read-only
    graph: MotionGraph  # only these cuts
    sha256: str  # of live.json, and so of everything but damage that a read would find
    _video: StoredVideo

    @cached_property
    def numbers(self) -> dict[Cut, int]:
        return {(i, j): k for k, (i, j) in enumerate(self.cuts.tolist())}

    def __contains__(self, cut: Cut) -> bool:
        return cut in self.numbers

    def packets(self, cut: Cut) -> list[bytes] | None:
        """The 8 encoded pictures of a cut, None if it is not in the set. Raises ArtifactError if they are damaged."""
        number = self.numbers.get(cut)
        if number is None:
            return None
        return [*self._video.packets(2 * number), *self._video.packets(2 * number + 1)]


def read_drawn(pack: Path, pack_sha256: str, graph: MotionGraph) -> DrawnSet | None:
    """The drawn set of a pack, None if it has none. Raises ArtifactError if it is damaged, or of another pack."""
    folder = pack / FOLDER
    if not (folder / _MARKER).is_file():
        return None
    with reading(f"the drawn transitions in {folder}", _DAMAGED, _REDRAW):
        if folder.is_symlink():
            raise ValueError("the folder is a link")
        content = read_plain(folder / _MARKER, _MAX_JSON_BYTES, follow_links=False)
        record = _record(content, pack_sha256, graph)
        cuts, sizes, digests = (_array(folder, name, record) for name in _ARRAYS)
        if sizes.min() < 1 or sizes.reshape(-1, FRAMES_PER_NODE).sum(axis=1, dtype=np.int64).max() > MAX_NODE_BYTES:
            raise ValueError(f"half a transition is empty, or has more than {MAX_NODE_BYTES} bytes")
        limited = live_graph(graph, cuts)
        order = cuts[:, 0].astype(np.int64) * graph.n_nodes + cuts[:, 1]
        if np.any(order[1:] <= order[:-1]):
            raise ValueError("cuts do not ascend")
        starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        video = StoredVideo(folder / _VIDEO, starts, digests, "half", _REDRAW)
    sha256 = hashlib.sha256(content).hexdigest()
    return DrawnSet(record.blender, record.version, record.settings, cuts, limited, sha256, video)


def write_drawn(
    pack: Path,
    pack_sha256: str,
    blender: tuple[str, int, str],
    cuts: Sequence[Cut],
    packets: Callable[[Cut], Iterable[bytes]],
) -> None:
    """Replace the drawn set of a pack: name, version and settings of the blender, its cuts, and the 8 pictures of each.

    Raises InputError if it cannot be written.
    """
    place = pack / FOLDER
    if place.is_symlink():
        raise InputError(f"{place} is a link: drawn transitions are written only inside the pack")
    chosen = sorted(cuts)
    sizes: list[list[int]] = []
    digests: list[bytes] = []
    try:
        with atomic_folder(place, _MARKER, "drawn transitions") as folder:
            with (folder / _VIDEO).open("wb") as video:
                for cut in chosen:
                    pictures = list(packets(cut))
                    video.write(b"".join(pictures))
                    sizes.append([len(picture) for picture in pictures])
                    digests += [node_digest(pictures[:FRAMES_PER_NODE]), node_digest(pictures[FRAMES_PER_NODE:])]
            arrays: dict[str, np.ndarray] = {
                "cuts": np.array(chosen, np.int32).reshape(-1, 2),
                "sizes": np.array(sizes, np.int32).reshape(-1, _PICTURES),
                "half_sha256": np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
            }
            hashes = {}
            for name, array in arrays.items():
                content = npy_bytes(array)
                (folder / f"{name}.npy").write_bytes(content)
                hashes[name] = hashlib.sha256(content).hexdigest()
            record = _Record(pack_sha256, *blender, len(chosen), hashes)
            (folder / _MARKER).write_text(json.dumps(asdict(record), indent=1), "utf-8")
    except OSError as error:
        raise InputError(f"{place}: cannot be written ({error.strerror or 'is the disk full?'})") from error


def _array(folder: Path, name: str, record: _Record) -> np.ndarray:
    dtype, rows, columns = _ARRAYS[name]
    array = read_npy(folder / f"{name}.npy", dtype, rows * record.n_cuts, columns, record.sha256[name])
    if array.shape[1] != columns:
        raise ValueError(f"{name} has {array.shape[1]} columns, expected {columns}")
    return array


def drawn_files(pack: Path) -> list[str]:
    """Names of the files of the drawn set of a pack; none if it has none."""
    return [_MARKER, *_FILES] if (pack / FOLDER / _MARKER).is_file() else []


def _record(content: bytes, pack_sha256: str, graph: MotionGraph) -> _Record:
    fields = as_object(content, _MARKER)
    check_printable(fields)
    record = as_record(_Record, fields)
    if record.pack != pack_sha256:
        raise ValueError("they belong to another pack")
    if not 0 < record.n_cuts <= MAX_EDGES_PER_NODE * graph.n_nodes:
        raise ValueError(f"n_cuts is {record.n_cuts}")
    if set(record.sha256) != set(_ARRAYS) or not all(map(is_sha256, record.sha256.values())):
        raise ValueError("a hash is missing or malformed")
    return record
