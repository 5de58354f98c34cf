"""The motion of arms and hands according to the joints: a second opinion for dense flow, which loses a hand that moves
by more than its own width.

Each bone moves rigidly from its place in A to its place in B; a point follows the bones near it. The hand is one bone:
single fingers are tracked too noisily, and the flow that starts from here finds them.
"""

import numpy as np

from engine.blending.flow import Guide
from engine.blending.kernels.bones import skin
from engine.skeleton import (
    LEFT_ELBOW,
    LEFT_HAND,
    LEFT_SHOULDER,
    LEFT_WRIST,
    RIGHT_ELBOW,
    RIGHT_HAND,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
)

__all__ = ["arm_guide"]

_ARMS = (
    (LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST, LEFT_HAND.start),
    (RIGHT_SHOULDER, RIGHT_ELBOW, RIGHT_WRIST, RIGHT_HAND.start),
)
_MIDDLE_KNUCKLE = 9
_HAND_LENGTH = 1.6  # times the way from wrist to middle knuckle: the hand bone ends among the fingers
_HALF_WIDTH = {"upper arm": 0.13, "forearm": 0.11, "hand": 0.13}  # shoulder widths
_SURE = 0.5  # joint confidence
_MIN_MOVE = 0.04  # shoulder widths, a third of a hand's half width: dense flow needs no help below


def arm_guide(
    joints_a: np.ndarray,
    confidence_a: np.ndarray,
    joints_b: np.ndarray,
    confidence_b: np.ndarray,
    size: tuple[int, int],
) -> Guide | None:
    """Flow of arms and hands from pose A to pose B; None if no bone is certain in both, or all stand still.

    Joints are float32 (75, 2) in pixels of the raster, `size` its width and height; confidence is float32 (75,).
    """
    shoulder = max(
        float(np.linalg.norm(joints[LEFT_SHOULDER] - joints[RIGHT_SHOULDER])) for joints in (joints_a, joints_b)
    )
    sure = np.minimum(confidence_a, confidence_b) > _SURE
    bones, half_width = [], []
    for shoulder_joint, elbow, wrist, hand in _ARMS:
        knuckle = hand + _MIDDLE_KNUCKLE
        for name, start, end, length in (
            ("upper arm", shoulder_joint, elbow, 1.0),
            ("forearm", elbow, wrist, 1.0),
            ("hand", hand, knuckle, _HAND_LENGTH),
        ):
            if sure[start] and sure[end]:
                bones.append(_ends(joints_a, start, end, length) + _ends(joints_b, start, end, length))
                half_width.append(_HALF_WIDTH[name] * shoulder)
    if not bones or shoulder < 1:
        return None
    ends = np.asarray(bones, np.float32)
    if np.abs(ends[:, :2] - ends[:, 2:]).max() < _MIN_MOVE * shoulder:
        return None
    flow, belongs = skin(ends, np.asarray(half_width, np.float32), size[1], size[0])
    return Guide(flow, belongs, max(1.0, 0.5 * _HALF_WIDTH["hand"] * shoulder))


def _ends(joints: np.ndarray, start: int, end: int, length: float) -> list[np.ndarray]:
    return [joints[start], joints[start] + length * (joints[end] - joints[start])]
