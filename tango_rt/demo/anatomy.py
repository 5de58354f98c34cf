"""From a posture to limbs: two-bone arms in 3-D, hands with five bending fingers, projected by a camera.

Lengths are in *units*: the picture is 720 units high, 700 are about a metre. The coordinates of an arm are (outward
from the middle of the body, up from the hips, towards the viewer), so that one posture works for both sides.
"""

import numpy as np

from tango_rt.demo.raster import CONE_FIELDS, CUFF, FINGER, SKIN, SLEEVE

__all__ = [
    "ALONG",
    "BENDS",
    "HEIGHT",
    "HIP_Y",
    "MIDDLES",
    "MIDDLE_X",
    "N_ARM",
    "PALM",
    "SHOULDER",
    "SPREAD",
    "SWING",
    "THUMB",
    "WIDTH",
    "WRIST",
    "arm_cones",
    "hand_frame",
]

WIDTH, HEIGHT = 960, 720
MIDDLE_X, HIP_Y = 480.0, 712.0
SHOULDER = np.array([108.0, 352.0, -8.0])
CAMERA_DISTANCE, CAMERA_Y = 2300.0, 360.0
UPPER_ARM, FOREARM = 186.0, 176.0

# Posture of one arm, N_ARM numbers: where the wrist is, where the hand points, where the palm faces, how far the elbow
# swings out (rad); bends at the knuckle and at the middle joint of index..little finger (rad), their spread (rad), and
# the thumb: opening, turn before the palm, bend (rad).
WRIST, ALONG, PALM, SWING = slice(0, 3), slice(3, 6), slice(6, 9), 9
BENDS, MIDDLES, SPREAD, THUMB = slice(10, 14), slice(14, 18), 18, slice(19, 22)
N_ARM = 22

HAND_SCALE = 1.06
# Of index..little finger: knuckle in the hand (along, towards the thumb), lengths of the bones, radii at four joints.
KNUCKLES = np.array([[64.0, 17.5], [66.5, 5.5], [62.0, -6.0], [55.0, -16.5]])
BONES = np.array([[31.0, 19.0, 14.5], [34.0, 21.5, 15.0], [31.5, 20.0, 15.0], [24.5, 15.0, 13.0]])
RADII = np.array([[7.9, 6.9, 6.2, 5.1], [8.0, 7.0, 6.3, 5.2], [7.7, 6.7, 6.0, 5.0], [7.0, 6.0, 5.4, 4.5]])
FAN = np.array([1.0, 0.2, -0.6, -1.4])
THUMB_BONES = np.array([34.0, 24.0, 18.5])
THUMB_RADII = np.array([11.5, 8.8, 7.6, 5.6])


def project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3), x right, y down, z near, in units -> the same as seen by the camera, and the scale there (n,)."""
    scale = CAMERA_DISTANCE / (CAMERA_DISTANCE - points[:, 2])
    centre = np.array([MIDDLE_X, CAMERA_Y, 0.0])
    return centre + (points - centre) * scale[:, None], scale


def find_elbow(shoulder: np.ndarray, wrist: np.ndarray, swing: float) -> tuple[np.ndarray, np.ndarray]:
    """Elbow and reachable wrist of a two-bone arm; the elbow hangs down and out, rotated about the reach by swing."""
    reach = wrist - shoulder
    distance = float(np.clip(np.linalg.norm(reach), 60.0, 0.985 * (UPPER_ARM + FOREARM)))
    axis = reach / np.linalg.norm(reach)
    hang = np.array([0.55, -1.0, -0.45])
    hang -= axis * (hang @ axis)
    hang /= np.linalg.norm(hang)
    side = np.cross(hang, axis)
    along = (UPPER_ARM**2 - FOREARM**2 + distance**2) / (2 * distance)
    off = np.sqrt(max(UPPER_ARM**2 - along**2, 0.0))
    bend = hang * np.cos(swing) + side * np.sin(swing)
    return shoulder + axis * along + bend * off, shoulder + axis * distance


def hand_frame(along: np.ndarray, palm: np.ndarray) -> np.ndarray:
    """Rows: along the hand, towards the thumb, out of the palm; orthonormal."""
    d = along / np.linalg.norm(along)
    n = palm - d * (palm @ d)
    n /= np.linalg.norm(n)
    return np.stack([d, np.cross(n, d), n])


def _finger_chains(fingers: np.ndarray) -> np.ndarray:
    """Joints of index..little finger in the hand's own frame, (4, 4, 3)."""
    knuckle, middle, spread = fingers[0:4], fingers[4:8], fingers[8]
    bends = np.cumsum(np.stack([knuckle, middle, 0.65 * middle], axis=1), axis=1)  # (4, 3)
    fan = (FAN * spread)[:, None] * np.cos(np.minimum(knuckle, 1.4))[:, None]
    steps = np.stack([np.cos(bends) * np.cos(fan), np.cos(bends) * np.sin(fan), np.sin(bends)], axis=2)
    start = np.concatenate([KNUCKLES, np.zeros((4, 1))], axis=1)[:, None]
    return np.concatenate([start, start + np.cumsum(steps * BONES[:, :, None], axis=1)], axis=1)


def _thumb_chain(fingers: np.ndarray) -> np.ndarray:
    opening, oppose, bend = fingers[9:12]
    angles = opening - np.array([0.0, 0.35, 0.75]) * bend
    turn = oppose + np.array([0.0, 0.15, 0.3]) * bend
    steps = np.stack([np.cos(angles) * np.cos(turn), np.sin(angles) * np.cos(turn), np.sin(turn)], axis=1)
    start = np.array([[11.0, 11.0, 5.0]])
    return np.concatenate([start, start + np.cumsum(steps * THUMB_BONES[:, None], axis=0)])


def _palm_cones() -> np.ndarray:
    """(n, 8): start, radius, end, radius, in the hand's own frame."""
    heel = [(7.0, 7.0), (7.0, 2.5), (7.0, -2.5), (7.0, -7.0)]
    rows = [
        [x, y, 0.0, 12.0, *knuckle, 0.0, radius + 1.6]
        for (x, y), knuckle, radius in zip(heel, KNUCKLES.tolist(), RADII[:, 0], strict=True)
    ]
    rows.append([10.0, 8.0, 4.0, 12.5, 36.0, 19.0, 5.0, 10.5])
    rows.append([11.0, -9.0, 3.0, 11.5, 44.0, -14.5, 2.0, 9.5])
    rows.append([24.0, 12.0, 2.0, 11.0, 58.0, 14.0, 0.0, 9.0])
    return np.array(rows)


PALM_CONES = _palm_cones()


def _hand_bones(fingers: np.ndarray) -> np.ndarray:
    """(n, 9): start, radius, end, radius and material of every piece of a hand, in its own frame."""
    chains, thumb = _finger_chains(fingers), _thumb_chain(fingers)
    rows = [np.column_stack([PALM_CONES, np.full(len(PALM_CONES), SKIN)])]
    for chain, radii in [*zip(chains, RADII, strict=True), (thumb, THUMB_RADII)]:
        kinds = [SKIN, SKIN, FINGER]
        rows.append(np.column_stack([chain[:-1], radii[:-1], chain[1:], radii[1:], kinds]))
    bones = np.concatenate(rows)
    bones[:, :8] *= HAND_SCALE
    return bones


def _sleeve(elbow: np.ndarray, wrist: np.ndarray, shoulder: np.ndarray, thumb: np.ndarray) -> np.ndarray:
    """(n, 11): start, radius, end, radius, material, blend, open end; from the shoulder to the skin of the wrist."""
    arm = wrist - elbow
    flat = 5.0 * thumb
    rows = [
        [*shoulder, 38.0, *elbow, 29.0, SLEEVE, 0.0, 0.0],
        [*elbow, 29.0, *(elbow + arm * 0.86), 22.0, SLEEVE, 0.0, 1.0],
        [*(elbow + arm * 0.7), 22.2, *(elbow + arm * 0.90), 20.5, CUFF, 0.0, 1.0],
        [*(elbow + arm * 0.78 - flat), 15.0, *(wrist - flat), 12.0, SKIN, 4.0, 0.0],
        [*(elbow + arm * 0.78 + flat), 15.0, *(wrist + flat), 12.0, SKIN, 4.0, 0.0],
    ]
    return np.array(rows)


def arm_cones(arm: np.ndarray, side: int, sway: float, rise: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Cones of one arm in pixels, and its screen points.

    arm: (N_ARM,) posture. side: -1 is drawn on the left of the picture (the person's right arm), +1 on the right.
    sway, rise: units by which the chest moves sideways and the shoulder up. scale: pixels per unit.
    Returns float32 (n, CONE_FIELDS) and (8, 2): shoulder, elbow, wrist, tips of thumb..little finger.
    """
    shoulder = SHOULDER + np.array([0.0, rise, 0.0])
    elbow, wrist = find_elbow(shoulder, arm[WRIST], arm[SWING])
    frame = hand_frame(arm[ALONG], arm[PALM])
    bones = _hand_bones(arm[10:])
    sleeve = _sleeve(elbow, wrist, shoulder, frame[1])
    cones = np.zeros((len(sleeve) + len(bones), CONE_FIELDS))
    cones[: len(sleeve), :11] = sleeve
    hand = cones[len(sleeve) :]
    hand[:, 0:3] = wrist + bones[:, 0:3] @ frame
    hand[:, 4:7] = wrist + bones[:, 4:7] @ frame
    hand[:, [3, 7, 8]] = bones[:, [3, 7, 8]]
    hand[: len(PALM_CONES), 9] = 6.0
    hand[len(PALM_CONES) :, 9] = 1.6
    hand[len(PALM_CONES) :, 11:14] = _backs(hand[len(PALM_CONES) :], frame)
    # The upper sleeve has no edge towards the neck, where it merges with the jacket.
    cones[0, 11:13] = [-0.94, 0.34]
    for start in (0, 4):
        cones[:, start : start + 4] = _seen(cones[:, start : start + 4], side, sway, scale)
    cones[:, 9] *= scale
    cones[0, 11:13] /= cones[0, 3]
    cones[:, 11:14] *= [side, -1.0, 1.0]
    tips = [len(cones) - 1, *(len(sleeve) + len(PALM_CONES) + 2 + 3 * np.arange(4))]
    joints = np.concatenate([cones[[0, 1], :2], cones[[len(sleeve)], :2], cones[tips, 4:6]])
    return cones.astype(np.float32), joints


def _backs(bones: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Direction of the back of each finger bone, (n, 3)."""
    along = bones[:, 4:7] - bones[:, 0:3]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    away = np.broadcast_to(-frame[2], along.shape).copy()
    # The thumb lies sideways: its nail faces half to the side.
    away[-3:] = frame[1] * 0.7 - frame[2] * 0.7
    away -= along * np.sum(away * along, axis=1, keepdims=True)
    # Beyond a right angle a finger keeps its back direction: the component across the bone alone would vanish and flip.
    over = np.clip(along @ frame[2], 0.0, 1.0)[:, None]
    away += over * frame[0]
    away -= along * np.sum(away * along, axis=1, keepdims=True)
    return away / (np.linalg.norm(away, axis=1, keepdims=True) + 1e-9)


def _seen(spheres: np.ndarray, side: int, sway: float, scale: float) -> np.ndarray:
    """Spheres (n, 4) of an arm -> x, y, z, radius in pixels."""
    points = spheres[:, :3] * [side, -1.0, 1.0] + [MIDDLE_X, HIP_Y, 0.0]
    points[:, 0] += sway * (HIP_Y - points[:, 1]) / SHOULDER[1]
    points, zoom = project(points)
    return np.column_stack([points, spheres[:, 3] * zoom]) * scale
