"""Character pack: the folder NAME.tango, with everything needed to perform a person.

    pack.json        schema, size, sources, clips, build report, hashes (engine.character.info)
    video.h264       closed groups of 4 pictures in order, one per node (engine.character.video)
    ARRAY.npy        the arrays of engine.character.arrays
    embeddings/      motion features by embedding (engine.character.embeddings)
    cues.json        stretches with a name, such as a wave (engine.character.cues)
    live/            the drawn set: the cuts of live streams, and their pictures (engine.character.drawn)
    transitions/     the cache of generated frames (tango_rt.pipeline.transitions)

A pack is complete or absent: it is written to a temporary folder and renamed (engine.character.writer). An untrusted
pack cannot run code (no pickle), cannot leave its folder (fixed file names, no links), cannot make us block or allocate
without limit (regular files of a size given by the frame count), and cannot make a kernel read outside its arrays
(engine.character.checks). Its identity, the sha256 of pack.json, covers all arrays and pictures.
"""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from engine.character.arrays import OPTIONAL, RESIDENT, array_names, read_array, stored_shape
from engine.character.checks import check_arrays
from engine.character.cues import Cues, read_cues
from engine.character.drawn import DrawnSet, read_drawn
from engine.character.info import SCHEMA, OtherSchema, PackInfo
from engine.character.video import StoredVideo
from engine.errors import ArtifactError, InputError
from engine.features.recording import Recording
from engine.files import read_plain, reading
from engine.motion_graph.graph import MotionGraph

__all__ = ["DAMAGED", "REBUILD", "SUFFIX", "CharacterPack", "folder_bytes", "make_recording"]

SUFFIX = ".tango"
DAMAGED, REBUILD = "is damaged or not a character pack", "rebuild it"
_MAX_JSON_BYTES = 64 << 20


class CharacterPack:
    """An open pack: one open file, and in memory only what every performance needs. Any thread may read it.

    sha256: of pack.json. Everything else is read on demand, and must still match the hashes in pack.json.
    drawn: the drawn set, if the pack has one; cues: its stretches with a name. Neither is part of this hash.
    """

    def __init__(
        self, path: Path, info: PackInfo, sha256: str, arrays: dict[str, np.ndarray], video: StoredVideo
    ) -> None:
        self.path = path
        self.info = info
        self.sha256 = sha256
        self._arrays = arrays
        self._video = video
        self.drawn: DrawnSet | None = read_drawn(path, sha256, self.graph)
        self.cues: Cues = read_cues(path, sha256, self.graph)

    @classmethod
    def open(cls, path: str | Path) -> "CharacterPack":
        """Check and open a pack folder.

        Raises InputError if there is none, ArtifactError if anything is wrong with it, BackendError if this process may
        open no more files.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"no character at {folder}: expected a folder made by 'tango-rt character build'")
        with reading(folder, DAMAGED, REBUILD):
            content = read_plain(folder / "pack.json", _MAX_JSON_BYTES, follow_links=False)
            try:
                info = PackInfo.from_json(content.decode())
            except OtherSchema as error:
                raise ArtifactError(
                    f"{folder} has pack schema {error}, this version reads {SCHEMA}: "
                    "rebuild it with 'tango-rt character build'"
                ) from error
            arrays: dict[str, np.ndarray] = {}
            for name in array_names(info):
                if name in RESIDENT or name in OPTIONAL:
                    arrays[name] = read_array(folder, name, info)
                else:
                    stored_shape(folder, name, info)
            check_arrays(info, arrays)
            video = StoredVideo(folder / "video.h264", arrays["packet_start"], arrays["node_sha256"])
        return cls(folder, info, hashlib.sha256(content).hexdigest(), arrays, video)

    def __getitem__(self, name: str) -> np.ndarray:
        """An array of ARRAYS, read-only. Raises ArtifactError if it is damaged or was replaced."""
        if name not in self._arrays:
            with reading(self.path, DAMAGED, REBUILD):
                self._arrays[name] = read_array(self.path, name, self.info)
        return self._arrays[name]

    @cached_property
    def graph(self) -> MotionGraph:
        return MotionGraph(
            n_nodes=self.info.n_nodes,
            clip_start=self["clip_start"],
            indptr=self["graph_indptr"],
            indices=self["graph_indices"],
            distance=self["graph_distance"],
            kind=self["graph_kind"],
            kept=self["graph_kept"],
            hand_gap=self._arrays.get("graph_hand_gap"),
        )

    @property
    def recording(self) -> Recording:
        """The person and the voice of the reference, from which embeddings are made."""
        arrays = {name: self[name] for name in ("joints", "confidence", "clip_start", "mouth", "motion", "audio")}
        return make_recording(self.info.name, arrays, self.info.shoulder_px)

    def packets(self, node: int) -> list[bytes]:
        """The 4 encoded pictures of a node: a closed group of pictures. Raises ArtifactError for damaged ones."""
        return self._video.packets(node)

    def verify(self) -> None:
        """Read everything, a second per gigabyte. Raises an ArtifactError that names what is damaged."""
        for name in set(array_names(self.info)) - self._arrays.keys():
            with reading(self.path, DAMAGED, REBUILD):
                read_array(self.path, name, self.info)
        for node in range(self.info.n_nodes):
            self.packets(node)
        if self.drawn is not None:
            for cut in self.drawn.numbers:
                self.drawn.packets(cut)


def make_recording(name: str, arrays: Mapping[str, np.ndarray], shoulder_px: float) -> Recording:
    """The recording made of a pack's arrays: how the person moves and speaks."""
    chosen = {key: np.asarray(arrays[key]) for key in ("joints", "confidence", "clip_start", "mouth", "motion")}
    samples = arrays["audio"].astype(np.float32) / 32768
    return Recording(name=name, samples=samples, unit_px=shoulder_px, **chosen)


def folder_bytes(folder: Path) -> int:
    """Size of a pack on disk."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
