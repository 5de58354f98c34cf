"""One hand: located by the body's wrist and knuckles, refined by a network, or followed from the last frame."""

import math

import numpy as np

from tango_rt.characters.holistic.regions import Region, TrackingLimits, angle_between, region_from_axis
from tango_rt.characters.holistic.runner import Network

__all__ = ["LEFT", "RIGHT", "HandFinder"]

LEFT, RIGHT = (15, 17, 19), (16, 18, 20)
"""Of the body's landmarks: wrist, little finger, index finger."""

_RECROP_SIZE, _SIZE = 256, 224
_MIN_WRIST_VISIBILITY = 0.1
_LIMITS = TrackingLimits(turn_degrees=40, shift=0.2, scale=0.4, margin=-0.1)
_Z_SCALE = 0.4  # corrects the network's z, which is too large
# of a hand's 21 points: those that define its region, and among these the wrist and first joints of three fingers
_PALM = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
_WRIST, _INDEX, _MIDDLE, _RING = 0, 4, 6, 8


class HandFinder:
    """Landmarks of one hand of a body."""

    def __init__(self, recrop: Network, landmarks: Network) -> None:
        self._recrop = recrop
        self._landmarks = landmarks

    def __call__(
        self, frame: np.ndarray, body: np.ndarray, side: tuple[int, int, int], before: np.ndarray | None
    ) -> np.ndarray | None:
        """float64 (21, 3): x, y, z in pixels of the frame; None if no hand is visible.

        body: its landmarks (33, 4); side: LEFT or RIGHT; before: the result for the frame before.
        """
        region = self._region(frame, *body[list(side)])
        if region is None:
            return None
        if before is not None:
            tracked = _region_from_hand(before)
            region = tracked if region.keeps(tracked, before, _LIMITS) else region
        raw, presence, *_ = self._landmarks(region.crop(frame, _SIZE))
        points = raw.reshape(21, 3).astype(np.float64)
        if not (presence.reshape(-1)[0] > 0.5 and np.isfinite(points).all()):
            return None
        points[:, 2] /= _Z_SCALE
        return region.project(points, _SIZE)

    def _region(self, frame: np.ndarray, wrist: np.ndarray, little: np.ndarray, index: np.ndarray) -> Region | None:
        """The region that the body suggests for the hand, refined."""
        if wrist[3] < _MIN_WRIST_VISIBILITY:
            return None
        middle = (2 * index[:2] + little[:2]) / 3
        side = 2 * math.hypot(*(middle - wrist[:2]))
        if not side > 0:
            return None
        x, y = middle.tolist()
        rough = Region(x, y, side, side, angle_between(wrist, middle, 90)).squared(2.7, -0.1)
        (raw,) = self._recrop(rough.crop(frame, _RECROP_SIZE))
        axis = rough.project(np.hstack([raw.reshape(2, 2), np.zeros((2, 1))]), _RECROP_SIZE)
        return region_from_axis(axis[0], axis[1], -90).squared(1.0, -0.1)


def _region_from_hand(hand: np.ndarray) -> Region:
    """The region in the next frame from the points of the last one: the palm's box, rotated with it."""
    palm = hand[list(_PALM), :2]
    knuckles = ((palm[_INDEX] + palm[_RING]) / 2 + palm[_MIDDLE]) / 2
    turn = angle_between(palm[_WRIST], knuckles, 90)
    cos, sin = math.cos(turn), math.sin(turn)
    turned = np.array([[cos, -sin], [sin, cos]])
    middle = (palm.min(axis=0) + palm.max(axis=0)) / 2
    upright = (palm - middle) @ turned
    low, high = upright.min(axis=0), upright.max(axis=0)
    x, y = (turned @ ((low + high) / 2) + middle).tolist()
    width, height = (high - low).tolist()
    return Region(x, y, width, height, turn).squared(2.0, -0.1)
