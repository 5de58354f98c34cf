"""How far each node is from rest: the pose to which this person returns when not speaking."""

import numpy as np

from engine.features.body import joint_speeds
from engine.skeleton import LEFT_SHOULDER, LEFT_WRIST, RIGHT_SHOULDER, RIGHT_WRIST
from engine.timebase import FRAMES_PER_NODE

__all__ = ["rest_distance"]

CALM_SHARE = 0.3  # the slowest nodes, among which the rest pose is searched for
REACH = 0.3  # shoulder widths: hands this close are at the same place
SPEED_WEIGHT = 0.3  # a hand moving at one shoulder width a second is as far from rest as one 0.3 widths away
LOW_BONUS = 0.5  # per shoulder width: of two equally frequent places, the lower one is rest
MAX_CANDIDATES = 1_000  # enough for an hour of video
AT_REST_SHARE, AWAY_SHARE = 0.02, 0.9  # quantiles that become 0 and 1


def rest_distance(joints: np.ndarray, confidence: np.ndarray, clip_start: np.ndarray, unit_px: float) -> np.ndarray:
    """joints (F, 75, 3) pixels, confidence (F, 75), clip_start (n_clips + 1) -> float32 (N,), 0 at rest.

    The rest pose is where both hands are most often while they are slow; for a person who never rests, that is their
    calmest habit.
    """
    wrists = [LEFT_WRIST, RIGHT_WRIST]
    shoulders = joints[:, [LEFT_SHOULDER, RIGHT_SHOULDER], :2].mean(axis=1, keepdims=True)
    hands = _per_node((joints[:, wrists, :2] - shoulders) / unit_px).reshape(-1, 4)  # left x, y, right x, y
    speed = _per_node(joint_speeds(joints, clip_start, unit_px)[:, wrists]).mean(axis=1)
    seen = _per_node(confidence[:, wrists]).min(axis=1)
    away = np.sqrt(np.mean((hands - _rest_pose(hands, speed, seen)) ** 2, axis=1) * 2)
    far = away + SPEED_WEIGHT * speed
    least, most = np.quantile(far, [AT_REST_SHARE, AWAY_SHARE])
    return np.clip((far - least) / max(most - least, 1e-6), 0, 1).astype(np.float32)


def _per_node(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, FRAMES_PER_NODE, *values.shape[1:]).mean(axis=1, dtype=np.float64)


def _rest_pose(hands: np.ndarray, speed: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """hands (N, 4), speed (N,), seen (N,) -> (4,)."""
    trusted = np.flatnonzero(seen >= min(0.5, np.median(seen)))
    calm = trusted[np.argsort(speed[trusted], kind="stable")][: max(int(len(trusted) * CALM_SHARE), 1)]
    calm = np.sort(calm)[:: -(-len(calm) // MAX_CANDIDATES)]
    places = hands[calm]
    near = np.exp(-0.5 * ((places[:, None] - places) ** 2).sum(axis=2) / REACH**2)
    lowness = LOW_BONUS * places[:, [1, 3]].mean(axis=1)
    mode = int(np.argmax(np.log(near.sum(axis=1)) + lowness))
    return np.asarray(near[mode] @ places / near[mode].sum())
