"""Motion vectors: 15 numbers for every joint and frame (TANGO, arXiv 2410.04221, section 3.2).

0..2 position, 3..5 velocity, 6..11 rotation (the first two rows of its matrix), 12..14 angular velocity.
Velocities are central differences per second, one-sided at the first and the last frame of a clip.
"""

from itertools import pairwise

import numpy as np

from engine.jit import FASTMATH, njit
from engine.skeleton import LEFT_HAND, RIGHT_HAND
from engine.timebase import FPS

__all__ = ["MOTION_DIM", "axis_angle_to_matrix", "motion_vectors", "smplx_motion_vectors", "velocities"]

MOTION_DIM = 15

# The hand model's wrist lies on the body model's: between them is noise, not a bone.
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
    bone into its own, with no twist about the bone, which points alone cannot show. A joint without a parent turns
    from the x axis, on the side on which it lies on average. The angular velocity is that of this rotation, as a
    vector along its axis.

    Args:
        joints: float32, shape (F, J, 3), pixels.
        parents: int64, shape (J,): the joint on which each hangs; -1 for those around the root.
        unit_px: length of one body unit.
        clip_start_frames: int64, shape (n_clips + 1,): first frame of every clip, then F; no difference crosses it.
        coincident: joints that stand for the same point as their parent; instead of a bone they have the parent's.
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
        _swings(bones[start:stop], bone_of, reference_of, sides, vectors[start:stop, :, 6:12])
        _angular_velocities(vectors[start:stop, :, 6:12], float(FPS), vectors[start:stop, :, 12:15])
    return vectors


def smplx_motion_vectors(positions: np.ndarray, axis_angle: np.ndarray) -> np.ndarray:
    """Motion of one SMPL-X clip at 30 fps as the research release has it, float32, shape (F, 55, 15).

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
    """Change per second over the first axis of a clip at 30 fps, float32; central differences, one-sided at ends."""
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
    # sin(a)/a and (1 - cos(a))/a^2, both without a division by zero
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


@njit(fastmath=FASTMATH)
def _swings(
    bones: np.ndarray, bone_of: np.ndarray, reference_of: np.ndarray, sides: np.ndarray, rows: np.ndarray
) -> None:
    n_frames, n_joints = bones.shape[:2]
    a, b, v = np.empty(3), np.empty(3), np.empty(3)
    matrix = np.empty((3, 3))
    for frame in range(n_frames):
        for joint in range(n_joints):
            if reference_of[joint] < 0:
                a[0], a[1], a[2] = sides[joint], 0.0, 0.0
            else:
                _unit(bones[frame, reference_of[joint]], a)
            _unit(bones[frame, bone_of[joint]], b)
            v[0] = a[1] * b[2] - a[2] * b[1]
            v[1] = a[2] * b[0] - a[0] * b[2]
            v[2] = a[0] * b[1] - a[1] * b[0]
            cosine = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
            if cosine > -0.999999:
                # R = c I + [v]x + v v' / (1 + c)
                for i in range(3):
                    for j in range(3):
                        matrix[i, j] = v[i] * v[j] / (1.0 + cosine)
                    matrix[i, i] += cosine
                matrix[0, 1] -= v[2]
                matrix[0, 2] += v[1]
                matrix[1, 0] += v[2]
                matrix[1, 2] -= v[0]
            else:
                _half_turn(a, v, matrix)
            for j in range(3):
                rows[frame, joint, j] = matrix[0, j]
                rows[frame, joint, 3 + j] = matrix[1, j]


@njit(fastmath=FASTMATH)
def _unit(vector: np.ndarray, out: np.ndarray) -> None:
    """Direction of a vector; the x axis if it has no length."""
    length = np.sqrt(vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2])
    if length < 1e-6:
        out[0], out[1], out[2] = 1.0, 0.0, 0.0
        return
    for i in range(3):
        out[i] = vector[i] / length


@njit(fastmath=FASTMATH)
def _half_turn(a: np.ndarray, axis: np.ndarray, matrix: np.ndarray) -> None:
    """Rotation by pi about an axis perpendicular to a, chosen by a alone: R = 2 n n' - I."""
    least = 0
    for i in range(1, 3):
        if abs(a[i]) < abs(a[least]):
            least = i
    for i in range(3):
        axis[i] = -a[least] * a[i]
    axis[least] += 1.0
    squared = axis[0] * axis[0] + axis[1] * axis[1] + axis[2] * axis[2]
    for i in range(3):
        for j in range(3):
            matrix[i, j] = 2.0 * axis[i] * axis[j] / squared
        matrix[i, i] -= 1.0


@njit(fastmath=FASTMATH)
def _angular_velocities(rows: np.ndarray, fps: float, out: np.ndarray) -> None:
    n_frames, n_joints = rows.shape[:2]
    before, after, turn = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    for frame in range(n_frames):
        first, last = max(frame - 1, 0), min(frame + 1, n_frames - 1)
        for joint in range(n_joints):
            if first == last:
                out[frame, joint, :] = 0.0
                continue
            _matrix(rows[first, joint], before)
            _matrix(rows[last, joint], after)
            for i in range(3):
                for j in range(3):
                    turn[i, j] = after[i, 0] * before[j, 0] + after[i, 1] * before[j, 1] + after[i, 2] * before[j, 2]
            _rotation_vector(turn, fps / (last - first), out[frame, joint])


@njit(fastmath=FASTMATH)
def _matrix(rows: np.ndarray, out: np.ndarray) -> None:
    for j in range(3):
        out[0, j] = rows[j]
        out[1, j] = rows[3 + j]
    out[2, 0] = rows[1] * rows[5] - rows[2] * rows[4]
    out[2, 1] = rows[2] * rows[3] - rows[0] * rows[5]
    out[2, 2] = rows[0] * rows[4] - rows[1] * rows[3]


@njit(fastmath=FASTMATH)
def _rotation_vector(matrix: np.ndarray, scale: float, out: np.ndarray) -> None:
    """Axis times angle times scale, angle 0..pi."""
    x, y, z = matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]
    sine = 0.5 * np.sqrt(x * x + y * y + z * z)
    cosine = 0.5 * (matrix[0, 0] + matrix[1, 1] + matrix[2, 2] - 1.0)
    angle = np.arctan2(sine, cosine)
    # near a half turn the axis is lost in noise; only a tracking error brings joints there, so no turn is claimed
    factor = 0.5 * scale * (angle / sine if sine > 1e-6 else (1.0 if cosine > 0.0 else 0.0))
    out[0], out[1], out[2] = x * factor, y * factor, z * factor
