"""The published AuMoCLIP embedding with the interface of all embeddings, from a bundle, without torch.

A window of speech goes through four stages: the speech network, with a recogniser whose text goes through the text
network; every step of 20 ms then takes the feature of the token spoken there; the audio network joins everything.

Windows have 128 frames, as in training: 64 frames back, 32 that are kept, 32 ahead. The low level needs only a few
frames of context; the high level describes the whole window, so the rows kept are near its middle. Longer hops would
describe the speech more coarsely, shorter ones cost proportionally more: at 32 every second is computed four times.
"""

import copy
from collections.abc import Sequence

import numpy as np

from engine.errors import ArtifactError, InputError
from engine.features.embedding import Features
from engine.features.recording import Recording
from engine.features.released_windows import (
    MIN_SAMPLES,
    WINDOW_FRAMES,
    WINDOW_SAMPLES,
    audio_segments,
    motion_segments,
)
from engine.features.text import TextTokens, align, read_ctc_vocabulary, tokens_of, transcribe
from engine.features.windows import WindowedStream, WindowPlan
from engine.inference.networks import Networks

__all__ = ["FullEmbedding", "plan_ahead"]

SMPLX_JOINTS = 55
HOP_FRAMES = 32


def plan_ahead(lookahead_frames: int) -> WindowPlan:
    """Windows of 128 frames with this many after the rows that are kept."""
    return WindowPlan(HOP_FRAMES, WINDOW_FRAMES - HOP_FRAMES - lookahead_frames, lookahead_frames)


class FullEmbedding:
    """Implements engine.features.embedding.Embedding."""

    name = "full"
    weight = 1.0

    def __init__(self, networks: Networks, lookahead_frames: int = HOP_FRAMES) -> None:
        """`lookahead_frames`: frames that a window sees after the last row it keeps, at most 96.

        Raises ArtifactError for a bundle of another kind.
        """
        bundle = networks.bundle
        if bundle.name != self.name:
            raise ArtifactError(f"{bundle.folder} holds the embedding {bundle.name}, expected {self.name}")
        self._networks = networks
        self._plan = plan_ahead(lookahead_frames)
        self._vocabulary = read_ctc_vocabulary(bundle.file("vocab.json"))
        self._words = TextTokens(bundle.file("vocab.txt" if "vocab.txt" in bundle.files else "tokenizer.json"))
        width = bundle.graph("audio").outputs[0].shape[-1]
        if not isinstance(width, int):
            raise ArtifactError(f"{bundle.folder}: the features of network audio have no fixed width")
        self._width = width

    @property
    def sha256(self) -> str:
        return self._networks.bundle.sha256

    @property
    def lookahead_frames(self) -> int:
        return self._stream().lookahead_frames

    def hurried(self, lookahead_frames: int) -> "FullEmbedding":
        """The same networks with windows that reach less far ahead; they always wait for at least a hop."""
        ahead = max(0, min(self._plan.lookahead_frames, lookahead_frames - (HOP_FRAMES - 1)))
        other = copy.copy(self)  # shares the networks: a second copy of them would not fit everywhere
        other._plan = plan_ahead(ahead)
        return other

    def listen(self) -> "FullListener":
        return FullListener(self._stream())

    def motion(self, recording: Recording) -> Features:
        """Features of every frame, in windows over each clip as in the release.

        A clip below 128 frames is one window of its own length. (The release pads it with the rest pose of the body
        model, which a recording does not contain.) Raises InputError for motion that does not come from SMPL-X.
        """
        motion = recording.motion
        if motion is None or motion.shape[1] != SMPLX_JOINTS:
            found = "no motion" if motion is None else f"motion of {motion.shape[1]} joints"
            raise InputError(
                f"{recording.name} has {found}; the full embedding needs the {SMPLX_JOINTS} joints of SMPL-X: "
                "build the character from a video with its SMPL-X .npz"
            )
        flat = np.ascontiguousarray(motion.reshape(len(motion), -1), np.float32)
        return _joined([self._clip(flat[clip]) for clip in recording.clips], self._width)

    def as_released(self, samples: np.ndarray) -> Features:
        """Speech features in the windows of the release's demo, with as many rows as there; see audio_segments."""
        parts = []
        for start, first, end in audio_segments(len(samples)):
            low, high = self._hear(samples[start : start + WINDOW_SAMPLES], WINDOW_FRAMES)
            parts.append(Features(low[first:end], high[first:end]))
        return _joined(parts, self._width)

    def close(self) -> None:
        """Free the networks."""
        self._networks.close()

    def _stream(self) -> WindowedStream:
        return WindowedStream(self._hear, (self._width, self._width), self._plan)

    def _hear(self, samples: np.ndarray, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
        """One window: low and high, float32 (n_frames, width), of unit length."""
        heard = self._networks.run("speech", {"waveform": _standardised(samples)[None]})
        tokens = tokens_of(heard.pop("logits")[0], self._vocabulary)
        ids, words = self._words.encode(transcribe(tokens))
        hidden = self._networks.run("text", {"ids": ids})["hidden"][0]
        features = self._networks.run("audio", {**heard, "text": hidden[align(tokens, words)][None]})
        low = features["low"][0]
        rows = np.minimum(np.arange(n_frames), len(low) - 1)
        return _unit(low[rows]), np.repeat(_unit(features["cls"]), n_frames, axis=0)

    def _clip(self, motion: np.ndarray) -> Features:
        parts = []
        for start, first, end in motion_segments(len(motion)):
            features = self._networks.run("motion", {"motion": motion[None, start : start + WINDOW_FRAMES]})
            low = _unit(features["low"][0, first:end])
            parts.append(Features(low, np.repeat(_unit(features["cls"]), len(low), axis=0)))
        return _joined(parts, self._width)


class FullListener:
    """Implements engine.features.embedding.Listener."""

    def __init__(self, stream: WindowedStream) -> None:
        self._stream = stream

    def push(self, samples: np.ndarray, rows: np.ndarray) -> Features:
        """See Listener; the networks use only the samples."""
        return Features(*self._stream.push(samples))

    def flush(self) -> Features:
        return Features(*self._stream.flush())


def _standardised(samples: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance over the window, as the speech encoder was trained; tiny windows are zero-padded."""
    samples = np.asarray(samples, np.float32)
    scaled = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    return np.pad(scaled.astype(np.float32), (0, max(0, MIN_SAMPLES - len(samples))))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.float32(1e-12))


def _joined(parts: Sequence[Features], width: int) -> Features:
    empty = np.empty((0, width), np.float32)
    low, high = (np.concatenate([empty, *(part[level] for part in parts)]) for level in (0, 1))
    return Features(low, high)
