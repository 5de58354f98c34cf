"""Where a transition is drawn: the box of the person, and the reduced raster on which its flow is measured."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from engine.blending.blender import Take
from engine.blending.planes import Box, reduced_rgb, size_px, split, thumbnail

__all__ = ["MASK_SHAPE", "Grid", "work_grid"]

MASK_SHAPE = (48, 64)
_SURE = 0.3  # confidence of joints that the work box must contain
_MARGIN = 0.05  # of the box's longer side
_SOFT_PX = 16
_MIN_SIDE_PX = 16
# Mean difference outside the box, grey levels: five cuts of a clip with a pan gave 1.5 to 3.3, one across the pan 17.
_OTHER_BACKGROUND = 6.0
_THUMBNAIL = 96


@dataclass(frozen=True)
class Grid:
    """The work box in a picture and its reduced raster."""

    box: Box
    size: tuple[int, int]  # width, height in grid pixels
    picture: tuple[int, int]  # width, height in picture pixels

    @property
    def scale(self) -> np.ndarray:
        """Picture pixels per grid pixel, x and y."""
        x0, y0, x1, y1 = self.box
        return np.array([(x1 - x0) / self.size[0], (y1 - y0) / self.size[1]], np.float32)

    def reduce(self, frame: np.ndarray) -> np.ndarray:
        """The box of a frame (planes) on the raster, uint8 (h, w, 3) RGB."""
        return reduced_rgb(split(frame).part(self.box), self.size)

    def points(self, pixels: np.ndarray) -> np.ndarray:
        """Picture coordinates (..., 2) to those of the raster."""
        return (pixels + np.float32(0.5) - np.array(self.box[:2], np.float32)) / self.scale - np.float32(0.5)

    @cached_property
    def places(self) -> np.ndarray:
        """Where in the picture the points of the raster are: float32 (h, w, 2), x and y."""
        width, height = self.size
        points = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
        return (points + np.float32(0.5)) * self.scale + np.array(self.box[:2], np.float32) - np.float32(0.5)

    def read(self, offsets: np.ndarray) -> np.ndarray:
        """Where in the picture to read for offsets of the raster, float32 (h, w, 2) both; none outside the box."""
        return self.places + self._reach * offsets

    @cached_property
    def _reach(self) -> np.ndarray:
        return self.inside[..., None] * self.scale

    @cached_property
    def inside(self) -> np.ndarray:
        """1 in the box, falling to 0 over its last pixels but along the edges of the picture: float32 (h, w)."""
        x0, y0, x1, y1 = self.box
        sides = []
        for axis, (low, high, end) in enumerate(((x0, x1, self.picture[0]), (y0, y1, self.picture[1]))):
            depth = (np.arange(self.size[axis], dtype=np.float32) + np.float32(0.5)) * self.scale[axis]
            from_low = depth if low > 0 else np.full_like(depth, _SOFT_PX)
            from_high = depth[::-1] if high < end else np.full_like(depth, _SOFT_PX)
            sides.append(np.minimum(np.minimum(from_low, from_high) / np.float32(_SOFT_PX), 1))
        return np.minimum(sides[0], sides[1][:, None])


def work_grid(a: Take, b: Take, before: np.ndarray, after: np.ndarray, most_points: int) -> Grid:
    """The box of the person in both takes; the whole picture if nobody is found or the backgrounds of the frames
    `before` and `after` differ (camera move)."""
    picture = size_px(before)
    box = _person_box(a, b, *picture)
    if box is None or _background_differs(before, after, box):
        box = 0, 0, *picture
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(1.0, (most_points / (width * height)) ** 0.5)
    return Grid(box, (max(_MIN_SIDE_PX, round(width * scale)), max(_MIN_SIDE_PX, round(height * scale))), picture)


def _person_box(a: Take, b: Take, width: int, height: int) -> Box | None:
    points = [take.joints[take.confidence > _SURE] for take in (a, b)]
    points += [_surface_corners(take.surface, width, height) for take in (a, b) if take.surface is not None]
    found = np.concatenate(points)
    if not len(found):
        return None
    low, high = found.min(axis=0), found.max(axis=0)
    margin = _MARGIN * float((high - low).max()) + _SOFT_PX
    x0, y0 = (int(v) // 2 * 2 for v in np.maximum(low - margin, 0))
    x1, y1 = (-(int(v) // -2) * 2 for v in np.minimum(high + margin, [width, height]))
    return None if x1 - x0 < _MIN_SIDE_PX or y1 - y0 < _MIN_SIDE_PX else (x0, y0, x1, y1)


def _surface_corners(surface: np.ndarray, width: int, height: int) -> np.ndarray:
    """Corners of the smallest box around the mask and the hand boxes: float32 (2, 2), or (0, 2) if both are empty."""
    rows, columns = MASK_SHAPE
    words = np.bitwise_or.reduce(surface, axis=0)
    words = words[:rows] | words[rows:]
    cells = (words[:, None] >> np.arange(columns, dtype=np.uint64)) & np.uint64(1)
    y, x = np.nonzero(cells)
    if not len(x):
        return np.zeros((0, 2), np.float32)
    cell = np.array([width / columns, height / rows], np.float32)
    return np.array([[x.min(), y.min()], [x.max() + 1, y.max() + 1]], np.float32) * cell


def _background_differs(before: np.ndarray, after: np.ndarray, box: Box) -> bool:
    width, height = size_px(before)
    difference = cv2.absdiff(thumbnail(before, _THUMBNAIL), thumbnail(after, _THUMBNAIL)).max(axis=2)
    x0, y0, x1, y1 = box
    x_ratio, y_ratio = difference.shape[1] / width, difference.shape[0] / height
    outside = np.ones(difference.shape, bool)
    outside[int(y0 * y_ratio) : int(y1 * y_ratio) + 1, int(x0 * x_ratio) : int(x1 * x_ratio) + 1] = False
    return bool(outside.any()) and float(difference[outside].mean()) > _OTHER_BACKGROUND
