"""Any audio in, mono float32 at one rate out, as a chain of generators.

    packets -> frames that decode -> stretches without a gap -> resampled once -> placed in time -> checked

PyAV brings its own FFmpeg, so that nothing needs to be installed. Samples are placed by the timestamps of
their frames: silence stands in for a hole or a broken packet, and nothing after it moves.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from engine.errors import InputError
from engine.timebase import SAMPLE_RATE
from tango_rt.media import MAX_HOURS, MAX_JUMP_S, PacketDecoder, first_picture_s, open_media, stamp_s

__all__ = ["audio_blocks", "check_audible", "read_audio"]

SILENCE_PEAK = 1e-4
"""-80 dBFS: no speech is so quiet; dithered digital silence is."""

# Timestamps of some containers are rounded to milliseconds; a hole is more than that.
_GAP_S = Fraction(1, 50)


def read_audio(path: Path, align_to_video: bool = False) -> np.ndarray:
    """All audio of a file, float32 (n,) mono at 16 kHz in [-1, 1]; at most 4 hours. Else as audio_blocks."""
    blocks: list[np.ndarray] = []
    n_samples = 0
    for block in audio_blocks(path, align_to_video=align_to_video):
        blocks.append(block)
        n_samples += len(block)
        if n_samples > MAX_HOURS * 3600 * SAMPLE_RATE:
            raise InputError(f"{path}: audio longer than {MAX_HOURS} hours: cut it up")
    return np.concatenate(blocks)


def audio_blocks(path: Path, sample_rate: int = SAMPLE_RATE, align_to_video: bool = False) -> Iterator[np.ndarray]:
    """The audio of a file as it is read: blocks of float32 (n,) mono in [-1, 1].

    align_to_video puts the first sample at the time of the first picture, with silence where the sound starts
    later; without it, or without video, the first sample is the first of the sound.

    Raises InputError: no such file, no media, no audio track, no samples, NaN or infinite samples.
    """
    origin_s = first_picture_s(path) if align_to_video else None
    with open_media(path) as container:
        stream = next((track for track in container.streams.audio if track.codec_context), None)
        if stream is None:
            raise InputError(f"{path}: has no audio track")
        frames: Iterator[AudioFrame] = iter(PacketDecoder(container, stream))
        first = next(frames, None)
        if first is None:
            raise InputError(f"{path}: not one sample of the audio can be decoded")
        start_s = stamp_s(first) or Fraction(0)
        offset = 0 if origin_s is None else round((start_s - origin_s) * sample_rate)
        placed = _placed(_stretches(_trimmed(chain([first], frames))), sample_rate, offset)
        yield from _checked(placed, path)


def check_audible(samples: np.ndarray, path: Path) -> None:
    """InputError if nothing in the samples is louder than -80 dBFS."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < SILENCE_PEAK:
        raise InputError(f"{path}: the audio is silent (peak {peak:.1e} of 1), wanted speech")


def _trimmed(frames: Iterable[AudioFrame]) -> Iterator[AudioFrame]:
    """Without the padding of the last frame: mp4 knows how long it really is, and FFmpeg decodes it whole."""
    for frame in frames:
        exact_clock = frame.time_base == Fraction(1, frame.sample_rate)
        yield _head(frame, frame.duration) if exact_clock and 0 < frame.duration < frame.samples else frame


def _head(frame: AudioFrame, n_samples: int) -> AudioFrame:
    interleaved = 1 if frame.format.is_planar else frame.layout.nb_channels
    samples: Any = np.ascontiguousarray(frame.to_ndarray()[:, : n_samples * interleaved])
    head = AudioFrame.from_ndarray(samples, format=frame.format.name, layout=frame.layout.name)
    head.sample_rate, head.time_base, head.pts = frame.sample_rate, frame.time_base, frame.pts
    return head


class _Clock:
    """Numbers the stretches of a stream: one ends at a gap, an overlap, or where the format changes."""

    def __init__(self) -> None:
        self.start_s = Fraction(0)
        """Where the stretch begins, in seconds from the first frame."""
        self._stretch = 0
        self._due_s = Fraction(0)
        self._offset_s: Fraction | None = None
        self._format: tuple[str, str, int] | None = None

    def __call__(self, frame: AudioFrame) -> int:
        stamp = stamp_s(frame)
        time = self._due_s
        if stamp is not None:
            if self._offset_s is None or abs(stamp + self._offset_s - time) > MAX_JUMP_S:
                self._offset_s = time - stamp
            time = stamp + self._offset_s
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if abs(time - self._due_s) > _GAP_S or kind != self._format:
            self._stretch += 1
            self.start_s = self._due_s = time
            self._format = kind
        self._due_s += Fraction(frame.samples, frame.sample_rate)
        return self._stretch


def _stretches(frames: Iterable[AudioFrame]) -> Iterator[tuple[Fraction, Iterator[AudioFrame]]]:
    """Start in seconds and frames of each stretch without a gap."""
    clock = _Clock()
    for _, stretch in groupby(frames, key=clock):
        yield clock.start_s, stretch


def _placed(
    stretches: Iterable[tuple[Fraction, Iterator[AudioFrame]]], sample_rate: int, offset: int
) -> Iterator[np.ndarray]:
    """Resample each stretch and put it where it belongs: silence before it, or its beginning cut off."""
    position = 0
    for start_s, frames in stretches:
        start = offset + round(start_s * sample_rate)
        while position < start:
            silence = np.zeros(min(start - position, sample_rate), np.float32)
            position += len(silence)
            yield silence
        for block in _resampled(frames, sample_rate):
            late = max(0, position - start)
            start += len(block)
            if late < len(block):
                yield block[late:]
                position = start


def _resampled(frames: Iterable[AudioFrame], sample_rate: int) -> Iterator[np.ndarray]:
    # Without the limit, channels that agree add up beyond 1 when they are mixed down.
    resampler = AudioResampler("flt", "mono", sample_rate, options={"rematrix_maxval": "1"})
    for frame in chain(frames, [None]):
        for resampled in resampler.resample(frame):
            if resampled is not None and resampled.samples:
                yield resampled.to_ndarray()[0]


def _checked(blocks: Iterable[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    empty = True
    for block in blocks:
        if not np.isfinite(block).all():
            raise InputError(f"{path}: the audio has NaN or infinite samples")
        empty = False
        yield np.clip(block, -1.0, 1.0)
    if empty:
        raise InputError(f"{path}: the audio has no samples")
