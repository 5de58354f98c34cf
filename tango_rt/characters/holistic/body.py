"""The body: 33 landmarks and the person mask from a region of the frame, and the region of the next frame."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from engine.timebase import FPS
from tango_rt.characters.holistic.detection import BODY, detect, sigmoid, whole_frame
from tango_rt.characters.holistic.regions import Region, region_from_axis
from tango_rt.characters.holistic.runner import Network

__all__ = ["Body", "BodyTracker"]

_SIZE = 256
_N_LANDMARKS = 33
_AXIS = slice(33, 35)  # two more points of the network: centre and rim of a circle around the body
_REGION_SCALE = 1.25

_HEAT_SIZE = 64
# The graph of the release says 7 but its binary behaves like 9: with 7 the landmarks are 3 to 5 times further from it.
_HEAT_REACH = np.arange(-4, 5)
_MIN_HEAT = 0.5


@dataclass(frozen=True)
class Body:
    """What the network found."""

    landmarks: np.ndarray  # float64 (33, 4): x, y, z in pixels of the frame, visibility 0..1
    mask: np.ndarray  # float32 (H, W), 0..1


class BodyTracker:
    """Follows one body; the next region comes from the frame before, or from a detector when there is none yet."""

    def __init__(self, detector: Network, landmarks: Network) -> None:
        self._detector = detector
        self._landmarks = landmarks
        self.reset()

    def reset(self) -> None:
        self._region: Region | None = None
        self._smooth_axis = _OneEuroFilter()

    def __call__(self, frame: np.ndarray) -> Body | None:
        region = self._region or self._find(frame)
        self._region = None
        if region is None:
            return None
        raw, presence, segments, heat, _ = self._landmarks(region.crop(frame, _SIZE))
        points = raw.reshape(-1, 5).astype(np.float64)
        if not (presence.reshape(-1)[0] > 0.5 and np.isfinite(points).all()):
            return None
        refine_by_heat(points, heat.reshape(_HEAT_SIZE, _HEAT_SIZE, -1))
        placed = region.project(points[:, :3], _SIZE)
        axis = self._smooth_axis(placed[_AXIS, :2])
        self._region = region_from_axis(axis[0], axis[1], 90).squared(_REGION_SCALE)
        landmarks = np.hstack([placed[:_N_LANDMARKS], sigmoid(points[:_N_LANDMARKS, 3:4])])
        return Body(landmarks, _mask(segments, region, frame))

    def _find(self, frame: np.ndarray) -> Region | None:
        found = detect(self._detector, BODY, frame, whole_frame(frame))
        return region_from_axis(found[0, 2], found[0, 3], 90).squared(_REGION_SCALE) if len(found) else None


def _mask(segments: np.ndarray, region: Region, frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    mask = sigmoid(segments.reshape(_SIZE, _SIZE).astype(np.float32))
    return np.asarray(cv2.warpAffine(mask, region.to_frame(_SIZE), (width, height), flags=cv2.INTER_LINEAR))


def refine_by_heat(points: np.ndarray, heat: np.ndarray) -> None:
    """Move landmarks, in place, to the centre of the heat around them if it is hot enough.

    points (n, 2 or more): x, y in pixels of the network's input; heat (64, 64, n), before the logistic function.
    """
    step = _SIZE / _HEAT_SIZE
    cells = (points[:, :2] / step).astype(int)
    columns, rows = cells[:, :1] + _HEAT_REACH, cells[:, 1:2] + _HEAT_REACH
    known = ((rows >= 0) & (rows < _HEAT_SIZE))[:, :, None] & ((columns >= 0) & (columns < _HEAT_SIZE))[:, None]
    last = _HEAT_SIZE - 1
    around = heat[rows.clip(0, last)[:, :, None], columns.clip(0, last)[:, None], np.arange(len(points))[:, None, None]]
    spots = sigmoid(around.astype(np.float64)) * known
    inside = ((cells >= 0) & (cells < _HEAT_SIZE)).all(axis=1)
    hot = inside & (spots.max(axis=(1, 2)) >= _MIN_HEAT)
    total = spots[hot].sum(axis=(1, 2))
    points[hot, 0] = step * (spots[hot].sum(axis=1) * columns[hot]).sum(axis=1) / total
    points[hot, 1] = step * (spots[hot].sum(axis=2) * rows[hot]).sum(axis=1) / total


class _OneEuroFilter:
    """Smooths the axis of the body, less when it moves faster; the release does so even with smoothing off."""

    _MIN_CUTOFF_HZ, _SPEED_CUTOFF_HZ, _BETA = 0.01, 1.0, 10.0

    def __init__(self) -> None:
        self._value: np.ndarray | None = None
        self._raw = self._speed = np.zeros((2, 2))

    def __call__(self, axis: np.ndarray) -> np.ndarray:
        """Smoothed axis, float64 (2, 2); speed is in sides of the body's square per second."""
        if self._value is None:
            self._value = self._raw = axis
            return axis
        size = 2 * math.hypot(*(axis[1] - axis[0]))
        speed = (axis - self._raw) * FPS / max(size, 1e-6)
        self._speed = self._speed + self._gain(self._SPEED_CUTOFF_HZ) * (speed - self._speed)
        self._raw = axis
        gain = self._gain(self._MIN_CUTOFF_HZ + self._BETA * np.abs(self._speed))
        self._value = self._value + gain * (axis - self._value)
        return self._value

    @staticmethod
    def _gain(cutoff_hz: float | np.ndarray) -> float | np.ndarray:
        return 1 / (1 + FPS / (2 * math.pi * cutoff_hz))
