"""Reads SMPL-X motion stored next to a video and computes joint positions with the user's own body-model file.

Two forms of `.npz` are read: that of the research release (`poses` (T, 165), `trans`) and that of SHOW-like fits
(`body_pose_axis`, `global_orient`, `transl`, hands as PCA components). Rotations can be used as they are; positions,
and hands in PCA form, need the licensed model file (SMPLX_NEUTRAL.npz), which is never part of this project. Nothing
is unpickled, and sizes are checked before reading.
"""

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from engine.errors import InputError
from engine.features.motion import axis_angle_to_matrix
from engine.files import open_plain
from engine.timebase import FPS

__all__ = ["N_SMPLX_JOINTS", "BodyModel", "SmplxMotion", "joint_positions", "read_body_model", "read_smplx"]

N_SMPLX_JOINTS = 55
_BODY = slice(3, 66)
_FACE = slice(66, 75)  # jaw, left eye, right eye
_LEFT_HAND, _RIGHT_HAND = slice(75, 120), slice(120, 165)
_MAX_FRAMES = 3 * 3600 * 120
_MAX_BYTES = 2**30
_MAX_BETAS = 400


@dataclass(frozen=True)
class SmplxMotion:
    """Motion at 30 fps."""

    poses: np.ndarray  # float32 (T, 165), axis-angle in radians
    trans: np.ndarray  # float32 (T, 3), metres
    betas: np.ndarray  # float32 (n,)
    has_hands: bool  # False, and zeros, if the hands need the body model and none was given


@dataclass(frozen=True)
class BodyModel:
    """The parts of an SMPL-X model that joint positions need."""

    rest_joints: np.ndarray  # float64 (55, 3), metres
    joint_shape: np.ndarray  # float64 (55, 3, n_betas): how betas move the joints
    parents: np.ndarray  # int64 (55,), -1 for the pelvis
    hand_components: tuple[np.ndarray, np.ndarray]  # left, right: float64 (n, 45)
    hand_means: tuple[np.ndarray, np.ndarray]  # left, right: float64 (45,)


def read_smplx(path: Path, model: BodyModel | None = None) -> SmplxMotion:
    """Read an SMPL-X `.npz` of either form and resample it to 30 fps.

    Raises:
        InputError: not such a file, wrong shapes, non-finite values, or an unreasonable size.
    """
    with _open(path) as arrays:
        has_hands = True
        if "poses" in arrays:
            poses = arrays.read("poses", (None, 3 * N_SMPLX_JOINTS))
            trans = arrays.read("trans", (len(poses), 3))
        elif "body_pose_axis" in arrays:
            poses, has_hands = _assemble(arrays, model)
            trans = arrays.read("transl", (len(poses), 3))
        else:
            raise InputError(f"{path} is not SMPL-X motion: it has neither 'poses' nor 'body_pose_axis'")
        n_frames = len(poses)
        if not 1 <= n_frames <= _MAX_FRAMES:
            raise InputError(f"{path} has {n_frames} frames, wanted 1 to {_MAX_FRAMES}")
        fps = float(arrays.read("mocap_frame_rate", ())) if "mocap_frame_rate" in arrays else float(FPS)
        betas = arrays.read("betas", None).reshape(-1)[:_MAX_BETAS] if "betas" in arrays else np.zeros(0)
    if not 1 <= fps <= 1000:
        raise InputError(f"{path} has a frame rate of {fps:g}, wanted 1 to 1000 frames a second")
    poses, trans = _at_30_fps(poses, trans, fps)
    return SmplxMotion(poses.astype(np.float32), trans.astype(np.float32), betas.astype(np.float32), has_hands)


def read_body_model(path: Path) -> BodyModel:
    """Read the joints, shapes and hand components of an SMPL-X model file (SMPLX_NEUTRAL.npz).

    Raises:
        InputError: not such a file, or its arrays do not fit together.
    """
    with _open(path) as arrays:
        template = arrays.read("v_template", (None, 3))
        regressor = arrays.read("J_regressor", (None, len(template)))[:N_SMPLX_JOINTS]
        directions = arrays.read("shapedirs", (len(template), 3, None))
        tree = arrays.read("kintree_table", (2, None))[:, :N_SMPLX_JOINTS]
        components = tuple(arrays.read(f"hands_components{side}", (None, 45)) for side in "lr")
        means = tuple(arrays.read(f"hands_mean{side}", (45,)) for side in "lr")
    # the pelvis' parent is written as -1 or as the largest uint32
    parents = np.concatenate([[-1], tree[0, 1:].astype(np.int64)])
    if len(parents) != N_SMPLX_JOINTS or len(regressor) != N_SMPLX_JOINTS:
        raise InputError(f"{path} has {len(regressor)} joints: an SMPL-X model has at least {N_SMPLX_JOINTS}")
    if np.any(parents[1:] < 0) or np.any(parents >= np.arange(N_SMPLX_JOINTS)):
        raise InputError(f"{path} has a joint whose parent comes later: 'kintree_table' is damaged")
    return BodyModel(
        regressor @ template,
        np.einsum("jv,vkb->jkb", regressor, directions, optimize=True),
        parents,
        (components[0], components[1]),
        (means[0], means[1]),
    )


def joint_positions(
    motion: SmplxMotion, model: BodyModel, *, zero_root: bool = True, zero_shape: bool = True
) -> np.ndarray:
    """Joint positions by forward kinematics, float32, shape (T, 55, 3), metres.

    zero_root ignores translation, root orientation, jaw and eyes, zero_shape the betas: together they give what the
    research release compares.
    """
    poses = motion.poses.copy()
    if zero_root:
        poses[:, :3] = 0
        poses[:, _FACE] = 0
    betas = motion.betas[: 0 if zero_shape else model.joint_shape.shape[2]].astype(np.float64)
    rest = model.rest_joints + model.joint_shape[..., : len(betas)] @ betas
    rotations = axis_angle_to_matrix(poses.reshape(len(poses), N_SMPLX_JOINTS, 3)).astype(np.float64)
    positions = np.empty((len(poses), N_SMPLX_JOINTS, 3))
    turned = np.empty_like(rotations)
    positions[:, 0], turned[:, 0] = rest[0], rotations[:, 0]
    for joint in range(1, N_SMPLX_JOINTS):
        parent = model.parents[joint]
        positions[:, joint] = positions[:, parent] + turned[:, parent] @ (rest[joint] - rest[parent])
        turned[:, joint] = turned[:, parent] @ rotations[:, joint]
    if not zero_root:
        positions += motion.trans[:, None]
    return positions.astype(np.float32)


def _assemble(arrays: "_Arrays", model: BodyModel | None) -> tuple[np.ndarray, bool]:
    body = arrays.read("body_pose_axis", (None, 63))
    n_frames = len(body)
    poses = np.zeros((n_frames, 3 * N_SMPLX_JOINTS))
    poses[:, :3] = arrays.read("global_orient", None).reshape(n_frames, 3)
    poses[:, _BODY] = body
    face = [arrays.read(name, (n_frames, 3)) for name in ("jaw_pose", "leye_pose", "reye_pose")]
    poses[:, _FACE] = np.concatenate(face, axis=1)
    has_hands = True
    for side, (name, part) in enumerate((("left_hand_pose", _LEFT_HAND), ("right_hand_pose", _RIGHT_HAND))):
        hand = arrays.read(name, (n_frames, None))
        if hand.shape[1] == 45:
            poses[:, part] = hand
        elif model is None:
            has_hands = False
        else:
            components = model.hand_components[side]
            if hand.shape[1] > len(components):
                raise InputError(f"{arrays.path}: '{name}' has {hand.shape[1]} components, the model {len(components)}")
            poses[:, part] = model.hand_means[side] + hand @ components[: hand.shape[1]]
    return poses, has_hands


def _at_30_fps(poses: np.ndarray, trans: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    if fps == FPS or len(poses) == 1:
        return poses, trans
    times_s = np.arange(len(poses)) / fps
    wanted_s = np.arange(int(times_s[-1] * FPS + 1e-9) + 1) / FPS
    wanted_s = np.minimum(wanted_s, times_s[-1])
    turned = [
        Slerp(times_s, Rotation.from_rotvec(rotation))(wanted_s).as_rotvec()
        for rotation in poses.reshape(len(poses), N_SMPLX_JOINTS, 3).transpose(1, 0, 2)
    ]
    moved = np.stack([np.interp(wanted_s, times_s, axis) for axis in trans.T], axis=1)
    return np.stack(turned, axis=1).reshape(len(wanted_s), -1), moved


class _Arrays:
    """Reads named arrays of an `.npz` one at a time; each is checked before it is used."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._names = set(archive.namelist())

    def __contains__(self, name: str) -> bool:
        return f"{name}.npy" in self._names

    def read(self, name: str, shape: tuple[int | None, ...] | None) -> np.ndarray:
        """The array as float64; None in shape means any length, None alone any shape."""
        if name not in self:
            raise InputError(f"{self.path} lacks the array '{name}'")
        have, dtype = self._header(name)
        if dtype.kind not in "fiu":
            raise InputError(f"{self.path}: '{name}' does not hold plain numbers")
        if math.prod(have) * dtype.itemsize > _MAX_BYTES:
            raise InputError(f"{self.path}: '{name}' of shape {have} is larger than {_MAX_BYTES:,} bytes")
        if shape is not None and not _fits(have, shape):
            wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
            raise InputError(f"{self.path}: '{name}' has shape {have}, not {wanted}")
        with self._archive.open(f"{name}.npy") as stream:
            values = np.lib.format.read_array(stream, allow_pickle=False).astype(np.float64)
        if not np.isfinite(values).all():
            raise InputError(f"{self.path}: '{name}' has values that are not finite")
        return values

    def _header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        # numpy allocates what the header claims before it reads, so the claim is checked first
        with self._archive.open(f"{name}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
        return shape, dtype


def _fits(have: tuple[int, ...], want: tuple[int | None, ...]) -> bool:
    return len(have) == len(want) and all(n in (None, m) for m, n in zip(have, want, strict=True))


@contextmanager
def _open(path: Path) -> Iterator[_Arrays]:
    """Open an `.npz`; any failure to read it becomes an InputError."""
    try:
        with os.fdopen(open_plain(path), "rb") as content, zipfile.ZipFile(content) as archive:
            yield _Arrays(path, archive)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise a dozen types for damaged files
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read as an .npz of plain arrays: {reason}") from error
