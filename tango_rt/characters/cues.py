"""Marks stretches of a character as cues, by their times in the source video."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from engine.character.cues import Cue, why_no_cue_name, why_no_stretch, write_cues
from engine.character.info import PackInfo
from engine.character.pack import CharacterPack
from engine.errors import InputError
from engine.motion_graph.graph import MotionGraph
from engine.names import canonical, printable
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["MarkedCue", "carried_cues", "list_cues", "mark_cue", "marked", "remove_cue"]

_MAX_NAMED = 12  # in a message
_NODE_S = FRAMES_PER_NODE / FPS


@dataclass(frozen=True)
class MarkedCue:
    """A cue as it is listed."""

    name: str
    source: str
    from_s: float  # in the source
    to_s: float
    nodes: list[int]  # those of the character


def list_cues(pack: CharacterPack) -> list[MarkedCue]:
    """The cues of a pack, by name."""
    return [marked(pack, cue) for cue in pack.cues.by_name.values()]


def mark_cue(pack: CharacterPack, name: str, start_s: float, end_s: float, source: str | None = None) -> MarkedCue:
    """Write a cue into the pack: the nodes of which at least half lies between these times of a source video. A cue of
    the same name is replaced; open the pack again to see it.

    source: name of the video; None: the only one. Raises InputError for times that are not in the pack.
    """
    name = canonical(name)
    if (reason := why_no_cue_name(name)) is not None:
        raise InputError(f"a cue cannot be called {name[:80]!a}, which {reason}: choose another name")
    if not (math.isfinite(start_s) and math.isfinite(end_s) and 0 <= start_s < end_s):
        raise InputError(f"a cue from {start_s:g} to {end_s:g} s: wanted two times in seconds, the later one second")
    number = _source(pack.info, source)
    first, n_nodes = _nodes(pack.info, number, start_s, end_s)
    if (problem := why_no_stretch(pack.graph, first, n_nodes)) is not None:
        raise InputError(f"{pack.path}: the cue {name} from {start_s:g} to {end_s:g} s {problem}: choose other times")
    cue = Cue(name, first, n_nodes)
    write_cues(pack.path, pack.sha256, {**pack.cues.by_name, name: cue}.values(), pack.graph)
    return marked(pack, cue)


def carried_cues(before: CharacterPack, info: PackInfo, graph: MotionGraph) -> tuple[list[Cue], list[str]]:
    """The cues of a pack that is being replaced, at the same times of the same videos of the new one, and a warning for
    each that has no place there."""
    kept, warnings = [], []
    for cue in before.cues.by_name.values():
        told = marked(before, cue)
        same = {source.sha256 for source in before.info.sources if source.name == told.source}
        number = next((k for k, source in enumerate(info.sources) if source.sha256 in same), None)
        try:
            if number is None:
                raise InputError(f"{told.source} is not among its videos any more")
            first, n_nodes = _nodes(info, number, told.from_s, told.to_s)
            if (problem := why_no_stretch(graph, first, n_nodes)) is not None:
                raise InputError(f"it {problem}")
        except InputError as error:
            warnings.append(
                f"the cue {told.name}, {told.from_s:g} to {told.to_s:g} s of {told.source}, is lost: {error}"
            )
        else:
            kept.append(Cue(cue.name, first, n_nodes))
    return kept, warnings


def remove_cue(pack: CharacterPack, name: str) -> None:
    """Raises InputError if there is none of this name."""
    cue = pack.cues.find(name)
    if cue is None:
        there = ", ".join(list(pack.cues.by_name)[:_MAX_NAMED])
        raise InputError(f"{pack.path} has no cue {printable(name[:80])}; there are: {there or 'none'}")
    kept = (one for one in pack.cues.by_name.values() if one is not cue)
    write_cues(pack.path, pack.sha256, kept, pack.graph)


def marked(pack: CharacterPack, cue: Cue) -> MarkedCue:
    source, from_s, to_s = cue.times_s(pack.info)
    return MarkedCue(cue.name, source, round(from_s, 3), round(to_s, 3), list(cue.nodes))


def _source(info: PackInfo, name: str | None) -> int:
    names = [source.name for source in info.sources]
    listed = ", ".join(names[:_MAX_NAMED])
    if name is None:
        if len(names) > 1:
            raise InputError(f"the character is made from {len(names)} videos: name one of {listed} (--source)")
        return 0
    if names.count(name) != 1:
        raise InputError(f"no source, or more than one, is called {printable(name[:80])}: wanted one of {listed}")
    return names.index(name)


def _nodes(info: PackInfo, source: int, start_s: float, end_s: float) -> tuple[int, int]:
    """First node and number of nodes. Raises InputError if the times are not within one clip."""
    for first_node, begin_s, stop_s in _clips(info, source):
        # a time that is given to a tenth of a second may lie a little outside
        if begin_s - _NODE_S / 2 <= start_s and end_s <= stop_s + _NODE_S / 2:
            first = max(0, math.floor((start_s - begin_s) / _NODE_S + 0.5))
            last = math.floor((min(end_s, stop_s) - begin_s) / _NODE_S + 0.5)
            return first_node + first, last - first
    spans = [f"{begin_s:.1f} to {stop_s:.1f}" for _, begin_s, stop_s in _clips(info, source)]
    listed = ", ".join(spans[:_MAX_NAMED]) + (", ..." if len(spans) > _MAX_NAMED else "")
    raise InputError(
        f"{start_s:g} to {end_s:g} s is not within one clip of {info.sources[source].name}: the character has these "
        f"times of it, in seconds: {listed or 'none'}"
    )


def _clips(info: PackInfo, source: int) -> Iterator[tuple[int, float, float]]:
    """First node of each clip of a source, and its beginning and end in seconds."""
    node = 0
    for clip in info.clips:
        if clip.source == source:
            yield node, clip.first_frame / FPS, (clip.first_frame + clip.n_frames) / FPS
        node += clip.n_frames // FRAMES_PER_NODE
