"""Speech and motion in one space: the interface behind which onset, fitted and learned embeddings stand."""

from typing import NamedTuple, Protocol

import numpy as np

from engine.features.recording import Recording
from engine.features.speech import SpeechFeatures

__all__ = ["Embedding", "Features", "Listener", "embed_speech"]


class Features(NamedTuple):
    """One row a frame (30 fps). The similarity of speech and motion is the product of their rows.

    low: float32 (F, D), norm at most 1. high: float32 (F, E), likewise; E = 0 stands for the window sum of the low
    similarities.
    """

    low: np.ndarray
    high: np.ndarray


class Listener(Protocol):
    """One stretch of speech, streaming; a feature never depends on how the samples were cut into chunks."""

    def push(self, samples: np.ndarray, rows: np.ndarray) -> Features:
        """The next 16 kHz samples, float32 (n,), and the rows of engine.features.speech that became final with them.

        Returns the features that became final.
        """

    def flush(self) -> Features:
        """The speech is over: the features still due, one for every row in all."""


class Embedding(Protocol):
    """What a character's motion and any speech are compared by."""

    @property
    def name(self) -> str:
        """onset, generic, fitted, mini or full."""

    @property
    def sha256(self) -> str:
        """Of what it is made of; motion features of another hash do not fit its speech features."""

    @property
    def lookahead_frames(self) -> int:
        """Rows that a feature waits for after its own frame."""

    @property
    def weight(self) -> float:
        """What a similarity counts in the costs of nodes (engine.motion_graph.costs.CostOptions)."""

    def hurried(self, lookahead_frames: int) -> "Embedding":
        """The same embedding for a listener who waits no longer than this, if it can do with less."""

    def listen(self) -> Listener: ...

    def motion(self, recording: Recording) -> Features:
        """Features of every frame of a recording. Raises InputError where it lacks what the embedding needs."""


def embed_speech(embedding: Embedding, samples: np.ndarray) -> Features:
    """All of a speech at once, float32 (n,) at 16 kHz -> frame_count(n) features."""
    hearing, listener = SpeechFeatures(), embedding.listen()
    parts = [listener.push(samples, hearing.push(samples))]
    parts.append(listener.push(samples[:0], hearing.flush()))
    parts.append(listener.flush())
    return Features(*(np.concatenate(part) for part in zip(*parts, strict=True)))
