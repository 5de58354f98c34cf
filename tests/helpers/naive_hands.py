"""The hand gap of one cut, frame by frame."""

import numpy as np

HANDS = (range(33, 54), range(54, 75))


def hand_gap(joints: np.ndarray, clip_start: np.ndarray, i: int, j: int, unit_px: float) -> float:
    """Of the cut i -> j: the larger of the two hands' mean distances, in units; takes stand still where they end."""
    frames_of = {}
    for first, end in zip(clip_start[:-1].tolist(), clip_start[1:].tolist(), strict=True):
        frames_of |= {node: (4 * first, 4 * end) for node in range(first, end)}
    gaps = []
    for hand in HANDS:
        total = 0.0
        for k in range(8):
            before = min(4 * i + k, frames_of[i][1] - 1)
            after = max(4 * (j - 1) + k, frames_of[j][0])
            here, there = (np.mean([joints[frame, joint, :2] for joint in hand], axis=0) for frame in (before, after))
            total += float(np.hypot(*(here - there)))
        gaps.append(total / 8 / unit_px)
    return max(gaps)
