"""From raw landmarks to a track: outliers removed, gaps filled, smoothed within shots, always finite."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import median_filter

from engine.errors import InputError
from engine.skeleton import (
    BODY,
    LEFT_HAND,
    LEFT_SHOULDER,
    LEFT_WRIST,
    N_HAND,
    N_JOINTS,
    RIGHT_HAND,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
)
from tango_rt.characters.pose import MASK_COLUMNS, MASK_ROWS, RawPose

__all__ = ["SHORT_GAP_FRAMES", "Track", "build_track"]

MIN_BODY_SHARE = 0.5
SHORT_GAP_FRAMES = 15
_SMOOTH_FRAMES, _SMOOTH_ORDER = 7, 2

# Lengths in shoulder widths, set between those of correct and of wrong detections in real clips.
_MAX_SPIKE = 0.35  # from a point to the median of its 5 neighbouring frames
_MAX_WRIST_DISTANCE = 0.6  # from a hand's wrist to the body's
_NEAR_WRIST_DISTANCE = 0.3  # the largest for a correct hand in clips with folded hands
_SAME_HAND_DISTANCE = 0.12  # between two detections of one hand; folded hands may be as near
_BOX_MARGIN = 0.15  # of a hand's longer side

_HANDS = ((LEFT_HAND, LEFT_WRIST), (RIGHT_HAND, RIGHT_WRIST))


@dataclass(frozen=True)
class Track:
    """Cleaned joints of one clip."""

    joints: np.ndarray  # float32 (F, 75, 3): x and y in pixels, z in the same unit halved
    confidence: np.ndarray  # float32 (F, 75), 0 where filled in
    valid: np.ndarray  # bool (F,): a person was found
    hands_found: np.ndarray  # bool (F, 2)
    hand_boxes: np.ndarray  # float32 (F, 2, 4): x0, y0, x1, y1 in pixels, zeros where not found
    surface: np.ndarray  # uint64 (F, 96): 48 words person mask, 48 words hand boxes
    mouth: np.ndarray  # float32 (F, 2): opening and width in eye distances; zeros if no face was ever found
    shoulder_px: float  # median shoulder width

    @property
    def coverage(self) -> dict[str, float]:
        """Share of frames in which the body, the left hand and the right hand were found."""
        left, right = self.hands_found.mean(axis=0)
        return {"body": float(self.valid.mean()), "left_hand": float(left), "right_hand": float(right)}


def build_track(
    poses: Sequence[RawPose], shot_starts: Sequence[int], size: tuple[int, int], name: str = "the video"
) -> Track:
    """Clean the raw poses of one video.

    Args:
        poses: one for every frame.
        shot_starts: first frame of every shot but the first; nothing is smoothed or interpolated across them.
        size: height and width of the picture in pixels.
        name: of the video, for the error message.

    Raises:
        InputError: a person was found in fewer than half of the frames.
    """
    body = np.stack([pose.body for pose in poses])
    found = ~np.isnan(body[:, 0, 0])
    _demand_coverage(int(found.sum()), len(poses), name)
    widths = np.linalg.norm(body[:, LEFT_SHOULDER, :2] - body[:, RIGHT_SHOULDER, :2], axis=-1)
    shoulder_px = float(np.median(widths[found]))
    bounds = [0, *shot_starts, len(poses)]
    shots = [slice(start, stop) for start, stop in pairwise(bounds) if stop > start]

    points = body[..., :3].copy()
    points[~found] = np.nan
    spikes = _spikes(points, shots, _MAX_SPIKE * shoulder_px)
    points[spikes] = np.nan
    hands = np.stack([[pose.left_hand, pose.right_hand] for pose in poses])
    hands[_wrong_hands(hands, points, shots, shoulder_px)] = np.nan
    hands_found = ~np.isnan(hands[:, :, 0, 0])

    joints = np.empty((len(poses), N_JOINTS, 3), np.float32)
    joints[:, BODY] = _fill(points, shots)
    for side, (hand, wrist) in enumerate(_HANDS):
        joints[:, hand] = _carry_hand(hands[:, side], hands[:, 1 - side], joints[:, wrist], shots)
    _smooth(joints, _segments(found, shots))
    joints[..., 2] /= 2
    mouth = _fill(np.stack([pose.mouth for pose in poses])[:, None], shots)
    _smooth(mouth, _segments(found, shots))

    confidence = np.zeros((len(poses), N_JOINTS), np.float32)
    confidence[:, BODY] = np.where(np.isnan(points[..., 0]), 0, body[..., 3])
    for side, (hand, _) in enumerate(_HANDS):
        confidence[:, hand] = hands_found[:, side, None]
    boxes = _hand_boxes(joints, hands_found, size)
    masks = np.stack([pose.person_mask for pose in poses])[_nearest(found)]
    surface = np.concatenate([masks, _box_words(boxes, size)], axis=1)
    return Track(joints, confidence, found, hands_found, boxes, surface, mouth[:, 0], shoulder_px)


def _demand_coverage(n_found: int, n_frames: int, name: str) -> None:
    if n_found < MIN_BODY_SHARE * n_frames or n_found == 0:
        share = n_found / max(1, n_frames)
        raise InputError(
            f"no person found in {name}: {n_found} of {n_frames} frames ({share:.0%}), "
            f"at least {MIN_BODY_SHARE:.0%} are needed"
        )


def _spikes(points: np.ndarray, shots: list[slice], limit_px: float) -> np.ndarray:
    """Points, bool shape (F, J), that leave their place for a frame or two and come back: errors, not motion."""
    spikes = np.zeros(points.shape[:2], bool)
    for shot in shots:
        flat = _fill(points[shot], [slice(0, shot.stop - shot.start)])[..., :2]
        calm = median_filter(flat, size=(5, 1, 1), mode="nearest")
        spikes[shot] = np.linalg.norm(flat - calm, axis=-1) > limit_px
    return spikes


def _wrong_hands(hands: np.ndarray, body: np.ndarray, shots: list[slice], shoulder_px: float) -> np.ndarray:
    """Hands, bool shape (F, 2), on no arm or the wrong one, identical to the other, or out of place for a moment."""
    wrists = _fill(body[:, [LEFT_WRIST, RIGHT_WRIST]], shots)[..., :2]
    own = np.linalg.norm(hands[:, :, 0, :2] - wrists, axis=-1)
    other = np.linalg.norm(hands[:, :, 0, :2] - wrists[:, ::-1], axis=-1)
    with np.errstate(invalid="ignore"):
        wrong = own > _MAX_WRIST_DISTANCE * shoulder_px
        far = own > _NEAR_WRIST_DISTANCE * shoulder_px
        wrong |= far & (other < 0.5 * own)
        apart = np.linalg.norm(hands[:, 0, :, :2] - hands[:, 1, :, :2], axis=-1).mean(axis=-1)
        twice = apart < _SAME_HAND_DISTANCE * shoulder_px
        wrong |= far & twice[:, None] & (own > own[:, ::-1])
    middles = np.where(wrong[..., None], np.nan, hands.mean(axis=2))
    return wrong | _spikes(middles, shots, _MAX_SPIKE * shoulder_px)


def _fill(values: np.ndarray, shots: list[slice]) -> np.ndarray:
    """Values, shape (F, K, D), with NaN replaced within every shot: linearly between frames, held at its ends.

    A shot without any takes those of the frame nearest in time; zeros if there is no such frame.
    """
    filled = values.copy()
    for point in range(values.shape[1]):
        column = filled[:, point]
        known = ~np.isnan(column[:, 0])
        if known.all():
            continue
        if not known.any():
            column[:] = 0
            continue
        nearest = column[_nearest(known)]
        for shot in shots:
            at = shot.start + np.flatnonzero(known[shot])
            if len(at) == 0:
                column[shot] = nearest[shot]
                continue
            for axis in range(values.shape[2]):
                column[shot, axis] = np.interp(np.arange(shot.start, shot.stop), at, column[at, axis])
    return filled


def _nearest(known: np.ndarray) -> np.ndarray:
    """For every frame the nearest known one: bool shape (F,) to int shape (F,). At least one must be known."""
    at = np.flatnonzero(known)
    frames = np.arange(len(known))
    right = np.clip(np.searchsorted(at, frames), 0, len(at) - 1)
    left = np.maximum(right - 1, 0)
    nearer_left = np.abs(frames - at[left]) <= np.abs(at[right] - frames)
    return np.asarray(at[np.where(nearer_left, left, right)])


def _carry_hand(hand: np.ndarray, other_hand: np.ndarray, wrist: np.ndarray, shots: list[slice]) -> np.ndarray:
    """A hand, shape (F, 21, 3), on its wrist in every frame.

    Its shape relative to the wrist is interpolated over short gaps; in longer ones the nearest frame's is used. A hand
    that is never found is the mirror image of the other.
    """
    known = ~np.isnan(hand[:, 0, 0])
    if not known.any():
        if np.isnan(other_hand).all():
            return np.repeat(wrist[:, None], N_HAND, axis=1)
        shape = np.nanmedian(other_hand - other_hand[:, :1], axis=0) * np.array([-1, 1, 1], np.float32)
        return np.asarray(wrist[:, None] + shape)
    # a hand's z is relative to its wrist, the body's to the hips
    relative = hand - wrist[:, None] * np.array([1, 1, 0], np.float32)
    steady = relative[_nearest(known)]
    for shot in shots:
        at = shot.start + np.flatnonzero(known[shot])
        for start, stop in pairwise(at):
            if 1 < stop - start <= SHORT_GAP_FRAMES + 1:
                weight = (np.arange(1, stop - start) / (stop - start)).astype(np.float32)[:, None, None]
                steady[start + 1 : stop] = (1 - weight) * relative[start] + weight * relative[stop]
    return np.asarray(steady + wrist[:, None])


def _segments(found: np.ndarray, shots: list[slice]) -> list[slice]:
    """Stretches of a shot without long gaps."""
    segments = []
    for shot in shots:
        at = shot.start + np.flatnonzero(found[shot])
        if len(at) == 0:
            continue
        breaks = np.flatnonzero(np.diff(at) > SHORT_GAP_FRAMES + 1)
        starts, stops = at[np.r_[0, breaks + 1]], at[np.r_[breaks, len(at) - 1]] + 1
        segments += [slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]
    return segments


def _smooth(joints: np.ndarray, segments: list[slice]) -> None:
    # imports scipy.stats, which takes most of a second: only when a video is tracked
    from scipy.signal import savgol_filter

    for segment in segments:
        n_frames = segment.stop - segment.start
        window = min(_SMOOTH_FRAMES, n_frames - 1 + n_frames % 2)
        if window > _SMOOTH_ORDER:
            joints[segment] = savgol_filter(joints[segment], window, _SMOOTH_ORDER, axis=0)


def _hand_boxes(joints: np.ndarray, hands_found: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    boxes = np.zeros((len(joints), 2, 4), np.float32)
    limits = np.array([size[1], size[0]], np.float32)
    for side, (hand, _) in enumerate(_HANDS):
        points = joints[:, hand, :2]
        low, high = points.min(axis=1), points.max(axis=1)
        margin = _BOX_MARGIN * (high - low).max(axis=1, keepdims=True)
        boxes[:, side, :2] = np.clip(low - margin, 0, limits)
        boxes[:, side, 2:] = np.clip(high + margin, 0, limits)
    boxes[~hands_found] = 0
    return boxes


def _box_words(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Words, uint64 shape (F, 48), of the grid cells whose centre lies in a hand box."""
    rows = (np.arange(MASK_ROWS) + 0.5) * size[0] / MASK_ROWS
    columns = (np.arange(MASK_COLUMNS) + 0.5) * size[1] / MASK_COLUMNS
    words = np.zeros((len(boxes), MASK_ROWS), np.uint64)
    for x0, y0, x1, y1 in boxes.transpose(1, 2, 0)[..., None]:
        in_columns = np.packbits((columns > x0) & (columns < x1), axis=1, bitorder="little").view("<u8")
        words |= np.where((rows > y0) & (rows < y1), in_columns, np.uint64(0))
    return words
