"""Decoded pictures of any format, size and orientation -> upright RGB frames of one size."""

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

from tango_rt.video.view import Layout, Shape, View, picture_shape

__all__ = ["BACKGROUND", "Converter"]

BACKGROUND = 128
"""Grey level behind transparent pictures: both dark and light clothes stand out against it."""

_OPAQUE = 250  # a lossy codec returns an alpha of 255 a few levels lower

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
# Phones record HDR (HLG) by default; treated as SDR it looks pale. Highlights beyond SDR white are clipped.
_WIDE_TRANSFERS = {ColorTrc.BT2020_10, ColorTrc.BT2020_12, ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}


class Converter:
    """Converts pictures to the frames of a layout, uint8 (height, width, 3).

    transparent: whether any picture so far was not opaque. Alpha is taken as straight, as in nearly all files.
    """

    def __init__(self, layout: Layout) -> None:
        self.transparent = False
        self._layout = layout
        self._views: dict[Shape, View] = {}
        self._to_rgba, self._to_rgb, self._to_scale = _Reformatter("rgba"), _Reformatter("rgb24"), _Reformatter("rgb24")

    def __call__(self, picture: av.VideoFrame) -> np.ndarray:
        shape = picture_shape(picture)
        if shape not in self._views:
            self._views[shape] = self._layout.view(shape)
        view = self._views[shape]
        image = self._to_scale(self._prepared(picture, view), view.scaled)
        if shape.transpose:
            image = image.transpose(1, 0, 2)
        if shape.mirror_x:
            image = image[:, ::-1]
        if shape.mirror_y:
            image = image[::-1]
        return self._placed(image, view)

    def _prepared(self, picture: av.VideoFrame, view: View) -> av.VideoFrame:
        """The picture cropped and without transparency: both must be done before scaling mixes pixels."""
        x0, x1, y0, y1 = view.box
        size = picture.width, picture.height
        if _may_be_transparent(picture):
            image = self._to_rgba(picture, size)[y0:y1, x0:x1]
            alpha = int(image[..., 3].min())
            self.transparent |= alpha < _OPAQUE
            if alpha < 255:
                return av.VideoFrame.from_ndarray(_on_background(image))
        if (x1 - x0, y1 - y0) == size:
            return picture
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(self._to_rgb(picture, size)[y0:y1, x0:x1]))

    def _placed(self, image: np.ndarray, view: View) -> np.ndarray:
        """The upright image in the frame; an odd last row or column is dropped, black bars fill the rest."""
        x, y, width, height = view.place
        if (width, height) == (self._layout.width, self._layout.height):
            return np.ascontiguousarray(image[:height, :width])
        frame = np.zeros((self._layout.height, self._layout.width, 3), np.uint8)
        frame[y : y + height, x : x + width] = image[:height, :width]
        return frame


class _Reformatter:
    """One kind of conversion; FFmpeg has to set up each kind, so each has its own converter."""

    def __init__(self, pix_fmt: str) -> None:
        self._pix_fmt = pix_fmt
        self._reformatter = VideoReformatter()

    def __call__(self, picture: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
        """The picture in full-range BT.709 RGB, with the given width and height."""
        width, height = size
        shrinks = width * height < picture.width * picture.height
        wide = picture.color_primaries == ColorPrimaries.BT2020 and picture.color_trc in _WIDE_TRANSFERS
        interpolation = Interpolation.ACCURATE_RND | (Interpolation.AREA if shrinks else Interpolation.BICUBIC)
        if not wide:  # FFmpeg 8.1 turns skin magenta when this flag meets AREA and a change of primaries
            interpolation |= Interpolation.FULL_CHR_H_INT
        converted = self._reformatter.reformat(
            picture,
            width=width,
            height=height,
            format=self._pix_fmt,
            src_colorspace=_matrix(picture),
            dst_color_range=ColorRange.JPEG,
            dst_color_trc=ColorTrc.BT709 if wide else None,
            dst_color_primaries=ColorPrimaries.BT709 if wide else None,
            interpolation=interpolation,
            threads=1,
        )
        return np.asarray(converted.to_ndarray())


def _may_be_transparent(picture: av.VideoFrame) -> bool:
    pix_fmt = picture.format
    return pix_fmt.has_palette or any(component.is_alpha for component in pix_fmt.components)


def _on_background(image: np.ndarray) -> np.ndarray:
    """Straight RGBA, uint8 (H, W, 4), over the background: uint8 (H, W, 3)."""
    colour, alpha = image[..., :3].astype(np.uint16), image[..., 3:].astype(np.uint16)
    return np.asarray((colour * alpha + BACKGROUND * (255 - alpha) + 127) // 255, np.uint8)


def _matrix(picture: av.VideoFrame) -> Colorspace | None:
    """The YCbCr matrix; unmarked video is BT.709 from 720p up and BT.601 below, as in players."""
    if picture.format.is_rgb:
        return None
    high_definition = picture.width >= 1280 or picture.height > 576
    return _MATRICES.get(picture.colorspace, Colorspace.ITU709 if high_definition else Colorspace.ITU601)
