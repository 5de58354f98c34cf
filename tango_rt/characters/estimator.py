"""MediaPipe's two models in use, opened and silenced in one place: whole-body tracking and face detection."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from engine.skeleton import N_BODY, N_HAND

__all__ = ["MASK_COLUMNS", "MASK_ROWS", "FaceFinder", "PoseEstimator", "RawPose", "open_face_detector", "shrink"]

MASK_ROWS, MASK_COLUMNS = 48, 64

# Holistic's own networks see 224 to 256 px; 1280 found 0.5 % more hands on two clips, for 2 ms a frame more
_LONG_SIDE_PX = 640

# of the face mesh: outer corners of the eyes; upper and lower lip, inner corners of the mouth
_FACE_PAIRS = ((33, 263), (13, 14), (78, 308))

FaceFinder = Callable[[np.ndarray], list[tuple[float, float, float]]]


@dataclass(frozen=True)
class RawPose:
    """What was found in one frame; rows of NaN where nothing was.

    body is float32, shape (33, 4): x, y, z in pixels of the frame (z from the hips), visibility 0..1. left_hand and
    right_hand are float32, shape (21, 3): x, y, z in pixels (z from the hand's wrist). person_mask is uint64, shape
    (48,): one word a row of a 48 x 64 grid over the picture, bit 0 the leftmost column. mouth is float32, shape (2,):
    opening and width between the lips, in distances of the outer corners of the eyes.
    """

    body: np.ndarray
    left_hand: np.ndarray
    right_hand: np.ndarray
    person_mask: np.ndarray
    mouth: np.ndarray = field(default_factory=lambda: np.full(2, np.nan, np.float32))

    @property
    def body_found(self) -> bool:
        return not np.isnan(self.body[0, 0])

    @property
    def hands_found(self) -> tuple[bool, bool]:
        """Left, right."""
        return not np.isnan(self.left_hand[0, 0]), not np.isnan(self.right_hand[0, 0])


class PoseEstimator:
    """Tracks one person through frames given in order; slow to open, to be closed after use (`with`)."""

    def __init__(self) -> None:
        with _quiet():
            # matplotlib and more come with it: seconds, paid only where people are tracked
            from mediapipe.python.solutions.holistic import Holistic

            # no smoothing over time: it would smear a person from one shot into the next
            self._holistic = Holistic(
                model_complexity=1, smooth_landmarks=False, enable_segmentation=True, smooth_segmentation=False
            )

    def __enter__(self) -> "PoseEstimator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def process(self, frame: np.ndarray, size: tuple[int, int] | None = None) -> RawPose:
        """Finds the person in the next RGB frame, uint8, shape (height, width, 3).

        size (height, width) is that of the picture in whose pixels the result is wanted, if the frame is a copy of it.
        """
        height, width = size or frame.shape[:2]
        with _quiet():
            found = self._holistic.process(shrink(frame))
        scale = np.array([width, height, width], np.float32)
        return RawPose(
            _landmarks(found.pose_landmarks, N_BODY, scale, visibility=True),
            _landmarks(found.left_hand_landmarks, N_HAND, scale),
            _landmarks(found.right_hand_landmarks, N_HAND, scale),
            _mask_words(found.segmentation_mask),
            _mouth(found.face_landmarks, scale),
        )

    def restart(self) -> None:
        """Forgets the frames seen so far: the next one is treated as the first."""
        with _quiet():
            self._holistic.reset()

    def close(self) -> None:
        self._holistic.close()


def shrink(frame: np.ndarray) -> np.ndarray:
    """The picture with its long side at most _LONG_SIDE_PX."""
    scale = _LONG_SIDE_PX / max(frame.shape[:2])
    if scale >= 1:
        return frame
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


@contextmanager
def open_face_detector() -> Iterator[FaceFinder]:
    """Gives a function: RGB frame -> centre x, centre y, width of every face, as shares of the picture's sides."""

    def find_faces(frame: np.ndarray) -> list[tuple[float, float, float]]:
        found = detector.process(shrink(frame)).detections or []
        boxes = [detection.location_data.relative_bounding_box for detection in found]
        return [(box.xmin + box.width / 2, box.ymin + box.height / 2, box.width) for box in boxes]

    # quiet throughout, for the library also writes from threads of its own
    with _quiet():
        from mediapipe.python.solutions.face_detection import FaceDetection

        with FaceDetection(model_selection=1) as detector:
            yield find_faces


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the C++ libraries' chatter (TFLite, absl) off stderr, and protobuf's deprecation warnings unheard.

    What Python writes to stderr meanwhile, a progress bar say, is still seen.
    """
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        with open(os.dup(saved), "w", buffering=1) as stderr, warnings.catch_warnings(), redirect_stderr(stderr):
            warnings.simplefilter("ignore")
            os.dup2(sink, 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def _landmarks(found: Any, n_points: int, scale: np.ndarray, visibility: bool = False) -> np.ndarray:
    if found is None:
        return np.full((n_points, 4 if visibility else 3), np.nan, np.float32)
    points = np.array([(point.x, point.y, point.z) for point in found.landmark], np.float32) * scale
    if not visibility:
        return points
    seen = np.array([[point.visibility] for point in found.landmark], np.float32)
    return np.hstack([points, seen])


def _mouth(face: Any, scale: np.ndarray) -> np.ndarray:
    """Opening and width, float32 (2,); the eyes give the scale, so that the distance to the camera does not count."""
    if face is None:
        return np.full(2, np.nan, np.float32)
    points = np.array([(face.landmark[k].x, face.landmark[k].y) for pair in _FACE_PAIRS for k in pair]) * scale[:2]
    eyes, *lips = np.linalg.norm(points[0::2] - points[1::2], axis=1)
    return np.asarray(lips / max(eyes, 1.0), np.float32)


def _mask_words(mask: np.ndarray | None) -> np.ndarray:
    """Words of a person mask, float32 0..1, shape (height, width); a cell counts if the person fills half of it."""
    if mask is None:
        return np.zeros(MASK_ROWS, np.uint64)
    cells = cv2.resize(mask, (MASK_COLUMNS, MASK_ROWS), interpolation=cv2.INTER_AREA) > 0.5
    return np.packbits(cells, axis=1, bitorder="little").view("<u8")[:, 0].astype(np.uint64)
