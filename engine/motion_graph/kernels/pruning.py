"""Bounds on a plan over many rows: of each step only the most promising states are kept, and the likeliest cuts tried.

A plan over 60 rows reaches every state of the graph: an hour of reference would take a second for each decision. A
state promises its cost so far, what going on costs from it (engine.motion_graph.kernels.values), and that its match
continues as in the last known row; a cut promises the same without the match, because its target is not priced yet.
Below the bounds nothing is left out.
"""

from typing import NamedTuple

import numpy as np

from engine.jit import njit
from engine.motion_graph.kernels.prices import going_on, later_steps, usual
from engine.motion_graph.kernels.tables import Bonus, Moment, Planning

__all__ = ["States", "cut_promises", "empty_states", "lift_bonus", "lower_bonus", "prune", "with_room"]


class States(NamedTuple):
    """States that a plan has reached, layer by layer."""

    node: np.ndarray  # int32 (S,)
    dwell: np.ndarray  # int32 (S,)
    cost: np.ndarray  # float64 (S,)
    parent: np.ndarray  # int32 (S,)


@njit(nogil=True)
def empty_states(room: int) -> States:
    return States(np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room), np.empty(room, np.int32))


@njit(nogil=True)
def with_room(states: States, needed: int) -> States:
    n = states.node.shape[0]
    if needed <= n:
        return states
    wider = empty_states(max(2 * n, needed))
    wider.node[:n], wider.dwell[:n] = states.node, states.dwell
    wider.cost[:n], wider.parent[:n] = states.cost, states.parent
    return wider


@njit(nogil=True)
def cut_promises(
    planning: Planning, moment: Moment, states: States, begin: int, end: int
) -> tuple[np.ndarray, np.float64]:
    """What each cut out of the states at begin .. end - 1 promises, in order, and up to which promise they are tried.

    No promises and inf: all are. Cuts of equal promise are all tried, so that their order does not matter.
    """
    most, edges = planning.outlook.most_states, planning.tables.edges
    depth = planning.tables.value_speech.shape[0]
    n_cuts = 0
    for k in range(begin, end):
        if states.dwell[k] == depth:
            n_cuts += edges.cut_start[states.node[k] + 1] - edges.cut_start[states.node[k]]
    if most == 0 or n_cuts <= most:
        return np.empty(0), np.float64(np.inf)
    promises = np.empty(n_cuts)
    silent, place = 1.0 - np.float64(moment.speaking), 0
    for k in range(begin, end):
        if states.dwell[k] != depth:
            continue
        n, so_far = states.node[k], states.cost[k]
        for cut in range(edges.cut_start[n], edges.cut_start[n + 1]):
            offer = so_far + (edges.cut_cost[cut] + silent * edges.silent_cut[n])
            promise = offer + going_on(planning.tables, moment, 1, edges.cut_target[cut])
            promises[place] = promise if promise < np.inf else np.inf  # 0 times inf is NaN
            place += 1
    return promises, np.partition(promises, most - 1)[most - 1]


@njit(nogil=True)
def prune(planning: Planning, moment: Moment, states: States, begin: int, end: int) -> int:
    """Keep the most promising states of begin .. end - 1, in their order; returns their new end."""
    most, nodes, price = planning.outlook.most_states, planning.tables.nodes, planning.scratch.price
    if most == 0 or end - begin <= most:
        return end
    sums = later_steps(planning.outlook, 0)
    promises = np.empty(end - begin)
    for k in range(begin, end):
        n = states.node[k]
        matches = sums[min(nodes.run_length[n], sums.shape[0] - 1)] * (price[n] - usual(nodes, moment, n))
        promise = states.cost[k] + going_on(planning.tables, moment, states.dwell[k], n) + matches
        promises[k - begin] = promise if promise < np.inf else np.inf  # 0 times inf is NaN
    limit = np.partition(promises, most - 1)[most - 1]
    n_equal = most - np.sum(promises < limit)
    kept = begin
    for k in range(begin, end):
        promise = promises[k - begin]
        if promise < limit or (promise == limit and n_equal > 0):
            n_equal -= promise == limit
            states.node[kept], states.dwell[kept] = states.node[k], states.dwell[k]
            states.cost[kept], states.parent[kept] = states.cost[k], states.parent[k]
            kept += 1
    return kept


@njit(nogil=True)
def lift_bonus(bonus: Bonus, layer: int, of_node: np.ndarray) -> None:
    """Enter the bonuses of a step in of_node, float32 (N,), which is 0."""
    if layer + 1 < bonus.start.shape[0]:
        for k in range(bonus.start[layer], bonus.start[layer + 1]):
            of_node[bonus.node[k]] = max(of_node[bonus.node[k]], bonus.value[k])


@njit(nogil=True)
def lower_bonus(bonus: Bonus, layer: int, of_node: np.ndarray) -> None:
    """Undo lift_bonus."""
    if layer + 1 < bonus.start.shape[0]:
        for k in range(bonus.start[layer], bonus.start[layer + 1]):
            of_node[bonus.node[k]] = 0
