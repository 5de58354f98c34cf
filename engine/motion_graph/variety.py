"""Paths that do not repeat themselves.

Whether a moment was shown a few seconds ago depends on the whole path, so an exact search over nodes cannot price it.
Here the exact search runs a few times: each round raises the cost of nodes for some time after the last paths showed
them. Of all paths found, the one that is cheapest including its own repetitions is chosen. Returning to rest is free.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from engine.motion_graph.graph import MotionGraph
from engine.motion_graph.kernels.variety import (
    NEAR_NODES,
    SAME_MOMENT_STEPS,
    Repetitions,
    add_repetitions,
    costs_along,
)
from engine.motion_graph.search import Path, SearchOptions, viterbi_blocks
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["NEAR_NODES", "SAME_MOMENT_STEPS", "VarietyOptions", "repetition_costs", "varied_path"]

_ONCE = np.ones(1, np.float32)  # one path, with full weight
_FADE = 0.5  # of the extra costs of earlier rounds, so that rounds do not alternate between two paths


@dataclass(frozen=True)
class VarietyOptions:
    """A node shown again b seconds later costs repeat_weight * (1 - b / repeat_s) * its distance from rest."""

    repeat_weight: float = 2.0
    repeat_s: float = 20.0
    max_rounds: int = 5


def varied_path(
    cost_blocks: Callable[[], Iterable[np.ndarray]],
    graph: MotionGraph,
    away: np.ndarray,
    search: SearchOptions | None = None,
    options: VarietyOptions | None = None,
    start: tuple[int, int] | None = None,
) -> Path:
    """The best path found; its cost includes its repetitions. start: first node and nodes since the last cut there.

    cost_blocks: called once per round, gives the costs for viterbi_blocks, in arrays that may be written to. away
    float32 (N,): engine.features.rest.rest_distance. Raises like viterbi_blocks.
    """
    options = options or VarietyOptions()
    reach = max(1, round(options.repeat_s * FPS / FRAMES_PER_NODE))
    away = np.ascontiguousarray(away, np.float32) * np.float32(options.repeat_weight)
    node, dwell = start or (None, None)
    best = found = viterbi_blocks(cost_blocks(), graph, search, node, dwell)
    best_cost = np.inf
    shown = found.nodes[None]
    extra = 0.0
    for _ in range(options.max_rounds):
        along = np.arange(len(found.nodes))
        own = costs_along(Repetitions(found.nodes[None], _ONCE, away, reach), along, found.nodes)
        cost = found.cost - extra + own
        if cost < best_cost:
            best, best_cost = found, cost
        if own == 0:
            break
        fades = _FADE ** np.arange(len(shown) - 1, -1, -1, dtype=np.float32)
        repetitions = Repetitions(shown, fades, away, reach)
        following = viterbi_blocks(_with_repetitions(cost_blocks(), repetitions), graph, search, node, dwell)
        if np.array_equal(following.nodes, found.nodes):
            break
        found = following
        extra = costs_along(repetitions, along, found.nodes)
        shown = np.concatenate([shown, found.nodes[None]])
    return replace(best, cost=float(best_cost))


def repetition_costs(nodes: np.ndarray, away: np.ndarray, options: VarietyOptions) -> np.ndarray:
    """The extra cost of each node at each step because the path `nodes` int32 (T,) showed it before: float32 (T, N)."""
    costs = np.zeros((len(nodes), len(away)), np.float32)
    reach = max(1, round(options.repeat_s * FPS / FRAMES_PER_NODE))
    scaled = np.ascontiguousarray(away, np.float32) * np.float32(options.repeat_weight)
    add_repetitions(costs, 0, Repetitions(nodes[None], _ONCE, scaled, reach))
    return costs


def _with_repetitions(blocks: Iterable[np.ndarray], repetitions: Repetitions) -> Iterator[np.ndarray]:
    first = 0
    for block in blocks:
        add_repetitions(block, first, repetitions)
        first += len(block)
        yield block
