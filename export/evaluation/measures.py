"""The figures of one embedding and one person, as arrays that can be pooled over people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.features.embedding import Features
from engine.features.scores import CONTROL_SHIFTS, STRIDE, WINDOW, Interval, interval, low_hits, window_scores
from engine.timebase import FPS
from export.evaluation.people import Person, compute_features
from export.evaluation.rivals import Rival

__all__ = ["BLOCK_FRAMES", "Measured", "correlation", "mean_interval", "measure", "score_windows", "summary"]

BLOCK_FRAMES = 2 * FPS  # resampled together for a confidence interval
BLOCK_WINDOWS = WINDOW // STRIDE  # likewise: windows that overlap


@dataclass(frozen=True)
class Measured:
    """Per stretch held out of the fit. Arrays are missing if the recording is too short.

    found, control: bool (n,), low level. first: bool (w,), far: float (w,) shares; n_candidates likewise. true, chosen,
    random: float (w,), r of voice energy and body speed in the window itself, in the one chosen at another time of the
    recording, and the mean over all other times.
    """

    found: list[np.ndarray] = field(default_factory=list)
    control: list[np.ndarray] = field(default_factory=list)
    first: list[np.ndarray] = field(default_factory=list)
    far: list[np.ndarray] = field(default_factory=list)
    chance: list[np.ndarray] = field(default_factory=list)
    true: list[np.ndarray] = field(default_factory=list)
    chosen: list[np.ndarray] = field(default_factory=list)
    random: list[np.ndarray] = field(default_factory=list)


def measure(rival: Rival, person: Person) -> Measured:
    """Raises like the embedding's `motion`."""
    measured = Measured()
    known: dict[tuple[int, int], tuple[Features, Features]] = {}

    def matched(asked: np.ndarray) -> tuple[Features, Features]:
        key = (int(asked[0]), int(asked[-1])) if rival.refits else (0, 0)
        if key not in known:
            known[key] = compute_features(rival.without(person, asked), person)
        return known[key]

    for asked in person.asked:
        speech, motion = (features.low for features in matched(asked))
        measured.found.append(low_hits(speech, motion, asked))
        shifted = [low_hits(np.roll(speech, shift, axis=0), motion, asked) for shift in CONTROL_SHIFTS]
        measured.control.append(np.concatenate(shifted))
    for stretch in person.stretches:
        _measure_windows(person, stretch.windows, *matched(stretch.frames), measured)
    return measured


def _measure_windows(person: Person, asked: np.ndarray, speech: Features, motion: Features, measured: Measured) -> None:
    starts = person.window_starts
    scores = window_scores(speech, motion, starts, asked)
    measured.first.append(scores.first)
    measured.far.append(scores.far_beaten[np.isfinite(scores.far_beaten)])
    measured.chance.append(np.full(len(asked), 1 / scores.n_candidates))
    score = score_windows(speech, motion, starts[asked], starts)
    r = correlation(_windows(person.voice, starts[asked]), _windows(person.speed, starts))
    other = np.abs(starts[asked, None] - starts) >= WINDOW
    rows = np.flatnonzero(other.any(axis=1))
    best = np.where(other, score, -np.inf).argmax(axis=1)
    measured.true.append(r[rows, asked[rows]])
    measured.chosen.append(r[rows, best[rows]])
    measured.random.append(np.array([r[row, other[row]].mean() for row in rows]))


def score_windows(speech: Features, motion: Features, asked: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Similarity of windows of speech and of motion, by first frames: float (len(asked), len(starts))."""
    if speech.high.shape[1]:
        return np.asarray(speech.high[asked + WINDOW // 2] @ motion.high[starts + WINDOW // 2].T)
    within = np.arange(WINDOW)
    heard = speech.low[asked[:, None] + within].reshape(len(asked), -1)
    seen = motion.low[starts[:, None] + within].reshape(len(starts), -1)
    return np.asarray(heard @ seen.T)


def correlation(voice: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Pearson's r of each row of one with each row of the other: (A, n), (B, n) -> (A, B)."""
    return np.asarray(_standard(voice) @ _standard(speed).T)


def mean_interval(parts: Sequence[np.ndarray], block: int) -> dict[str, float]:
    return _told(interval(parts, block))


def summary(measured: Sequence[Measured], baselines: Mapping[str, Sequence[Measured]]) -> dict[str, Any]:
    """Over one or more people: figures with intervals, and paired gains over the baselines by name."""
    every = {name: [part for one in measured for part in getattr(one, name)] for name in Measured.__dataclass_fields__}
    return {
        "frames": sum(map(len, every["found"])),
        "low": mean_interval(every["found"], BLOCK_FRAMES),
        "control": mean_interval(every["control"], BLOCK_FRAMES),
        "gain": {name: _gain(measured, others) for name, others in baselines.items()},
        "windows": sum(map(len, every["first"])),
        "first": mean_interval(every["first"], BLOCK_WINDOWS),
        "first_chance": mean_interval(every["chance"], BLOCK_WINDOWS)["mean"],
        "far_beaten": mean_interval(every["far"], BLOCK_WINDOWS),
        "r": {name: mean_interval(every[name], BLOCK_WINDOWS) for name in ("true", "chosen", "random")},
    }


def _gain(measured: Sequence[Measured], others: Sequence[Measured]) -> dict[str, float]:
    pairs = [pair for a, b in zip(measured, others, strict=True) for pair in zip(a.found, b.found, strict=True)]
    return mean_interval([a.astype(np.float64) - b for a, b in pairs], BLOCK_FRAMES)


def _told(found: Interval) -> dict[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _windows(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.asarray(values[starts[:, None] + np.arange(WINDOW)])


def _standard(windows: np.ndarray) -> np.ndarray:
    off = windows - windows.mean(axis=1, keepdims=True)
    return np.asarray(off / np.maximum(np.linalg.norm(off, axis=1, keepdims=True), 1e-9))
