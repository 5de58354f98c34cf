"""Finds the pose of one person, and all faces, in a picture; in pixels of the stored video."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from engine.skeleton import N_BODY, N_HAND
from tango_rt.characters.holistic.detection import FACE_FULL_RANGE, detect, whole_frame
from tango_rt.characters.holistic.holistic import Holistic
from tango_rt.characters.holistic.runner import open_network
from tango_rt.models.folder import ensure_models

__all__ = ["MASK_COLUMNS", "MASK_ROWS", "FaceFinder", "PoseEstimator", "RawPose", "face_detector", "shrink"]

MASK_ROWS, MASK_COLUMNS = 48, 64

# the networks see 192 to 256 px; 1280 found 0.5 % more hands on two clips, for 2 ms more per frame
_LONG_SIDE_PX = 640

# points of the face mesh: outer corners of the eyes; upper and lower lip, inner corners of the mouth
_FACE_PAIRS = ((33, 263), (13, 14), (78, 308))

FaceFinder = Callable[[np.ndarray], list[tuple[float, float, float]]]


@dataclass(frozen=True)
class RawPose:
    """What was found in one frame; rows of NaN for what was not."""

    body: np.ndarray  # float32 (33, 4): x, y, z in pixels of the frame (z from the hips), visibility 0..1
    left_hand: np.ndarray  # float32 (21, 3): x, y, z in pixels (z from the hand's wrist)
    right_hand: np.ndarray  # the same
    person_mask: np.ndarray  # uint64 (48,): a word per row of a 48 x 64 grid over the picture, bit 0 leftmost
    # float32 (2,): opening and width of the lips, in units of the distance between the outer corners of the eyes
    mouth: np.ndarray = field(default_factory=lambda: np.full(2, np.nan, np.float32))

    @property
    def body_found(self) -> bool:
        return not np.isnan(self.body[0, 0])

    @property
    def hands_found(self) -> tuple[bool, bool]:
        """Left, right."""
        return not np.isnan(self.left_hand[0, 0]), not np.isnan(self.right_hand[0, 0])


NOBODY = RawPose(
    body=np.full((N_BODY, 4), np.nan, np.float32),
    left_hand=np.full((N_HAND, 3), np.nan, np.float32),
    right_hand=np.full((N_HAND, 3), np.nan, np.float32),
    person_mask=np.zeros(MASK_ROWS, np.uint64),
)
"""A frame in which nobody was found."""


class PoseEstimator:
    """Tracks one person through frames given in order; slow to open."""

    def __init__(self, models: Path) -> None:
        """models: folder of the networks (tango_rt.models.folder.ensure_models)."""
        self._holistic = Holistic(models)

    def process(self, frame: np.ndarray, size: tuple[int, int] | None = None) -> RawPose:
        """Find the person in the next RGB frame, uint8, shape (height, width, 3).

        size: (height, width) of the original picture if the frame is a scaled copy; the result is in its pixels.
        """
        small = shrink(frame)
        height, width = size or frame.shape[:2]
        across, down = width / small.shape[1], height / small.shape[0]
        scale = np.array([across, down, across], np.float32)
        person = self._holistic.process(small)
        if person is None:
            return NOBODY
        body = np.asarray(person.body, np.float32)
        return RawPose(
            np.hstack([body[:, :3] * scale, body[:, 3:]]),
            _hand(person.left_hand, scale),
            _hand(person.right_hand, scale),
            _mask_words(person.mask),
            _mouth(person.face, scale),
        )

    def restart(self) -> None:
        """Forget the frames seen so far: the next one is treated as the first."""
        self._holistic.reset()


def shrink(frame: np.ndarray) -> np.ndarray:
    """The picture with its long side at most _LONG_SIDE_PX."""
    scale = _LONG_SIDE_PX / max(frame.shape[:2])
    if scale >= 1:
        return frame
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


def face_detector() -> FaceFinder:
    """Returns a function: RGB frame -> centre x, centre y, width of every face, as fractions of the picture's sides."""
    network = open_network(ensure_models() / "face_detection_full_range_sparse.tflite")

    def find_faces(frame: np.ndarray) -> list[tuple[float, float, float]]:
        small = shrink(frame)
        height, width = small.shape[:2]
        corners = detect(network, FACE_FULL_RANGE, small, whole_frame(small))[:, :2] / [width, height]
        centres, widths = corners.mean(axis=1), corners[:, 1, 0] - corners[:, 0, 0]
        return [(x, y, width) for (x, y), width in zip(centres.tolist(), widths.tolist(), strict=True)]

    return find_faces


def _hand(points: np.ndarray | None, scale: np.ndarray) -> np.ndarray:
    if points is None:
        return np.full((N_HAND, 3), np.nan, np.float32)
    return np.asarray(points, np.float32) * scale


def _mouth(face: np.ndarray | None, scale: np.ndarray) -> np.ndarray:
    """Opening and width, float32 (2,); scaled by the eyes, so that the distance to the camera does not matter."""
    if face is None:
        return np.full(2, np.nan, np.float32)
    points = face[[k for pair in _FACE_PAIRS for k in pair], :2] * scale[:2]
    eyes, *lips = np.linalg.norm(points[0::2] - points[1::2], axis=1)
    return np.asarray(lips / max(eyes, 1.0), np.float32)


def _mask_words(mask: np.ndarray) -> np.ndarray:
    """Words of a person mask, float32 0..1, shape (height, width); a cell counts if the person fills half of it."""
    cells = cv2.resize(mask, (MASK_COLUMNS, MASK_ROWS), interpolation=cv2.INTER_AREA) > 0.5
    return np.packbits(cells, axis=1, bitorder="little").view("<u8")[:, 0].astype(np.uint64)
