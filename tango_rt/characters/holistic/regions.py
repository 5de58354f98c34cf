"""Rotated rectangles of a frame: cropped as input for a network, and its points projected back to the frame."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

__all__ = ["Region", "TrackingLimits", "angle_between", "region_around", "region_from_axis", "wrap_angle"]


@dataclass(frozen=True)
class Region:
    """A rectangle of the frame: centre and sides in pixels, rotated clockwise by `turn` radians."""

    x: float
    y: float
    width: float
    height: float
    turn: float = 0.0

    def squared(self, scale: float, shift_y: float = 0.0) -> "Region":
        """The region moved along its vertical by a share of its height; a square of `scale` times the longer side."""
        x = self.x - self.height * shift_y * math.sin(self.turn)
        y = self.y + self.height * shift_y * math.cos(self.turn)
        side = max(self.width, self.height) * scale
        return Region(x, y, side, side, self.turn)

    def to_frame(self, size: int) -> np.ndarray:
        """float64 (2, 3): maps a point of a crop of size x size pixels to the frame."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        across, down = self.width / size, self.height / size
        turned = np.array([[cos * across, -sin * down], [sin * across, cos * down]])
        corner = np.array([self.x, self.y]) - turned @ [size / 2, size / 2]
        return np.hstack([turned, corner[:, None]])

    def crop(self, frame: np.ndarray, size: int, lowest: float = 0.0, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
        """Network input from an RGB frame, uint8 (H, W, 3): float32 (1, size, size, 3), black is `lowest`, white 1."""
        picture = cv2.warpAffine(
            frame, self.to_frame(size), (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border
        )
        scaled: np.ndarray = picture * np.float32((1 - lowest) / 255) + np.float32(lowest)
        return scaled[None]

    def project(self, points: np.ndarray, size: int) -> np.ndarray:
        """Points (n, 3), x y z in pixels of a crop -> in pixels of the frame."""
        matrix = self.to_frame(size)
        return np.hstack([points[:, :2] @ matrix[:, :2].T + matrix[:, 2], points[:, 2:3] * (self.width / size)])

    def keeps(self, region: "Region", points: np.ndarray, limits: "TrackingLimits") -> bool:
        """Whether `region`, followed from the last frame's `points`, still agrees with this newly found one."""
        if abs(math.degrees(wrap_angle(region.turn - self.turn))) > limits.turn_degrees:
            return False
        cos, sin = math.cos(-self.turn), math.sin(-self.turn)
        upright = np.array([[cos, -sin], [sin, cos]])
        centre, sides = np.array([self.x, self.y]), np.array([self.width, self.height])
        moved = np.abs(upright @ (np.array([region.x, region.y]) - centre))
        grown = np.abs(np.array([region.width, region.height]) - sides)
        if (moved > sides * limits.shift).any() or (grown > sides * limits.scale).any():
            return False
        distance = np.abs((points[:, :2] - centre) @ upright.T)
        return bool((distance < sides * (1 + limits.margin) / 2).all())


@dataclass(frozen=True)
class TrackingLimits:
    """How far a followed region may be from a newly found one (MediaPipe's RoiTrackingCalculator)."""

    turn_degrees: float
    shift: float  # of the centre, as a share of the sides
    scale: float  # difference in size, as a share of the sides
    margin: float  # all points of the last frame lie in the new region, grown by this share


def wrap_angle(angle: float) -> float:
    """The same angle, in the range from -pi to pi."""
    return angle - 2 * math.pi * math.floor((angle + math.pi) / (2 * math.pi))


def angle_between(start: np.ndarray, end: np.ndarray, target_degrees: float) -> float:
    """The clockwise rotation after which the line from start to end points to target_degrees (90 is up)."""
    return wrap_angle(math.radians(target_degrees) - math.atan2(start[1] - end[1], end[0] - start[0]))


def region_around(points: np.ndarray, turn: float) -> Region:
    """The upright box around points (n, 2 or more), with the given rotation."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    (x, y), (width, height) = ((low + high) / 2).tolist(), (high - low).tolist()
    return Region(x, y, width, height, turn)


def region_from_axis(centre: np.ndarray, rim: np.ndarray, target_degrees: float) -> Region:
    """A square around a centre that reaches to the rim, which lies in the direction of target_degrees."""
    side = 2 * math.hypot(rim[0] - centre[0], rim[1] - centre[1])
    return Region(float(centre[0]), float(centre[1]), side, side, angle_between(centre, rim, target_degrees))
