"""Where the bones say that arms and hands go: a second opinion for dense flow, which loses a hand that moves by its own width."""

import numpy as np

from engine.kernels.blend import skin
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

__all__ = ["arm_flow"]

_ARMS = (
    (LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST, LEFT_HAND.start, 0),
    (RIGHT_SHOULDER, RIGHT_ELBOW, RIGHT_WRIST, RIGHT_HAND.start, 1),
)
_MIDDLE_KNUCKLE = 9
_MIDDLE_TIP = 12
_UPPER_ARM, _FOREARM, _HAND = 0.13, 0.11, 0.13  # half widths in shoulder widths
_SURE = 0.5


def arm_flow(pose_a, pose_b, size, to_grid, shoulder):
    """pose = (joints (75,2), confidence, hands_found(2)) -> flow (h,w,2) grid px, influence (h,w), or None."""
    (ja, ca, ha), (jb, cb, hb) = pose_a, pose_b
    rows = []
    for s, e, w, hand, side in _ARMS:
        sure = min(ca[[e, w]].min(), cb[[e, w]].min())
        if min(ca[e], cb[e]) > _SURE:
            rows.append((ja[s], ja[e], jb[s], jb[e], _UPPER_ARM))
            if sure > _SURE:
                rows.append((ja[e], ja[w], jb[e], jb[w], _FOREARM))
        if ha[side] and hb[side]:
            k = hand + _MIDDLE_KNUCKLE
            rows.append((ja[hand], ja[k] * 1.6 - ja[hand] * 0.6, jb[hand], jb[k] * 1.6 - jb[hand] * 0.6, _HAND))
    if not rows:
        return None
    bones = np.array([[to_grid(p) for p in r[:4]] for r in rows], np.float32)
    width = np.array([r[4] for r in rows], np.float32) * np.float32(shoulder)
    return skin(bones, width, size[1], size[0])
