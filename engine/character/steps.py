"""Speech and motion, one row per node: from an embedding's features of frames to the rows that the search compares.

An embedding gives features per frame (engine.features); here they become one row per node, and from here on everything
is the same for every embedding.
"""

import numpy as np
from scipy.special import ndtr

from engine.features.embedding import Embedding, Features
from engine.features.kernels.contexts import window_means
from engine.features.onset import body_rhythm
from engine.features.recording import Recording
from engine.features.speech import N_COLUMNS, SMOOTH_ENERGY, SPEAKING, SpeechFeatures
from engine.motion_graph.costs import SpeechSteps
from engine.timebase import FRAMES_PER_NODE, node_count

__all__ = ["SpeechListener", "StepListener", "motion_level", "node_rows", "speech_steps"]

LEVEL_FRAMES = 64  # on each side: the window of the paper
LEVEL_MEAN, LEVEL_SD = -0.75, 0.45  # of smoothed energy averaged over a window, from 14 recordings


class StepListener:
    """Samples and their rows in, steps out, streaming; a step never depends on how they were divided into chunks."""

    def __init__(self, embedding: Embedding) -> None:
        self._listener = embedding.listen()
        self._lookahead = embedding.lookahead_frames
        self._rows = np.empty((0, N_COLUMNS), np.float32)
        self._first_row = 0  # frame of self._rows[0]
        self._features: Features | None = None  # of frames whose step is not out yet
        self._n_steps = 0

    def push(self, samples: np.ndarray, rows: np.ndarray) -> SpeechSteps:
        """The next 16 kHz samples, float32 (n,), and the rows of engine.features.speech that became final with them.

        Returns the steps that became final.
        """
        features = self._hear(rows, self._listener.push(samples, rows))
        n_rows = self._first_row + len(self._rows)
        n_final = min(self._n_steps * FRAMES_PER_NODE + len(features.low), n_rows - self._lookahead)
        return self._advance(features, max(n_final // FRAMES_PER_NODE, self._n_steps))

    def flush(self, rows: np.ndarray) -> SpeechSteps:
        """End of speech, and the rows still due: the steps still due; node_count(frames) steps in all."""
        self._features = self._hear(rows, self._listener.push(np.empty(0, np.float32), rows))
        features = self._hear(rows[:0], self._listener.flush())
        return self._advance(features, node_count(self._first_row + len(self._rows)))

    def _hear(self, rows: np.ndarray, news: Features) -> Features:
        self._rows = np.concatenate((self._rows, rows))
        waiting = news if self._features is None else self._features
        if self._features is not None:
            waiting = Features(*(np.concatenate(pair) for pair in zip(self._features, news, strict=True)))
        return waiting

    def _advance(self, features: Features, end: int) -> SpeechSteps:
        steps = np.arange(self._n_steps, end)
        n_rows = self._first_row + len(self._rows)
        values = self._rows.astype(np.float64)
        heard = np.minimum((steps + 1) * FRAMES_PER_NODE + self._lookahead, n_rows) - self._first_row
        first = steps * FRAMES_PER_NODE - self._first_row
        middle = first + FRAMES_PER_NODE // 2
        speaking = _means(values[:, SPEAKING], first, np.minimum(first + FRAMES_PER_NODE, len(values)))
        loudness = _means(
            values[:, SMOOTH_ENERGY], np.maximum(middle - LEVEL_FRAMES, 0), np.minimum(middle + LEVEL_FRAMES, heard)
        )
        n_frames = len(steps) * FRAMES_PER_NODE
        low, high = (node_rows(part[:n_frames]) for part in features)
        self._features = Features(*(part[n_frames:].copy() for part in features))
        drop = max(end * FRAMES_PER_NODE + FRAMES_PER_NODE // 2 - LEVEL_FRAMES - self._first_row, 0)
        self._rows = self._rows[drop:].copy()
        self._first_row += drop
        self._n_steps = end
        level = ndtr((loudness - LEVEL_MEAN) / LEVEL_SD)
        return SpeechSteps(low, high, level.astype(np.float32), speaking.astype(np.float32))


class SpeechListener:
    """Samples in, steps out, streaming; a step never depends on how the samples were divided into chunks."""

    def __init__(self, embedding: Embedding) -> None:
        self._hearing = SpeechFeatures()
        self._listener = StepListener(embedding)

    def push(self, samples: np.ndarray) -> SpeechSteps:
        """The next 16 kHz samples, float32 (n,) -> the steps that became final. Raises InputError for NaN."""
        return self._listener.push(samples, self._hearing.push(samples))

    def flush(self) -> SpeechSteps:
        """End of speech: the steps still due; node_count(frames) steps in all."""
        return self._listener.flush(self._hearing.flush())


def speech_steps(embedding: Embedding, samples: np.ndarray) -> SpeechSteps:
    """A whole speech at once, float32 (n,) at 16 kHz -> node_count(frame_count(n)) steps."""
    listener = SpeechListener(embedding)
    return listener.push(samples) + listener.flush()


def node_rows(features: np.ndarray) -> np.ndarray:
    """Features of frames, float32 (F, D) -> means over nodes, float32 (ceil(F / 4), D); the last node may be short."""
    whole = len(features) // FRAMES_PER_NODE * FRAMES_PER_NODE
    rows = [features[:whole].reshape(whole // FRAMES_PER_NODE, FRAMES_PER_NODE, features.shape[1]).mean(axis=1)]
    if whole < len(features):
        rows.append(features[whole:].mean(axis=0, keepdims=True))
    return np.concatenate(rows)


def motion_level(recording: Recording) -> np.ndarray:
    """float32 (N,), 0..1: rank of the size of the gestures around each node, among this person's nodes."""
    rhythm = body_rhythm(recording)
    middle = np.arange(recording.n_frames // FRAMES_PER_NODE) * FRAMES_PER_NODE + FRAMES_PER_NODE // 2
    first, last = np.empty_like(middle), np.empty_like(middle)
    for clip in recording.clips:
        nodes = slice(clip.start // FRAMES_PER_NODE, clip.stop // FRAMES_PER_NODE)
        first[nodes], last[nodes] = clip.start, clip.stop
    size = _means(rhythm, np.maximum(middle - LEVEL_FRAMES, first), np.minimum(middle + LEVEL_FRAMES, last))
    below, up_to = (np.searchsorted(np.sort(size), size, side) for side in ("left", "right"))
    return np.asarray((below + up_to) / (2 * len(size)), np.float32)


def _means(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Means of values[first : last], (n,)."""
    means = np.empty(len(first))
    window_means(np.ascontiguousarray(values), first, last, means)
    return means
