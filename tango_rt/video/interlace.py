"""Deinterlaces with FFmpeg's bwdif: the two fields of a picture, taken at different times, become whole pictures.

50 fields a second give 50 pictures a second, from which 30 can be chosen evenly; from 25, every sixth would repeat.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import av
from av.filter import Graph

from engine.errors import InputError

__all__ = ["deinterlace"]

_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


def deinterlace(
    timed: Iterable[tuple[Fraction, av.VideoFrame]], period_s: Fraction
) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """Progressive pictures, in order, with their times in seconds; period_s: duration of a picture without one.

    Pictures that are not marked as interlaced come out unchanged, as the same objects until the first that is.
    Raises InputError for pixel formats that the filter does not support; none was seen in an interlaced video.
    """
    filter_: _Deinterlacer | None = None
    for time_s, picture in timed:
        kind = _Kind(picture.width, picture.height, picture.format.name, picture.colorspace, picture.color_range)
        if filter_ is not None and filter_.kind != kind:
            yield from filter_.finish()
            filter_ = None
        if filter_ is None and picture.interlaced_frame:
            filter_ = _Deinterlacer(kind, period_s)
        if filter_ is None:
            yield time_s, picture
        else:
            yield from filter_.push(time_s, picture)
    if filter_ is not None:
        yield from filter_.finish()


class _Kind(NamedTuple):
    """What all pictures of one filter graph have in common."""

    width: int
    height: int
    pix_fmt: str
    colorspace: int
    color_range: int


class _Moment(NamedTuple):
    time_s: Fraction
    duration_s: Fraction


class _Deinterlacer:
    """One filter graph. Inside it, picture n has time n, so that a missing or jumping clock cannot confuse it."""

    def __init__(self, kind: _Kind, period_s: Fraction) -> None:
        self.kind = kind
        self._period_s = period_s
        self._waiting: deque[_Moment] = deque()  # pictures in the filter, oldest first
        self._n_pushed = 0
        self._last: int | None = None
        self._graph = Graph()
        self._source = self._graph.add(
            "buffer",
            f"video_size={kind.width}x{kind.height}:pix_fmt={kind.pix_fmt}:time_base=1/1:range={kind.color_range}",
        )
        self._sink = self._graph.add("buffersink")
        bwdif = self._graph.add("bwdif", "mode=send_field:parity=auto:deint=interlaced")
        try:
            self._graph.link_nodes(self._source, bwdif, self._sink).configure()
        except av.FFmpegError as error:
            raise InputError(
                f"interlaced pictures of {kind.width}x{kind.height} px in {kind.pix_fmt} cannot be deinterlaced "
                f"({error.strerror}): convert the video first"
            ) from error

    def push(self, time_s: Fraction, picture: av.VideoFrame) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """Add a picture; yields what is ready then: the fields of the one before."""
        duration_s = picture.duration * picture.time_base if picture.time_base is not None else Fraction(0)
        self._waiting.append(_Moment(time_s, duration_s or self._period_s))
        picture.pts, picture.time_base = self._n_pushed, Fraction(1)
        picture.colorspace = _UNSPECIFIED  # with some matrices FFmpeg will not even repack pixels, such as nv12
        self._n_pushed += 1
        self._source.push(picture)
        yield from self._ready()

    def finish(self) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """Yield the rest."""
        self._source.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        while True:
            try:
                field = self._sink.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            assert isinstance(field, av.VideoFrame) and field.pts is not None
            number, is_second = divmod(field.pts, 2)  # the filter counts half periods
            if field.pts == self._last:
                is_second = 1  # of a single picture, whose period the filter cannot know
            self._last = field.pts
            while len(self._waiting) > self._n_pushed - number:
                self._waiting.popleft()
            moment = self._waiting[0]
            if not field.format.is_rgb:
                field.colorspace = self.kind.colorspace
            yield moment.time_s + is_second * moment.duration_s / 2, field
