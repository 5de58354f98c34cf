"""Any audio in, mono float32 at one rate out, as a stream.

    packets -> frames that decode -> blocks without a hole -> resampled -> mixed down -> stretched -> placed in time

PyAV brings its own FFmpeg, so that nothing needs to be installed. Samples are placed by the clock of the file: a gap or
a broken packet is filled with silence, and nothing after it moves.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from engine.errors import InputError
from engine.timebase import SAMPLE_RATE
from tango_rt.media.container import MAX_HOURS, audio_stream, open_media
from tango_rt.media.decoding import PacketDecoder, first_picture_s
from tango_rt.media.pipes import make_rereadable
from tango_rt.sound.downmix import Downmix
from tango_rt.sound.steady import SoundBlock, Steady
from tango_rt.sound.stretching import Stretcher

__all__ = ["Warn", "audio_blocks", "check_audible", "discard_warning", "read_audio"]

SILENCE_PEAK = 1e-4
"""-80 dBFS: no speech is that quiet, but dithered digital silence is."""

_BLOCK_S = 0.5
_SAID_S = 0.05  # of stretching: less is not worth a warning

Warn = Callable[[str], None]
"""Called with one line about something that was guessed, repaired or left out; it does not name the file."""

_log = logging.getLogger(__name__)


def read_audio(path: Path, align_to_video: bool = False, warn: Warn | None = None) -> np.ndarray:
    """All audio of a file, float32 (n,) mono at 16 kHz in [-1, 1]; at most 4 hours. Otherwise like audio_blocks."""
    blocks: list[np.ndarray] = []
    n_samples = 0
    for block in audio_blocks(path, align_to_video=align_to_video, warn=warn):
        blocks.append(block)
        n_samples += len(block)
        if n_samples > MAX_HOURS * 3600 * SAMPLE_RATE:
            raise InputError(f"{path}: audio longer than {MAX_HOURS} hours: cut it into pieces")
    return np.concatenate(blocks)


def audio_blocks(
    path: Path, sample_rate: int = SAMPLE_RATE, align_to_video: bool = False, warn: Warn | None = None
) -> Iterator[np.ndarray]:
    """Stream the audio of a file: blocks of float32 (n,) mono in [-1, 1].

    path may be a pipe, or `-` for standard input. align_to_video puts the first sample at the time of the first
    picture, with silence if the sound starts later; without it, or without video, the first sample is the first of
    the sound. warn is called with one line for each thing that was guessed, repaired or left out (default: log it).

    Raises InputError: no such file, not media, no audio track, no samples, NaN or infinite samples.
    """
    with make_rereadable(path) as file:
        said = warn or (lambda text: _log.warning("%s: %s", path, text))
        for block in _read(file, sample_rate, align_to_video, said):
            yield np.clip(block, -1.0, 1.0)


def discard_warning(_text: str) -> None:
    """A `warn` for reading a file the second time."""


def check_audible(samples: np.ndarray, path: Path) -> None:
    """InputError if nothing in the samples is louder than -80 dBFS; it mentions another track of the file that is."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < SILENCE_PEAK:
        raise InputError(f"{path}: the audio is silent (peak {peak:.1e} of 1), wanted speech{_audible_track(path)}")


def _audible_track(path: Path) -> str:
    """Hint at the first other track that is louder; empty if there is none."""
    if not path.is_file():
        return ""
    with open_media(path) as container, suppress(av.FFmpegError):
        chosen = audio_stream(container)
        others = [track for track in container.streams.audio if track.codec_context and track != chosen]
        packets: Iterable[Any] = container.demux(*others) if others else ()
        for packet in packets:
            if _peak(packet) > SILENCE_PEAK:
                number = container.streams.audio.index(packet.stream) + 1
                return f"; audio track {number} of the file is not silent: make it the default, or extract it"
    return ""


def _peak(packet: Any) -> float:
    try:
        parts = [part for frame in packet.decode() for part in AudioResampler("flt").resample(frame)]
    except av.FFmpegError:
        return 0.0
    return max((float(np.abs(part.to_ndarray()).max(initial=0.0)) for part in parts), default=0.0)


def _read(path: Path, sample_rate: int, align_to_video: bool, warn: Warn) -> Iterator[np.ndarray]:
    origin_s = first_picture_s(path) if align_to_video else None
    with open_media(path) as container:
        if audio_stream(container) is None:
            raise InputError(f"{path}: has no audio track")
        decoder = PacketDecoder(path, container, "audio")
        steady = Steady(decoder, sample_rate)
        blocks = iter(steady)
        first = next(blocks, None)
        if first is None:
            raise InputError(f"{path}: none of the audio can be decoded")
        sound = _Sound(path, sample_rate, None if origin_s is None else float(origin_s))
        empty = True
        for block in sound.placed(chain([first], blocks)):
            empty = False
            yield block
        if empty:
            raise InputError(f"{path}: the audio has no samples")
        appended = decoder.packets.n_files > 1 and container.format.name != "ogg"
        for text in _remarks(decoder, steady, sound, appended):
            warn(text)


def _remarks(decoder: PacketDecoder, steady: Steady, sound: "_Sound", appended: bool) -> Iterator[str]:
    yield from decoder.clock.warnings
    if appended:
        yield "other files were appended to it: they are read as its continuation"
    if decoder.packets.cut_off:
        yield "another file was appended to it that cannot be read: it is ignored"
    if decoder.skipped:
        yield f"{decoder.skipped} packets of the sound are damaged: they are replaced by silence"
    if steady.closed_s:
        yield f"gaps of {steady.closed_s:.0f} s in total in the sound were closed"
    if steady.stretched_s > _SAID_S:
        yield f"time stamps and samples of the sound drift: {steady.stretched_s:.2f} s were corrected by stretching"
    if sound.cancelled:
        yield "channels of the sound cancel each other (opposite phases): where they do, only the loudest is used"


class _Sound:
    """Blocks of sound of any format to mono at one rate, placed in time."""

    def __init__(self, path: Path, rate_hz: int, origin_s: float | None) -> None:
        """origin_s: time of the first sample on the clock of the file; None: where the sound starts."""
        self.cancelled = False
        self._path = path
        self._rate_hz = rate_hz
        self._origin_s = origin_s
        self._position = 0

    def placed(self, blocks: Iterable[SoundBlock]) -> Iterator[np.ndarray]:
        late = 0  # samples that overlap earlier ones
        for start_s, samples in self._mono(blocks):
            if start_s is not None:
                self._origin_s = start_s if self._origin_s is None else self._origin_s
                start = round((start_s - self._origin_s) * self._rate_hz)
                yield from self._silence(start)
                late = self._position - start
            kept = samples[late:]
            late = max(0, late - len(samples))
            self._position += len(kept)
            if len(kept):
                yield kept

    def _silence(self, until: int) -> Iterator[np.ndarray]:
        while self._position < until:
            n_samples = min(until - self._position, self._rate_hz)
            self._position += n_samples
            yield np.zeros(n_samples, np.float32)

    def _mono(self, blocks: Iterable[SoundBlock]) -> Iterator[tuple[float | None, np.ndarray]]:
        """Time at which a stretch begins, in seconds, None within it; and samples, float32 (n,)."""
        stretch: _Stretch | None = None
        for block in blocks:
            if stretch is None or block.start_s is not None:
                if stretch is not None:
                    yield None, self._ended(stretch)
                stretch = _Stretch(self._path, block.frames[0], self._rate_hz)
                yield block.start_s, np.zeros(0, np.float32)
            for samples in stretch.push(block):
                yield None, samples
        if stretch is not None:
            yield None, self._ended(stretch)

    def _ended(self, stretch: "_Stretch") -> np.ndarray:
        self.cancelled |= stretch.downmix.cancelled
        return stretch.flush()


class _Stretch:
    """Sound of one format without a gap: resampled, mixed down, stretched."""

    def __init__(self, path: Path, frame: AudioFrame, rate_hz: int) -> None:
        self.downmix = Downmix(frame.layout, rate_hz)
        self._path = path
        self._rates = Fraction(rate_hz, frame.sample_rate)
        self._rate_hz = rate_hz
        self._resampler = AudioResampler("flt", frame.layout, rate_hz, round(rate_hz * _BLOCK_S))
        self._stretcher = Stretcher()
        self._n_in = self._n_kept = self._n_planned = 0

    def push(self, block: SoundBlock) -> Iterator[np.ndarray]:
        self._n_kept += block.n_samples
        n_out = round(self._n_kept * self._rates)
        self._stretcher.plan(n_out - self._n_planned, round(block.stretch_s * self._rate_hz))
        self._n_planned = n_out
        for frame in block.frames:
            self._n_in += frame.samples
            for resampled in self._resampler.resample(frame):
                yield self._stretcher.push(self.downmix.push(self._channels(resampled)))

    def flush(self) -> np.ndarray:
        rest = [self.downmix.push(self._channels(resampled)) for resampled in self._resampler.resample(None)]
        parts = [self._stretcher.push(mono) for mono in (*rest, self.downmix.flush())]
        return np.concatenate([*parts, self._stretcher.flush(cut=self._n_kept < self._n_in)])

    def _channels(self, frame: AudioFrame) -> np.ndarray:
        """float32 (n, channels)"""
        sound = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
        if not np.isfinite(sound).all():
            raise InputError(f"{self._path}: the audio has NaN or infinite samples")
        return sound.astype(np.float32, copy=False)
