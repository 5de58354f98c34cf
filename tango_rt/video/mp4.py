"""Writes encoded pictures and speech to an mp4 that plays anywhere, without re-encoding a picture."""

import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

from engine.errors import InputError
from engine.folders import sibling_file
from engine.timebase import FPS, SAMPLE_RATE

__all__ = ["Mp4Writer"]

# The index goes to the front, so that a browser can start before it has the whole file. Edit lists, which
# hide the delay of the AAC encoder, count in movie ticks: at 48,000 both samples and frames are whole.
_MP4_OPTIONS = {
    "movflags": "+faststart",
    "movie_timescale": "48000",
    "video_track_timescale": f"{FPS * 1000}",
}

# The fast coder is more accurate than the default one at these rates (31 instead of 30 dB at 16 kHz, 43 instead
# of 33 dB at 48 kHz) and takes 0.1 to 0.2 s for a minute of speech instead of 0.5 s.
_AAC_OPTIONS = {"aac_coder": "fast"}
_AAC_BITS_PER_SAMPLE = 4
_AAC_MAX_BIT_RATE = 96_000


class Mp4Writer:
    """Writes H.264 packets at a constant 30 fps and mono sound as AAC; use it in a `with`.

    The file appears under its name, complete, when the `with` ends normally; after an error or an interrupt nothing
    is left. Push pictures and sound roughly in step: if one is ahead, up to 10 s of it wait in memory.
    """

    def __init__(
        self, path: Path, extradata: bytes, sample_rate: int = SAMPLE_RATE, n_frames: int | None = None
    ) -> None:
        """n_frames: pictures beyond this number are left out, which trims the last GOP.

        Raises InputError if the file cannot be written, here or while writing.
        """
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist")
        if os.path.isdir(path):  # False, where Path.is_dir may raise, for a name that is too long
            raise InputError(f"{path}: is a folder, wanted the name of an mp4 file")
        self.n_frames = 0
        self._path = path
        self._extradata = extradata
        self._limit = n_frames
        self._partial, self._container = self._open()
        self._video: Any = None
        self._audio: Any = None
        self._sample_rate = sample_rate
        self._n_samples = 0
        self._early: list[np.ndarray] = []

    def write_video(self, packets: Iterable[bytes]) -> None:
        """Append pictures: Annex B, one per packet, the very first an IDR picture, without B pictures."""
        for packet in packets:
            if self._limit is not None and self.n_frames >= self._limit:
                return
            if self._video is None:
                self._start(packet)
            picture = av.Packet(packet)
            picture.stream = self._video
            picture.pts = picture.dts = self.n_frames
            picture.duration, picture.time_base = 1, Fraction(1, FPS)
            picture.is_keyframe = _is_idr(packet)
            self._mux([picture])
            self.n_frames += 1

    def skip_to(self, frame: int) -> None:
        """Skip missing pictures up to this one: the last one stays on the screen until then."""
        self.n_frames = max(self.n_frames, frame)

    def write_audio(self, samples: np.ndarray) -> None:
        """Append sound: float32 (n,) mono in [-1, 1], at the rate given when opening."""
        if self._video is None:
            self._early.append(samples)  # the file can only begin once the first picture has given its format
        elif len(samples):
            block: Any = np.ascontiguousarray(samples, np.float32)[np.newaxis]
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate = self._sample_rate
            frame.pts, frame.time_base = self._n_samples, Fraction(1, self._sample_rate)
            self._n_samples += len(samples)
            self._mux(self._audio.encode(frame))

    def write(self, pictures: Iterable[bytes], sound: Iterable[np.ndarray]) -> None:
        """Append pictures and sound of one length in step, so that neither waits in memory; both may be endless."""
        blocks = iter(sound)
        for picture in pictures:
            self.write_video([picture])
            while self._n_samples * FPS < self.n_frames * self._sample_rate:
                block = next(blocks, None)
                if block is None:
                    break
                self.write_audio(block)
        for block in blocks:
            self.write_audio(block)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            with suppress(av.FFmpegError, OSError):
                self._container.close()
            self._partial.unlink(missing_ok=True)

    def _open(self) -> tuple[Path, Any]:
        """Open the temporary file, under a short name of its own: its path, and the container."""
        try:
            partial = sibling_file(self._path)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            return partial, av.open(f"file:{partial}", "w", format="mp4", container_options=_MP4_OPTIONS)
        except (av.FFmpegError, OSError) as error:
            partial.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _start(self, packet: bytes) -> None:
        # A stream parsed from bytes has size, profile and colours, which one made by name would lack. Its
        # parameter sets end at the next 3-byte start code: the first zero of a 4-byte one would stick to them.
        head = self._extradata + packet.removeprefix(b"\x00")
        with av.open(io.BytesIO(head), format="h264") as template:
            self._video = self._container.add_stream_from_template(template.streams.video[0], opaque=True)
        self._video.time_base = Fraction(1, FPS)
        self._audio = self._container.add_stream("aac", rate=self._sample_rate, layout="mono", options=_AAC_OPTIONS)
        self._audio.bit_rate = min(self._sample_rate * _AAC_BITS_PER_SAMPLE, _AAC_MAX_BIT_RATE)
        for samples in self._early:
            self.write_audio(samples)
        self._early.clear()

    def _mux(self, packets: Sequence[Any]) -> None:
        try:
            self._container.mux(packets)
        except (av.FFmpegError, OSError) as error:
            raise self._unwritable(error) from error

    def _finish(self) -> None:
        if self._video is None:
            raise InputError(f"{self._path}: there are no pictures to write")
        self._mux(self._audio.encode(None))
        try:
            self._container.close()
            os.replace(self._partial, self._path)
        except (av.FFmpegError, OSError) as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Any) -> InputError:
        return InputError(f"{self._path}: cannot be written ({error.strerror})")


def _is_idr(packet: bytes) -> bool:
    return packet[4] & 0x1F == 5
