"""Finds shot changes: hard cuts, jump cuts within a scene, and dissolves between scenes.

A gesture moves some blocks of the picture, over several frames. A cut moves nearly every block that moves at all, in
one step. So the step from frame t-1 to frame t is compared block by block with the neighbouring steps:

  jump      of the blocks that move anywhere around t, the share that moves clearly more at t than in every
            neighbouring step; two steps of similar size (a flash, up and down) cancel out
  scene     of all blocks, the share that moves far more at t than in all but two neighbouring steps: finds what
            cancels out in the first rule, such as two cuts in a row, a cut over a blended frame, a scene after a flash
  dissolve  share of the picture that is halfway, at t, between what it was and what it will be

If the picture soon returns to what it was before the step, it was a flash, not a change.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

__all__ = ["ShotDetector", "ShotOptions", "find_shot_changes"]

_REACH = 6  # neighbouring steps on either side of the judged one
_WINDOW = 2 * _REACH + 1


@dataclass(frozen=True)
class ShotOptions:
    """Thresholds, measured on talking heads: they find nine in ten jump cuts of 3 to 6 % of a shoulder width."""

    long_side_px: int = 160
    block_px: int = 5
    noise_level: float = 2.5  # grey levels; more than a codec's key frame changes in a still picture
    jump_ratio: float = 1.25
    jump_share: float = 0.27
    least_active_share: float = 0.1  # of the picture; so that a blink in a still picture is not "all that moves"
    caption_height: float = 0.3  # of the picture; a change must be visible outside such a band, too,
    outside_caption_share: float = 0.1  # in this share of what is active there
    scene_ratio: float = 2.0
    scene_share: float = 0.2
    flash_return: float = 0.5  # of the step; a picture nearer than this to the one before has returned
    dissolve_level: int = 12  # grey levels between its ends
    dissolve_share: float = 0.25


class ShotDetector:
    """Finds shot changes in frames that are pushed one at a time; memory does not grow with their number."""

    def __init__(self, options: ShotOptions = ShotOptions()) -> None:
        self._options = options
        self._pictures: deque[np.ndarray] = deque(maxlen=_WINDOW)
        self._steps: deque[np.ndarray] = deque(maxlen=_WINDOW)
        self._n_frames = 0
        self._cuts: list[tuple[int, float]] = []
        self._dissolving: list[int] = []

    def push(self, frame: np.ndarray) -> None:
        """Take the next frame: uint8, shape (height, width, 3), RGB, always of the same size."""
        picture = _small_gray(frame, self._options.long_side_px)
        previous = self._pictures[-1] if self._pictures else picture
        self._steps.append(_block_means(cv2.absdiff(picture, previous), self._options.block_px))
        self._pictures.append(picture)
        self._n_frames += 1
        if self._n_frames > _REACH:
            self._judge(self._n_frames - 1 - _REACH, self._cuts, self._dissolving)

    @property
    def picture(self) -> np.ndarray:
        """The latest frame, small and grey, uint8 (rows, columns)."""
        return self._pictures[-1]

    def changes(self) -> list[int]:
        """First frame of every new shot among the frames pushed so far, ascending; frame 0 is not listed.

        A dissolve gives two: its first frame and the first frame after it, so that its double exposures form a shot
        of their own.
        """
        cuts, dissolving = list(self._cuts), list(self._dissolving)
        for frame in range(max(1, self._n_frames - _REACH), self._n_frames):
            self._judge(frame, cuts, dissolving)
        found = _strongest_of_runs(cuts)
        for start, stop in _runs(dissolving):
            if stop - start < 2:
                continue  # one blended frame: a cut
            # a dissolve is recognised only while the whole window lies inside it
            start, stop = max(1, start - _REACH // 2), min(self._n_frames - 1, stop + _REACH // 2)
            found = [frame for frame in found if not start <= frame <= stop] + [start, stop]
        return sorted(set(found) - {0})

    def _judge(self, frame: int, cuts: list[tuple[int, float]], dissolving: list[int]) -> None:
        if frame < 1:
            return
        first = self._n_frames - len(self._pictures)
        no_step = 1 if first == 0 else 0  # no step leads into frame 0
        pictures, steps = list(self._pictures), list(self._steps)[no_step:]
        strength = _cut_strength(steps, frame - first - no_step, self._options)
        if strength > 0 and not _is_flash(pictures, frame - first, self._options.flash_return):
            cuts.append((frame, strength))
        if _is_dissolving(pictures, frame - first, self._options):
            dissolving.append(frame)


def find_shot_changes(frames: Iterable[np.ndarray], options: ShotOptions = ShotOptions()) -> list[int]:
    """First frame of every new shot (see ShotDetector.changes) of RGB frames, uint8, shape (height, width, 3)."""
    detector = ShotDetector(options)
    for frame in frames:
        detector.push(frame)
    return detector.changes()


def _small_gray(frame: np.ndarray, long_side_px: int) -> np.ndarray:
    scale = long_side_px / max(frame.shape[:2])
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    gray = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    # a little blur: outlines that moved still differ, codec noise does not
    return np.asarray(cv2.GaussianBlur(gray, (0, 0), 0.8))


def _block_means(difference: np.ndarray, block_px: int) -> np.ndarray:
    height, width = difference.shape
    size = (max(1, round(width / block_px)), max(1, round(height / block_px)))
    return np.asarray(cv2.resize(difference.astype(np.float32), size, interpolation=cv2.INTER_AREA))


def _cut_strength(steps: list[np.ndarray], at: int, options: ShotOptions) -> float:
    """Margin by which the step passes the rule it passes best (1 = just), 0 if it passes neither."""
    step = steps[at]
    around = steps[max(0, at - _REACH) : at] + steps[at + 1 : at + 1 + _REACH]
    if len(around) < 3:
        return 0.0
    neighbours = np.sort(np.stack(around), axis=0)
    highest, third = neighbours[-1], neighbours[-3]
    jumping = step > options.jump_ratio * highest + options.noise_level
    active = np.maximum(step, highest) > 2 * options.noise_level
    rows = _rows_without_caption(jumping, options.caption_height)
    jump = min(
        _share(jumping, active, options) / options.jump_share,
        _share(jumping[rows], active[rows], options) / options.outside_caption_share,
    )
    scene = np.mean((step > options.scene_ratio * third + options.noise_level)[rows]) / options.scene_share
    strength = float(max(jump, scene))
    return strength if strength >= 1 else 0.0


def _share(jumping: np.ndarray, active: np.ndarray, options: ShotOptions) -> float:
    return np.count_nonzero(jumping) / max(float(np.count_nonzero(active)), options.least_active_share * active.size)


def _rows_without_caption(jumping: np.ndarray, caption_height: float) -> np.ndarray:
    """Rows of blocks, bool, without the band in which most blocks jump: captions appear in a band, people do not."""
    n_rows = len(jumping)
    band = max(1, round(caption_height * n_rows))
    per_band = np.convolve(np.count_nonzero(jumping, axis=1), np.ones(band, np.int64), "valid")
    rows = np.ones(n_rows, bool)
    start = int(np.argmax(per_band))
    rows[start : start + band] = False
    return rows


def _is_flash(pictures: list[np.ndarray], at: int, flash_return: float) -> bool:
    """Whether the picture returns to what it was, with this step or after it."""

    def distance(one: int, other: int) -> float:
        return float(cv2.norm(pictures[one], pictures[other], cv2.NORM_L1))

    limit = flash_return * distance(at, at - 1)
    later = range(at + 1, min(at + _REACH, len(pictures)))
    earlier = range(max(at - _REACH, 0), at - 1)
    return any(distance(k, at - 1) < limit for k in later) or any(distance(k, at) < limit for k in earlier)


def _is_dissolving(pictures: list[np.ndarray], at: int, options: ShotOptions) -> bool:
    reach = _REACH - 1
    if at < reach or at + reach >= len(pictures):
        return False
    before, now, after = (pictures[k].astype(np.int16) for k in (at - reach, at, at + reach))
    change = np.abs(after - before)
    halfway = np.abs(2 * now - before - after) < 0.3 * change
    return bool(np.mean(halfway & (change > options.dissolve_level)) > options.dissolve_share)


def _runs(frames: list[int]) -> list[tuple[int, int]]:
    """First frame and last frame + 1 of every unbroken run of ascending frames."""
    runs: list[tuple[int, int]] = []
    for frame in frames:
        if runs and frame == runs[-1][1]:
            runs[-1] = (runs[-1][0], frame + 1)
        else:
            runs.append((frame, frame + 1))
    return runs


def _strongest_of_runs(cuts: list[tuple[int, float]]) -> list[int]:
    strength = dict(cuts)
    return [max(range(start, stop), key=lambda frame: strength[frame]) for start, stop in _runs(sorted(strength))]
