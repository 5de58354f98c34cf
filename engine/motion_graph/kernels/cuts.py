"""Exact search for cheap cuts over all pairs of nodes, without ever holding all pairs in memory.

A cut i -> j shows the frames of nodes i, i+1 morphing into those of j-1, j, so its cost is the *window* distance
(d(i, j-1) + d(i+1, j)) / 2. If i ends its clip or j starts its own, there is no such window, and its cost is d(i, j).
Bounds of kernels/bounds.py rule out most pairs; the rest are examined in the order of their bounds.
"""

from typing import Any, NamedTuple

import numpy as np

from engine.jit import FASTMATH, njit
from engine.motion_graph.kernels.bounds import N_BINS, SLACK, NodeBounds, pair_bound, row_bounds, sort_by_bound
from engine.motion_graph.kernels.distances import NodeFeatures, pose_distance, surface_distance

__all__ = ["NO_NODE", "cheapest_cuts", "nearest_cuts", "spread_out"]

NO_NODE = -1
"""Marks cuts that do not exist."""


class Grouped(NamedTuple):
    """Nodes in groups."""

    nodes: np.ndarray  # int64 (M,): those that have a group
    group: np.ndarray  # int64 (N,)


def nearest_cuts(
    features: NodeFeatures, rows: range, limits: np.ndarray, n_best: int, min_skip: int, windowed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The n_best cheapest cuts out of each node of `rows` among those that cost at most limits[node].

    limits float32 (N,). Targets i-1 .. i+min_skip of the same clip are left out. Not windowed: every cut costs d(i, j).
    Returns targets int32 (len(rows), n_best) padded with NO_NODE, and costs float32 of the same shape padded with inf,
    in no particular order; of equal costs the lower target is kept. Releases the GIL: threads may share the rows.
    """
    targets = np.full((len(rows), n_best), NO_NODE, np.int32)
    costs = np.full((len(rows), n_best), np.inf, np.float32)
    clip_firsts = np.flatnonzero(features.clip_first)
    _nearest_cuts(features, clip_firsts, rows.start, limits, min_skip, windowed, targets, costs)
    return targets, costs


def cheapest_cuts(
    features: NodeFeatures, source_group: np.ndarray, target_group: np.ndarray, min_skip: int, windowed: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The one cheapest cut from each group of source nodes to each group of target nodes, whatever it costs.

    source_group and target_group int (N,): the number of the group, negative for nodes that must not be used. Targets
    i-1 .. i+min_skip of the same clip are left out. Returns sources and targets int32 (n_source_groups,
    n_target_groups), NO_NODE if no pair is allowed, and costs float32, then inf.
    """
    shape = (int(source_group.max()) + 1, int(target_group.max()) + 1)
    sources, targets = np.full(shape, NO_NODE, np.int32), np.full(shape, NO_NODE, np.int32)
    costs = np.full(shape, np.inf, np.float32)
    by_node = NodeBounds(
        np.ascontiguousarray(features.group_means.transpose(2, 0, 1)), np.ascontiguousarray(features.pivots.T)
    )
    leaving, arriving = (
        Grouped(np.flatnonzero(group >= 0), group.astype(np.int64)) for group in (source_group, target_group)
    )
    _cheapest_cuts(features, by_node, leaving, arriving, min_skip, windowed, sources, targets, costs)
    return sources, targets, costs


def spread_out(targets: np.ndarray, costs: np.ndarray, n_keep: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """In each row, the n_keep cheapest cuts to different places; then, if there are too few, the cheapest others.

    Two targets at most `radius` nodes apart are the same place. Takes the result of nearest_cuts and returns the same
    with n_keep columns. With (2 radius + 1) n_keep columns given, nothing is lost.
    """
    kept_targets = np.full((len(targets), n_keep), NO_NODE, np.int32)
    kept_costs = np.full((len(targets), n_keep), np.inf, np.float32)
    _spread_out(targets, costs, radius, kept_targets, kept_costs)
    return kept_targets, kept_costs


@njit(nogil=True)
def _worse(cost: np.float32, target: int, than_cost: np.float32, than_target: int) -> Any:
    return cost > than_cost or (cost == than_cost and target > than_target)


@njit(nogil=True)
def _offer(costs: np.ndarray, targets: np.ndarray, n_held: int, cost: np.float32, target: int) -> int:
    """Keep the cheapest pairs in a heap whose root is the most expensive; returns how many it holds."""
    if n_held < costs.shape[0]:
        k = n_held
        while k > 0 and _worse(cost, target, costs[(k - 1) // 2], targets[(k - 1) // 2]):
            costs[k], targets[k] = costs[(k - 1) // 2], targets[(k - 1) // 2]
            k = (k - 1) // 2
        costs[k], targets[k] = cost, target
        return n_held + 1
    if not _worse(costs[0], targets[0], cost, target):
        return n_held
    k = 0
    while 2 * k + 1 < n_held:
        child = 2 * k + 1
        if child + 1 < n_held and _worse(costs[child + 1], targets[child + 1], costs[child], targets[child]):
            child += 1
        if not _worse(costs[child], targets[child], cost, target):
            break
        costs[k], targets[k] = costs[child], targets[child]
        k = child
    costs[k], targets[k] = cost, target
    return n_held


@njit(nogil=True, fastmath=FASTMATH)
def _nearest_cuts(
    features: NodeFeatures,
    clip_firsts: np.ndarray,
    first_row: int,
    limits: np.ndarray,
    min_skip: int,
    windowed: bool,
    targets: np.ndarray,
    costs: np.ndarray,
) -> None:
    pose, surface, clip, clip_last = features.pose, features.surface, features.clip, features.clip_last
    group_means, pivots = features.group_means, features.pivots
    n_nodes, n_best = clip.shape[0], costs.shape[1]
    order, bin_end = np.empty(n_nodes, np.int64), np.empty(N_BINS, np.int64)
    window_bound = np.full(n_nodes, np.inf, np.float32)
    # Row i reads d(i, .) and d(i+1, .), row i+1 the latter again: [0] is here, [1] ahead, and they change places.
    pose_bound, bound = np.empty((2, n_nodes), np.float32), np.empty((2, n_nodes), np.float32)
    apart, exact = np.full((2, n_nodes), np.nan, np.float32), np.full((2, n_nodes), np.nan, np.float32)
    here, ahead = 0, 1
    row_bounds(group_means, pivots, first_row, pose_bound[here], bound[here])
    for row in range(costs.shape[0]):
        i = first_row + row
        limit, n_held = limits[i], 0
        window = windowed and not clip_last[i]
        if i + 1 < n_nodes:
            row_bounds(group_means, pivots, i + 1, pose_bound[ahead], bound[ahead])
        if window:
            for b in range(n_nodes - 1):
                window_bound[b] = np.float32(0.5) * (bound[here, b] + bound[ahead, b + 1])
        step = 1 if window else 0
        row_bound = window_bound if window else bound[here]
        n_near = sort_by_bound(row_bound, limit, order, bin_end)
        for k in range(n_near + clip_firsts.shape[0] * step):
            listed = k < n_near
            shift = step if listed else 0
            b = order[k] if listed else clip_firsts[k - n_near]
            j = b + shift
            if (shift == 1 and clip_last[b]) or (clip[j] == clip[i] and i - 1 <= j <= i + min_skip):
                continue
            if (row_bound[b] if listed else bound[here, b]) > limit:
                continue
            if np.isnan(apart[here, b]):
                apart[here, b] = surface_distance(surface, i, b)
            floor = pose_bound[here, b] + apart[here, b]
            if shift == 1:
                if np.isnan(apart[ahead, j]):
                    apart[ahead, j] = surface_distance(surface, i + 1, j)
                floor = np.float32(0.5) * (floor + pose_bound[ahead, j] + apart[ahead, j])
            if floor * SLACK > limit:
                continue
            if np.isnan(exact[here, b]):
                exact[here, b] = pose_distance(pose, i, b) + apart[here, b]
            cost = exact[here, b]
            if shift == 1:
                if np.isnan(exact[ahead, j]):
                    exact[ahead, j] = pose_distance(pose, i + 1, j) + apart[ahead, j]
                cost = np.float32(0.5) * (cost + exact[ahead, j])
            if cost <= limit:
                n_held = _offer(costs[row], targets[row], n_held, cost, j)
                if n_held == n_best:
                    limit = costs[row, 0]
        here, ahead = ahead, here
        apart[ahead] = np.nan
        exact[ahead] = np.nan


@njit(nogil=True, fastmath=FASTMATH)
def _cheapest_cuts(
    features: NodeFeatures,
    bounds: NodeBounds,
    leaving: Grouped,
    arriving: Grouped,
    min_skip: int,
    windowed: bool,
    sources: np.ndarray,
    targets: np.ndarray,
    costs: np.ndarray,
) -> None:
    pose, surface, clip = features.pose, features.surface, features.clip
    clip_first, clip_last, group_means, pivots = (
        features.clip_first,
        features.clip_last,
        bounds.group_means,
        bounds.pivots,
    )
    source_group, target_group, to_nodes = leaving.group, arriving.group, arriving.nodes
    for i in leaving.nodes:
        r = source_group[i]
        for j in to_nodes:
            if clip[j] == clip[i] and i - 1 <= j <= i + min_skip:
                continue
            c = target_group[j]
            window = windowed and not clip_last[i] and not clip_first[j]
            b = j - 1 if window else j
            floor = pair_bound(group_means, pivots, i, b)
            if window:
                floor = np.float32(0.5) * (floor + pair_bound(group_means, pivots, i + 1, j))
            if floor >= costs[r, c]:
                continue
            cost = pose_distance(pose, i, b) + surface_distance(surface, i, b)
            if window:
                apart = surface_distance(surface, i + 1, j)
                cost = np.float32(0.5) * (cost + pose_distance(pose, i + 1, j) + apart)
            if cost < costs[r, c]:
                costs[r, c] = cost
                sources[r, c], targets[r, c] = i, j


@njit(nogil=True)
def _spread_out(
    targets: np.ndarray, costs: np.ndarray, radius: int, kept_targets: np.ndarray, kept_costs: np.ndarray
) -> None:
    n_keep = kept_targets.shape[1]
    for row in range(targets.shape[0]):
        by_target = np.argsort(targets[row], kind="mergesort")
        order = by_target[np.argsort(costs[row][by_target], kind="mergesort")]
        taken = np.zeros(targets.shape[1], np.bool_)
        n_kept = 0
        for respect_places in (True, False):
            for k in order:
                j = targets[row, k]
                if n_kept == n_keep or j == NO_NODE:
                    break
                if taken[k]:
                    continue
                near = False
                if respect_places:
                    for other in kept_targets[row, :n_kept]:
                        near |= abs(other - j) <= radius
                if not near:
                    taken[k] = True
                    kept_targets[row, n_kept], kept_costs[row, n_kept] = j, costs[row, k]
                    n_kept += 1
