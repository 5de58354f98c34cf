"""From a correspondence to the picture: which of the two pictures is shown where."""

import math

import numpy as np

from engine.jit import FASTMATH, njit

__all__ = ["mix", "select"]

# Grey levels between which averaging turns into choosing, then into choosing abruptly, and the powers of the odds that
# this adds: a power of 5 leaves 25 % of the other picture in the two middle frames, one of 9 leaves 12 %. Small
# differences change gradually, because a quick change looks like a jump; large ones quickly, because any mixture looks
# like a ghost.
_LIKE, _UNLIKE, _FOREIGN = 16.0, 48.0, 96.0
_DECISION, _HASTE = 4.0, 4.0


@njit(fastmath=FASTMATH)
def _smooth_step(x: float) -> float:
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


@njit(fastmath=FASTMATH)
def select(unlike: np.ndarray, seen: np.ndarray, time: float) -> np.ndarray:
    """Weight of B at every point, float32 (h, w), from its nearness in time and from the visibility in both pictures.

    Log odds of B are those of `time` plus `seen`. Where the two pictures look `unlike` (grey levels), the odds of time
    are raised to a power: a mixture of two different things looks like a ghost, so the picture nearer in time wins.
    """
    height, width = unlike.shape
    out = np.empty((height, width), np.float32)
    odds_of_time = math.log(time / (1 - time))
    for y in range(height):
        for x in range(width):
            power = 1.0
            power += _DECISION * _smooth_step((unlike[y, x] - _LIKE) / (_UNLIKE - _LIKE))
            power += _HASTE * _smooth_step((unlike[y, x] - _UNLIKE) / (_FOREIGN - _UNLIKE))
            odds = power * odds_of_time + seen[y, x]
            out[y, x] = 1 / (1 + math.exp(-odds))
    return out


@njit(fastmath=FASTMATH)
def mix(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> None:
    """Mix b into a, both uint8 (h, w), by its share at every point, float32 (h, w) in 0..1."""
    height, width = a.shape
    for y in range(height):
        for x in range(width):
            before = np.float32(a[y, x])
            a[y, x] = np.uint8(before + weight[y, x] * (np.float32(b[y, x]) - before) + np.float32(0.5))
