"""Fit the embedding to a person: regularised canonical correlation of voice and motion (Hotelling 1936).

It needs only covariances, so a fit solves a few small systems whatever the length of the recording. They may be mixed
with those of other people (a prior): that helps if there is little of the person, and no longer from 20 s on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.features.body import BODY_COLUMNS, mirrored
from engine.features.fitted import FittedEmbedding
from engine.features.linear import AUDIO_COLUMNS, LinearEmbedding, bin_means, bin_offsets, steady_descriptors
from engine.features.recording import Recording

__all__ = [
    "Contexts",
    "FitOptions",
    "Prior",
    "contexts_of",
    "fit_embedding",
    "generic_embedding",
    "prior_of",
    "without_mouth",
]

LOOKAHEADS = (0, 4, 8, 16, 32)  # frames for which a projection is kept, besides the whole context
MAX_FRAMES = 8_000  # used by a fit, spread evenly: neighbours are nearly equal
_FLOOR = 1e-6


@dataclass(frozen=True)
class FitOptions:
    """How an embedding is fitted."""

    scales: tuple[int, ...] = (24, 48, 80)  # frames of context on each side, see engine.features.fitted
    n_directions: int = 16
    # Times the mean variance of a context's numbers: results are the same for 1 to 8, at 0.1 the fit overfits.
    ridge: float = 3.0
    prior_weight: float = 0.2
    mouth: bool = False  # use the mouth too


@dataclass(frozen=True, eq=False)
class Covariances:
    """Covariances of standardised contexts, all float64."""

    voice: np.ndarray  # (A, A)
    body: np.ndarray  # (M, M)
    both: np.ndarray  # (A, M)

    def mixed(self, other: "Covariances", weight: float) -> "Covariances":
        parts = zip(vars(self).values(), vars(other).values(), strict=True)
        return Covariances(*((1 - weight) * own + weight * its for own, its in parts))


Prior = dict[int, Covariances]
"""Covariances of other people, by scale."""


@dataclass(frozen=True, eq=False)
class Contexts:
    """The data of a fit: standardised contexts of some frames at one scale, float32."""

    frames: np.ndarray
    voice: np.ndarray
    body: np.ndarray
    voice_mean: np.ndarray
    voice_scale: np.ndarray
    body_scale: np.ndarray
    half_frames: int

    def sums(self, chosen: np.ndarray) -> Covariances:
        """Sums of products over the chosen contexts, bool (n,), without their mirror images."""
        voice, body = self.voice[chosen], self.body[chosen]
        pairs = ((voice, voice), (body, body), (voice, body))
        return Covariances(*((a.T @ b).astype(np.float64) for a, b in pairs))


def contexts_of(recording: Recording, rows: np.ndarray, half_frames: int, mouth: bool) -> Contexts:
    """Contexts of a recording; rows: float32 (F, columns), engine.features.speech of its samples."""
    voice = rows[: recording.n_frames, AUDIO_COLUMNS].astype(np.float64)
    body = steady_descriptors(recording, mouth)
    mean, scale = voice.mean(axis=0), _scale(voice.std(axis=0))
    body_scale = _scale(np.sqrt((body**2 + mirrored(body) ** 2).mean(axis=0) / 2))
    frames = np.arange(0, recording.n_frames, -(-recording.n_frames // MAX_FRAMES))
    return Contexts(
        frames,
        bin_means((voice - mean) / scale, half_frames, frames),
        bin_means(body / body_scale, half_frames, frames),
        mean,
        scale,
        body_scale,
        half_frames,
    )


def fit_embedding(
    scales: Sequence[Contexts], kept: Iterable[np.ndarray] | None, options: FitOptions, prior: Prior | None = None
) -> FittedEmbedding:
    """Fit to the contexts of every scale. kept: the frames to use, bool (n,) for each scale; None: all."""
    chosen = [np.ones(len(contexts.frames), bool) for contexts in scales] if kept is None else kept
    linear = tuple(
        _linear(contexts, _covariances(contexts, frames), options, prior)
        for contexts, frames in zip(scales, chosen, strict=True)
    )
    return FittedEmbedding(linear)


def generic_embedding(scales: Sequence[Contexts], prior: Prior, options: FitOptions) -> FittedEmbedding:
    """The prior alone: only the size of the movements and the level of the voice are the person's."""
    linear = tuple(_linear(contexts, prior[contexts.half_frames], options, None) for contexts in scales)
    return FittedEmbedding(linear, name="generic")


def prior_of(people: Sequence[tuple[Recording, np.ndarray]], options: FitOptions) -> Prior:
    """Mean covariances of several recordings (with their speech rows); every frame used has the same weight."""
    prior = {}
    for half in options.scales:
        total, n = None, 0
        for recording, rows in people:
            contexts = contexts_of(recording, rows, half, options.mouth)
            own = contexts.sums(np.ones(len(contexts.frames), bool))
            n += len(contexts.frames)
            parts = vars(own).values()
            total = list(parts) if total is None else [a + b for a, b in zip(total, parts, strict=True)]
        if total is None:
            raise ValueError("a prior needs at least one recording")
        prior[half] = _with_mirror(Covariances(*(part / n for part in total)), len(AUDIO_COLUMNS))
    return prior


def _scale(deviation: np.ndarray) -> np.ndarray:
    """Constant columns get an infinite scale: they carry no information, also for other speakers."""
    return np.where(deviation > _FLOOR, deviation, np.inf)


def without_mouth(prior: Prior) -> Prior:
    """A prior made with the mouth, reduced for a person whose mouth is not known."""
    less = {}
    for half, found in prior.items():
        columns = np.arange(len(found.body)).reshape(len(bin_offsets(half)), -1)[:, : len(BODY_COLUMNS)].ravel()
        less[half] = Covariances(found.voice, found.body[np.ix_(columns, columns)], found.both[:, columns])
    return less


def _covariances(contexts: Contexts, frames: np.ndarray) -> Covariances:
    n = max(int(frames.sum()), 1)
    parts = vars(contexts.sums(frames)).values()
    return _with_mirror(Covariances(*(part / n for part in parts)), len(AUDIO_COLUMNS))


def _with_mirror(found: Covariances, n_voice: int) -> Covariances:
    """As if every frame had also been seen in a mirror, where the columns of left and right change places."""
    n_bins = len(found.voice) // n_voice
    n_columns = len(found.body) // n_bins
    other = mirrored(np.arange(n_columns)[None])[0]
    order = (np.arange(n_bins)[:, None] * n_columns + other).ravel()
    return Covariances(
        found.voice, (found.body + found.body[np.ix_(order, order)]) / 2, (found.both + found.both[:, order]) / 2
    )


def _linear(contexts: Contexts, found: Covariances, options: FitOptions, prior: Prior | None) -> LinearEmbedding:
    if prior is not None:
        found = found.mixed(prior[contexts.half_frames], options.prior_weight)
    voice, body = _canonical(found, options)
    offsets = bin_offsets(contexts.half_frames)
    whole = contexts.half_frames + 1  # the last bin ends one frame after its middle
    n_voice = len(AUDIO_COLUMNS)
    speech = {}
    for lookahead in {*(frames for frames in LOOKAHEADS if frames < whole), whole}:
        heard = slice(0, n_voice * int((offsets + 1 <= lookahead).sum()))
        speech[lookahead] = _guessed(_ridged(found.voice, options.ridge), heard) @ voice
    per_voice = np.tile(contexts.voice_scale, len(offsets))[:, None]
    per_body = np.tile(contexts.body_scale, len(offsets))[:, None]
    return LinearEmbedding(
        half_frames=contexts.half_frames,
        speech={key: (part / per_voice[: len(part)]).astype(np.float32) for key, part in speech.items()},
        body=(body / per_body).astype(np.float32),
        speech_mean=contexts.voice_mean.astype(np.float32),
        speech_size=_size(voice, found.voice),
        body_size=_size(body, found.body),
        mouth=options.mouth,
        lookahead_frames=whole,
    )


def _size(projection: np.ndarray, covariance: np.ndarray) -> float:
    """Mean squared length of projected vectors."""
    return float(np.einsum("ad,ab,bd->", projection, covariance, projection))


def _ridged(covariance: np.ndarray, ridge: float) -> np.ndarray:
    n = len(covariance)
    return np.asarray(covariance + (ridge * np.trace(covariance) / n + _FLOOR) * np.eye(n))


def _canonical(found: Covariances, options: FitOptions) -> tuple[np.ndarray, np.ndarray]:
    """Projections (A, D) and (M, D); every direction is weighted by its correlation."""
    values, vectors = np.linalg.eigh(_ridged(found.voice, options.ridge))
    whiten = vectors / np.sqrt(values) @ vectors.T
    # the body's side is the larger one: solve for it, without eigenvectors
    explained = np.linalg.solve(_ridged(found.body, options.ridge), found.both.T)
    squared, directions = np.linalg.eigh(whiten @ found.both @ explained @ whiten)
    order = np.argsort(squared)[::-1][: options.n_directions]
    strength = np.sqrt(np.maximum(squared[order], _FLOOR))
    voice = whiten @ directions[:, order]
    return voice * np.sqrt(strength), explained @ voice / np.sqrt(strength)


def _guessed(voice: np.ndarray, heard: slice) -> np.ndarray:
    """(heard, A): least-squares estimate of the whole context from the part heard so far."""
    return np.asarray(np.linalg.solve(voice[heard, heard], voice[heard]))
