"""How the picture looks, apart from the person's movements: clothes, light, background.

Two moments of equal pose join badly if the person wears other clothes in one of them, or the camera has moved. So the
cost of a cut includes the colours of a coarse grid over the picture, smoothed in time until gestures no longer show.
"""

import cv2
import numpy as np
from scipy.ndimage import uniform_filter1d

from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["COLUMNS", "N_CELLS", "ROWS", "coarse_colours", "lab_colours", "slow_colours"]

ROWS, COLUMNS = 6, 8
N_CELLS = ROWS * COLUMNS
SMOOTH_FRAMES = 2 * FPS  # longer than a stroke of the hand, shorter than a pan
_LAB_RANGE = 100.0  # of lightness; colour differences have the same scale


def coarse_colours(frame: np.ndarray) -> np.ndarray:
    """Mean colours of a grid of ROWS x COLUMNS cells: uint8 (H, W, 3) RGB -> uint8 (N_CELLS, 3) RGB."""
    return np.asarray(cv2.resize(frame, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)).reshape(N_CELLS, 3)


def lab_colours(cells: np.ndarray) -> np.ndarray:
    """uint8 (F, n, 3) RGB -> Lab, float32 of the same shape: lightness 0..1, a and b in the same unit."""
    return np.asarray(cv2.cvtColor(cells.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / _LAB_RANGE, np.float32)


def slow_colours(cells: np.ndarray, clip_start: np.ndarray) -> np.ndarray:
    """cells uint8 (F, N_CELLS, 3) RGB, clip_start int (n_clips + 1), nodes -> Lab, float32, lightness 0..1."""
    lab = lab_colours(cells)
    for start, stop in zip(clip_start[:-1] * FRAMES_PER_NODE, clip_start[1:] * FRAMES_PER_NODE, strict=True):
        lab[start:stop] = uniform_filter1d(lab[start:stop], min(SMOOTH_FRAMES, stop - start), axis=0, mode="nearest")
    return lab
