"""Which picture sizes a file has, and for how long: recordings of calls and streams change size midway.

Only key pictures are decoded: most codecs can change the size only there. VP9 can anywhere, so all its headers are
read; AV1 can, too, but changes between key pictures (made only by live encoders) are missed. A minute of 720p takes
0.1 to 0.2 s.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from tango_rt.media.container import Packets, open_media, video_stream
from tango_rt.video.view import Shape, picture_shape
from tango_rt.video.vp9 import Vp9Sizes

__all__ = ["ShapeDuration", "find_shapes"]

_PROBE_S = Fraction(1, 2)  # if all pictures are key pictures, one per interval is decoded
_MAX_STEP_S = 60  # between two pictures; beyond that the clock has jumped


@dataclass(frozen=True)
class ShapeDuration:
    """How long pictures of one shape are shown."""

    shape: Shape
    seconds: Fraction
    codec_aspect: Fraction | None  # pixel aspect, if the codec states it


def find_shapes(path: Path) -> tuple[ShapeDuration, ...]:
    """All shapes of the video track, in order of appearance; empty if no key picture can be decoded.

    Cached until the file changes. Raises InputError if it is not a media file.
    """
    stat = path.stat()
    return _shapes_shown(path.resolve(), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _shapes_shown(path: Path, _changed_ns: int, _n_bytes: int) -> tuple[ShapeDuration, ...]:
    seconds: dict[Shape, Fraction] = defaultdict(Fraction)
    aspects: dict[Shape, Fraction | None] = {}
    with closing(open_media(path)) as container:
        stream = video_stream(container)
        if stream is None:
            return ()
        for duration, shape in _durations(Packets(path, container, ("video",)), stream):
            seconds[shape] += duration
            aspects.setdefault(shape, stream.codec_context.sample_aspect_ratio)
    return tuple(ShapeDuration(shape, seconds[shape], aspects[shape] or None) for shape in seconds)


def _durations(packets: Packets, stream: VideoStream) -> Iterator[tuple[Fraction, Shape]]:
    """How long each packet's picture is shown, and its shape, from the first key picture on."""
    shape: Shape | None = None
    vp9 = Vp9Sizes() if stream.codec_context.name == "vp9" else None
    probed_s, after_key = -_PROBE_S, False
    period_s = 1 / (stream.guessed_rate or stream.average_rate or Fraction(25))
    for time_s, duration_s, packet in _timed_packets(packets, period_s):
        due = not after_key or time_s - probed_s >= _PROBE_S
        if packet.is_keyframe and (due or shape is None):
            shape, probed_s = _shape_of_key(packet.stream.codec_context, packet) or shape, time_s
        if vp9 is not None and shape is not None:
            width, height = vp9.size(bytes(packet)) or shape[:2]
            shape = shape._replace(width=width, height=height)
        if shape is not None:
            yield duration_s, shape
        after_key = packet.is_keyframe


def _timed_packets(packets: Packets, period: Fraction) -> Iterator[tuple[Fraction, Fraction, "Packet[Any]"]]:
    """Packets with their time and that to the next one; if the clock is missing or jumps, one frame is assumed."""
    time_s = Fraction(0)
    last: tuple[Fraction | None, Any] | None = None
    for packet in packets:
        stamp = packet.pts if packet.dts is None else packet.dts
        stamp_s = None if stamp is None or packet.time_base is None else stamp * packet.time_base
        if last is not None:
            step = None if stamp_s is None or last[0] is None else stamp_s - last[0]
            duration = period if step is None or not 0 <= step <= _MAX_STEP_S else step
            yield time_s, duration, last[1]
            time_s += duration
        last = stamp_s, packet


def _shape_of_key(codec: VideoCodecContext, packet: "Packet[Any]") -> Shape | None:
    """The shape of a key picture, decoded on its own."""
    try:
        pictures = [*codec.decode(packet), *codec.decode(None)]
    except av.FFmpegError:
        return None
    finally:
        codec.flush_buffers()
    return next((picture_shape(picture) for picture in pictures), None)
