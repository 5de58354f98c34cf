"""The last step of a morph: the pixels of both pictures, read where the correspondence says, and mixed.

Y is drawn at full size, U and V at half of it. OpenCV reads the pixels, at the nearest 1/32 of one: still pixels are
copied, sharper than any interpolation.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

import cv2
import numpy as np

from engine.blending.kernels.pictures import mix
from engine.blending.planes import Box, split

__all__ = ["render"]

_NO_SECOND_MAP: Any = None  # OpenCV accepts it for a map of two channels, which its type stubs do not know


def render(
    a: np.ndarray, b: np.ndarray, maps: tuple[np.ndarray, np.ndarray], weight: np.ndarray, box: Box, out: np.ndarray
) -> None:
    """Write the morph of frames a and b into the box of `out`, all uint8 (H * 3 / 2, W) and contiguous.

    `maps` are float32 (h, w, 2) on a raster over the box: where to read a, and where b, in picture pixels. `weight` is
    float32 (h, w): the share of b, 0..1.
    """
    (y_a, *uv_a), (y_b, *uv_b), (y, *uv) = split(a), split(b), split(out).part(box)
    _draw([y_a], [y_b], maps, weight, [y], cv2.INTER_CUBIC)
    halved = [(places - np.float32(0.5)) / np.float32(2) for places in maps]
    _draw(uv_a, uv_b, halved, weight, uv, cv2.INTER_LINEAR)


def _draw(
    a: Sequence[np.ndarray],
    b: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    weight: np.ndarray,
    out: Sequence[np.ndarray],
    interpolation: int,
) -> None:
    """Planes of one size; `maps` in their pixels."""
    height, width = out[0].shape
    places = [_enlarged(each, (width, height)) for each in maps]
    weights = cv2.resize(weight, (width, height), interpolation=cv2.INTER_LINEAR)
    for sides, target in zip(zip(a, b, strict=True), out, strict=True):
        read = [
            cv2.remap(plane, where, _NO_SECOND_MAP, interpolation, borderMode=cv2.BORDER_REPLICATE)
            for plane, where in zip(sides, places, strict=True)
        ]
        mix(*read, weights)
        target[:] = read[0]


def _enlarged(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map for every pixel. OpenCV repeats the outermost points of the raster; coordinates have to go on there."""
    full = cv2.resize(places, size, interpolation=cv2.INTER_LINEAR)
    for axis, rows in enumerate((full, full.swapaxes(0, 1))):
        step = size[axis] / places.shape[1 - axis]
        n, half = ceil(step / 2), (step - 1) / 2
        beyond = np.minimum(np.arange(n, dtype=np.float32) - np.float32(half), 0)
        rows[:, :n, axis] += beyond
        rows[:, -n:, axis] -= beyond[::-1]
    return full
