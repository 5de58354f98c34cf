"""How far stretches go on, and the cost of going on for ever: precomputed for the online search."""

import numpy as np

from engine.jit import njit
from engine.motion_graph.kernels.tables import Edges

__all__ = ["discounted_values", "run_lengths"]


@njit(nogil=True)
def run_lengths(goes_on: np.ndarray) -> np.ndarray:
    """int32 (N,): the number of consecutive continue edges from each node."""
    lengths = np.zeros(goes_on.shape[0], np.int32)
    for n in range(goes_on.shape[0] - 2, -1, -1):
        if goes_on[n]:
            lengths[n] = lengths[n + 1] + 1
    return lengths


@njit(nogil=True)
def discounted_values(edges: Edges, node_cost: np.ndarray, discount: float, tolerance: float, depth: int) -> np.ndarray:
    """float64 (depth, N): discount times the least discounted cost of going on for ever from (n, dwell d + 1).

    node_cost float64 (N,); silent_cut is ignored. inf if no path goes on for ever. Sweeps run backwards, so that one
    sweep carries values along whole stretches.
    """
    goes_on, cut_start, cut_target, cut_cost = edges.goes_on, edges.cut_start, edges.cut_target, edges.cut_cost
    n_nodes = goes_on.shape[0]
    values = np.zeros((depth, n_nodes))
    change = np.inf
    while change > tolerance:
        change = 0.0
        for n in range(n_nodes - 1, -1, -1):
            for d in range(depth):
                best = np.inf
                if goes_on[n]:
                    best = node_cost[n + 1] + values[min(d + 1, depth - 1), n + 1]
                if d == depth - 1:
                    for k in range(cut_start[n], cut_start[n + 1]):
                        j = cut_target[k]
                        best = min(best, cut_cost[k] + node_cost[j] + values[0, j])
                best *= discount
                if best != values[d, n]:
                    change = max(change, abs(best - values[d, n]))
                    values[d, n] = best
    return values
