"""One frame in, everything about one person out; frames of a shot must be passed in order."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tango_rt.characters.holistic.body import BodyTracker
from tango_rt.characters.holistic.face import FaceFinder
from tango_rt.characters.holistic.hands import LEFT, RIGHT, HandFinder
from tango_rt.characters.holistic.runner import Network, open_network

__all__ = ["Holistic", "Person"]


@dataclass(frozen=True)
class Person:
    """What was found in a frame, in its pixels; None for what was not. "left" is the person's left."""

    body: np.ndarray  # float64 (33, 4): x, y, z, visibility
    mask: np.ndarray  # float32 (H, W), 0..1
    left_hand: np.ndarray | None  # float64 (21, 3): x, y, z
    right_hand: np.ndarray | None  # the same
    face: np.ndarray | None  # float64 (468, 3): x, y, z


class Holistic:
    """Tracks one person; open it once, then call `process` for every frame in order."""

    def __init__(self, folder: Path) -> None:
        """folder: the checked networks (tango_rt.models). Raises BackendError if one cannot be opened."""

        def network(name: str) -> Network:
            return open_network(folder / f"{name}.tflite")

        self._body = BodyTracker(network("pose_detection"), network("pose_landmark_full"))
        self._hand = HandFinder(network("hand_recrop"), network("hand_landmark_full"))
        self._face = FaceFinder(network("face_detection_short_range"), network("face_landmark"))
        self._before: Person | None = None

    def process(self, frame: np.ndarray) -> Person | None:
        """The person in the next RGB frame, uint8 (H, W, 3); None if there is nobody."""
        before, self._before = self._before, None
        body = self._body(frame)
        if body is None:
            return None
        left, right, face = (before.left_hand, before.right_hand, before.face) if before else (None, None, None)
        self._before = Person(
            body.landmarks,
            body.mask,
            self._hand(frame, body.landmarks, LEFT, left),
            self._hand(frame, body.landmarks, RIGHT, right),
            self._face(frame, body.landmarks, face),
        )
        return self._before

    def reset(self) -> None:
        """Forget the frames seen so far: the next one is treated as the first."""
        self._body.reset()
        self._before = None
