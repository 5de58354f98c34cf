"""The two MediaPipe models in use, opened in one place: whole-body tracking and face detection, silenced."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

__all__ = ["LONG_SIDE_PX", "FaceFinder", "open_face_detector", "open_holistic", "quiet", "shrink"]

# Holistic's own networks see 224 to 256 px; 1280 found 0.5 % more hands on two clips, for 2 ms a frame more
LONG_SIDE_PX = 640

FaceFinder = Callable[[np.ndarray], list[tuple[float, float, float]]]


def shrink(frame: np.ndarray) -> np.ndarray:
    """The picture with its long side at most LONG_SIDE_PX."""
    scale = LONG_SIDE_PX / max(frame.shape[:2])
    if scale >= 1:
        return frame
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the C++ libraries' chatter (TFLite, absl) off stderr, and protobuf's deprecation warnings out of Python's."""
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def open_holistic() -> Any:
    """Whole-body tracker without smoothing over time, so that a frame never blurs into another shot."""
    # matplotlib and more come with it: seconds, paid only where people are tracked
    from mediapipe.python.solutions.holistic import Holistic

    return Holistic(
        model_complexity=1, smooth_landmarks=False, enable_segmentation=True, smooth_segmentation=False
    )


@contextmanager
def open_face_detector() -> Iterator[FaceFinder]:
    """Gives a function: RGB frame -> (centre x, centre y, width) of every face, as shares of the picture's width, height, width."""
    with quiet():
        from mediapipe.python.solutions.face_detection import FaceDetection

        detector = FaceDetection(model_selection=1)

    def find_faces(frame: np.ndarray) -> list[tuple[float, float, float]]:
        with quiet():
            found = detector.process(shrink(frame)).detections or []
        boxes = [detection.location_data.relative_bounding_box for detection in found]
        return [(box.xmin + box.width / 2, box.ymin + box.height / 2, box.width) for box in boxes]

    try:
        yield find_faces
    finally:
        detector.close()
