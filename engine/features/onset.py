"""Onset retrieval, without learning: the baseline of Gesture Video Reenactment (Zhou et al. 2022), as correlations.

The low vectors hold 2 s around a frame: onset flux against wrists, flux against head, energy against head. The high
vectors hold 4.27 s (TANGO, section 3.2): energy against body speed. Correlation ignores size. Outside its clip, or
beyond the speech heard so far, a context is unknown: the vector is shorter, the match neutral.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from engine.features.body import joint_speeds
from engine.features.embedding import Features
from engine.features.kernels.contexts import contexts
from engine.features.recording import Recording
from engine.features.speech import FLUX, N_COLUMNS, SMOOTH_ENERGY
from engine.skeleton import LEFT_ELBOW, LEFT_WRIST, NOSE, RIGHT_ELBOW, RIGHT_WRIST

__all__ = ["HIGH_FRAMES", "LOW_FRAMES", "OnsetEmbedding", "body_rhythm"]

# Contexts reach this far on each side. High: the window of the paper. Low: of 16, 24 and 32 frames, the longest finds
# the right place most often (35, 38, 44 % within 4 frames, seven people).
LOW_FRAMES = 32
HIGH_FRAMES = 64
LOW_STEP = 2  # frames averaged per number: half the size at the same score
HIGH_STEP = 4
CLIP_SPEED = 3.0  # standard deviations: a tracking failure of a hand is not a gesture
VERSION = b"onset 2"


@dataclass(frozen=True)
class OnsetEmbedding:
    """With a look-ahead of 62, 30, 16, 6, 0 frames it finds the right place in 45, 45, 41, 38, 37 % (control: 22 %)."""

    lookahead_frames: int = HIGH_FRAMES - 1
    name: str = "onset"
    weight: float = 1.0

    @property
    def sha256(self) -> str:
        return hashlib.sha256(VERSION).hexdigest()

    def hurried(self, lookahead_frames: int) -> "OnsetEmbedding":
        """The same with at most this look-ahead."""
        return replace(self, lookahead_frames=min(self.lookahead_frames, lookahead_frames))

    def listen(self) -> "OnsetListener":
        return OnsetListener(self.lookahead_frames)

    def motion(self, recording: Recording) -> Features:
        speed = joint_speeds(recording.joints, recording.clip_start, recording.unit_px)
        trust = recording.confidence
        wrists = _rhythm(speed, trust, [LEFT_WRIST, RIGHT_WRIST])
        head = _rhythm(speed, trust, [NOSE])
        first, last = (np.empty(recording.n_frames, np.int64) for _ in range(2))
        for clip in recording.clips:
            first[clip], last[clip] = clip.start, clip.stop
        place = (np.arange(recording.n_frames), first, last)
        return Features(
            _vectors(np.stack((wrists, head, head), axis=1), place, LOW_FRAMES, LOW_STEP),
            _vectors(body_rhythm(recording)[:, None], place, HIGH_FRAMES, HIGH_STEP),
        )


class OnsetListener:
    """See engine.features.embedding.Listener."""

    def __init__(self, lookahead_frames: int) -> None:
        self._lookahead = lookahead_frames
        self._rows = np.empty((0, N_COLUMNS), np.float32)
        self._first_row = 0  # frame of self._rows[0]
        self._n_frames = 0

    def push(self, _: np.ndarray, rows: np.ndarray) -> Features:
        self._rows = np.concatenate((self._rows, rows))
        return self._advance(max(self._first_row + len(self._rows) - self._lookahead, self._n_frames))

    def flush(self) -> Features:
        return self._advance(self._first_row + len(self._rows))

    def _advance(self, end: int) -> Features:
        frames = np.arange(self._n_frames, end)
        heard = np.minimum(frames + 1 + self._lookahead, self._first_row + len(self._rows))
        place = (frames - self._first_row, np.zeros(len(frames), np.int64), heard - self._first_row)
        values = self._rows.astype(np.float64)
        energy = values[:, SMOOTH_ENERGY]
        low = _vectors(values[:, [FLUX, FLUX, SMOOTH_ENERGY]], place, LOW_FRAMES, LOW_STEP)
        high = _vectors(energy[:, None], place, HIGH_FRAMES, HIGH_STEP)
        self._n_frames = end
        drop = max(end - HIGH_FRAMES - self._first_row, 0)
        self._rows = self._rows[drop:].copy()
        self._first_row += drop
        return Features(low, high)


def body_rhythm(recording: Recording) -> np.ndarray:
    """How fast head, elbows and wrists move, float64 (F,), in standard deviations."""
    speed = joint_speeds(recording.joints, recording.clip_start, recording.unit_px)
    return _rhythm(speed, recording.confidence, [NOSE, LEFT_ELBOW, RIGHT_ELBOW, LEFT_WRIST, RIGHT_WRIST])


def _rhythm(speed: np.ndarray, confidence: np.ndarray, chosen: list[int]) -> np.ndarray:
    """Square roots of some joints' speeds -> one number per frame, in standard deviations; lost joints are average.

    The root keeps a slow beat visible next to a sweep of the arm.
    """
    trust = confidence[:, chosen].astype(np.float64)
    root = np.sqrt(speed[:, chosen])
    total = np.maximum(trust.sum(axis=0), 1e-6)
    off = (root - (root * trust).sum(axis=0) / total) * trust
    spread = np.sqrt((off**2).sum(axis=0) / total)
    score = (off / np.maximum(spread, 1e-6)).mean(axis=1)
    return np.clip(score / max(score.std(), 1e-6), -CLIP_SPEED, CLIP_SPEED)


def _vectors(values: np.ndarray, place: tuple[np.ndarray, ...], half: int, step: int) -> np.ndarray:
    centre, first, last = place
    vectors = np.empty((len(centre), values.shape[1] * 2 * half // step))
    contexts(values, centre, first, last, half, step, vectors)
    return vectors.astype(np.float32)
