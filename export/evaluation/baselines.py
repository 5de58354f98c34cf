"""Embeddings for comparison only: plain onset correlation, and another embedding shifted in time."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from engine.features.body import BODY_COLUMNS
from engine.features.embedding import Embedding, Features, Listener
from engine.features.linear import steady_descriptors
from engine.features.recording import Recording
from engine.features.speech import FLUX, N_COLUMNS

__all__ = ["CorrelationEmbedding", "LaggedEmbedding", "WholeListener"]

_WRISTS = [BODY_COLUMNS.index(f"{side}_wrist.speed") for side in ("left", "right")]
_STILL = 1e-6


@dataclass(frozen=True)
class CorrelationEmbedding:
    """Onset flux against wrist speed over half_frames to either side, nothing else: Pearson's correlation.

    The baseline from which the targets of the fitted embedding were set; the one in use, engine.features.onset, uses
    more features.
    """

    half_frames: int
    name: str = "onset"
    weight: float = 1.0

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"correlation {self.half_frames}".encode()).hexdigest()

    @property
    def lookahead_frames(self) -> int:
        return self.half_frames

    def with_lookahead(self, lookahead_frames: int) -> "CorrelationEmbedding":
        """Itself: it has no shorter form."""
        return self

    def listen(self) -> "WholeListener":
        return WholeListener(lambda rows: _contexts(rows[:, FLUX], self.half_frames), (2 * self.half_frames + 1, 0))

    def motion(self, recording: Recording) -> Features:
        return _contexts(steady_descriptors(recording, False)[:, _WRISTS].mean(axis=1), self.half_frames)


class WholeListener:
    """See engine.features.embedding.Listener; collects all input, then returns everything. widths: of low and high."""

    def __init__(self, features: Callable[[np.ndarray], Features], widths: tuple[int, int]) -> None:
        """features: function of all rows, float32 (F, columns)."""
        self._features = features
        self._widths = widths
        self._rows = np.empty((0, N_COLUMNS), np.float32)

    def push(self, samples: np.ndarray, rows: np.ndarray) -> Features:
        self._rows = np.concatenate((self._rows, rows))
        return Features(*(np.empty((0, width), np.float32) for width in self._widths))

    def flush(self) -> Features:
        return self._features(self._rows)


def _contexts(values: np.ndarray, half_frames: int) -> Features:
    """values (F,) -> float32 (F, 2 half_frames + 1), centred, of unit length."""
    padded = np.pad(values, half_frames, mode="edge")
    contexts = np.lib.stride_tricks.sliding_window_view(padded, 2 * half_frames + 1)[: len(values)]
    contexts = contexts - contexts.mean(axis=1, keepdims=True)
    low = (contexts / np.maximum(np.linalg.norm(contexts, axis=1, keepdims=True), _STILL)).astype(np.float32)
    return Features(low, low[:, :0])


@dataclass(frozen=True, eq=False)
class LaggedEmbedding:
    """Another embedding, for a person whose motion trails the voice by lag_frames more than it expects."""

    inner: Embedding
    lag_frames: int

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def weight(self) -> float:
        return self.inner.weight

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"{self.inner.sha256} {self.lag_frames}".encode()).hexdigest()

    @property
    def lookahead_frames(self) -> int:
        return self.inner.lookahead_frames

    def with_lookahead(self, lookahead_frames: int) -> "LaggedEmbedding":
        return replace(self, inner=self.inner.with_lookahead(lookahead_frames))

    def listen(self) -> Listener:
        return self.inner.listen()

    def motion(self, recording: Recording) -> Features:
        features = self.inner.motion(recording)
        frames = np.clip(np.arange(len(features.low)) + self.lag_frames, 0, len(features.low) - 1)
        return Features(*(part[frames] for part in features))
