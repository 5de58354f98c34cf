"""Rotations of bones from their directions, and how fast they turn."""

import numpy as np

from engine.jit import FASTMATH, njit

__all__ = ["angular_velocities", "swings"]


@njit(fastmath=FASTMATH)
def swings(
    bones: np.ndarray, bone_of: np.ndarray, reference_of: np.ndarray, sides: np.ndarray, rows: np.ndarray
) -> None:
    """Into rows (F, J, 6): the smallest rotation that turns bone reference_of[j] (the x axis on its side, if there is
    none) into bone bone_of[j]."""
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
    """Rotation by pi about an axis perpendicular to a, which depends only on a: R = 2 n n' - I."""
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
def angular_velocities(rows: np.ndarray, fps: float, out: np.ndarray) -> None:
    """Into out (F, J, 3), per second: central differences of the rotations of `swings`, one-sided at the ends."""
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
    # near a half turn the axis is lost in noise; only tracking errors turn joints so far, so the result is zero
    factor = 0.5 * scale * (angle / sine if sine > 1e-6 else (1.0 if cosine > 0.0 else 0.0))
    out[0], out[1], out[2] = x * factor, y * factor, z * factor
