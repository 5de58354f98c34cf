"""Frames as decoders give them: planes Y, U and V (I420) of one array, uint8 (H * 3 / 2, W), limited-range BT.709.

Height and width are even. A point of U and V is taken to lie in the middle of four of Y; H.264 means the middle of the
left two, which makes no visible difference.
"""

from typing import NamedTuple

import cv2
import numpy as np

__all__ = ["Box", "Planes", "reduced_rgb", "size_px", "split", "thumbnail"]

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in picture pixels, all even."""

# Y, U, V and 1 to R, G, B.
_RED, _GREEN, _BLUE = (1.5748, 0.0), (-0.4681, -0.1873), (0.0, 1.8556)  # V, U at full range
_LUMA_GAIN, _CHROMA_GAIN = 255 / 219, 255 / 224
_TO_RGB = np.array(
    [
        [_LUMA_GAIN, _CHROMA_GAIN * u, _CHROMA_GAIN * v, -16 * _LUMA_GAIN - 128 * _CHROMA_GAIN * (u + v)]
        for v, u in (_RED, _GREEN, _BLUE)
    ],
    np.float32,
)


class Planes(NamedTuple):
    """Views of the planes of one frame."""

    y: np.ndarray  # uint8 (H, W)
    u: np.ndarray  # uint8 (H / 2, W / 2)
    v: np.ndarray

    def part(self, box: Box) -> "Planes":
        """Views of a part of the frame."""
        x0, y0, x1, y1 = box
        half = (slice(y0 // 2, y1 // 2), slice(x0 // 2, x1 // 2))
        return Planes(self.y[y0:y1, x0:x1], self.u[half], self.v[half])


def size_px(frame: np.ndarray) -> tuple[int, int]:
    """Width and height of a frame."""
    return frame.shape[1], frame.shape[0] * 2 // 3


def split(frame: np.ndarray) -> Planes:
    """The planes of a contiguous frame: writing to them writes to the frame."""
    width, height = size_px(frame)
    flat, n = frame.reshape(-1), width * height
    u, v = flat[n : n * 5 // 4], flat[n * 5 // 4 :]
    half = height // 2, width // 2
    return Planes(flat[:n].reshape(height, width), u.reshape(half), v.reshape(half))


def reduced_rgb(planes: Planes, size: tuple[int, int]) -> np.ndarray:
    """A frame or a part of one, reduced to width and height of `size`: uint8 (h, w, 3) RGB."""
    y, half = planes.y, planes.u.shape[::-1]
    if size[0] <= half[0] and size[1] <= half[1]:
        y = cv2.resize(y, half, interpolation=cv2.INTER_AREA)  # means of 2 x 2 are fast, the rest is a quarter then
    y = cv2.resize(y, size, interpolation=cv2.INTER_AREA)
    # chroma is smooth and half as large already: means of areas would take as long as those of Y
    u, v = (cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in planes[1:])
    return cv2.transform(cv2.merge([y, u, v]), _TO_RGB)


def thumbnail(frame: np.ndarray, most_px: int) -> np.ndarray:
    """A small picture of the whole frame, uint8 (h, w, 3) RGB, from every fourth of its pixels each way."""
    width, height = size_px(frame)
    planes = split(frame)
    sparse = Planes(planes.y[::4, ::4], planes.u[::2, ::2], planes.v[::2, ::2])
    return reduced_rgb(Planes(*map(np.ascontiguousarray, sparse)), (min(width, most_px), min(height, most_px)))
