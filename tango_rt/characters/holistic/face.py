"""The face: found by a detector around the body's head, or followed from the last frame."""

import numpy as np

from tango_rt.characters.holistic.detection import FACE, detect, sigmoid
from tango_rt.characters.holistic.regions import Region, TrackingLimits, angle_between, region_around
from tango_rt.characters.holistic.runner import Network

__all__ = ["FaceFinder"]

_SIZE = 192
_HEAD = slice(0, 11)  # of the body's landmarks
_HEAD_EYES = (5, 2)
_EYES = (33, 263)  # of the face mesh: outer corners
_LIMITS = TrackingLimits(turn_degrees=15, shift=0.1, scale=0.3, margin=-0.2)


class FaceFinder:
    """The 468 points of a body's face."""

    def __init__(self, detector: Network, landmarks: Network) -> None:
        self._detector = detector
        self._landmarks = landmarks

    def __call__(self, frame: np.ndarray, body: np.ndarray, before: np.ndarray | None) -> np.ndarray | None:
        """float64 (468, 3): x, y, z in pixels of the frame; None if no face is visible.

        body: its landmarks (33, 4); before: the result for the frame before.
        """
        region = self._region(frame, body[_HEAD])
        if region is None:
            return None
        if before is not None:
            tracked = _around(before, _EYES).squared(1.5)
            region = tracked if region.keeps(tracked, before, _LIMITS) else region
        raw, presence = self._landmarks(region.crop(frame, _SIZE))
        points = raw.reshape(468, 3).astype(np.float64)
        if not (sigmoid(presence.reshape(-1))[0] > 0.5 and np.isfinite(points).all()):
            return None
        return region.project(points, _SIZE)

    def _region(self, frame: np.ndarray, head: np.ndarray) -> Region | None:
        found = detect(self._detector, FACE, frame, _around(head, _HEAD_EYES).squared(3.0))
        return _around(found[0, 2:], (0, 1)).squared(2.0, -0.1) if len(found) else None


def _around(points: np.ndarray, eyes: tuple[int, int]) -> Region:
    """The box around points, rotated so that the eyes are level."""
    return region_around(points, angle_between(points[eyes[0]], points[eyes[1]], 0))
