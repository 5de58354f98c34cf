"""From packets to frames, timed by the clock of the file."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, Literal

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tango_rt.media.clock import RESTART_S, read_clock
from tango_rt.media.container import MAX_JUMP_S, Packets, open_media, stamp_s, video_stream

__all__ = ["PacketDecoder", "first_picture_s", "frame_rate", "timed_pictures"]

_PROBED = 16  # pictures: no codec stores one further from its display order


class PacketDecoder:
    """Decoded frames of one track, stamped by the clock of the file; broken packets are skipped and counted.

    decoder: used instead of the one that FFmpeg prefers.
    """

    def __init__(
        self,
        path: Path,
        container: InputContainer,
        kind: Literal["audio", "video"],
        decoder: VideoCodecContext | None = None,
    ) -> None:
        self.packets = Packets(path, container, (kind,))
        self.clock = read_clock(path)
        self.shown_in_order = False
        """A packet was stamped earlier than the one before it: the stamps are display times."""
        self.first_dts_s: Fraction | None = None
        self._shifts = self.clock.shifts.get(kind, ())
        self._n_shifts = 0
        self._n_skipped = 0
        self._decoder = decoder

    @property
    def skipped(self) -> int:
        return self._n_skipped + self.packets.skipped

    @property
    def piece(self) -> tuple[int, int]:
        """Identifies a recording: the file within the file, and the run of its clock."""
        return self.packets.n_files, self._n_shifts

    def __iter__(self) -> Iterator[Any]:
        for packet in self._shifted():
            try:
                frames = packet.decode() if self._decoder is None else self._decoder.decode(packet)
            except av.FFmpegError:
                self._n_skipped += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._n_skipped += 1
                else:
                    yield frame

    def _shifted(self) -> Iterator[Any]:
        shifts = iter(self._shifts)
        following = next(shifts, None)
        shift_s, n, before = 0.0, 0, None
        for packet in self.packets:
            if packet.size:
                if following is not None and n == following[0]:
                    shift_s, following = following[1], next(shifts, None)
                    self._n_shifts += 1
                n += 1
                _shift(packet, shift_s)
                self._look_at(packet, before)
                before = packet.pts
            yield packet

    def _look_at(self, packet: Any, before: int | None) -> None:
        if self.first_dts_s is None and packet.dts is not None:
            self.first_dts_s = packet.dts * packet.time_base
        if before is not None and packet.pts is not None and 0 < (before - packet.pts) * packet.time_base < 1:
            self.shown_in_order = True


def _shift(packet: Any, seconds: float) -> None:
    ticks = round(seconds / float(packet.time_base))
    if ticks:
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks


def timed_pictures(
    decoder: PacketDecoder, reordered: bool, period_s: Fraction
) -> Iterator[tuple[Fraction, VideoFrame]]:
    """Display time of each picture, in seconds on the clock of the file, and the picture; in order.

    reordered: the codec may store pictures in another order than they are shown. Containers that stamp in storage order
    (AVI, WMV, MXF) then give wrong display times, and the decoder's output times are used instead. A picture without a
    stamp follows one period after the one before, and so does one after a jump of a lone track's clock.
    """
    pictures = iter(decoder)
    first = list(islice(pictures, 1))
    if reordered and not decoder.shown_in_order:
        first += islice(pictures, _PROBED)
    times = _PictureTimes(decoder, reordered, period_s)
    if any(later < earlier for earlier, later in pairwise(p.pts for p in first if p.pts is not None)):
        counted = first[0].time_base == period_s  # AVI and MXF count pictures, from 0 as they count sound
        times.count_as_stored(first[0], decoder.first_dts_s if counted else _dts_s(first[0]))
    for picture in chain(first, pictures):
        yield times.of(picture), picture


def frame_rate(stream: VideoStream) -> Fraction:
    """Pictures a second, as stated by the container or guessed by FFmpeg."""
    return stream.guessed_rate or stream.average_rate or Fraction(25)


def first_picture_s(path: Path) -> Fraction | None:
    """Time of the first picture that decodes, on the clock of the file; None without video."""
    with open_media(path) as container:
        stream = video_stream(container)
        if stream is None:
            return None
        decoder = PacketDecoder(path, container, "video")
        first = next(timed_pictures(decoder, stream.codec_context.has_b_frames, 1 / frame_rate(stream)), None)
    return None if first is None else first[0]


class _PictureTimes:
    def __init__(self, decoder: PacketDecoder, reordered: bool, period_s: Fraction) -> None:
        self._decoder = decoder
        self._reordered = reordered
        self._period_s = period_s
        self._stored = False
        self._offset_s = Fraction(0)
        self._time_s: Fraction | None = None

    def count_as_stored(self, picture: VideoFrame, time_s: Fraction | None) -> None:
        """From this picture on, shown at time_s, use decoding times."""
        self._stored = True
        self._offset_s = (time_s or Fraction(0)) - (_dts_s(picture) or 0)

    def of(self, picture: VideoFrame) -> Fraction:
        following = Fraction(0) if self._time_s is None else self._time_s + self._period_s
        stamp = _dts_s(picture) if self._stored else stamp_s(picture)
        if stamp is None:
            self._time_s = following
            return following
        step = Fraction(0) if self._time_s is None else stamp + self._offset_s - self._time_s
        if step < 0 and self._reordered and not self._stored and not self._decoder.shown_in_order:
            self.count_as_stored(picture, following)
            self._time_s = following
        elif self._decoder.clock.lone and not -RESTART_S <= step <= MAX_JUMP_S:
            self._offset_s, self._time_s = following - stamp, following
        else:
            self._time_s = stamp + self._offset_s
        return self._time_s


def _dts_s(picture: VideoFrame) -> Fraction | None:
    return None if picture.dts is None or picture.time_base is None else picture.dts * picture.time_base
