"""A linear embedding: contexts of a few numbers of voice and of motion, projected to 16 directions.

Regularised canonical correlation (Hotelling 1936), computed by engine.features.fit. On minutes of video it finds the
right place far more often than networks do, and it costs a few thousand multiplications per frame.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine.features.body import BODY_COLUMNS, MOUTH_COLUMNS, body_descriptors
from engine.features.embedding import Features
from engine.features.kernels.contexts import BIN_FRAMES, project
from engine.features.recording import Recording
from engine.features.speech import LOUDNESS, NOVELTY, PITCH

__all__ = [
    "AUDIO_COLUMNS",
    "BIN_FRAMES",
    "LinearEmbedding",
    "LinearListener",
    "bin_means",
    "bin_offsets",
    "steady_descriptors",
]

AUDIO_COLUMNS = (LOUDNESS, NOVELTY, PITCH)
_BEFORE = BIN_FRAMES // 2  # the bin at offset o holds frames o - 2 .. o + 1
_QUIET = 0.1  # of the usual squared length: a vector shorter than this means little, and stays short
_CUT_FRAMES = 3  # on each side of a shot change: a jump there would reveal the pauses in which cuts are made
_MAX_HALF_FRAMES = 1_000  # in a file
_VERSION = b"linear 1"


def bin_offsets(half_frames: int) -> np.ndarray:
    """Middles of the bins of a context that reaches half_frames on each side."""
    return np.arange(-half_frames, half_frames + 1, BIN_FRAMES)


@dataclass(frozen=True, eq=False)
class LinearEmbedding:
    """Projections of contexts; unknown bins count as average."""

    half_frames: int
    speech: dict[int, np.ndarray]  # by look-ahead in frames: float32 (bins heard by then * 3, D)
    body: np.ndarray  # float32 (bins * columns, D)
    speech_mean: np.ndarray  # float32 (3,)
    speech_size: float  # usual squared length of projected speech
    body_size: float  # usual squared length of projected motion
    mouth: bool
    lookahead_frames: int  # the one in use
    name: str = "linear"
    weight: float = 4.0

    def hurried(self, lookahead_frames: int) -> "LinearEmbedding":
        """The same embedding with at most this look-ahead; speech not heard yet is estimated from the rest."""
        known = [frames for frames in self.speech if frames <= lookahead_frames]
        return replace(self, lookahead_frames=max(known, default=min(self.speech)))

    @property
    def sha256(self) -> str:
        """Of all projections and sizes; the same for every look-ahead."""
        digest = hashlib.sha256(_VERSION)
        digest.update(np.array([self.half_frames, self.speech_size, self.body_size]).tobytes())
        for part in (self.body, self.speech_mean, *(self.speech[key] for key in sorted(self.speech))):
            digest.update(np.ascontiguousarray(part, np.float32).tobytes())
        return digest.hexdigest()

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that from_arrays accepts."""
        sizes = np.array([self.speech_size, self.body_size])
        speech = {f"speech_{lookahead}": part for lookahead, part in self.speech.items()}
        return {
            **speech,
            "body": self.body,
            "speech_mean": self.speech_mean,
            "sizes": sizes,
            "mouth": np.array(self.mouth),
        }

    @classmethod
    def from_arrays(cls, half_frames: int, arrays: Mapping[str, np.ndarray]) -> "LinearEmbedding":
        """Raises ValueError or KeyError for arrays that do not belong together."""
        if not 0 < half_frames <= _MAX_HALF_FRAMES:
            raise ValueError(f"contexts of {half_frames} frames on each side, expected 1 to {_MAX_HALF_FRAMES}")
        numbers = [name.removeprefix("speech_") for name in arrays if name.startswith("speech_")]
        speech = {int(number): arrays[f"speech_{number}"] for number in numbers if number.isdecimal()}
        sizes, mouth = arrays["sizes"], arrays["mouth"]
        if mouth.dtype != np.bool_ or mouth.shape != ():
            raise ValueError("mouth is not a boolean")
        offsets, n_voice = bin_offsets(half_frames), len(AUDIO_COLUMNS)
        n_body = len(BODY_COLUMNS) + (len(MOUTH_COLUMNS) if mouth else 0)
        width = arrays["body"].shape[-1:]
        shapes = {"body": (len(offsets) * n_body, *width), "speech_mean": (n_voice,)}
        shapes |= {f"speech_{key}": (int((offsets + 1 <= key).sum()) * n_voice, *width) for key in speech}
        for name, shape in shapes.items():
            part = arrays[name]
            if part.dtype != np.float32 or part.shape != shape or not np.isfinite(part).all():
                raise ValueError(f"{name} is {part.dtype}{part.shape} or not finite, expected float32{shape}")
        if sizes.dtype != np.float64 or sizes.shape != (2,) or not np.isfinite(sizes).all() or sizes.min() < 0:
            raise ValueError("sizes are malformed")
        if half_frames + 1 not in speech:
            raise ValueError("there is no projection of the whole context")
        return cls(
            half_frames=half_frames,
            speech=speech,
            body=arrays["body"],
            speech_mean=arrays["speech_mean"],
            speech_size=float(sizes[0]),
            body_size=float(sizes[1]),
            mouth=bool(mouth),
            lookahead_frames=half_frames + 1,
        )

    def listen(self) -> "LinearListener":
        return LinearListener(self)

    def motion(self, recording: Recording) -> Features:
        """Contexts reach across clips, because the voice was cut together with the picture."""
        values = steady_descriptors(recording, self.mouth)
        offsets = bin_offsets(self.half_frames)
        low = np.empty((len(values), self.body.shape[1]), np.float32)
        project(_padded(values, self.half_frames), self.body, offsets + self.half_frames, self.body_size * _QUIET, low)
        return Features(low, np.empty((len(low), 0), np.float32))


class LinearListener:
    """See engine.features.embedding.Listener."""

    def __init__(self, embedding: LinearEmbedding) -> None:
        self._embedding = embedding
        self._projection = embedding.speech[embedding.lookahead_frames]
        n_bins = len(self._projection) // len(AUDIO_COLUMNS)
        self._offsets = bin_offsets(embedding.half_frames)[:n_bins]
        self._margin = embedding.half_frames + _BEFORE
        self._rows = np.zeros((self._margin, len(AUDIO_COLUMNS)))  # before the beginning: average
        self._n_rows = 0
        self._n_frames = 0

    def push(self, _: np.ndarray, rows: np.ndarray) -> Features:
        chosen = rows[:, AUDIO_COLUMNS].astype(np.float64) - self._embedding.speech_mean
        self._rows = np.concatenate((self._rows, chosen))
        self._n_rows += len(rows)
        return self._advance(max(self._n_rows - self._embedding.lookahead_frames, self._n_frames))

    def flush(self) -> Features:
        self._rows = np.concatenate((self._rows, np.zeros((self._margin, len(AUDIO_COLUMNS)))))
        return self._advance(self._n_rows)

    def _advance(self, end: int) -> Features:
        n = end - self._n_frames
        low = np.empty((n, self._projection.shape[1]), np.float32)
        places = self._offsets + self._margin - _BEFORE
        project(self._rows, self._projection, places, self._embedding.speech_size * _QUIET, low)
        self._rows = self._rows[n:].copy()
        self._n_frames = end
        return Features(low, np.empty((n, 0), np.float32))


def steady_descriptors(recording: Recording, mouth: bool) -> np.ndarray:
    """body_descriptors, float64 (F, columns); average near shot changes, where motion jumps."""
    values = body_descriptors(recording, mouth).astype(np.float64)
    for clip in recording.clips[1:]:
        values[max(clip.start - _CUT_FRAMES, 0) : clip.start + _CUT_FRAMES] = 0
    return values


def bin_means(values: np.ndarray, half_frames: int, frames: np.ndarray) -> np.ndarray:
    """values (F, C), centred -> contexts of the given frames, float32 (n, bins * C); average outside."""
    padded = _padded(values, half_frames)
    means = sum(padded[i : len(padded) - BIN_FRAMES + 1 + i] for i in range(BIN_FRAMES)) / BIN_FRAMES
    places = frames[:, None] + bin_offsets(half_frames) + half_frames
    return np.asarray(means, np.float32)[places].reshape(len(frames), -1)


def _padded(values: np.ndarray, half_frames: int) -> np.ndarray:
    """Padded so that the bin at offset o of frame f begins at row f + o + half_frames."""
    return np.pad(values.astype(np.float64), ((half_frames + _BEFORE, half_frames + BIN_FRAMES), (0, 0)))
