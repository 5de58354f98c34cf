"""Cues of a pack: stretches with a name, such as a wave, that are played when somebody asks for them.

    cues.json      which pack they belong to, a hash of the list, and the list: name, first node, number of nodes

A stretch lies within one clip and is made of continue edges between kept nodes, so that it can be played whole.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.character.info import PackInfo
from engine.errors import InputError
from engine.files import read_plain, reading
from engine.folders import sibling_file
from engine.motion_graph.graph import CONTINUE, MotionGraph
from engine.names import canonical
from engine.records import as_object, as_record
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = [
    "MAX_CUES",
    "MAX_CUE_NAME",
    "Cue",
    "CueOutcome",
    "Cues",
    "TimedCue",
    "cue_files",
    "read_cues",
    "why_no_cue_name",
    "why_no_stretch",
    "write_cues",
]

MAX_CUES = 1000
MAX_CUE_NAME = 64  # characters
MIN_CUE_NODES = 2
_FILE = "cues.json"
_MAX_BYTES = 1 << 20
_ROUNDING = 1e-6  # of a frame: 0.1 s are 3 frames


@dataclass(frozen=True)
class Cue:
    """A stretch of a character with a name."""

    name: str  # in Unicode NFC
    first_node: int
    n_nodes: int

    @property
    def nodes(self) -> range:
        return range(self.first_node, self.first_node + self.n_nodes)

    def times_s(self, info: PackInfo) -> tuple[str, float, float]:
        """The name of its source, and its beginning and end there in seconds."""
        left = self.first_node * FRAMES_PER_NODE
        for clip in info.clips:
            if left < clip.n_frames:
                break
            left -= clip.n_frames
        begin = clip.first_frame + left
        end = begin + self.n_nodes * FRAMES_PER_NODE
        return info.sources[clip.source].name, begin / FPS, end / FPS


@dataclass(frozen=True)
class TimedCue:
    """A cue that is asked for."""

    name: str
    at_s: float  # in the speech
    within_s: float  # how much later it may begin

    @property
    def step(self) -> int:
        """The step of 4 frames that shows its time."""
        return int(self.at_s * FPS + _ROUNDING) // FRAMES_PER_NODE

    @property
    def within_steps(self) -> int:
        return int(self.within_s * FPS + _ROUNDING) // FRAMES_PER_NODE


@dataclass(frozen=True)
class CueOutcome:
    """What became of a cue that was asked for."""

    name: str
    asked_s: float  # in the speech
    played_s: float | None  # when it began; None: not played
    reason: str = ""  # why not, or why not to its end

    def warning(self) -> str:
        """Empty: it was played."""
        if not self.reason:
            return ""
        what = "was not played" if self.played_s is None else "was not played to its end"
        return f"cue {self.name} at {self.asked_s:g} s {what}: {self.reason}"


@dataclass(frozen=True)
class Cues:
    """The cues of a pack; none unless it has a file of them."""

    by_name: Mapping[str, Cue] = field(default_factory=dict)  # in the order of their names
    sha256: str = ""  # of the file

    def find(self, name: str) -> Cue | None:
        """The cue of this name, in any normal form of Unicode."""
        return self.by_name.get(canonical(name))


def why_no_cue_name(name: str) -> str | None:
    """What is wrong with the name of a cue, as part of a sentence; None if it may be one."""
    if not name or name != name.strip():
        return "is empty, or begins or ends with a space"
    if len(name) > MAX_CUE_NAME or len(canonical(name)) > MAX_CUE_NAME:
        return f"has {len(name)} characters, at most {MAX_CUE_NAME} are allowed"
    return None if name.isprintable() else "has characters that cannot be printed"


def read_cues(pack: Path, pack_sha256: str, graph: MotionGraph) -> Cues:
    """The cues of a pack. Raises ArtifactError if they are damaged, or of another pack."""
    place = pack / _FILE
    if not os.path.lexists(place):
        return Cues()
    with reading(f"the cues in {place}", "are damaged", "remove the file, and mark them again"):
        content = read_plain(place, _MAX_BYTES, follow_links=False)
        return Cues(_checked(as_object(content, _FILE), pack_sha256, graph), hashlib.sha256(content).hexdigest())


def write_cues(pack: Path, pack_sha256: str, cues: Iterable[Cue], graph: MotionGraph) -> None:
    """Replace the cues of a pack; none: remove the file.

    Raises InputError if they are too many or cannot be written, ValueError if one could not be read again.
    """
    listed = [asdict(cue) for cue in sorted(cues, key=lambda cue: cue.name)]
    if len(listed) > MAX_CUES:
        raise InputError(f"{pack}: {len(listed)} cues, at most {MAX_CUES} are allowed")
    record = {"pack": pack_sha256, "sha256": _digest(listed), "cues": listed}
    _checked(record, pack_sha256, graph)
    place = pack / _FILE
    try:
        if not listed:
            place.unlink(missing_ok=True)
            return
        file = sibling_file(place)
        try:
            file.write_text(json.dumps(record, indent=1), "utf-8")
            file.replace(place)
        finally:
            with suppress(FileNotFoundError):
                file.unlink()
    except OSError as error:
        raise InputError(f"{place}: cannot be written ({error.strerror or 'is the disk full?'})") from error


def cue_files(pack: Path) -> list[str]:
    """The name of the file of cues of a pack; none if it has none."""
    return [_FILE] if (pack / _FILE).is_file() else []


def _checked(record: dict[str, Any], pack_sha256: str, graph: MotionGraph) -> dict[str, Cue]:
    """Raises ValueError for anything but cues of this pack."""
    if set(record) != {"pack", "sha256", "cues"} or not isinstance(record["cues"], list):
        raise ValueError("wanted pack, sha256 and a list of cues")
    if record["pack"] != pack_sha256:
        raise ValueError("they belong to another pack")
    if len(record["cues"]) > MAX_CUES:
        raise ValueError(f"{len(record['cues'])} cues, at most {MAX_CUES} are allowed")
    found: dict[str, Cue] = {}
    for fields in record["cues"]:
        cue = as_record(Cue, fields)
        if (reason := why_no_cue_name(cue.name)) is not None or canonical(cue.name) != cue.name:
            raise ValueError(f"the name {cue.name[:MAX_CUE_NAME]!a} {reason or 'is not in Unicode NFC'}")
        if cue.name in found:
            raise ValueError(f"two cues are called {cue.name!a}")
        if (problem := why_no_stretch(graph, cue.first_node, cue.n_nodes)) is not None:
            raise ValueError(f"cue {cue.name!a} {problem}")
        found[cue.name] = cue
    if record["sha256"] != _digest(record["cues"]):
        raise ValueError("the list was changed: its sha256 differs")
    return found


def why_no_stretch(graph: MotionGraph, first: int, n_nodes: int) -> str | None:
    """Why these nodes cannot be played one after the other, as part of a sentence; None if they can."""
    if n_nodes < MIN_CUE_NODES:
        return f"has {n_nodes} nodes of 4 frames, at least {MIN_CUE_NODES} are needed"
    if not 0 <= first <= graph.n_nodes - n_nodes:
        return "lies outside the character"
    for node in range(first, first + n_nodes):
        if not graph.kept[node]:
            return f"has a node that no path can show ({node})"
        edges = slice(graph.indptr[node], graph.indptr[node + 1])
        goes_on = (graph.indices[edges] == node + 1) & (graph.kind[edges] == CONTINUE)
        if node + 1 < first + n_nodes and not goes_on.any():
            return f"is interrupted after node {node}"
    return None


def _digest(cues: list[Any]) -> str:
    return hashlib.sha256(json.dumps(cues, sort_keys=True).encode()).hexdigest()
