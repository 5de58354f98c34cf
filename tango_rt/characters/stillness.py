"""Is there motion to retrieve? Counts the pictures a second that differ from the one before; finds still stretches.

Files of 30 fps may hold 12 different pictures a second, each repeated; after re-encoding, the copies differ a little.
So a picture counts as a copy if it differs from the one before by much less than its neighbours do from theirs.
"""

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import maximum_filter1d

from engine.timebase import FPS

__all__ = ["MIN_RATE", "Stillness"]

MIN_RATE = 20
"""Pictures a second; the user is warned of fewer."""

_COPY_SHARE = 0.25  # of the largest step within reach; on real clips, 25 fps are measured as 24.8, 30 as 28 to 30
_REACH = 2  # frames
_STILL_LEVEL = 0.02  # grey levels; in 61 s of a man who hardly moves, 2 frames in 100 change by less, never in a row
_STILL_FRAMES = 2 * FPS
_MOVED_LEVEL = 5  # grey levels in one block; more than a codec changes a still picture over time
_BLOCK_PX = 5


class Stillness:
    """Takes the small grey picture of every frame, uint8 (rows, columns)."""

    def __init__(self) -> None:
        self._first: np.ndarray | None = None
        self._last: np.ndarray | None = None
        self._steps: list[float] = []
        self._moved = False

    def push(self, picture: np.ndarray) -> None:
        if self._first is None or self._last is None:
            self._first = self._last = picture
            return
        self._steps.append(0.0 if picture is self._last else float(np.mean(_difference(picture, self._last))))
        if not self._moved and self._steps[-1] > 0:
            self._moved = _largest_block(_difference(picture, self._first)) > _MOVED_LEVEL
        self._last = picture

    def warnings(self) -> Iterator[str]:
        """What a user should know, one line each."""
        steps = np.array(self._steps)
        if len(steps) < FPS:
            return
        if not self._moved:
            yield f"the picture never moves in {len(steps) / FPS:.1f} s: there are no gestures to use"
            return
        stills = _still_stretches(steps)
        moving = np.ones(len(steps), bool)
        for start, stop in stills:
            moving[start:stop] = False
        copies = steps <= np.maximum(_COPY_SHARE * maximum_filter1d(steps, 2 * _REACH + 1), _STILL_LEVEL / 2)
        rate = FPS * (1 - np.mean(copies[moving])) if moving.any() else 0.0
        if moving.any() and rate < MIN_RATE:
            yield f"about {rate:.1f} pictures a second, wanted {MIN_RATE} or more: motion and cuts will look jerky"
        if stills:
            start, stop = max(stills, key=lambda still: still[1] - still[0])
            yield (
                f"the picture is still for {np.count_nonzero(~moving) / FPS:.1f} of {len(steps) / FPS:.1f} s, "
                f"longest from {start / FPS:.1f} to {stop / FPS:.1f} s"
            )


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(np.int16) - other)


def _largest_block(difference: np.ndarray) -> float:
    rows, columns = (side // _BLOCK_PX * _BLOCK_PX for side in difference.shape)
    blocks = difference[:rows, :columns].reshape(rows // _BLOCK_PX, _BLOCK_PX, columns // _BLOCK_PX, _BLOCK_PX)
    return float(blocks.mean(axis=(1, 3)).max(initial=0))


def _still_stretches(steps: np.ndarray) -> list[tuple[int, int]]:
    """Half-open ranges of _STILL_FRAMES or more without change."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], steps < _STILL_LEVEL, [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2) if b - a >= _STILL_FRAMES]
