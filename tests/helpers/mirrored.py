"""A recording as a mirror shows it."""

from dataclasses import replace

import numpy as np

from engine.features.recording import Recording
from engine.skeleton import LEFT_HAND, N_BODY, RIGHT_HAND

# MediaPipe's face: nose, left eye (3), right eye (3), ears, mouth; from the shoulders on left and right alternate
OTHER_SIDE = np.array(
    [0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9]
    + [joint + 1 if joint % 2 else joint - 1 for joint in range(11, N_BODY)]
    + [*range(RIGHT_HAND.start, RIGHT_HAND.stop), *range(LEFT_HAND.start, LEFT_HAND.stop)]
)


def in_a_mirror(recording: Recording) -> Recording:
    joints = recording.joints[:, OTHER_SIDE].copy()
    joints[..., 0] = 640 - joints[..., 0]
    return replace(recording, joints=joints, confidence=recording.confidence[:, OTHER_SIDE])
