"""What a viewer would see: unseen speech performed with the person's other motion, through the graph of the pack."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from engine.character.steps import motion_level, node_rows, speech_steps
from engine.errors import InputError
from engine.features.embedding import Embedding
from engine.features.rest import rest_distance
from engine.features.scores import STRIDE, WINDOW
from engine.features.validation import N_FOLDS
from engine.motion_graph.costs import CostOptions, MotionVectors, node_costs
from engine.motion_graph.graph import MotionGraph
from engine.motion_graph.search import Path as ShownPath
from engine.motion_graph.variety import varied_path
from engine.timebase import FPS, FRAMES_PER_NODE
from export.evaluation.measures import correlation, mean_interval
from export.evaluation.people import Person, smooth
from export.evaluation.rivals import Rival

__all__ = ["Shown", "show", "shown_summary"]

_STEP_FRAMES = 32  # between windows in which r is taken
_BLOCK = WINDOW // _STEP_FRAMES  # windows that overlap
_MIN_FRAMES = 64  # r is meaningless for a shorter stretch


@dataclass(frozen=True)
class Shown:
    """By stretch: r of voice energy and body speed as recorded, as shown, and over motion of other times, (w,) each."""

    true: list[np.ndarray] = field(default_factory=list)
    shown: list[np.ndarray] = field(default_factory=list)
    random: list[np.ndarray] = field(default_factory=list)
    n_cuts: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    n_without_path: int = 0


def show(rival: Rival, person: Person) -> Shown | None:
    """None if the recording is too short or did not come from a pack."""
    if person.pack is None or not person.asked:
        return None
    graph = person.pack.graph
    recording = person.recording
    rest = rest_distance(recording.joints, recording.confidence, recording.clip_start, recording.unit_px)
    level = motion_level(recording)
    shown, failed = Shown(), 0
    for first, last in pairwise(np.linspace(0, graph.n_nodes, N_FOLDS + 1).astype(int)):
        frames = np.arange(first * FRAMES_PER_NODE, last * FRAMES_PER_NODE)
        if len(frames) < _MIN_FRAMES:
            continue
        embedding = rival.without(person, frames)
        try:
            path = _path(embedding, person, (first, last), graph, rest, level)
        except InputError:  # no path leads on without this stretch
            failed += 1
            continue
        _compare(person, frames, path, shown)
    return Shown(shown.true, shown.shown, shown.random, shown.n_cuts, shown.seconds, failed)


def _path(
    embedding: Embedding,
    person: Person,
    stretch: tuple[int, int],
    graph: MotionGraph,
    rest: np.ndarray,
    level: np.ndarray,
) -> ShownPath:
    first, last = stretch
    low, high = (node_rows(part) for part in embedding.motion(person.recording))
    steps = speech_steps(embedding, person.recording.samples)[first:last]
    costs = node_costs(steps, MotionVectors(low, high, level), rest, CostOptions(similarity_weight=embedding.weight))
    costs[:, max(first - 1, 0) : last + 1] = np.inf
    return varied_path(lambda: iter([costs.copy()]), graph, rest)


def _compare(person: Person, frames: np.ndarray, path: ShownPath, shown: Shown) -> None:
    width = min(WINDOW, len(frames))
    starts = np.arange(0, len(frames) - width + 1, _STEP_FRAMES)
    windows = starts[:, None] + np.arange(width)
    seen = (path.nodes[:, None] * FRAMES_PER_NODE + np.arange(FRAMES_PER_NODE)).ravel()
    voice = person.voice[frames][windows]
    others = np.arange(0, len(person.speed) - width + 1, STRIDE)
    others = others[(others + width <= frames[0]) | (others > frames[-1])]
    shown.true.append(np.diag(correlation(voice, person.speed[frames][windows])))
    shown.shown.append(np.diag(correlation(voice, smooth(person.raw_speed[seen])[windows])))
    shown.random.append(correlation(voice, person.speed[others[:, None] + np.arange(width)]).mean(axis=1))
    shown.n_cuts.append(len(path.cuts))
    shown.seconds.append(len(frames) / FPS)


def shown_summary(people: Sequence[Shown]) -> dict[str, Any]:
    """Over one or more people. off: difference between r as shown and as recorded, mean over people."""
    seconds = sum(sum(one.seconds) for one in people)
    n_cuts = sum(sum(one.n_cuts) for one in people)
    r = {name: mean_interval([part for one in people for part in getattr(one, name)], _BLOCK) for name in _R}
    off = [abs(np.concatenate(one.shown).mean() - np.concatenate(one.true).mean()) for one in people if one.shown]
    return {
        "r": r,
        "off": float(np.mean(off)) if off else float("nan"),
        "duration_s": seconds,
        "s_between_cuts": seconds / n_cuts if n_cuts else float("nan"),
        "stretches_without_path": sum(one.n_without_path for one in people),
    }


_R = ("true", "shown", "random")
