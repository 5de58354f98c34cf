"""Motion vectors: 15 numbers per joint and frame (TANGO, arXiv 2410.04221, section 3.2).

0..2 position, 3..5 velocity, 6..11 rotation (the first two rows of its matrix), 12..14 angular velocity.
Velocities are central differences per second, one-sided at the first and the last frame of a clip.
"""

from itertools import pairwise

import numpy as np

from engine.features.kernels.rotations import angular_velocities, swings
from engine.skeleton import LEFT_HAND, RIGHT_HAND
from engine.timebase import FPS

__all__ = ["MOTION_DIM", "axis_angle_to_matrix", "motion_vectors", "smplx_motion_vectors", "velocities"]

MOTION_DIM = 15

# The hand model's wrist coincides with the body model's: their difference is noise, not a bone.
_HAND_WRISTS = (LEFT_HAND.start, RIGHT_HAND.start)


def motion_vectors(
    joints: np.ndarray,
    parents: np.ndarray,
    unit_px: float,
    clip_start_frames: np.ndarray,
    coincident: tuple[int, ...] = _HAND_WRISTS,
) -> np.ndarray:
    """Motion of tracked joints, float32, shape (F, J, 15), in body units (shoulder widths, radians, seconds).

    The root is the middle of the joints without a parent (the shoulders). Position is relative to it. The rotation of
    a joint is the *swing* of the bone that ends in it: the smallest rotation that turns the direction of its parent's
    bone into its own, without twist about the bone, which points alone cannot show. A joint without a parent turns
    from the x axis, on the side where it is on average. The angular velocity is that of this rotation, as a vector
    along its axis.

    Args:
        joints: float32, shape (F, J, 3), pixels.
        parents: int64, shape (J,): the parent of each joint; -1 for those around the root.
        unit_px: length of one body unit.
        clip_start_frames: int64, shape (n_clips + 1,): first frame of every clip, then F; differences do not cross it.
        coincident: joints that are the same point as their parent; they use the parent's bone.
    """
    joints, clips = _checked(joints, parents, unit_px, clip_start_frames)
    roots = np.flatnonzero(parents < 0)
    relative = (joints - joints[:, roots].mean(axis=1, keepdims=True)) / np.float32(unit_px)
    bones = relative - np.where((parents < 0)[:, None], np.float32(0), relative[:, parents])
    bone_of = np.arange(len(parents))
    for joint in coincident:
        bone_of[joint] = parents[joint]
    reference_of = np.where(parents < 0, -1, bone_of[parents])
    sides = np.where(relative[..., 0].mean(axis=0) < 0, -1.0, 1.0).astype(np.float32)
    vectors = np.empty((*joints.shape[:2], MOTION_DIM), np.float32)
    vectors[..., 0:3] = relative
    for start, stop in pairwise(clips):
        vectors[start:stop, :, 3:6] = velocities(relative[start:stop])
        swings(bones[start:stop], bone_of, reference_of, sides, vectors[start:stop, :, 6:12])
        angular_velocities(vectors[start:stop, :, 6:12], float(FPS), vectors[start:stop, :, 12:15])
    return vectors


def smplx_motion_vectors(positions: np.ndarray, axis_angle: np.ndarray) -> np.ndarray:
    """Motion of one SMPL-X clip at 30 fps as in the research release, float32, shape (F, 55, 15).

    Angular velocities are differences of the axis-angle values, without unwrapping.

    Args:
        positions: float32, shape (F, 55, 3).
        axis_angle: float32, shape (F, 165) or (F, 55, 3).
    """
    rotations = np.asarray(axis_angle, np.float32).reshape(len(axis_angle), -1, 3)
    if positions.shape != rotations.shape:
        raise ValueError(f"positions {positions.shape} and rotations {rotations.shape} differ in shape")
    matrices = axis_angle_to_matrix(rotations)
    return np.concatenate(
        [
            np.asarray(positions, np.float32),
            velocities(positions),
            matrices[..., :2, :].reshape(*rotations.shape[:2], 6),
            velocities(rotations),
        ],
        axis=-1,
    )


def velocities(values: np.ndarray) -> np.ndarray:
    """Change per second along the first axis of a clip at 30 fps, float32; central differences, one-sided at ends."""
    values = np.asarray(values, np.float32)
    change = np.zeros_like(values)
    if len(values) > 1:
        change[0] = (values[1] - values[0]) * FPS
        change[-1] = (values[-1] - values[-2]) * FPS
        change[1:-1] = (values[2:] - values[:-2]) * (FPS / 2)
    return change


def axis_angle_to_matrix(axis_angle: np.ndarray) -> np.ndarray:
    """Rotation matrices (Rodrigues), float32, shape (..., 3, 3), of axis-angle vectors in radians, shape (..., 3)."""
    vector = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    # sin(a)/a and (1 - cos(a))/a^2, both without division by zero
    first = np.sinc(angle / np.pi)
    second = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return (np.eye(3) + first * cross + second * cross @ cross).astype(np.float32)


def _checked(
    joints: np.ndarray, parents: np.ndarray, unit_px: float, clip_start_frames: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    joints = np.ascontiguousarray(joints, np.float32)
    if joints.ndim != 3 or joints.shape[1:] != (len(parents), 3):
        raise ValueError(f"joints must have shape (F, {len(parents)}, 3), not {joints.shape}")
    if not np.any(parents < 0) or np.any(parents >= len(parents)):
        raise ValueError("parents must be joints, or -1 for at least one joint")
    if not (np.isfinite(unit_px) and unit_px > 0):
        raise ValueError(f"unit_px must be a positive length, not {unit_px}")
    if not np.isfinite(joints).all():
        raise ValueError("joints must be finite: fill the gaps first")
    clips = np.asarray(clip_start_frames, np.int64)
    if clips.ndim != 1 or len(clips) < 1 or clips[0] != 0 or clips[-1] != len(joints) or np.any(np.diff(clips) < 1):
        raise ValueError(f"clip_start_frames must ascend from 0 to {len(joints)}, got {clips.tolist()}")
    return joints, clips
