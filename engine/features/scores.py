"""How well an embedding matches speech to its motion: the measures of the paper (section 4), with their true floor.

Low: of the 32 motion frames around a frame of speech, is the best one within 4 frames of the truth? Chance is 25 %, but
with smooth features the best is often at the edge, so the floor is the score of time-shifted speech. High: windows of
4.27 s; does the true one win among up to 256, and what share of those far away does it beat?
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.features.embedding import Features

__all__ = ["CONTROL_SHIFTS", "Interval", "WindowScores", "interval", "low_hits", "window_scores", "window_starts"]

REACH = 16
NEAR = 4
WINDOW = 128
STRIDE = 8
MAX_WINDOWS = 256
CONTROL_SHIFTS = (40, 60, 90, 120)  # frames: 1.3 to 4 s


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def low_hits(speech: np.ndarray, motion: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """bool (n,): is the best of i - 16 .. i + 15 in i - 4 .. i + 3, for frames i at least REACH from both ends?

    speech, motion: float32 (F, D), features of the same frames.
    """
    offsets = np.arange(-REACH, REACH)
    similarity = np.stack([np.einsum("nd,nd->n", speech[frames], motion[frames + offset]) for offset in offsets], 1)
    best = offsets[similarity.argmax(axis=1)]
    return np.asarray((best >= -NEAR) & (best < NEAR))


@dataclass(frozen=True)
class WindowScores:
    """Scores of each query window."""

    first: np.ndarray  # bool: the true window was the best
    far_beaten: np.ndarray  # share of windows far away that it beats; NaN if there are none
    n_candidates: int


def window_scores(
    speech: Features, motion: Features, starts: np.ndarray, queries: np.ndarray | None = None
) -> WindowScores:
    """starts: first frame of every window of WINDOW frames; queries: which of them are queries (default: all).

    The similarity of two windows is that of their high features in the middle, or else the sum of the low ones.
    """
    queries = np.arange(len(starts)) if queries is None else queries
    if speech.high.shape[1]:
        middles = starts + WINDOW // 2
        score = speech.high[middles[queries]] @ motion.high[middles].T
    else:
        within = np.arange(WINDOW)
        width = WINDOW * speech.low.shape[1]
        asked = speech.low[starts[queries, None] + within].reshape(len(queries), width)
        score = asked @ motion.low[starts[:, None] + within].reshape(len(starts), width).T
    own = score[np.arange(len(queries)), queries]
    far = np.abs(starts[queries, None] - starts) >= WINDOW // 2
    beaten = ((score < own[:, None]) & far).sum(axis=1) / np.where(far.any(axis=1), far.sum(axis=1), np.nan)
    alone = (score >= own[:, None]).sum(axis=1) == 1  # a tie finds nothing
    return WindowScores(np.asarray(alone), beaten, len(starts))


def window_starts(n_frames: int) -> np.ndarray:
    """Where the windows of a recording begin: every 8 frames, or as many as make MAX_WINDOWS."""
    n = n_frames - WINDOW + 1
    step = max(STRIDE, -(-n // MAX_WINDOWS))
    return np.arange(0, max(n, 0), step)


def interval(values: Sequence[np.ndarray] | np.ndarray, block: int, seed: int = 0, n_draws: int = 500) -> Interval:
    """Mean of values (n,) with a 95 % interval from a block bootstrap, with blocks of `block` neighbours.

    Several rows of values are several people, whose blocks are drawn together. NaN without values.
    """
    parts = [values] if isinstance(values, np.ndarray) else list(values)
    blocks = [part[k : k + block] for part in parts for k in range(0, len(part), block)]
    if not blocks:
        return Interval(float("nan"), float("nan"), float("nan"))
    sums = np.array([part.sum(dtype=np.float64) for part in blocks])
    sizes = np.array([len(part) for part in blocks])
    draws = np.random.default_rng(seed).integers(len(blocks), size=(n_draws, len(blocks)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(sums.sum() / sizes.sum()), float(low), float(high))
