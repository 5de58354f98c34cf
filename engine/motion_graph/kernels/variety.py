"""The cost of repeating what was shown a few seconds ago."""

from typing import NamedTuple

import numpy as np

from engine.jit import FASTMATH, njit

__all__ = ["NEAR_NODES", "SAME_MOMENT_STEPS", "Repetitions", "add_repetitions", "costs_along"]

NEAR_NODES = 1  # to a viewer, a node next to one that was shown is the same moment
SAME_MOMENT_STEPS = 4  # and a moment that is still being shown is not a repetition


class Repetitions(NamedTuple):
    """Paths, and the cost of repeating them."""

    shown: np.ndarray  # int32 (K, T): nodes of K paths
    fades: np.ndarray  # float32 (K,): weight of each path
    away: np.ndarray  # float32 (N,): cost of a node that has just been shown
    reach: int  # steps within which a repetition counts


@njit(fastmath=FASTMATH)
def add_repetitions(block: np.ndarray, first: int, repetitions: Repetitions) -> None:
    """Add to block (B, N), steps first .. first + B - 1, the largest cost that one of the paths adds to each node."""
    shown, fades = repetitions.shown, repetitions.fades
    away, reach = repetitions.away, repetitions.reach
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
def costs_along(repetitions: Repetitions, steps: np.ndarray, nodes: np.ndarray) -> float:
    """Sum of the costs that add_repetitions adds at steps (P,), nodes (P,)."""
    shown, fades = repetitions.shown, repetitions.fades
    away, reach = repetitions.away, repetitions.reach
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
