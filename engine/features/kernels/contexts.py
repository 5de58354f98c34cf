"""The context of a frame as a row of numbers: rhythms to compare, means to project, loudness."""

import numpy as np

from engine.jit import FASTMATH, njit

__all__ = ["BIN_FRAMES", "contexts", "project", "window_means"]

BIN_FRAMES = 4  # averaged into each number of a projected context
NOISE_VARIANCE = 0.05  # a context that varies less than this is noise, not rhythm: its vector shrinks


@njit(fastmath=FASTMATH)
def contexts(
    values: np.ndarray,
    centre: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    half: int,
    step: int,
    vectors: np.ndarray,
) -> None:
    """values (F, C) around each centre -> vectors (n, C * 2 * half / step), each channel centred and scaled.

    Only frames first <= f < last are known. A full channel has norm C^-1/2, so a whole vector 1.
    """
    n_bins = 2 * half // step
    n_channels = values.shape[1]
    for row in range(centre.shape[0]):
        start = centre[row] - half
        low, high = max(start, first[row]), min(centre[row] + half, last[row])
        for c in range(n_channels):
            mean, power = 0.0, 0.0
            for f in range(low, high):
                mean += values[f, c]
            mean /= max(high - low, 1)
            bins = vectors[row, c * n_bins : (c + 1) * n_bins]
            bins[:] = 0.0
            for f in range(low, high):
                bins[(f - start) // step] += (values[f, c] - mean) / step
            for k in range(n_bins):
                power += bins[k] * bins[k]
            known = (high - low) / (2 * half)
            bins *= np.sqrt(known / n_channels / (power + NOISE_VARIANCE * n_bins))


@njit(fastmath=FASTMATH)
def project(padded: np.ndarray, projection: np.ndarray, places: np.ndarray, quiet: float, low: np.ndarray) -> None:
    """low (n, D): the bins of the context of frame f are at rows f + place of padded; short vectors stay short."""
    # one frame at a time and in a fixed order: rounding in a matrix product depends on the number of rows
    n_columns, n_directions = padded.shape[1], projection.shape[1]
    total = np.empty(n_directions)
    for f in range(low.shape[0]):
        total[:] = 0.0
        for k in range(places.shape[0]):
            for c in range(n_columns):
                mean = 0.0
                for i in range(BIN_FRAMES):
                    mean += padded[f + places[k] + i, c]
                mean /= BIN_FRAMES
                for d in range(n_directions):
                    total[d] += mean * projection[k * n_columns + c, d]
        length = 0.0
        for d in range(n_directions):
            length += total[d] * total[d]
        scale = 1.0 / np.sqrt(length + quiet) if length > 0.0 else 0.0
        for d in range(n_directions):
            low[f, d] = total[d] * scale


@njit(fastmath=FASTMATH)
def window_means(values: np.ndarray, first: np.ndarray, last: np.ndarray, means: np.ndarray) -> None:
    """means float64 (n,) of values float64 (F,) over [first, last), each (n,)."""
    for row in range(first.shape[0]):
        means[row] = values[first[row] : last[row]].sum() / (last[row] - first[row])
