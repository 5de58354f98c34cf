"""The sound for received frames: the original speech, or the server's echo of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.timebase import FPS
from tango_rt.sound.audio import audio_blocks, said_before
from tango_rt.v1 import media_pb2

__all__ = ["SOUND_RATE", "Echo", "Sound", "Speech"]

SOUND_RATE = 48_000
"""Sample rate of the sound in the video, in Hz. A whole number of samples per frame."""

_PER_FRAME = SOUND_RATE // FPS


class Sound(Protocol):
    def of(self, frame: media_pb2.VideoFrame, n_missing: int) -> Iterator[np.ndarray]:
        """float32 (n,) each: for the n_missing frames dropped before this one, then for this one."""
        ...

    def rest(self, n_frames: int) -> np.ndarray:
        """float32 (n,): for the frames after the last one, up to frame n_frames of the utterance."""
        ...


class Speech:
    """The sound of a file, at the frame's number within the utterance; silence between utterances."""

    def __init__(self, path: Path) -> None:
        self._blocks: Iterator[np.ndarray] = iter(audio_blocks(path, SOUND_RATE, warn=said_before))
        self._read = np.zeros(0, np.float32)
        self._next = 0  # frame of the utterance at which _read begins

    def of(self, frame: media_pb2.VideoFrame, n_missing: int) -> Iterator[np.ndarray]:
        if not frame.utterance_id:
            yield from _silence(n_missing + 1)
            return
        first = frame.utterance_frame - n_missing
        silent = min(max(0, self._next - first), n_missing)
        yield from _silence(silent)
        yield self._stretch(first + silent, frame.utterance_frame + 1)

    def rest(self, n_frames: int) -> np.ndarray:
        return self._stretch(self._next, n_frames)

    def _stretch(self, first: int, stop: int) -> np.ndarray:
        """Sound of frames first .. stop - 1, cut short at the end of the file."""
        wanted = max(0, stop - self._next) * _PER_FRAME
        read = [self._read]
        n_read = len(self._read)
        while n_read < wanted:
            block = next(self._blocks, None)
            if block is None:
                break
            read.append(block)
            n_read += len(block)
        sound = np.concatenate(read)
        self._read = sound[wanted:]
        skipped = max(0, first - self._next) * _PER_FRAME
        self._next = max(stop, self._next)
        return sound[skipped:wanted]


class Echo:
    """The sound that the server sent back with the frames, float32; none of it is ever dropped."""

    def of(self, frame: media_pb2.VideoFrame, n_missing: int) -> Iterator[np.ndarray]:
        yield np.clip(np.nan_to_num(np.frombuffer(frame.audio.data, "<f4")), -1, 1)

    def rest(self, n_frames: int) -> np.ndarray:
        return np.zeros(0, np.float32)


def _silence(n_frames: int) -> Iterator[np.ndarray]:
    """In pieces: a gap may be as long as a session."""
    for first in range(0, n_frames, FPS):
        yield np.zeros(min(FPS, n_frames - first) * _PER_FRAME, np.float32)
