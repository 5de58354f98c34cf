"""What it costs to show a node while something is said: similarities of an embedding, loudness, rest.

An embedding gives features a frame (engine.features); here they become one row per node, and everything from here on is
the same for every embedding. Correlation and cosines are blind to size, so a third number, the level, says how loud a
passage is and how large the gestures are.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from engine.features.embedding import Embedding, Features
from engine.features.onset import body_rhythm
from engine.features.recording import Recording
from engine.features.speech import N_COLUMNS, SMOOTH_ENERGY, SPEAKING, SpeechFeatures
from engine.jit import njit
from engine.kernels import FASTMATH
from engine.timebase import FRAMES_PER_NODE, node_count

__all__ = [
    "CostOptions",
    "MotionVectors",
    "SpeechListener",
    "SpeechSteps",
    "motion_level",
    "node_costs",
    "node_rows",
    "resting",
    "speech_steps",
]

LEVEL_FRAMES = 64  # to both sides: the window of the paper
LEVEL_MEAN, LEVEL_SD = -0.75, 0.45  # of smoothed energy averaged over a window, 14 recordings


@dataclass(frozen=True)
class SpeechSteps:
    """Speech as the search sees it: one row per node step (4 frames)."""

    low: np.ndarray  # float32 (T, D), norm at most 1
    high: np.ndarray  # float32 (T, E), norm at most 1; E may be 0
    level: np.ndarray  # float32 (T,), 0..1: how loud, compared with most speech
    speaking: np.ndarray  # float32 (T,), 0..1

    def __getitem__(self, part: slice) -> "SpeechSteps":
        return SpeechSteps(self.low[part], self.high[part], self.level[part], self.speaking[part])

    def __len__(self) -> int:
        return len(self.low)

    def __add__(self, later: "SpeechSteps") -> "SpeechSteps":
        """These steps and, behind them, later ones."""
        return SpeechSteps(
            np.concatenate((self.low, later.low)),
            np.concatenate((self.high, later.high)),
            np.concatenate((self.level, later.level)),
            np.concatenate((self.speaking, later.speaking)),
        )


@dataclass(frozen=True)
class MotionVectors:
    """The nodes of a character in the same space."""

    low: np.ndarray  # float32 (N, D), norm at most 1
    high: np.ndarray  # float32 (N, E), norm at most 1; E may be 0
    level: np.ndarray  # float32 (N,), 0..1: rank of the gestures' size among this person's


@dataclass(frozen=True)
class CostOptions:
    """Weights beside the similarities, which lie between -1 and 1.

    Over the nodes of a person one row of costs has a standard deviation of 0.2 to 0.5.
    """

    # Of the squared difference of the levels. At 2 loud passages get large gestures (r 0.5 instead of 0.3 on
    # a minute of video), and the rhythm inside them loses nothing (r 0.36 instead of 0.37).
    level_weight: float = 2.0
    # Of being away from rest while nobody speaks: 0, 1, 2, 4 leave 0.27, 0.15, 0.11, 0.08 of the way.
    idle_weight: float = 2.0
    listless_weight: float = 0.3  # of resting while somebody does
    similarity_weight: float = 1.0  # of both similarities, times that of the embedding


class SpeechListener:
    """Samples in, steps out, streaming; a step never depends on how the samples were cut into chunks."""

    def __init__(self, embedding: Embedding) -> None:
        self._hearing = SpeechFeatures()
        self._listener = embedding.listen()
        self._lookahead = embedding.lookahead_frames
        self._rows = np.empty((0, N_COLUMNS), np.float32)
        self._first_row = 0  # frame of self._rows[0]
        self._features: Features | None = None  # of frames whose step is not out yet
        self._n_steps = 0

    def push(self, samples: np.ndarray) -> SpeechSteps:
        """The next 16 kHz samples, float32 (n,) -> the steps that became final. Raises InputError for NaN."""
        rows = self._hearing.push(samples)
        features = self._hear(rows, self._listener.push(samples, rows))
        n_rows = self._first_row + len(self._rows)
        n_final = min(self._n_steps * FRAMES_PER_NODE + len(features.low), n_rows - self._lookahead)
        return self._advance(features, max(n_final // FRAMES_PER_NODE, self._n_steps))

    def flush(self) -> SpeechSteps:
        """The speech is over: the steps still due; node_count(frames) steps in all."""
        rows = self._hearing.flush()
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


def speech_steps(embedding: Embedding, samples: np.ndarray) -> SpeechSteps:
    """All of a speech at once, float32 (n,) at 16 kHz -> node_count(frame_count(n)) steps."""
    listener = SpeechListener(embedding)
    return listener.push(samples) + listener.flush()


def resting(n_steps: int, motion: MotionVectors, speaking: float = 0.0) -> SpeechSteps:
    """Steps without sound. speaking: 0 asks for rest; more for less of it."""
    low, high = (np.zeros((n_steps, rows.shape[1]), np.float32) for rows in (motion.low, motion.high))
    return SpeechSteps(low, high, np.zeros(n_steps, np.float32), np.full(n_steps, speaking, np.float32))


def node_rows(features: np.ndarray) -> np.ndarray:
    """Features of frames, float32 (F, D) -> means over nodes, float32 (ceil(F / 4), D); the last node may be short."""
    whole = len(features) // FRAMES_PER_NODE * FRAMES_PER_NODE
    rows = [features[:whole].reshape(whole // FRAMES_PER_NODE, FRAMES_PER_NODE, features.shape[1]).mean(axis=1)]
    if whole < len(features):
        rows.append(features[whole:].mean(axis=0, keepdims=True))
    return np.concatenate(rows)


def motion_level(recording: Recording) -> np.ndarray:
    """float32 (N,), 0..1: rank of the size of the gestures around each node among this person's."""
    rhythm = body_rhythm(recording)
    middle = np.arange(recording.n_frames // FRAMES_PER_NODE) * FRAMES_PER_NODE + FRAMES_PER_NODE // 2
    first, last = np.empty_like(middle), np.empty_like(middle)
    for clip in recording.clips:
        nodes = slice(clip.start // FRAMES_PER_NODE, clip.stop // FRAMES_PER_NODE)
        first[nodes], last[nodes] = clip.start, clip.stop
    size = _means(rhythm, np.maximum(middle - LEVEL_FRAMES, first), np.minimum(middle + LEVEL_FRAMES, last))
    below, up_to = (np.searchsorted(np.sort(size), size, side) for side in ("left", "right"))
    return np.asarray((below + up_to) / (2 * len(size)), np.float32)


def node_costs(
    steps: SpeechSteps, motion: MotionVectors, rest: np.ndarray, options: CostOptions | None = None
) -> np.ndarray:
    """What it costs to show each node at each step, float32 (T, N); `rest` (N,) is engine.rest.rest_distance.

    2 - cos_low - cos_high (TANGO, section 3.2) plus level and idle terms; an embedding without a high level has none
    here, because along a stretch without a cut the path sums up the low one. Rows are independent: for hours of speech
    ask in slices.
    """
    options = options or CostOptions()
    costs = np.empty((len(steps.low), len(motion.low)), np.float32)
    away = np.float32(options.idle_weight) * rest
    listless = np.float32(options.listless_weight) * (1 - rest)
    weight = np.float32(options.similarity_weight)
    for t, speaking in enumerate(steps.speaking):
        # one product a row: a larger one may round differently, and equal speech must give equal paths
        costs[t] = 1 - motion.low @ steps.low[t]
        if motion.high.shape[1]:
            costs[t] += 1 - motion.high @ steps.high[t]
        costs[t] *= weight
        costs[t] += np.float32(options.level_weight) * (motion.level - steps.level[t]) ** 2
        costs[t] += (1 - speaking) * away + speaking * listless
    return costs


@njit(fastmath=FASTMATH)
def _window_means(values, first, last, means):  # type: ignore[no-untyped-def]
    for row in range(first.shape[0]):
        means[row] = values[first[row] : last[row]].sum() / (last[row] - first[row])


def _means(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Means of values[first : last], (n,)."""
    means = np.empty(len(first))
    _window_means(np.ascontiguousarray(values), first, last, means)
    return means
