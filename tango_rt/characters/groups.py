"""Which parts of the videos a character uses: one person, in one outfit and place, unless the user wants them all."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from engine.character.info import Clip
from engine.motion_graph.graph import CUT, MotionGraph
from engine.timebase import FPS
from tango_rt.characters.looks import group_clips
from tango_rt.characters.source import TrackedSource

__all__ = ["Keep", "Selection", "select", "unjoined_warnings"]

Keep = Literal["largest", "all"]

_MAX_SPANS_NAMED = 4
_MAX_GROUPS_NAMED = 4
_MIN_UNJOINED_S = 2  # shorter clips are not worth a warning


@dataclass(frozen=True)
class Selection:
    """The clips of a character and where they come from."""

    sources: tuple[TrackedSource, ...]  # of the kept clips
    clips: tuple[Clip, ...]  # those kept, in order
    in_largest: tuple[bool, ...]  # whether each clip is in the largest group
    report: list[dict[str, Any]]  # all groups, kept or not, ready for JSON
    left_out_s: float  # seconds of the groups that are not kept
    warnings: tuple[str, ...]


def select(sources: Sequence[TrackedSource], clips: Sequence[Clip], keep: Keep) -> Selection:
    """Keep the group with the most seconds, or all; sources without a kept clip are dropped."""
    largest, *others = group_clips(sources, clips)
    kept = range(len(clips)) if keep == "all" else largest
    in_largest = set(largest)
    used = sorted({clips[number].source for number in kept})
    return Selection(
        sources=tuple(sources[number] for number in used),
        clips=tuple(
            Clip(used.index(clips[number].source), clips[number].first_frame, clips[number].n_frames) for number in kept
        ),
        in_largest=tuple(number in in_largest for number in kept),
        report=[
            {
                "seconds": round(_seconds(clips, group), 2),
                "kept": keep == "all" or group is largest,
                "spans": [asdict(span) for span in _spans(sources, clips, group)],
            }
            for group in (largest, *others)
        ],
        left_out_s=0.0 if keep == "all" else sum(_seconds(clips, group) for group in others),
        warnings=tuple(_warnings(sources, clips, largest, others, keep)),
    )


def unjoined_warnings(graph: MotionGraph, selection: Selection) -> Iterator[str]:
    """Warn of clips of one look that no ordinary cut joins to the others; at most one line."""
    clips, source, target = selection.clips, graph.clip[graph.sources], graph.clip[graph.indices]
    ordinary = graph.kind == CUT
    links = coo_array((np.ones(int(ordinary.sum())), (source[ordinary], target[ordinary])), shape=(len(clips),) * 2)
    label = connected_components(links, directed=False)[1]
    of_one_look = np.array(selection.in_largest)
    seconds = np.bincount(label, of_one_look * np.array([clip.n_frames / FPS for clip in clips]))
    rest = label != np.argmax(seconds)
    apart = np.flatnonzero(of_one_look & rest & (seconds[label] >= _MIN_UNJOINED_S)).tolist()
    if apart:
        yield (
            f"{_where(selection.sources, clips, apart)}: no ordinary cut joins these {_seconds(clips, apart):.1f} s to "
            "the rest, so the seams will show; is the framing different, or the person?"
        )


@dataclass(frozen=True)
class _Span:
    """A stretch of a source, in seconds."""

    source: str
    first_s: float
    last_s: float


def _warnings(
    sources: Sequence[TrackedSource],
    clips: Sequence[Clip],
    largest: Sequence[int],
    others: Sequence[Sequence[int]],
    keep: Keep,
) -> Iterator[str]:
    fate = (
        "left out (--keep all includes it)"
        if keep == "largest"
        else "kept, but joined by visible cuts (--keep largest leaves it out)"
    )
    for group in others[:_MAX_GROUPS_NAMED]:
        yield (
            f"{_where(sources, clips, group)}: a different person, outfit or place for "
            f"{_seconds(clips, group):.1f} s, while the longest look has {_seconds(clips, largest):.1f} s: {fate}"
        )
    if rest := others[_MAX_GROUPS_NAMED:]:
        yield f"{len(rest)} more such looks, {sum(_seconds(clips, group) for group in rest):.1f} s in all: {fate}"


def _seconds(clips: Sequence[Clip], numbers: Iterable[int]) -> float:
    return sum(clips[number].n_frames for number in numbers) / FPS


def _where(sources: Sequence[TrackedSource], clips: Sequence[Clip], numbers: Sequence[int]) -> str:
    found = _spans(sources, clips, numbers)
    parts = [
        ("" if before is not None and before.source == span.source else f"{span.source} at ")
        + f"{span.first_s:.1f} to {span.last_s:.1f} s"
        for before, span in zip([None, *found], found[:_MAX_SPANS_NAMED], strict=False)
    ]
    if len(found) > _MAX_SPANS_NAMED:
        parts.append(f"and {len(found) - _MAX_SPANS_NAMED} more places")
    return ", ".join(parts)


def _spans(sources: Sequence[TrackedSource], clips: Sequence[Clip], numbers: Sequence[int]) -> list[_Span]:
    """The stretches that consecutive clips form, in order."""
    spans: list[_Span] = []
    last = None
    for number in numbers:
        clip = clips[number]
        first_s, last_s = round(clip.first_frame / FPS, 2), round((clip.first_frame + clip.n_frames) / FPS, 2)
        if last is not None and last == number - 1 and clips[last].source == clip.source:
            first_s = spans.pop().first_s
        spans.append(_Span(sources[clip.source].path.name, first_s, last_s))
        last = number
    return spans
