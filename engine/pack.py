"""Character pack: the folder NAME.tango, everything that is needed to perform a person.

    pack.json        what it is: schema, size, sources, clips, build report
    video.h264       closed groups of 4 pictures, one behind the other, one a node
    ARRAY.npy        the arrays of ARRAYS below; opened by memory map
    embeddings/      motion features by embedding (engine.pack_embeddings)
    transitions/     the cache of generated frames (tango_rt.pipeline.transitions)

A pack is whole or absent: it is written to a temporary folder and renamed. A pack from a stranger cannot run code (no
pickle), cannot leave its folder (fixed file names, no links) and cannot make us allocate (sizes are checked against the
frame count before anything is read).
"""

import base64
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from engine.appearance import N_CELLS
from engine.errors import ArtifactError, InputError
from engine.features.recording import Recording
from engine.folders import folder_beside, replace_folder
from engine.graph import MotionGraph
from engine.names import canonical, unfit
from engine.skeleton import N_JOINTS
from engine.timebase import FPS, FRAMES_PER_NODE, frame_start

__all__ = [
    "ARRAYS",
    "SCHEMA",
    "CharacterPack",
    "Clip",
    "PackInfo",
    "PackWriter",
    "Source",
    "folder_bytes",
    "plain_file",
]

SCHEMA = 2
SUFFIX = ".tango"
MAX_FRAMES = 4 * 3600 * FPS
MAX_SIDE_PX = 8192
MAX_JSON_BYTES = 64 << 20

# name -> dtype, shape; F frames, N nodes, S samples, C clips, E edges, D any width
ARRAYS: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "packet_start": ("int64", ("F+1",)),
    "clip_start": ("int64", ("C+1",)),
    "audio": ("int16", ("S",)),
    "joints": ("float32", ("F", N_JOINTS, 3)),
    "confidence": ("float32", ("F", N_JOINTS)),
    "valid": ("bool", ("F",)),
    "hands_found": ("bool", ("F", 2)),
    "hand_boxes": ("float32", ("F", 2, 4)),
    "surface": ("uint64", ("F", 96)),
    "appearance": ("uint8", ("F", N_CELLS, 3)),
    "mouth": ("float32", ("F", 2)),
    "motion": ("float32", ("F", "D", 15)),
    "graph_indptr": ("int64", ("N+1",)),
    "graph_indices": ("int32", ("E",)),
    "graph_distance": ("float32", ("E",)),
    "graph_kind": ("uint8", ("E",)),
    "graph_kept": ("bool", ("N",)),
    "motion_level": ("float32", ("N",)),
    "rest": ("float32", ("N",)),
}
MAX_FEATURE_WIDTH = 4096
MAX_EDGES_PER_NODE = 4096


@dataclass(frozen=True)
class Source:
    """A video that went into the pack."""

    name: str
    sha256: str
    n_frames: int


@dataclass(frozen=True)
class Clip:
    """Frames of one source between two shot changes, cut to whole nodes."""

    source: int
    first_frame: int
    n_frames: int


@dataclass(frozen=True)
class PackInfo:
    """What pack.json says."""

    name: str
    width: int
    height: int
    n_frames: int
    shoulder_px: float
    sources: tuple[Source, ...]
    clips: tuple[Clip, ...]
    extradata: bytes = b""
    words: str = ""  # word timings of the first source, JSON text as given
    report: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def n_nodes(self) -> int:
        return self.n_frames // FRAMES_PER_NODE

    def to_json(self) -> str:
        fields = asdict(self)
        fields["extradata"] = base64.b64encode(self.extradata).decode("ascii")
        return json.dumps(fields, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "PackInfo":
        """Raises ValueError, KeyError or TypeError for anything that is not a sane pack.json."""
        fields = json.loads(text)
        if fields["schema"] != SCHEMA:
            raise _SchemaError(fields["schema"])
        fields["extradata"] = base64.b64decode(fields["extradata"], validate=True)
        fields["sources"] = tuple(Source(**source) for source in fields["sources"])
        fields["clips"] = tuple(Clip(**clip) for clip in fields["clips"])
        info = cls(**fields)
        info._check()
        return info

    def _check(self) -> None:
        for name, value, most in (
            ("width", self.width, MAX_SIDE_PX),
            ("height", self.height, MAX_SIDE_PX),
            ("n_frames", self.n_frames, MAX_FRAMES),
        ):
            if not isinstance(value, int) or not 0 < value <= most:
                raise ValueError(f"{name} is {value!r}, expected 1 to {most}")
        if self.n_frames % FRAMES_PER_NODE or sum(clip.n_frames for clip in self.clips) != self.n_frames:
            raise ValueError(f"the clips do not add up to {self.n_frames} frames in whole nodes")
        if not isinstance(self.words, str) or not isinstance(self.report, dict) or not isinstance(self.name, str):
            raise ValueError("name, words or report are of another kind")
        if not np.isfinite(self.shoulder_px) or self.shoulder_px <= 0:
            raise ValueError(f"shoulder_px is {self.shoulder_px!r}")


class _SchemaError(ValueError):
    """The pack is of another version."""


class CharacterPack:
    """An opened pack. Arrays are memory maps: opening costs milliseconds whatever the length of the reference."""

    def __init__(self, path: Path, info: PackInfo, arrays: dict[str, np.ndarray], video: np.ndarray) -> None:
        self.path = path
        self.info = info
        self._arrays = arrays
        self._video = video

    @classmethod
    def open(cls, path: str | Path) -> "CharacterPack":
        """Check and map a pack folder. Raises InputError when there is none, ArtifactError when it is unusable."""
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"no character at {folder}: expected a folder made by 'tango-rt character build'")
        try:
            info = PackInfo.from_json(plain_file(folder, "pack.json", MAX_JSON_BYTES).read_text("utf-8"))
            arrays = {name: _map_array(folder, name, info) for name in ARRAYS}
            video = np.memmap(plain_file(folder, "video.h264"), dtype=np.uint8, mode="r")
            _check_references(info, arrays, video.size)
        except _SchemaError as error:
            raise ArtifactError(
                f"{folder} has pack schema {error}, this version reads {SCHEMA}: "
                "rebuild it with 'tango-rt character build'"
            ) from error
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
            EOFError,
        ) as error:
            raise ArtifactError(f"{folder} is damaged or not a character pack ({error}): rebuild it") from error
        return cls(folder, info, arrays, video)

    def __getitem__(self, name: str) -> np.ndarray:
        """An array of ARRAYS, read-only."""
        return self._arrays[name]

    @cached_property
    def graph(self) -> MotionGraph:
        return MotionGraph(
            n_nodes=self.info.n_nodes,
            clip_start=np.asarray(self["clip_start"]),
            indptr=np.asarray(self["graph_indptr"]),
            indices=np.asarray(self["graph_indices"]),
            distance=np.asarray(self["graph_distance"]),
            kind=np.asarray(self["graph_kind"]),
            kept=np.asarray(self["graph_kept"]),
        )

    @property
    def recording(self) -> Recording:
        """The person and the voice of the reference: what embeddings are made from."""
        return recording_of(self.info.name, self._arrays, self.info.shoulder_px)

    def packets(self, node: int) -> list[bytes]:
        """The 4 encoded pictures of a node: a closed group of pictures."""
        first = node * FRAMES_PER_NODE
        starts = self["packet_start"][first : first + FRAMES_PER_NODE + 1]
        return [bytes(self._video[a:b]) for a, b in pairwise(starts)]


class PackWriter:
    """Writes a pack into a `folder` beside its place; `commit` renames it. Without commit nothing remains."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix != SUFFIX:
            raise InputError(f"{self.path} must end in {SUFFIX}, for example anna{SUFFIX}")
        _check_name(self.path)
        with self._writing():
            if self.path.exists() and not (self.path / "pack.json").is_file():
                raise InputError(f"{self.path} exists and is not a character pack: choose another name")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.folder = folder_beside(self.path)
        self._video = (self.folder / "video.h264").open("wb")
        self._packet_start = [0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what is buffered may not fit a full disk
            self._video.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def n_frames(self) -> int:
        return len(self._packet_start) - 1

    def add_packets(self, packets: Iterable[bytes]) -> None:
        """Append encoded pictures, in order."""
        with self._writing():
            for packet in packets:
                self._video.write(packet)
                self._packet_start.append(self._packet_start[-1] + len(packet))

    def commit(self, info: PackInfo, arrays: dict[str, np.ndarray]) -> None:
        """Write arrays (all of ARRAYS but packet_start) and pack.json, then put the folder in its place.

        Raises InputError where they cannot be written.
        """
        with self._writing():
            self._video.close()
            for name, array in {**arrays, "packet_start": np.array(self._packet_start, np.int64)}.items():
                np.save(self.folder / f"{name}.npy", array.astype(ARRAYS[name][0], copy=False), allow_pickle=False)
            (self.folder / "pack.json").write_text(info.to_json(), "utf-8")
            CharacterPack.open(self.folder)  # what we write, we can read: a bad pack never replaces a good one
            replace_folder(self.path, self.folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or 'is the disk full?'})") from error


def _check_name(path: Path) -> None:
    """Raises InputError for a name by which no client could ask, or that another pack has in another spelling."""
    if (reason := unfit(path.stem)) is not None:
        raise InputError(f"{path}: a character cannot be called {path.stem!a}, which {reason}: choose another name")
    with suppress(OSError):
        for other in path.parent.iterdir():
            if other.name != path.name and canonical(other.name) == canonical(path.name):
                raise InputError(
                    f"{path} and {other} are one name in two spellings ({path.name!a}, {other.name!a}): give the "
                    "second to replace it, or choose another name"
                )


def recording_of(name: str, arrays: Mapping[str, np.ndarray], shoulder_px: float) -> Recording:
    """The arrays of a pack that say who moves and speaks how."""
    chosen = {key: np.asarray(arrays[key]) for key in ("joints", "confidence", "clip_start", "mouth", "motion")}
    samples = arrays["audio"].astype(np.float32) / 32768
    return Recording(name=name, samples=samples, unit_px=shoulder_px, **chosen)


def folder_bytes(folder: Path) -> int:
    """Size of a pack on disk."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def plain_file(folder: Path, name: str, most_bytes: int | None = None) -> Path:
    """A file of a pack; ValueError where it is missing, a link or too large."""
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{name} is missing or not a plain file")
    if most_bytes is not None and path.stat().st_size > most_bytes:
        raise ValueError(f"{name} has {path.stat().st_size} bytes, at most {most_bytes} are read")
    return path


def _map_array(folder: Path, name: str, info: PackInfo) -> np.ndarray:
    array = np.load(plain_file(folder, f"{name}.npy"), mmap_mode="r", allow_pickle=False)
    dtype, shape = ARRAYS[name]
    if array.dtype != np.dtype(dtype) or array.ndim != len(shape):
        raise ValueError(f"{name} is {array.dtype}{array.shape}, expected {dtype}{shape}")
    for got, wanted in zip(array.shape, shape, strict=True):
        if not _dimension_fits(got, wanted, info):
            raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    return array


def _dimension_fits(got: int, wanted: int | str, info: PackInfo) -> bool:
    if isinstance(wanted, int):
        return got == wanted
    if wanted == "D":
        return 0 < got <= MAX_FEATURE_WIDTH
    if wanted == "E":
        return got <= MAX_EDGES_PER_NODE * info.n_nodes
    symbol, _, plus = re.fullmatch(r"(\w)(\+(\d))?", wanted).groups("0")  # type: ignore[union-attr]
    size = {
        "F": info.n_frames,
        "N": info.n_nodes,
        "C": len(info.clips),
        "S": frame_start(info.n_frames),
    }[symbol]
    return got == size + int(plus)


def _check_references(info: PackInfo, arrays: dict[str, np.ndarray], video_bytes: int) -> None:
    """Everything a kernel or a slice trusts: offsets ascend and stay inside, targets exist."""
    starts = arrays["packet_start"]
    if starts[0] != 0 or starts[-1] != video_bytes or np.any(np.diff(starts) <= 0):
        raise ValueError("video.h264 does not match packet_start")
    nodes = np.cumsum([0] + [clip.n_frames // FRAMES_PER_NODE for clip in info.clips])
    if any(clip.n_frames % FRAMES_PER_NODE for clip in info.clips) or np.any(np.diff(nodes) <= 0):
        raise ValueError("a clip is not a whole number of nodes")
    if not np.array_equal(arrays["clip_start"], nodes):
        raise ValueError("clip_start does not match the clips")
    indptr, indices = arrays["graph_indptr"], arrays["graph_indices"]
    if indptr[0] != 0 or indptr[-1] != indices.size or np.any(np.diff(indptr) < 0):
        raise ValueError("graph_indptr does not match graph_indices")
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < info.n_nodes:
        raise ValueError("graph_indices point outside the graph")
    for name in ("graph_distance", "motion_level", "rest"):
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} is not finite")
    if any(not 0 <= clip.source < len(info.sources) for clip in info.clips):
        raise ValueError("a clip names a source that does not exist")
    kept = arrays["graph_kept"]
    if not kept.any() or not kept[indices].all() or np.any(np.diff(indptr)[~kept] != 0):
        raise ValueError("the graph uses nodes that it does not keep")
