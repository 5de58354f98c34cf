"""The Numba kernel for resampling; it checks nothing."""

import numpy as np

from engine.jit import FASTMATH, njit

__all__ = ["apply_filter"]


@njit(fastmath=FASTMATH)
def apply_filter(
    window: np.ndarray, middle: int, phases: np.ndarray, down: int, first_out: int, out: np.ndarray
) -> None:
    """Fill out with samples first_out, first_out + 1, ...; window begins where a filter around `middle` does."""
    up, n_taps = phases.shape
    for k in range(len(out)):
        place = (first_out + k) * down
        weights = phases[place % up]
        start = place // up - middle
        total = np.float32(0.0)
        for tap in range(n_taps):
            total += weights[tap] * window[start + tap]
        out[k] = total
