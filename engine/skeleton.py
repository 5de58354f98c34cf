"""The 75 joints: 33 body landmarks, 21 of the left hand, 21 of the right hand, in MediaPipe's order."""

import numpy as np

__all__ = [
    "BODY",
    "LEFT_ELBOW",
    "LEFT_HAND",
    "LEFT_HIP",
    "LEFT_SHOULDER",
    "LEFT_WRIST",
    "NOSE",
    "N_JOINTS",
    "PARENTS",
    "RIGHT_ELBOW",
    "RIGHT_HAND",
    "RIGHT_HIP",
    "RIGHT_SHOULDER",
    "RIGHT_WRIST",
    "joint_weights",
]

N_BODY = 33
N_HAND = 21
N_JOINTS = N_BODY + 2 * N_HAND
BODY = slice(0, N_BODY)
LEFT_HAND = slice(N_BODY, N_BODY + N_HAND)
RIGHT_HAND = slice(N_BODY + N_HAND, N_JOINTS)

NOSE = 0
LEFT_SHOULDER, RIGHT_SHOULDER = 11, 12
LEFT_ELBOW, RIGHT_ELBOW = 13, 14
LEFT_WRIST, RIGHT_WRIST = 15, 16
LEFT_HIP, RIGHT_HIP = 23, 24

# Parent of every joint; -1 marks the two shoulders, whose midpoint is the root.
_BODY_PARENTS = [
    *(12, 0, 1, 2, 0, 4, 5, 3, 6, 0, 0),  # face: the nose is attached to a shoulder, everything else to the nose
    *(-1, -1, 11, 12, 13, 14),  # shoulders, elbows, wrists
    *(15, 16, 15, 16, 15, 16),  # coarse finger points of the body model
    *(11, 12, 23, 24, 25, 26, 27, 28, 29, 30),  # hips, knees, ankles, heels, toes
]
_FINGER_PARENTS = [0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19]


def _hand_parents(start: int, wrist: int) -> list[int]:
    return [wrist, *(start + parent for parent in _FINGER_PARENTS[1:])]


PARENTS = np.array(
    _BODY_PARENTS + _hand_parents(LEFT_HAND.start, LEFT_WRIST) + _hand_parents(RIGHT_HAND.start, RIGHT_WRIST),
    dtype=np.int64,
)


def joint_weights() -> np.ndarray:
    """Weight of every joint in the pose distance, float32 (75,), sum 1.

    Each hand counts as three arm joints: its 21 points move together, but viewers watch it. The face counts as two
    joints, the legs as one, the coarse finger points of the body model not at all (the hand model is more accurate).
    """
    weights = np.zeros(N_JOINTS)
    weights[0:11] = 2 / 11
    weights[LEFT_SHOULDER : RIGHT_WRIST + 1] = 1.0
    weights[LEFT_HIP : RIGHT_HIP + 1] = 0.5
    weights[25:33] = 1 / 8
    weights[LEFT_HAND] = 3 / N_HAND
    weights[RIGHT_HAND] = 3 / N_HAND
    return (weights / weights.sum()).astype(np.float32)
