"""Slow, obvious twins of engine/features/motion.py, by SciPy's rotations."""

import numpy as np
from scipy.spatial.transform import Rotation


def swing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest rotation from the direction of a to that of b."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    if np.linalg.norm(axis) < 1e-12:
        return np.eye(3)
    angle = np.arctan2(np.linalg.norm(axis), a @ b)
    return Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()


def motion_of_clip(joints: np.ndarray, parents: list[int], unit: float, sides: list[int]) -> np.ndarray:
    """(F, J, 15) of one clip at 30 fps; sides: +1 or -1 for each joint, the x direction from which roots turn."""
    n_frames, n_joints = joints.shape[:2]
    roots = [joint for joint in range(n_joints) if parents[joint] < 0]
    out = np.zeros((n_frames, n_joints, 15))
    matrices = np.zeros((n_frames, n_joints, 3, 3))
    for frame in range(n_frames):
        root = sum(joints[frame, joint] for joint in roots) / len(roots)
        place = [(joints[frame, joint] - root) / unit for joint in range(n_joints)]

        def bone(joint: int, place: list[np.ndarray] = place) -> np.ndarray:
            return place[joint] if parents[joint] < 0 else place[joint] - place[parents[joint]]

        for joint in range(n_joints):
            start = np.array([sides[joint], 0, 0]) if parents[joint] < 0 else bone(parents[joint])
            matrices[frame, joint] = swing(start, bone(joint))
            out[frame, joint, :3] = place[joint]
            out[frame, joint, 6:12] = matrices[frame, joint, :2].ravel()
    for frame in range(n_frames):
        first, last = max(0, frame - 1), min(n_frames - 1, frame + 1)
        if first == last:
            continue
        seconds = (last - first) / 30
        out[frame, :, 3:6] = (out[last, :, :3] - out[first, :, :3]) / seconds
        for joint in range(n_joints):
            turn = matrices[last, joint] @ matrices[first, joint].T
            out[frame, joint, 12:15] = Rotation.from_matrix(turn).as_rotvec() / seconds
    return out
