"""Motion as an embedding sees it: a few numbers per frame for speed and height, with little about who or where.

On minutes of video these carry as much of the voice as all joints do, and a fit of a few numbers does not overfit.
"""

from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter1d

from engine.features.recording import Recording
from engine.skeleton import (
    LEFT_ELBOW,
    LEFT_HAND,
    LEFT_SHOULDER,
    LEFT_WRIST,
    NOSE,
    RIGHT_ELBOW,
    RIGHT_HAND,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
)
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["BODY_COLUMNS", "MOUTH_COLUMNS", "body_descriptors", "joint_speeds", "mirrored"]

_EYES = slice(1, 7)
_POINTS = ("nose", "eyes", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist")
_VERTICAL = ("nose", "eyes", "left_wrist", "right_wrist")
BODY_COLUMNS = (
    *(f"{name}.speed" for name in _POINTS),
    "left_fingers.speed",
    "right_fingers.speed",
    "root.speed",
    "left_wrist.rise_size",
    "right_wrist.rise_size",
    *(f"{name}.rise" for name in _VERTICAL),
    *(f"{name}.height" for name in _VERTICAL),
)
"""Speeds are square roots, in units of the usual wrist speed: a slow beat stays visible next to a sweep of the arm."""
MOUTH_COLUMNS = ("mouth.opening", "mouth.width", "mouth.opening_rate", "mouth.width_rate")

_SMOOTH_FRAMES = 1.0  # standard deviation; faster changes are tracker jitter
_LARGEST = 5.0  # in usual sizes; anything larger is a tracking error


def body_descriptors(recording: Recording, mouth: bool = False) -> np.ndarray:
    """float32 (F, len(BODY_COLUMNS)), plus MOUTH_COLUMNS with `mouth`; nothing crosses a clip boundary.

    Relative to the middle of the shoulders. Joints that were not found count as average. Every column is centred within
    its clip; mouth columns have standard deviation 1.
    """
    points, trust = _points(recording)
    root = (points[:, 2:3] + points[:, 3:4]) / 2
    relative = points - root
    fingers = [_fingers(recording, hand) for hand in (LEFT_HAND, RIGHT_HAND)]
    parts = []
    for clip in recording.clips:
        velocity = _velocity(relative[clip])
        parts.append(
            (
                np.linalg.norm(velocity, axis=-1),
                np.stack([np.linalg.norm(_velocity(hand[clip]), axis=-1).mean(axis=1) for hand, _ in fingers], axis=1),
                np.linalg.norm(_velocity(root[clip]), axis=-1),
                -velocity[:, [0, 1, 6, 7], 1],  # y points down
                -relative[clip][:, [0, 1, 6, 7], 1],
            )
        )
    speed, finger_speed, root_speed, rise, height = (np.concatenate(part) for part in zip(*parts, strict=True))
    usual = max(np.sqrt((speed[:, 6:8] ** 2 * trust[:, 6:8]).sum() / max(trust[:, 6:8].sum(), 1)), 1e-6)
    columns = np.hstack(
        [np.sqrt(np.hstack([speed, finger_speed, root_speed, np.abs(rise[:, 2:])]) / usual), rise / usual, height]
    )
    held = [trust, *(found[:, None] for _, found in fingers), np.ones((len(root), 1))]
    trust = np.hstack([*held, trust[:, 6:8], trust[:, [0, 1, 6, 7]], trust[:, [0, 1, 6, 7]]])
    if mouth:
        columns, trust = np.hstack([columns, _mouth(recording)]), np.hstack([trust, np.ones((len(root), 4))])
    return _centred(np.clip(columns, -_LARGEST, _LARGEST), trust, recording.clips).astype(np.float32)


def joint_speeds(joints: np.ndarray, clip_start: np.ndarray, unit_px: float) -> np.ndarray:
    """Speed in the picture, shoulder widths per second, float64 (F, J); never across a clip boundary."""
    speed = np.empty(joints.shape[:2])
    for first, last in pairwise(clip_start * FRAMES_PER_NODE):
        velocity = np.gradient(joints[first:last, :, :2].astype(np.float64), axis=0)
        speed[first:last] = np.hypot(velocity[..., 0], velocity[..., 1])
    return speed * (FPS / unit_px)


def mirrored(descriptors: np.ndarray) -> np.ndarray:
    """The descriptors of the same person in a mirror: left and right change places."""
    names = (*BODY_COLUMNS, *MOUTH_COLUMNS)[: descriptors.shape[1]]
    swap = {"left": "right", "right": "left"}
    other = [names.index("_".join(swap.get(part, part) for part in name.split("_", 1))) for name in names]
    return np.asarray(descriptors[:, other])


def _points(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Positions (F, 8, 2) in shoulder widths, and whether each can be trusted (F, 8)."""
    chosen = [NOSE, LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_ELBOW, RIGHT_ELBOW, LEFT_WRIST, RIGHT_WRIST]

    def gather(values: np.ndarray) -> np.ndarray:
        some = values[:, chosen].astype(np.float64)
        return np.insert(some, 1, values[:, _EYES].mean(axis=1), axis=1)

    return gather(recording.joints[..., :2]) / recording.unit_px, gather(recording.confidence) > 0.1


def _fingers(recording: Recording, hand: slice) -> tuple[np.ndarray, np.ndarray]:
    points = recording.joints[:, hand, :2].astype(np.float64) / recording.unit_px
    return points[:, 1:] - points[:, :1], recording.confidence[:, hand].mean(axis=1) > 0.1


def _mouth(recording: Recording) -> np.ndarray:
    shape = np.zeros((recording.n_frames, 2)) if recording.mouth is None else recording.mouth.astype(np.float64)
    rate = np.concatenate([_velocity(shape[clip]) for clip in recording.clips]) / FPS
    columns = np.hstack([shape, rate])
    return np.asarray((columns - columns.mean(axis=0)) / np.maximum(columns.std(axis=0), 1e-6))


def _velocity(values: np.ndarray) -> np.ndarray:
    smooth = gaussian_filter1d(values, _SMOOTH_FRAMES, axis=0, mode="nearest")
    return np.asarray(np.gradient(smooth, axis=0) * FPS)


def _centred(columns: np.ndarray, trust: np.ndarray, clips: list[slice]) -> np.ndarray:
    centred = np.zeros_like(columns)
    for clip in clips:
        weight = trust[clip].astype(np.float64)
        mean = (columns[clip] * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1)
        centred[clip] = (columns[clip] - mean) * weight
    return centred
