"""How good a fit is, by cross-validation: each stretch of the recording in turn is held out, and its speech is searched
for in the motion.

The fit sees no frame that a query or a candidate sees. The floor is the same speech shifted by 1.3 to 4 s.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from engine.features.embedding import Embedding, Features
from engine.features.fit import (
    Contexts,
    FitOptions,
    Prior,
    contexts_of,
    fit_embedding,
    generic_embedding,
    without_mouth,
)
from engine.features.fitted import FittedEmbedding
from engine.features.linear import AUDIO_COLUMNS, steady_descriptors
from engine.features.onset import LOW_FRAMES, OnsetEmbedding
from engine.features.recording import Recording
from engine.features.scores import CONTROL_SHIFTS, REACH, Interval, interval, low_hits
from engine.features.speech import SPEAKING, speech_features
from engine.timebase import FPS

__all__ = [
    "BESIDE",
    "MAX_LAG_FRAMES",
    "MIN_SPEECH_S",
    "N_FOLDS",
    "FitReport",
    "Hits",
    "fit_person",
    "fold_hits",
    "folds",
    "hear",
    "lag_profile",
    "outside",
]

N_FOLDS = 5
MARGIN = 2 * REACH + 1  # frames at both ends of a stretch that are not queried
BESIDE = 10  # frames beyond a context that bins and the smoothing of speech and motion depend on
BLOCK_FRAMES = 2 * FPS  # drawn together for an interval
MIN_SPEECH_S = 15.0
MAX_LAG_FRAMES = 16
_LAG_SMOOTH = np.hanning(9)[1:-1] / np.hanning(9).sum()


@dataclass(frozen=True)
class FitReport:
    """Low-level accuracies by cross-validation, as shares with their 95 % intervals."""

    choice: str  # of the embedding: fitted, generic or onset
    why: str
    scores: dict[str, Interval]  # onset, fitted, fitted+mouth, and generic if there is a prior
    control: dict[str, float]  # the same with time-shifted speech: the true floor
    gain: Interval  # of fitted over onset, frame by frame
    n_frames: int  # queried
    speech_s: float
    lag_frames: int  # by which this person's motion follows the voice
    mouth: bool  # whether the fit uses the mouth

    def to_dict(self) -> dict[str, Any]:
        """For JSON: unknown figures become None."""
        return {name: _known(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Hits:
    """Frames of speech that found their place, bool (n,) for each fold."""

    found: list[np.ndarray]
    control: list[np.ndarray]  # the same for time-shifted speech

    @property
    def score(self) -> Interval:
        return interval(self.found, BLOCK_FRAMES)

    @property
    def floor(self) -> float:
        return interval(self.control, BLOCK_FRAMES).mean


def fit_person(
    recording: Recording, options: FitOptions | None = None, prior: Prior | None = None
) -> tuple[FittedEmbedding, Embedding, FitReport]:
    """The fitted embedding, the best one (fitted, generic from the prior, or onset), and the report.

    prior: from prior_of(..., options). Raises InputError for a recording that cannot be used.
    """
    with threadpool_limits(1, "blas"):  # many small products: several threads mostly wait for each other
        return _fit_person(recording, options or FitOptions(), prior)


def _fit_person(
    recording: Recording, options: FitOptions, prior: Prior | None
) -> tuple[FittedEmbedding, Embedding, FitReport]:
    rows = speech_features(recording.samples)[: recording.n_frames]
    has_mouth = recording.mouth is not None and bool(np.ptp(recording.mouth, axis=0).any())
    if options.mouth and not has_mouth:
        options = replace(options, mouth=False)
        prior = None if prior is None else without_mouth(prior)
    scales = _scales(recording, rows, options)
    onset = OnsetEmbedding(LOW_FRAMES - 1)
    name, other_name = ("fitted+mouth", "fitted") if options.mouth else ("fitted", "fitted+mouth")
    hits: dict[str, Hits] = {"onset": fold_hits(recording, rows, lambda _: onset)}
    hits[name] = fold_hits(recording, rows, _refit(scales, options, prior))
    if has_mouth:
        other = replace(options, mouth=not options.mouth)
        # a prior with the mouth serves both fits, one without it only the fit without
        its = without_mouth(prior) if prior is not None and options.mouth else None
        hits[other_name] = fold_hits(recording, rows, _refit(_scales(recording, rows, other), other, its))
    fitted = fit_embedding(scales, None, options, prior)
    candidates: dict[str, Embedding] = {name: fitted, "onset": OnsetEmbedding()}
    if prior is not None:
        generic = generic_embedding(scales, prior, options)
        hits["generic"] = fold_hits(recording, rows, lambda _: generic)
        candidates["generic"] = generic
    chosen, why = _choose({key: hits[key] for key in candidates}, name)
    report = FitReport(
        choice=candidates[chosen].name,
        why=why,
        scores={key: value.score for key, value in hits.items()},
        control={key: value.floor for key, value in hits.items()},
        gain=_gain(hits[name], hits["onset"]),
        n_frames=sum(len(part) for part in hits[name].found),
        speech_s=float((rows[:, SPEAKING] >= 0.5).sum()) / FPS,
        lag_frames=_lag(lag_profile(recording, rows)),
        mouth=options.mouth,
    )
    return fitted, candidates[chosen], report


def folds(n_frames: int) -> list[np.ndarray]:
    """The frames that are queried in each stretch."""
    edges = np.linspace(0, n_frames, N_FOLDS + 1).astype(int)
    asked = [np.arange(first + MARGIN, last - MARGIN) for first, last in pairwise(edges)]
    return [frames for frames in asked if len(frames)]


def fold_hits(recording: Recording, rows: np.ndarray, embedding_without: Callable[[np.ndarray], Embedding]) -> Hits:
    """embedding_without(frames): fitted without these; rows: engine.features.speech of the recording's samples."""
    found, control = [], []
    for asked in folds(recording.n_frames):
        embedding = embedding_without(asked)
        speech, motion = hear(embedding, rows).low, embedding.motion(recording).low
        found.append(low_hits(speech, motion, asked))
        control += [low_hits(np.roll(speech, shift, axis=0), motion, asked) for shift in CONTROL_SHIFTS]
    return Hits(found, control)


def outside(contexts: Contexts, asked: np.ndarray) -> np.ndarray:
    """Contexts, bool (n,), that share no frame with those compared when `asked` (ascending frames) is queried."""
    # the context of a candidate on one side, that of a fitted frame on the other
    seen = 2 * (contexts.half_frames + BESIDE) + REACH
    return np.asarray((contexts.frames < asked[0] - seen) | (contexts.frames > asked[-1] + seen))


def hear(embedding: Embedding, rows: np.ndarray) -> Features:
    """Features of speech from its rows; for embeddings that use nothing else."""
    listener = embedding.listen()
    parts = zip(listener.push(np.empty(0, np.float32), rows), listener.flush(), strict=True)
    return Features(*(np.concatenate(pair) for pair in parts))


def _scales(recording: Recording, rows: np.ndarray, options: FitOptions) -> list[Contexts]:
    return [contexts_of(recording, rows, half, options.mouth) for half in options.scales]


def _refit(scales: Sequence[Contexts], options: FitOptions, prior: Prior | None) -> Callable[[np.ndarray], Embedding]:
    def without(asked: np.ndarray) -> Embedding:
        return fit_embedding(scales, [outside(contexts, asked) for contexts in scales], options, prior)

    return without


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _known(part) for name, part in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _gain(fitted: Hits, onset: Hits) -> Interval:
    pairs = zip(fitted.found, onset.found, strict=True)
    return interval([a.astype(np.float64) - b for a, b in pairs], BLOCK_FRAMES)


def _choose(hits: dict[str, Hits], fitted: str) -> tuple[str, str]:
    """The best candidate by its score, and the reason in a sentence."""
    if not hits[fitted].found:
        return "onset", "the recording is too short to test a fit on held-out speech"
    scores = {name: candidate.score for name, candidate in hits.items()}
    best = max(scores, key=lambda name: (scores[name].mean, name == "onset"))
    floor = hits[best].floor
    results = ", ".join(f"{name} finds {score}" for name, score in scores.items())
    if scores[best].low <= floor:
        return "onset", f"nothing finds more places than time-shifted speech does ({floor:.0%}): {results}"
    return best, f"{results} of the places, time-shifted speech {floor:.0%}"


def lag_profile(recording: Recording, rows: np.ndarray) -> np.ndarray:
    """How much voice and motion explain of each other frame by frame, with motion later by -16 .. 16 frames: (33,)."""
    voice = rows[: recording.n_frames, AUDIO_COLUMNS].astype(np.float64)
    voice = _whitened(voice - voice.mean(axis=0))
    body = _whitened(steady_descriptors(recording, False))
    reach = MAX_LAG_FRAMES + len(_LAG_SMOOTH) // 2
    inside = slice(reach, max(len(voice) - reach, reach + 1))
    lags = range(-reach, reach + 1)
    explained = [((voice[inside].T @ np.roll(body, -lag, axis=0)[inside]) ** 2).sum() for lag in lags]
    return np.asarray(np.convolve(explained, _LAG_SMOOTH, "valid") / max(inside.stop - inside.start, 1) ** 2)


def _lag(profile: np.ndarray) -> int:
    """The shift of the peak; 0 if voice or motion are constant."""
    return int(np.argmax(profile)) - MAX_LAG_FRAMES if profile.any() else 0


def _whitened(values: np.ndarray) -> np.ndarray:
    """Uncorrelated columns of equal variance; those without variance are dropped."""
    size, directions = np.linalg.eigh(values.T @ values / len(values))
    kept = size > 1e-3 * max(float(size.max()), 1e-12)
    return np.asarray(values @ directions[:, kept] / np.sqrt(size[kept]))
