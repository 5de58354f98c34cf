"""Crops, orients and places pictures in frames: one frame size for all pictures of a file.

picture -> cropped as the container says -> scaled, square pixels -> upright -> frame, with bars if the aspect differs
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.stream import VideoStream

__all__ = ["NO_CROP", "Crop", "Layout", "Shape", "View", "container_crop", "picture_shape", "pixel_aspect"]

_SAME_ASPECT = 0.01  # relative; encoders round sides to multiples of 2, 8 or 16
_DUMPED_CROP = re.compile(r"^ {6}Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)$", re.MULTILINE)


class Shape(NamedTuple):
    """Size of a decoded picture in pixels, and how to make it upright: transpose first, then mirror."""

    width: int
    height: int
    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def __str__(self) -> str:
        sides = (self.height, self.width) if self.transpose else (self.width, self.height)
        return "{}x{}".format(*sides)


def picture_shape(picture: av.VideoFrame) -> Shape:
    """The shape of a picture, with the orientation (of eight) nearest to the display matrix.

    The matrix (a b u; c d v; x y w) shows the stored point (x, y) at (a x + c y, b x + d y).
    """
    side_data: Any = picture.side_data
    if "DISPLAYMATRIX" not in side_data:
        return Shape(picture.width, picture.height)
    a, b, _, c, d = np.frombuffer(side_data["DISPLAYMATRIX"], np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Shape(picture.width, picture.height, True, c < 0, b < 0)
    return Shape(picture.width, picture.height, False, a < 0, d < 0)


@dataclass(frozen=True)
class Crop:
    """Rows and columns to crop from pictures of the given size; from other sizes, the same fractions."""

    left: int
    right: int
    top: int
    bottom: int
    width: int
    height: int

    def box(self, shape: Shape) -> tuple[int, int, int, int]:
        """First and last + 1 column, first and last + 1 row of the visible part."""
        across, down = Fraction(shape.width, self.width), Fraction(shape.height, self.height)
        x0, y0 = round(self.left * across), round(self.top * down)
        return x0, shape.width - round(self.right * across), y0, shape.height - round(self.bottom * down)

    @property
    def squeeze(self) -> Fraction:
        """Aspect of the whole picture divided by that of the visible part."""
        across, down = self.width - self.left - self.right, self.height - self.top - self.bottom
        return Fraction(self.width * down, self.height * across)


NO_CROP = Crop(0, 0, 0, 0, 1, 1)


def container_crop(container: Any, stream: VideoStream) -> Crop:
    """The crop by Matroska's PixelCrop or the clean aperture (clap) of MP4; NO_CROP if there is none.

    FFmpeg reads both, but PyAV exposes them only in the description that FFmpeg writes to its log.
    """
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        description = container.dumps_format()
    finally:
        av.logging.set_level(level)
    of_stream = re.split(r"^  Stream #0:(\d+)", description, flags=re.MULTILINE)
    sections = dict(zip(of_stream[1::2], of_stream[2::2], strict=True))
    found = _DUMPED_CROP.search(sections.get(str(stream.index), ""))
    if found is None or not stream.width or not stream.height:
        return NO_CROP
    left, right, top, bottom = map(int, found.groups())
    if left + right >= stream.width or top + bottom >= stream.height:
        return NO_CROP  # it would leave nothing: damaged
    return Crop(left, right, top, bottom, stream.width, stream.height)


def pixel_aspect(container: Fraction | None, codec: Fraction | None, crop: Crop) -> Fraction:
    """Width / height of a pixel, from what the container and the codec state.

    Containers state the aspect of the displayed picture, which in Matroska is the cropped one; but mkvmerge states that
    of the whole picture, and FFmpeg reads MP4 the other way round. So with a crop all readings are tried: the one that
    the codec confirms is used, or else square pixels.
    """
    told = container or codec or Fraction(1)
    readings = told, told / crop.squeeze, told * crop.squeeze
    wanted = codec or Fraction(1)
    return next((reading for reading in readings if abs(reading / wanted - 1) < 0.005), told)


class View(NamedTuple):
    """How pictures of one shape become frames, all in pixels."""

    box: tuple[int, int, int, int]  # visible columns x0..x1 and rows y0..y1
    scaled: tuple[int, int]  # size of that part before it is turned upright
    place: tuple[int, int, int, int]  # upright picture in the frame: x, y, width, height; smaller if there are bars


class Layout:
    """One frame size for all pictures of a file: that of its main shape, at most max_height high, sides even.

    aspects: pixel aspect of each picture size known beforehand; other sizes have that of the main shape.
    """

    def __init__(self, main: Shape, aspects: Mapping[tuple[int, int], Fraction], crop: Crop, max_height: int) -> None:
        self._aspects = aspects
        self._main = main
        self._crop = crop
        width, height = (max(1, round(side)) for side in self._shown(main))
        if height > max_height:
            width, height = (2 * round(Fraction(side * max_height, height) / 2) for side in (width, height))
        self._scaled = max(2, width), max(2, height)
        self.width, self.height = (side // 2 * 2 for side in self._scaled)

    def _shown(self, shape: Shape) -> tuple[Fraction, Fraction]:
        """Width and height of the upright picture in square pixels."""
        x0, x1, y0, y1 = self._crop.box(shape)
        aspect = self._aspects.get((shape.width, shape.height), self._aspects[self._main.width, self._main.height])
        width, height = (x1 - x0) * aspect, Fraction(y1 - y0)
        return (height, width) if shape.transpose else (width, height)

    def fits(self, shape: Shape) -> bool:
        """Whether pictures of this shape fill the frame."""
        width, height = self._shown(shape)
        wanted_width, wanted_height = self._shown(self._main)
        return abs(width * wanted_height / (height * wanted_width) - 1) < _SAME_ASPECT

    def view(self, shape: Shape) -> View:
        box = self._crop.box(shape)
        if shape[:2] == self._main[:2] and self.fits(shape):
            width, height = self._scaled  # an odd last row or column is dropped, not squeezed
        elif self.fits(shape):
            width, height = self.width, self.height
        else:
            width, height = self._inside(self._shown(shape))
        scaled = (height, width) if shape.transpose else (width, height)
        width, height = min(width, self.width), min(height, self.height)
        return View(box, scaled, ((self.width - width) // 2, (self.height - height) // 2, width, height))

    def _inside(self, sides: Iterable[Fraction]) -> tuple[int, int]:
        """The largest size of this aspect in the frame, sides even."""
        width, height = sides
        scale = min(self.width / width, self.height / height)
        return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))
