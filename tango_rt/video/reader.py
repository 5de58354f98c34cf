"""Any video in, upright RGB frames at a constant 30 fps out, one at a time.

    packets -> pictures that decode -> times from the first one -> 30 fps -> upright RGB of the wanted size

Each step is a generator, so memory does not grow with the length of the video. Times come from the pictures
alone, and what the container says about its duration is not used.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)

from engine.errors import InputError
from engine.timebase import FPS
from tango_rt.decoding import PacketDecoder, frame_rate, timed_pictures
from tango_rt.media import MAX_HOURS, audio_stream, open_media, video_stream

__all__ = ["MAX_SIDE_PX", "VideoInfo", "VideoReader"]

MAX_SIDE_PX = 8192
MAX_FRAMES = MAX_HOURS * 3600 * FPS

# AVColorSpace -> matrix
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
# Phones record HDR (HLG) by default; taken for SDR it looks pale. Highlights beyond SDR white are clipped.
_WIDE_TRANSFERS = {ColorTrc.BT2020_10, ColorTrc.BT2020_12, ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before it is read; sizes are those of the frames that come out."""

    width: int
    height: int
    source_fps: float
    codec: str
    has_audio: bool
    n_frames: int | None
    """Frames at 30 fps as far as the stamps of the packets tell: an estimate, None where there are none."""


class VideoReader:
    """Frames of a video, uint8 (height, width, 3) RGB at 30 fps; iterate once, inside a with.

    Output frame n is the source frame nearest in time to n/30 s after the first; where the source has none,
    the one before stays (the same array comes again: do not write into frames). Frames are upright,
    have square pixels and even sides, are at most max_height pixels high, and are never enlarged.

    Raises InputError: no such file, no video, no video track, no frames, over 8192 px a side, over 4 hours.
    """

    def __init__(self, path: Path, max_height: int = 720) -> None:
        self._path = path
        self._container = open_media(path)
        try:
            self._open(max_height)
        except BaseException:
            self._container.close()
            raise

    def _open(self, max_height: int) -> None:
        stream = video_stream(self._container)
        if stream is None:
            raise InputError(f"{self._path}: has no video track")
        self._decoder = PacketDecoder(self._path, self._container, "video")
        picture_s = self._decoder.clock.picture_s
        n_frames = None if picture_s is None else round(picture_s * FPS)
        self._check_bounds(stream.width, stream.height, n_frames or 0)
        self._rate = frame_rate(stream)
        pictures = timed_pictures(self._decoder, stream.codec_context.has_b_frames, 1 / self._rate)
        first = next(pictures, None)
        if first is None:
            raise InputError(f"{self._path}: not one frame of the video can be decoded")
        self._start_s = first[0]
        self._pictures = chain([first], pictures)
        self._view = _view(first[1], stream.sample_aspect_ratio or Fraction(1), max_height)
        self._check_bounds(self._view.width, self._view.height, 0)
        self.info = VideoInfo(
            width=self._view.width,
            height=self._view.height,
            source_fps=float(self._rate),
            codec=stream.codec_context.name,
            has_audio=audio_stream(self._container) is not None,
            n_frames=n_frames,
        )

    def _check_bounds(self, width: int, height: int, n_frames: int) -> None:
        if max(width, height) > MAX_SIDE_PX:
            raise InputError(f"{self._path}: {width}x{height} px, wanted at most {MAX_SIDE_PX} a side")
        if n_frames > MAX_FRAMES:
            hours = n_frames / FPS / 3600
            raise InputError(f"{self._path}: {hours:.2f} hours long, wanted at most {MAX_HOURS}: cut it into pieces")

    @property
    def skipped(self) -> int:
        """Broken packets and pictures left out so far."""
        return self._decoder.skipped

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.every(1)

    def every(self, step: int) -> Iterator[np.ndarray]:
        """Frames 0, step, 2 step, ...; those between are decoded but not converted, the larger part of the work."""
        to_frame = _Converter(self._view)
        shown: av.VideoFrame | None = None
        for n, picture in enumerate(
            _at_30_fps((time_s - self._start_s, picture) for time_s, picture in self._pictures)
        ):
            self._check_bounds(0, 0, n + 1)
            if n % step:
                continue
            if picture is not shown:
                shown, frame = picture, to_frame(picture)
            yield frame

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _at_30_fps(timed: Iterable[tuple[Fraction, av.VideoFrame]]) -> Iterator[av.VideoFrame]:
    """One picture for each n/30 s: each belongs to the n nearest in time, and of several the nearest wins.

    A picture half way between two n belongs to the earlier, so that 60 fps leave no extra frame at the end.
    """
    kept: av.VideoFrame | None = None
    kept_n, kept_error = 0, Fraction(1)
    for time, picture in timed:
        n = math.ceil(time * FPS - Fraction(1, 2))
        error = abs(time * FPS - n)
        if n < kept_n or (n == kept_n and error >= kept_error):
            continue
        if kept is not None:
            yield from (kept for _ in range(kept_n, n))
        kept, kept_n, kept_error = picture, n, error
    if kept is not None:
        yield kept


@dataclass(frozen=True)
class _View:
    """How pictures become frames: scale, transpose, mirror, then drop an odd last row and column."""

    scaled_width: int
    scaled_height: int
    transpose: bool
    mirror_x: bool
    mirror_y: bool
    width: int
    height: int


def _view(picture: av.VideoFrame, pixel_aspect: Fraction, max_height: int) -> _View:
    transpose, mirror_x, mirror_y = _orientation(picture)
    sides = [max(1, round(picture.width * pixel_aspect)), picture.height]
    upright_height = sides[0] if transpose else sides[1]
    if upright_height > max_height:
        sides = [2 * round(Fraction(side * max_height, upright_height) / 2) for side in sides]
    sides = [max(2, side) for side in sides]
    width, height = (side // 2 * 2 for side in (reversed(sides) if transpose else sides))
    return _View(sides[0], sides[1], transpose, mirror_x, mirror_y, width, height)


def _orientation(picture: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Transpose, mirror x, mirror y: the nearest of the eight orientations to the display matrix.

    The matrix (a b u; c d v; x y w) shows the stored point (x, y) at (a x + c y, b x + d y).
    """
    side_data: Any = picture.side_data
    if "DISPLAYMATRIX" not in side_data:
        return False, False, False
    a, b, _, c, d = np.frombuffer(side_data["DISPLAYMATRIX"], np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


class _Converter:
    """Pictures of any format and size to upright RGB frames of one size."""

    def __init__(self, view: _View) -> None:
        self._view = view
        self._reformatter = VideoReformatter()

    def __call__(self, picture: av.VideoFrame) -> np.ndarray:
        view = self._view
        shrinks = view.scaled_width * view.scaled_height < picture.width * picture.height
        wide = picture.color_primaries == ColorPrimaries.BT2020 and picture.color_trc in _WIDE_TRANSFERS
        interpolation = Interpolation.ACCURATE_RND | (Interpolation.AREA if shrinks else Interpolation.BICUBIC)
        if not wide:  # FFmpeg 8.1 turns skin magenta when this flag meets AREA and a change of primaries
            interpolation |= Interpolation.FULL_CHR_H_INT
        image = self._reformatter.reformat(
            picture,
            width=view.scaled_width,
            height=view.scaled_height,
            format="rgb24",
            src_colorspace=_matrix(picture),
            dst_color_range=ColorRange.JPEG,
            dst_color_trc=ColorTrc.BT709 if wide else None,
            dst_color_primaries=ColorPrimaries.BT709 if wide else None,
            interpolation=interpolation,
            threads=1,
        ).to_ndarray()
        if view.transpose:
            image = image.transpose(1, 0, 2)
        if view.mirror_x:
            image = image[:, ::-1]
        if view.mirror_y:
            image = image[::-1]
        return np.ascontiguousarray(image[: view.height, : view.width])


def _matrix(picture: av.VideoFrame) -> Colorspace | None:
    """The YCbCr matrix; unmarked video is BT.709 from 720p on and BT.601 below, as players take it."""
    if picture.format.is_rgb:
        return None
    high_definition = picture.width >= 1280 or picture.height > 576
    return _MATRICES.get(picture.colorspace, Colorspace.ITU709 if high_definition else Colorspace.ITU601)
