"""Speech and motion in one space: the interface of onset, fitted and learned embeddings."""

from typing import NamedTuple, Protocol

import numpy as np

from engine.features.recording import Recording
from engine.features.speech import SpeechFeatures

__all__ = ["Embedding", "Features", "Listener", "embed_speech"]


class Features(NamedTuple):
    """One row per frame (30 fps). The similarity of speech and motion is the dot product of their rows."""

    low: np.ndarray  # float32 (F, D), norm at most 1
    high: np.ndarray  # float32 (F, E), norm at most 1; E = 0: use the sum of the low similarities over a window


class Listener(Protocol):
    """One stretch of speech, streaming; a feature never depends on how the samples were divided into chunks."""

    def push(self, samples: np.ndarray, rows: np.ndarray) -> Features:
        """The next 16 kHz samples, float32 (n,), and the rows of engine.features.speech that became final with them.

        Returns the features that became final.
        """

    def flush(self) -> Features:
        """End of speech: the features still due; in all one for every row."""


class Embedding(Protocol):
    """Compares a character's motion with any speech."""

    @property
    def name(self) -> str:
        """onset, generic, fitted, mini or full."""

    @property
    def sha256(self) -> str:
        """Its identity; its speech features only fit motion features of the same hash."""

    @property
    def lookahead_frames(self) -> int:
        """Rows after its own frame that a feature waits for."""

    @property
    def weight(self) -> float:
        """Weight of a similarity in the costs of nodes (engine.motion_graph.costs.CostOptions)."""

    def hurried(self, lookahead_frames: int) -> "Embedding":
        """The same embedding with at most this look-ahead, if it can work with less."""

    def listen(self) -> Listener: ...

    def motion(self, recording: Recording) -> Features:
        """Features of every frame of a recording. Raises InputError if it lacks data that the embedding needs."""


def embed_speech(embedding: Embedding, samples: np.ndarray) -> Features:
    """A whole speech at once, float32 (n,) at 16 kHz -> frame_count(n) features."""
    hearing, listener = SpeechFeatures(), embedding.listen()
    parts = [listener.push(samples, hearing.push(samples))]
    parts.append(listener.push(samples[:0], hearing.flush()))
    parts.append(listener.flush())
    return Features(*(np.concatenate(part) for part in zip(*parts, strict=True)))
