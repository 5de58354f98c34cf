"""Converts other body formats to our 75 joints: SMPL-X rotations, and text files of upper-body joints.

The SMPL-X body model is licensed and not included, so rotations move a generic skeleton: heights, widths and lengths as
fractions of stature by Drillis and Contini (1966), as drawn in Winter, Biomechanics and Motor Control of Human
Movement, figure 4.1; hand segments by Buryanov and Kotiuk, Proportions of Hand Segments, Int. J. Morphol. 28 (2010).
Both lack points on the face and the spacing of the knuckles: these positions are approximate, fixed to head and hand.
"""

import zipfile
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, Slerp

from engine.errors import InputError
from engine.features.motion import axis_angle_to_matrix
from engine.skeleton import LEFT_HAND, LEFT_HIP, LEFT_SHOULDER, N_JOINTS, NOSE, RIGHT_HAND, RIGHT_HIP, RIGHT_SHOULDER
from engine.timebase import FPS

__all__ = ["read_joint_text", "read_smplx_joints"]

STATURE_M = 1.75  # unit of translations
_SHOULDER, _HIP = 0.129, 0.0955  # half the widths
_HIP_HEIGHT, _SHOULDER_HEIGHT, _CHIN_HEIGHT, _EYE_HEIGHT = 0.530, 0.818, 0.870, 0.936
_UPPER_ARM, _FOREARM = 0.186, 0.146
_MM = 1 / (1000 * STATURE_M)
# From the wrist to the knuckle (30 for the carpus), then the three bones of each finger; in SMPL-X's order.
_FINGERS_MM = {
    "index": (98.1, 39.8, 22.4, 15.8),
    "middle": (94.6, 44.6, 26.3, 17.4),
    "little": (83.7, 32.7, 18.1, 16.0),
    "ring": (88.0, 41.4, 25.7, 17.3),
    "thumb": (30.0, 46.2, 31.6, 21.7),
}
_ASIDE_MM = {"index": 21.0, "middle": 0.0, "little": -42.0, "ring": -21.0, "thumb": 25.0}
_HAND_ORDER = ("thumb", "index", "middle", "ring", "little")  # ours

N_SMPLX = 55
_N_TRUNK = 25  # pelvis .. wrists, jaw, eyes: then 15 joints of each hand
_PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15]
_HEAD, _LEFT_WRIST, _RIGHT_WRIST = 15, 20, 21
_ARMS = {LEFT_SHOULDER: 16, RIGHT_SHOULDER: 17, 13: 18, 14: 19, 15: _LEFT_WRIST, 16: _RIGHT_WRIST}
_HIPS = {LEFT_HIP: 1, RIGHT_HIP: 2}
# x to the person's left, y up, z forward, from the head joint
_FACE = np.array(
    [
        *((0.0, 0.045, 0.06), (0.012, 0.066, 0.05), (0.018, 0.066, 0.05), (0.025, 0.066, 0.045)),
        *((-0.012, 0.066, 0.05), (-0.018, 0.066, 0.05), (-0.025, 0.066, 0.045)),
        *((0.045, 0.05, 0.0), (-0.045, 0.05, 0.0), (0.014, 0.02, 0.052), (-0.014, 0.02, 0.052)),
    ]
)
_KNUCKLES = {17: 17, 19: 5, 21: 2}  # coarse finger points of the body (left; right is one more): joint of the hand

_TEXT_JOINTS, _TEXT_FPS = 49, 15
_TEXT_ARMS = {LEFT_SHOULDER: 4, RIGHT_SHOULDER: 1, 13: 5, 14: 2, 15: 6, 16: 3}
_TEXT_HANDS = ((LEFT_HAND.start, 7), (RIGHT_HAND.start, 28))
_NOSE_ABOVE, _HIPS_BELOW = 0.6, 1.1  # shoulder widths from the neck: positions of unseen joints


def read_smplx_joints(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Joints float32 (F, 75, 3) in shoulder widths as seen by a camera in front, confidence float32 (F, 75); 30 fps.

    x to the person's left, y down, z away from the camera. The body faces the camera on average over the file. Legs
    have confidence 0, as do hands given as components of the body model (their fingers are kept at rest).

    Raises InputError for a file of another kind, with wrong shapes or non-finite values.
    """
    poses, trans, fps, has_hands = _read_smplx(path)
    poses, trans = _resampled(poses, fps), _interpolated(trans, fps)
    heading = Rotation.from_rotvec(poses[:, 0]).mean()
    rotations = axis_angle_to_matrix(poses).astype(np.float64)
    rotations[:, 0] = heading.inv().as_matrix() @ rotations[:, 0]
    places, turned = _pose(rotations)
    joints = np.zeros((len(poses), N_JOINTS, 3))
    joints[:, LEFT_HIP:] = places[:, [1]]  # legs are not posed
    joints[:, : len(_FACE)] = places[:, [_HEAD]] + np.einsum("fij,kj->fki", turned[:, _HEAD], _FACE)
    for ours, theirs in (_ARMS | _HIPS).items():
        joints[:, ours] = places[:, theirs]
    for side, start in enumerate((LEFT_HAND.start, RIGHT_HAND.start)):
        joints[:, start : start + 21] = _hand(places, turned, side)
        for coarse, knuckle in _KNUCKLES.items():
            joints[:, coarse + side] = joints[:, start + knuckle]
    joints += heading.inv().apply(trans - trans.mean(axis=0))[:, None] / STATURE_M
    joints *= np.array([1, -1, -1]) / (2 * _SHOULDER)
    return joints.astype(np.float32), _confidence(len(poses), face=True, hands=has_hands, hips=True)


def read_joint_text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Joints float32 (F, 75, 3), confidence float32 (F, 75) at 30 fps from 49 joints per line, 15 lines a second.

    The unit is the file's. Head and legs are missing: these joints are put above and below the neck, confidence 0.

    Raises InputError for a file without 147 finite numbers per line.
    """
    try:
        table = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as lines of numbers: {str(error).splitlines()[0]}") from error
    if table.shape[1] != 3 * _TEXT_JOINTS or len(table) < 2 or not np.isfinite(table).all():
        raise InputError(
            f"{path} has {table.shape[0]} lines of {table.shape[1]} numbers, "
            f"wanted at least 2 lines of {3 * _TEXT_JOINTS} finite ones ({_TEXT_JOINTS} joints)"
        )
    given = _interpolated(table, _TEXT_FPS).reshape(-1, _TEXT_JOINTS, 3)
    width = np.median(np.linalg.norm(given[:, 4] - given[:, 1], axis=-1))
    joints = np.repeat(given[:, :1], N_JOINTS, axis=1)
    joints[:, : len(_FACE), 1] -= _NOSE_ABOVE * width
    joints[:, LEFT_HIP : LEFT_HAND.start, 1] += _HIPS_BELOW * width
    for ours, theirs in _TEXT_ARMS.items():
        joints[:, ours] = given[:, theirs]
    for side, (start, theirs) in enumerate(_TEXT_HANDS):
        joints[:, start] = given[:, theirs]
        # the file's fingers go from tip to base, ours from base to tip
        fingers = given[:, theirs + 1 : theirs + 21].reshape(len(given), 5, 4, 3)[:, :, ::-1]
        joints[:, start + 1 : start + 21] = fingers.reshape(len(given), 20, 3)
        for coarse, knuckle in _KNUCKLES.items():
            joints[:, coarse + side] = joints[:, start + knuckle]
    return joints.astype(np.float32), _confidence(len(given), face=False, hands=True, hips=False)


def _confidence(n_frames: int, face: bool, hands: bool, hips: bool) -> np.ndarray:
    confidence = np.zeros((n_frames, N_JOINTS), np.float32)
    confidence[:, NOSE : len(_FACE)] = face
    confidence[:, LEFT_SHOULDER : max(_ARMS) + 1] = 1
    confidence[:, min(_KNUCKLES) : LEFT_HIP] = hands
    confidence[:, [LEFT_HIP, RIGHT_HIP]] = hips
    confidence[:, LEFT_HAND.start :] = hands
    return confidence


def _read_smplx(path: Path) -> tuple[np.ndarray, np.ndarray, float, bool]:
    """Axis-angle (T, 55, 3), translation (T, 3) in metres, frames a second, whether the hands are angles."""
    try:
        # opened here: numpy would leave a file open that is not an archive
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            given = {name: arrays[name] for name in arrays.files if arrays[name].dtype.kind in "fiu"}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as an .npz of plain arrays: {error}") from error
    has_hands = True
    if "poses" in given:
        poses = _rows(path, given, "poses", 3 * N_SMPLX).reshape(-1, N_SMPLX, 3)
        trans = _rows(path, given, "trans", 3, len(poses))
    elif "body_pose_axis" in given:
        body = _rows(path, given, "body_pose_axis", 63)
        trans = _rows(path, given, "transl", 3, len(body))
        poses = np.zeros((len(body), N_SMPLX, 3))
        poses[:, 0] = _rows(path, given, "global_orient", 3, len(body))
        poses[:, 1:22] = body.reshape(-1, 21, 3)
        hands = [given.get(f"{side}_hand_pose", np.zeros(0)) for side in ("left", "right")]
        has_hands = all(hand.size == 45 * len(body) and np.isfinite(hand).all() for hand in hands)
        if has_hands:
            poses[:, _N_TRUNK:] = np.concatenate([hand.reshape(-1, 15, 3) for hand in hands], axis=1)
    else:
        raise InputError(f"{path} is not SMPL-X motion: it has neither 'poses' nor 'body_pose_axis'")
    rate = next((given[name] for name in ("mocap_frame_rate", "mocap_framerate") if name in given), np.array(FPS))
    if rate.size != 1 or not 1 <= rate.item() <= 1000:
        raise InputError(f"{path}: 'mocap_frame_rate' is not a single number from 1 to 1000 frames a second")
    if len(poses) < 2:
        raise InputError(f"{path} has {len(poses)} frames, wanted at least 2")
    return poses, trans, float(rate.item()), has_hands


def _rows(path: Path, given: dict[str, np.ndarray], name: str, columns: int, n_frames: int | None = None) -> np.ndarray:
    """An array of `columns` numbers per frame, float64 (T, columns)."""
    values = given.get(name)
    if values is None:
        raise InputError(f"{path} lacks the array '{name}'")
    frames = len(values) if values.ndim else 0
    if frames != (n_frames or frames) or values.size != frames * columns:
        raise InputError(f"{path}: '{name}' has shape {values.shape}, not ({n_frames or 'any'}, {columns})")
    if not np.isfinite(values).all():
        raise InputError(f"{path}: '{name}' has values that are not finite")
    return values.reshape(frames, columns).astype(np.float64)


def _times_s(n_frames: int, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Times of the given frames, and of the 30 fps frames within them, in seconds."""
    given_s = np.arange(n_frames) / fps
    return given_s, np.minimum(np.arange(int(given_s[-1] * FPS + 1e-9) + 1) / FPS, given_s[-1])


def _resampled(poses: np.ndarray, fps: float) -> np.ndarray:
    if fps == FPS:
        return poses
    given_s, wanted_s = _times_s(len(poses), fps)
    turns = [Slerp(given_s, Rotation.from_rotvec(poses[:, joint]))(wanted_s).as_rotvec() for joint in range(N_SMPLX)]
    return np.stack(turns, axis=1)


def _interpolated(values: np.ndarray, fps: float) -> np.ndarray:
    if fps == FPS:
        return values
    given_s, wanted_s = _times_s(len(values), fps)
    # linear interpolation would show the slower frame rate in every speed
    return np.asarray(CubicSpline(given_s, values, axis=0)(wanted_s))


def _pose(rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forward kinematics: places (F, 55, 3) in statures from the pelvis, and rotations to the world (F, 55, 3, 3)."""
    offsets, parents = _OFFSETS, _ALL_PARENTS
    places, turned = np.zeros((len(rotations), N_SMPLX, 3)), rotations.copy()
    for joint in range(1, N_SMPLX):
        parent = parents[joint]
        places[:, joint] = places[:, parent] + turned[:, parent] @ offsets[joint]
        turned[:, joint] = turned[:, parent] @ rotations[:, joint]
    return places, turned


def _hand(places: np.ndarray, turned: np.ndarray, side: int) -> np.ndarray:
    """Our 21 joints of a hand: the wrist, then three joints and the tip of each finger."""
    joints = [places[:, (_LEFT_WRIST, _RIGHT_WRIST)[side]]]
    for finger in _HAND_ORDER:
        first = _N_TRUNK + 15 * side + 3 * list(_FINGERS_MM).index(finger)
        joints += [places[:, first + bone] for bone in range(3)]
        joints.append(places[:, first + 2] + turned[:, first + 2] @ _bone(finger, 3, side))
    return np.stack(joints, axis=1)


def _bone(finger: str, bone: int, side: int) -> np.ndarray:
    """End of a finger's bone relative to its start; arms stretched out to the sides, palms down."""
    sign = 1 - 2 * side
    forward = np.array([sign * np.cos(0.8), 0, np.sin(0.8)]) if finger == "thumb" else np.array([sign, 0, 0])
    aside = np.array([0, 0, _ASIDE_MM[finger]]) if bone == 0 else np.zeros(3)
    return np.asarray((forward * _FINGERS_MM[finger][bone] + aside) * _MM)


def _skeleton() -> tuple[np.ndarray, list[int]]:
    """Offsets (55, 3) of the joints from their parents in statures, and the parents."""
    offsets = np.zeros((N_SMPLX, 3))
    back = (_SHOULDER_HEIGHT - _HIP_HEIGHT) / 4
    offsets[[3, 6, 9, 12], 1] = back
    offsets[_HEAD, 1] = _CHIN_HEIGHT - _SHOULDER_HEIGHT
    offsets[[23, 24]] = (0.018, _EYE_HEIGHT - _CHIN_HEIGHT, 0.05), (-0.018, _EYE_HEIGHT - _CHIN_HEIGHT, 0.05)
    for side, sign in enumerate((1, -1)):
        offsets[1 + side, 0] = sign * _HIP
        offsets[13 + side] = sign * _SHOULDER / 3, back, 0
        offsets[16 + side, 0] = sign * _SHOULDER * 2 / 3
        offsets[18 + side, 0] = sign * _UPPER_ARM
        offsets[20 + side, 0] = sign * _FOREARM
        for number, finger in enumerate(_FINGERS_MM):
            first = _N_TRUNK + 15 * side + 3 * number
            offsets[first : first + 3] = [_bone(finger, bone, side) for bone in range(3)]
    chains = [
        parent for wrist, start in ((20, 25), (21, 40)) for f in range(5)
        for parent in (wrist, start + 3 * f, start + 3 * f + 1)
    ]  # fmt: skip
    return offsets, _PARENTS + chains


_OFFSETS, _ALL_PARENTS = _skeleton()
