"""The Viterbi recursion over states (node, nodes since the last cut), one step per row of costs.

With D the minimum dwell, states are (n, 1) .. (n, D), where D means "D or more":
    (n, 1)          by a cut from some (i, D): the number of the cut, in the list of cuts into n, is stored
    (n, d), 1<d<D   only from (n - 1, d - 1): nothing to store
    (n, D)          from (n - 1, D) or (n - 1, D - 1): one bit
so a step of N nodes stores N numbers and N bits.
"""

from typing import NamedTuple

import numpy as np

from engine.jit import njit

__all__ = ["Choices", "Incoming", "advance", "trace_back"]


class Incoming(NamedTuple):
    """The edges of N nodes, by target."""

    arrives: np.ndarray  # bool (N,): n - 1 continues to n
    cut_start: np.ndarray  # int64 (N + 1,): cuts into n are cut_start[n] .. cut_start[n + 1] - 1
    cut_source: np.ndarray  # int32 (C,), ascending for each node
    cut_cost: np.ndarray  # float64 (C,)


class Choices(NamedTuple):
    """The choices of the steps of a block, for tracing back."""

    cut: np.ndarray  # unsigned (B, N): the cut taken into (n, 1), counted from cut_start[n]
    dwelt: np.ndarray  # uint8 (B, ceil(N / 8)), the bit of (n, D): set if it came from (n - 1, D)


@njit(nogil=True)
def advance(
    costs: np.ndarray,
    jitter: np.ndarray,
    jitter_row: np.ndarray,
    state: np.ndarray,
    incoming: Incoming,
    choices: Choices,
) -> None:
    """Advance the state over the rows of a block.

    costs float32 (B, N); jitter float32 (P, N) and jitter_row int64 (B,): row jitter_row[t] is added to costs[t]; state
    float64 (D, N), updated in place; choices: output, its bits must be zero before.
    """
    arrives, cut_start = incoming.arrives, incoming.cut_start
    cut_source, cut_cost = incoming.cut_source, incoming.cut_cost
    chosen, dwelt = choices.cut, choices.dwelt
    depth, n_nodes = state.shape
    before = state
    after = np.empty_like(state)
    for t in range(costs.shape[0]):
        settled, settling = before[depth - 1], before[depth - 2]
        for n in range(n_nodes):
            cost = np.float64(costs[t, n]) + jitter[jitter_row[t], n]
            best, pick = np.inf, 0
            # Examine every cut: stopping early in lists sorted by cost was slower, because of its branches.
            for k in range(cut_start[n], cut_start[n + 1]):
                offer = settled[cut_source[k]] + cut_cost[k]
                if offer < best:
                    best, pick = offer, k - cut_start[n]
            after[0, n] = best + cost
            chosen[t, n] = pick
            if arrives[n]:
                for d in range(1, depth - 1):
                    after[d, n] = before[d - 1, n - 1] + cost
                if settled[n - 1] <= settling[n - 1]:
                    after[depth - 1, n] = settled[n - 1] + cost
                    dwelt[t, n >> 3] |= np.uint8(1 << (n & 7))
                else:
                    after[depth - 1, n] = settling[n - 1] + cost
            else:
                for d in range(1, depth):
                    after[d, n] = np.inf
        before, after = after, before
    if costs.shape[0] % 2 == 1:
        after[:] = before


@njit(nogil=True)
def trace_back(
    node: int,
    dwell: int,
    depth: int,
    incoming: Incoming,
    choices: Choices,
    nodes: np.ndarray,
    by_cut: np.ndarray,
) -> tuple[int, int]:
    """Follow the choices of one block backwards from (node, dwell) at its last row.

    Fills nodes int32 (B,) and by_cut bool (B,), whether the row was entered by a cut; returns the state before the
    block.
    """
    cut_start, cut_source = incoming.cut_start, incoming.cut_source
    chosen, dwelt = choices.cut, choices.dwelt
    for t in range(nodes.shape[0] - 1, -1, -1):
        nodes[t] = node
        by_cut[t] = dwell == 1
        if dwell == 1:
            node, dwell = cut_source[cut_start[node] + np.int64(chosen[t, node])], depth
        elif dwell == depth and dwelt[t, node >> 3] >> (node & 7) & 1:
            node -= 1
        else:
            node, dwell = node - 1, dwell - 1
    return node, dwell
