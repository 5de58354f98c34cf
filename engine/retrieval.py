"""What speech is matched to, without learned weights: vectors of speech and of motion, to be multiplied.

The baseline of Gesture Video Reenactment (Zhou et al. 2022) matches audio onsets to motion; here as
correlations. The low vectors hold 2 s around a node: onset flux against wrists, flux against head, energy
against head. The high vectors hold 4.27 s (TANGO, section 3.2): energy against body speed. Correlation is
blind to size, so a third number, the level, says how loud a passage is and how large the gestures are. An
embedding that was learned or fitted gives the same kinds of vectors, and everything from `node_costs` on
stays as it is.

Outside its clip, or beyond what was heard so far, a context knows nothing: the vector is shorter, the match
neutral.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.special import ndtr

from engine.kernels import FASTMATH
from engine.skeleton import LEFT_ELBOW, LEFT_WRIST, NOSE, RIGHT_ELBOW, RIGHT_WRIST
from engine.speech import FLUX, N_COLUMNS, SMOOTH_ENERGY, SPEAKING
from engine.timebase import FPS, FRAMES_PER_NODE, node_count

__all__ = [
    "FULL_LOOKAHEAD_FRAMES",
    "CostOptions",
    "MotionVectors",
    "SpeechSteps",
    "SpeechVectors",
    "joint_speeds",
    "node_costs",
    "node_vectors",
    "speech_vectors",
]

# Contexts reach this far to both sides of the middle of a node. High: the window of the paper. Low: of 16, 24
# and 32 frames the longest finds the right place most often (35, 38, 44 % within 4 frames, seven people).
LOW_FRAMES = 32
HIGH_FRAMES = 64
LOW_STEP = 2  # frames averaged per number: half the size, the same score
HIGH_STEP = FRAMES_PER_NODE
# What a step would like to hear after its last frame; less, and the unheard part counts as unknown: with 62,
# 30, 16, 6 and 0 frames the right place is found in 45, 45, 41, 38 and 37 % (control: 22 %).
FULL_LOOKAHEAD_FRAMES = HIGH_FRAMES - FRAMES_PER_NODE // 2
LEVEL_MEAN, LEVEL_SD = -0.75, 0.45  # of smoothed energy averaged over a window, 14 recordings
NOISE_VARIANCE = 0.05  # a context that varies less than this is noise, not rhythm: its vector shrinks
CLIP_SPEED = 3.0  # standard deviations: one lost hand is no gesture


@dataclass(frozen=True)
class SpeechSteps:
    """Speech as the search sees it: one row per node step (4 frames)."""

    low: np.ndarray  # float32 (T, D), norm at most 1
    high: np.ndarray  # float32 (T, E), norm at most 1
    level: np.ndarray  # float32 (T,), 0..1: how loud, compared with most speech
    speaking: np.ndarray  # float32 (T,), 0..1


@dataclass(frozen=True)
class MotionVectors:
    """The nodes of a character in the same space."""

    low: np.ndarray  # float32 (N, D), norm at most 1
    high: np.ndarray  # float32 (N, E), norm at most 1
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


@njit(cache=True, fastmath=FASTMATH)
def _contexts(values, centre, first, last, half, step, vectors):  # type: ignore[no-untyped-def]
    """values (F, C) around each centre -> vectors (n, C * 2 * half / step), each channel centred and scaled.

    Only frames first <= f < last are known. A full channel has norm C^-1/2, so a whole vector 1.
    """
    n_bins = 2 * half // step
    n_channels = values.shape[1]
    for row in range(centre.shape[0]):
        start = centre[row] - half
        low, high = max(start, first[row]), min(centre[row] + half, last[row])
        for c in range(n_channels):
            mean, power = 0.0, 0.0
            for f in range(low, high):
                mean += values[f, c]
            mean /= max(high - low, 1)
            bins = vectors[row, c * n_bins : (c + 1) * n_bins]
            bins[:] = 0.0
            for f in range(low, high):
                bins[(f - start) // step] += (values[f, c] - mean) / step
            for k in range(n_bins):
                power += bins[k] * bins[k]
            known = (high - low) / (2 * half)
            bins *= np.sqrt(known / n_channels / (power + NOISE_VARIANCE * n_bins))


@njit(cache=True, fastmath=FASTMATH)
def _window_means(values, centre, first, last, half, means):  # type: ignore[no-untyped-def]
    for row in range(centre.shape[0]):
        low, high = max(centre[row] - half, first[row]), min(centre[row] + half, last[row])
        means[row] = values[low:high].sum() / (high - low)


def _vectors(values: np.ndarray, place: tuple[np.ndarray, ...], half: int, step: int) -> np.ndarray:
    centre, first, last = place
    vectors = np.empty((len(centre), values.shape[1] * 2 * half // step))
    _contexts(values, centre, first, last, half, step, vectors)
    return vectors.astype(np.float32)


class SpeechVectors:
    """Rows of engine.speech in, steps out, streaming; a step never depends on how the rows were cut."""

    def __init__(self, lookahead_frames: int = FULL_LOOKAHEAD_FRAMES) -> None:
        """`lookahead_frames`: waited for after the last frame of a step; a live session takes fewer."""
        self._lookahead = lookahead_frames
        self._rows = np.empty((0, N_COLUMNS), np.float32)
        self._first_row = 0  # frame of self._rows[0]
        self._n_steps = 0

    def push(self, rows: np.ndarray) -> SpeechSteps:
        """The next rows, float32 (n, N_COLUMNS) -> the steps that became final."""
        self._rows = np.concatenate((self._rows, rows))
        n_rows = self._first_row + len(self._rows)
        return self._advance(max((n_rows - self._lookahead) // FRAMES_PER_NODE, self._n_steps))

    def flush(self) -> SpeechSteps:
        """The speech is over: the steps still due; node_count(all rows) steps in all."""
        return self._advance(node_count(self._first_row + len(self._rows)))

    def _advance(self, end: int) -> SpeechSteps:
        steps = np.arange(self._n_steps, end)
        n_rows = self._first_row + len(self._rows)
        heard = np.minimum(steps * FRAMES_PER_NODE + FRAMES_PER_NODE + self._lookahead, n_rows)
        centre = steps * FRAMES_PER_NODE + FRAMES_PER_NODE // 2 - self._first_row
        place = (centre, np.zeros(len(steps), np.int64), heard - self._first_row)
        values = self._rows.astype(np.float64)
        energy = values[:, SMOOTH_ENERGY]
        loudness, speaking = np.empty(len(steps)), np.empty(len(steps))
        _window_means(energy, *place, HIGH_FRAMES, loudness)
        _window_means(values[:, SPEAKING], *place, FRAMES_PER_NODE // 2, speaking)
        level = ndtr((loudness - LEVEL_MEAN) / LEVEL_SD)
        low = _vectors(values[:, [FLUX, FLUX, SMOOTH_ENERGY]], place, LOW_FRAMES, LOW_STEP)
        high = _vectors(energy[:, None], place, HIGH_FRAMES, HIGH_STEP)
        self._n_steps = end
        drop = max(end * FRAMES_PER_NODE + FRAMES_PER_NODE // 2 - HIGH_FRAMES - self._first_row, 0)
        self._rows = self._rows[drop:].copy()
        self._first_row += drop
        return SpeechSteps(low, high, level.astype(np.float32), speaking.astype(np.float32))


def speech_vectors(rows: np.ndarray, lookahead_frames: int = FULL_LOOKAHEAD_FRAMES) -> SpeechSteps:
    """All rows of a speech at once, float32 (F, N_COLUMNS) -> node_count(F) steps."""
    stream = SpeechVectors(lookahead_frames)
    parts = [stream.push(rows), stream.flush()]
    return SpeechSteps(
        np.concatenate([part.low for part in parts]),
        np.concatenate([part.high for part in parts]),
        np.concatenate([part.level for part in parts]),
        np.concatenate([part.speaking for part in parts]),
    )


def joint_speeds(joints: np.ndarray, clip_start: np.ndarray, unit_px: float) -> np.ndarray:
    """Speed in the picture, shoulder widths a second, float64 (F, J); never across a clip boundary."""
    speed = np.empty(joints.shape[:2])
    for first, last in zip(clip_start[:-1] * FRAMES_PER_NODE, clip_start[1:] * FRAMES_PER_NODE, strict=True):
        velocity = np.gradient(joints[first:last, :, :2].astype(np.float64), axis=0)
        speed[first:last] = np.hypot(velocity[..., 0], velocity[..., 1])
    return speed * (FPS / unit_px)


def _rhythm(speed: np.ndarray, confidence: np.ndarray, chosen: list[int]) -> np.ndarray:
    """Roots of some joints' speeds -> one number a frame, in deviations; a lost joint counts as average.

    The root keeps a slow beat visible beside a sweep of the arm.
    """
    trust = confidence[:, chosen].astype(np.float64)
    root = np.sqrt(speed[:, chosen])
    total = np.maximum(trust.sum(axis=0), 1e-6)
    off = (root - (root * trust).sum(axis=0) / total) * trust
    spread = np.sqrt((off**2).sum(axis=0) / total)
    score = (off / np.maximum(spread, 1e-6)).mean(axis=1)
    return np.clip(score / max(score.std(), 1e-6), -CLIP_SPEED, CLIP_SPEED)


def node_vectors(joints: np.ndarray, confidence: np.ndarray, clip_start: np.ndarray, unit_px: float) -> MotionVectors:
    """joints (F, 75, 3) pixels, confidence (F, 75), clip_start (n_clips + 1) nodes -> one row per node."""
    speed = joint_speeds(joints, clip_start, unit_px)
    wrists = _rhythm(speed, confidence, [LEFT_WRIST, RIGHT_WRIST])
    head = _rhythm(speed, confidence, [NOSE])
    body = _rhythm(speed, confidence, [NOSE, LEFT_ELBOW, RIGHT_ELBOW, LEFT_WRIST, RIGHT_WRIST])
    n_nodes = len(joints) // FRAMES_PER_NODE
    centre = np.arange(n_nodes) * FRAMES_PER_NODE + FRAMES_PER_NODE // 2
    nodes = np.diff(clip_start)
    first = np.repeat(clip_start[:-1], nodes) * FRAMES_PER_NODE
    last = np.repeat(clip_start[1:], nodes) * FRAMES_PER_NODE
    place = (centre, first, last)
    size = np.empty(n_nodes)
    _window_means(body, *place, HIGH_FRAMES, size)
    below, up_to = (np.searchsorted(np.sort(size), size, side) for side in ("left", "right"))
    level = (below + up_to) / (2 * n_nodes)
    low = _vectors(np.stack((wrists, head, head), axis=1), place, LOW_FRAMES, LOW_STEP)
    high = _vectors(body[:, None], place, HIGH_FRAMES, HIGH_STEP)
    return MotionVectors(low, high, level.astype(np.float32))


def node_costs(
    steps: SpeechSteps, motion: MotionVectors, rest: np.ndarray, options: CostOptions | None = None
) -> np.ndarray:
    """What it costs to show each node at each step, float32 (T, N); `rest` (N,) is engine.rest.rest_distance.

    2 - cos_low - cos_high (TANGO, section 3.2) plus level and idle terms. Rows are independent: for hours
    of speech ask in slices.
    """
    options = options or CostOptions()
    costs = np.empty((len(steps.low), len(motion.low)), np.float32)
    away = np.float32(options.idle_weight) * rest
    listless = np.float32(options.listless_weight) * (1 - rest)
    for t, speaking in enumerate(steps.speaking):
        # one product a row: a larger one may round differently, and equal speech must give equal paths
        costs[t] = 2 - motion.low @ steps.low[t] - motion.high @ steps.high[t]
        costs[t] += np.float32(options.level_weight) * (motion.level - steps.level[t]) ** 2
        costs[t] += (1 - speaking) * away + speaking * listless
    return costs
