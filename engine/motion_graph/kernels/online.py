"""The search of one stream, one node at a time: an exact, sparse plan over the known rows.

States are (node, dwell) as in engine/motion_graph/kernels/paths.py. Only those within reach of the present node are
examined, and a node is priced when it is first reached. Equal input gives equal choices in every process.
"""

from typing import NamedTuple

import numpy as np

from engine.jit import njit
from engine.motion_graph.kernels.prices import (
    going_on,
    later_steps,
    note_until,
    repetition,
    step_price,
    unusual,
    usual,
    wipe,
)
from engine.motion_graph.kernels.tables import Outlook, Planning, Starts, Tables

__all__ = ["beginnings", "plan"]

_FIRST_ROOM = 512  # states; grows if more are reached


class States(NamedTuple):
    """States that a plan has reached, layer by layer."""

    node: np.ndarray  # int32 (S,)
    dwell: np.ndarray  # int32 (S,)
    cost: np.ndarray  # float64 (S,)
    parent: np.ndarray  # int32 (S,)


@njit(nogil=True)
def beginnings(tables: Tables, outlook: Outlook, nodes: np.ndarray) -> np.ndarray:
    """float64 (S,): cost of beginning at each of `nodes`, plus the expected cost after it, from the first row alone."""
    sums = later_steps(outlook, 0)
    depth = tables.values.speech.shape[0]
    totals = np.empty(nodes.shape[0])
    for k in range(nodes.shape[0]):
        n = nodes[k]
        later = sums[min(tables.edges.run_length[n], sums.shape[0] - 1)]
        total = usual(tables.means, outlook, 0, n) + (outlook.trust + later) * unusual(tables, outlook, 0, n)
        totals[k] = total + going_on(tables.values, outlook, 0, depth, n)
    return totals


@njit(nogil=True)
def plan(planning: Planning, starts: Starts) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest plan from any of `starts`, by the costs of known rows, of guessed ones, and those expected later.

    Returns nodes and dwells int32 (R + n_guessed,), from the start on; all -1 if no path is long enough.
    """
    history, shown_at, step = planning.history, planning.scratch.shown_at, planning.step
    n_layers = planning.outlook.speaking.shape[0] + planning.outlook.n_guessed
    oldest = max(0, history.n_shown - history.shown.shape[0])
    noted = note_until(history, shown_at, oldest, step)
    states = _first_layer(planning, starts)
    begin, end = 0, starts.nodes.shape[0]
    for layer in range(1, n_layers):
        noted = note_until(history, shown_at, noted, step + layer)
        states, next_end = _next_layer(planning, states, begin, end, layer)
        begin, end = end, next_end
    noted = note_until(history, shown_at, noted, history.n_shown + history.same_steps)
    pick = _cheapest(planning, states, begin, end, step + n_layers - 1)
    wipe(history, shown_at, oldest, noted)
    return _traced(states, pick, n_layers)


@njit(nogil=True)
def _first_layer(planning: Planning, starts: Starts) -> States:
    states = _empty(max(_FIRST_ROOM, starts.nodes.shape[0]))
    for k in range(starts.nodes.shape[0]):
        n = starts.nodes[k]
        states.node[k], states.dwell[k], states.cost[k], states.parent[k] = n, starts.dwells[k], 0.0, -1
        if starts.to_pay:
            states.cost[k] = step_price(planning, 0, n)
    return states


@njit(nogil=True)
def _next_layer(planning: Planning, states: States, begin: int, end: int, layer: int) -> tuple[States, int]:
    """Append the successors of the states at begin .. end - 1; returns the states and their new end."""
    edges, scratch, speaking = planning.tables.edges, planning.scratch, planning.outlook.speaking
    n_nodes, depth = edges.goes_on.shape[0], planning.tables.values.speech.shape[0]
    silent = 1.0 - np.float64(speaking[min(layer, speaking.shape[0] - 1)])
    scratch.counter[0] += 1
    mark = scratch.counter[0]
    new_end = end
    for k in range(begin, end):
        n, d, so_far = states.node[k], states.dwell[k], states.cost[k]
        n_cuts = edges.cut_start[n + 1] - edges.cut_start[n] if d == depth else 0
        states = _with_room(states, new_end + n_cuts + 1)
        # -1 is the continue edge: of equal costs the first wins
        for e in range(-1 if edges.goes_on[n] else 0, n_cuts):
            j, dwell, offer = n + 1, min(d + 1, depth), so_far
            if e >= 0:
                cut = edges.cut_start[n] + e
                j, dwell = edges.cut_target[cut], 1
                offer = so_far + (edges.cut_cost[cut] + silent * edges.silent_cut[n])
            if scratch.price_mark[j] != mark:
                scratch.price_mark[j], scratch.price[j] = mark, step_price(planning, layer, j)
            offer += scratch.price[j]
            place = (dwell - 1) * n_nodes + j
            held = scratch.slot[place]
            if scratch.slot_mark[place] != mark:
                scratch.slot_mark[place], scratch.slot[place] = mark, new_end
                states.node[new_end], states.dwell[new_end] = j, dwell
                states.cost[new_end], states.parent[new_end] = offer, k
                new_end += 1
            elif offer < states.cost[held]:
                states.cost[held], states.parent[held] = offer, k
    return states, new_end


@njit(nogil=True)
def _empty(room: int) -> States:
    return States(np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room), np.empty(room, np.int32))


@njit(nogil=True)
def _with_room(states: States, needed: int) -> States:
    n = states.node.shape[0]
    if needed <= n:
        return states
    wider = _empty(max(2 * n, needed))
    wider.node[:n], wider.dwell[:n] = states.node, states.dwell
    wider.cost[:n], wider.parent[:n] = states.cost, states.parent
    return wider


@njit(nogil=True)
def _cheapest(planning: Planning, states: States, begin: int, end: int, step: int) -> int:
    """The index of the last state, at `step`, with the lowest expected total cost; -1 if there is none."""
    sums = later_steps(planning.outlook, planning.outlook.n_guessed)
    best, pick = np.inf, -1
    for k in range(begin, end):
        total = states.cost[k] + _worth(planning, sums, step, states.node[k], states.dwell[k])
        if total < best:
            best, pick = total, k
    return pick


@njit(nogil=True)
def _worth(planning: Planning, sums: np.ndarray, step: int, n: int, d: int) -> np.float64:
    """Expected cost after the plan's last step, `step`, in the state (n, d)."""
    tables, outlook, shown_at = planning.tables, planning.outlook, planning.scratch.shown_at
    n_guessed, last_row = outlook.n_guessed, outlook.speaking.shape[0] - 1
    total = going_on(tables.values, outlook, last_row, d, n)
    end = min(n_guessed + tables.edges.run_length[n], sums.shape[0] - 1)
    if end > n_guessed and tables.edges.position[n] >= n_guessed:
        total += sums[end] * unusual(tables, outlook, last_row, n - n_guessed)
    share = 1.0
    for ahead in range(1, end - n_guessed + 1):
        share *= outlook.repeat_keep
        total += share * np.float64(repetition(planning.history, shown_at, step + ahead, n + ahead))
    return total


@njit(nogil=True)
def _traced(states: States, pick: int, n_layers: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and dwells that lead to the state at index `pick`."""
    nodes, dwells = np.full(n_layers, -1, np.int32), np.full(n_layers, -1, np.int32)
    if pick >= 0:
        for layer in range(n_layers - 1, -1, -1):
            nodes[layer], dwells[layer] = states.node[pick], states.dwell[pick]
            pick = states.parent[pick]
    return nodes, dwells
