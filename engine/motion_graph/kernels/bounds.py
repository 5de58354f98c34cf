"""Lower bounds of the distance between two nodes, at a fiftieth of its cost.

A mean of lengths is never below the length of the mean: joints that move together form a group, and the distance
between two group means (over joints and frames) bounds their part of d_pose. And 1 - IoU is a metric, as is its mean
over frames: with the distances to a few pivot nodes p known, d_iou(a, b) >= |d_iou(a, p) - d_iou(b, p)|.
"""

from typing import NamedTuple

import numpy as np

from engine.jit import FASTMATH, njit

__all__ = ["N_BINS", "SLACK", "NodeBounds", "by_bound", "pair_bound", "row_bounds"]

_BLOCK = 256  # columns whose bounds stay in the L1 cache while the groups are summed
N_BINS = 64
SLACK = np.float32(1 - 1e-5)  # a bound is a sum of rounded numbers, and must never exceed the distance


class NodeBounds(NamedTuple):
    """Arrays of NodeFeatures, transposed so that the data of a node is contiguous."""

    group_means: np.ndarray  # float32 (N, 2 G, 3)
    pivots: np.ndarray  # float32 (N, K)


@njit(nogil=True, fastmath=FASTMATH)
def row_bounds(group_means: np.ndarray, pivots: np.ndarray, i: int, pose_bound: np.ndarray, bound: np.ndarray) -> None:
    """Bounds of d_pose and of the whole distance, between node i and every other."""
    n_nodes = pose_bound.shape[0]
    for start in range(0, n_nodes, _BLOCK):
        stop = min(start + _BLOCK, n_nodes)
        # Slices, because with indices in range(start, stop) the compiler allows for negative ones and does not
        # vectorise.
        of_pose, of_all = pose_bound[start:stop], bound[start:stop]
        of_pose[:] = 0
        of_all[:] = 0
        for g in range(group_means.shape[0]):
            x, y, z = group_means[g, 0, i], group_means[g, 1, i], group_means[g, 2, i]
            xs, ys, zs = (
                group_means[g, 0, start:stop],
                group_means[g, 1, start:stop],
                group_means[g, 2, start:stop],
            )
            for k in range(of_pose.shape[0]):
                dx, dy, dz = xs[k] - x, ys[k] - y, zs[k] - z
                of_pose[k] += np.sqrt(dx * dx + dy * dy + dz * dz)
        for p in range(pivots.shape[0]):
            mine, theirs = pivots[p, i], pivots[p, start:stop]
            for k in range(of_all.shape[0]):
                of_all[k] = max(of_all[k], abs(theirs[k] - mine))
        for k in range(of_all.shape[0]):
            of_pose[k] *= SLACK
            of_all[k] = of_pose[k] + of_all[k] * SLACK


@njit(nogil=True)
def by_bound(bound: np.ndarray, limit: np.float32, order: np.ndarray, bin_end: np.ndarray) -> int:
    """Columns whose bound is within the limit, into `order`, ascending by bound to within the width of a bin; returns
    their number."""
    scale = np.float32(N_BINS) / limit if limit > 0 else np.float32(0)
    bin_end[:] = 0
    for b in range(bound.shape[0]):
        if bound[b] <= limit:
            bin_end[min(int(bound[b] * scale), N_BINS - 1)] += 1
    total = 0
    for k in range(N_BINS):
        total, bin_end[k] = total + bin_end[k], total
    for b in range(bound.shape[0]):
        if bound[b] <= limit:
            k = min(int(bound[b] * scale), N_BINS - 1)
            order[bin_end[k]] = b
            bin_end[k] += 1
    return total


@njit(nogil=True, fastmath=FASTMATH)
def pair_bound(group_means: np.ndarray, pivots: np.ndarray, a: int, b: int) -> np.float32:
    total = np.float32(0)
    for g in range(group_means.shape[1]):
        dx = group_means[a, g, 0] - group_means[b, g, 0]
        dy = group_means[a, g, 1] - group_means[b, g, 1]
        dz = group_means[a, g, 2] - group_means[b, g, 2]
        total += np.sqrt(dx * dx + dy * dy + dz * dz)
    apart = np.float32(0)
    for p in range(pivots.shape[1]):
        apart = max(apart, abs(pivots[a, p] - pivots[b, p]))
    return (total + apart) * SLACK
