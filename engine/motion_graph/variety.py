"""Paths that do not repeat themselves.

Whether a moment was shown a few seconds ago depends on the whole path, so no exact search over nodes can price it.
Here the exact search runs a few times: each round makes what the last paths showed dearer for some time after they
showed it, and of all paths found the one that is cheapest with its own repetitions priced in is taken. Rest is free
to come back to.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from engine.jit import FASTMATH, njit
from engine.motion_graph.graph import MotionGraph
from engine.motion_graph.search import Path, SearchOptions, viterbi_blocks
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["NEAR_NODES", "SAME_MOMENT_STEPS", "VarietyOptions", "repetition_costs", "varied_path"]

NEAR_NODES = 1  # a node beside one that was shown is the same moment to a viewer
SAME_MOMENT_STEPS = 4  # and one that is still being shown is no repetition
_FADE = 0.5  # of what earlier rounds made dearer, so that rounds do not swing between two paths


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
    """The best path found; its cost has its repetitions in it. start: first node and nodes since the last cut there.

    cost_blocks: called once a round, gives the costs as viterbi_blocks wants them, in arrays that may be written to.
    away float32 (N,): engine.features.rest.rest_distance. Errors as viterbi_blocks.
    """
    options = options or VarietyOptions()
    reach = max(1, round(options.repeat_s * FPS / FRAMES_PER_NODE))
    away = np.ascontiguousarray(away, np.float32) * np.float32(options.repeat_weight)
    node, dwell = start or (None, None)
    best = found = viterbi_blocks(cost_blocks(), graph, search, node, dwell)
    best_cost = np.inf
    shown = found.nodes[None]
    made_dearer = 0.0
    for _ in range(options.max_rounds):
        along = np.arange(len(found.nodes))
        own = _costs_along(found.nodes[None], np.ones(1, np.float32), away, reach, along, found.nodes)
        cost = found.cost - made_dearer + own
        if cost < best_cost:
            best, best_cost = found, cost
        if own == 0:
            break
        fades = _FADE ** np.arange(len(shown) - 1, -1, -1, dtype=np.float32)
        following = viterbi_blocks(_dearer(cost_blocks(), shown, fades, away, reach), graph, search, node, dwell)
        if np.array_equal(following.nodes, found.nodes):
            break
        found = following
        made_dearer = _costs_along(shown, fades, away, reach, along, found.nodes)
        shown = np.concatenate([shown, found.nodes[None]])
    return replace(best, cost=float(best_cost))


def repetition_costs(nodes: np.ndarray, away: np.ndarray, options: VarietyOptions) -> np.ndarray:
    """What each node costs at each step for having been shown by the path `nodes` int32 (T,) before: float32 (T, N)."""
    costs = np.zeros((len(nodes), len(away)), np.float32)
    reach = max(1, round(options.repeat_s * FPS / FRAMES_PER_NODE))
    scaled = np.ascontiguousarray(away, np.float32) * np.float32(options.repeat_weight)
    _add_repetitions(costs, 0, nodes[None], np.ones(1, np.float32), scaled, reach)
    return costs


def _dearer(
    blocks: Iterable[np.ndarray], shown: np.ndarray, fades: np.ndarray, away: np.ndarray, reach: int
) -> Iterator[np.ndarray]:
    first = 0
    for block in blocks:
        _add_repetitions(block, first, shown, fades, away, reach)
        first += len(block)
        yield block


@njit(fastmath=FASTMATH)
def _add_repetitions(block, first, shown, fades, away, reach):  # type: ignore[no-untyped-def]
    """Add to block (B, N), steps first .. first + B - 1, the most that the paths shown (K, T) add to each node."""
    extra = np.zeros(away.shape[0], np.float32)
    for row in range(block.shape[0]):
        t = first + row
        extra[:] = 0
        for k in range(shown.shape[0]):
            for s in range(max(0, t - reach), t - SAME_MOMENT_STEPS + 1):
                value = fades[k] * np.float32(1 - (t - s) / reach)
                for n in range(max(0, shown[k, s] - NEAR_NODES), min(away.shape[0], shown[k, s] + NEAR_NODES + 1)):
                    extra[n] = max(extra[n], value * away[n])
        block[row] += extra


@njit(fastmath=FASTMATH)
def _costs_along(shown, fades, away, reach, steps, nodes):  # type: ignore[no-untyped-def]
    """The sum of what _add_repetitions adds at steps (P,), nodes (P,)."""
    total = np.float64(0)
    for p in range(len(steps)):
        t, n = steps[p], nodes[p]
        extra = np.float32(0)
        for k in range(shown.shape[0]):
            for s in range(max(0, t - reach), t - SAME_MOMENT_STEPS + 1):
                if abs(shown[k, s] - n) <= NEAR_NODES:
                    extra = max(extra, fades[k] * np.float32(1 - (t - s) / reach) * away[n])
        total += extra
    return total
