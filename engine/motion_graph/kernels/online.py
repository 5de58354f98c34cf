"""The search of one stream, one node at a time: a sparse plan over the known rows.

States are (node, dwell) as in engine/motion_graph/kernels/paths.py. Only those within reach of the present node are
examined, and a node is priced when it is first reached. A plan is exact unless most_states bounds it (see
engine.motion_graph.kernels.pruning). Equal input gives equal choices in every process.
"""

import numpy as np

from engine.jit import njit
from engine.motion_graph.kernels.prices import (
    going_on,
    later_steps,
    moment_at,
    note_until,
    repetition,
    step_price,
    unusual,
    usual,
    wipe,
)
from engine.motion_graph.kernels.pruning import (
    States,
    cut_promises,
    empty_states,
    lift_bonus,
    lower_bonus,
    prune,
    with_room,
)
from engine.motion_graph.kernels.tables import History, Moment, Outlook, Planning, Scratch, Starts, Tables

__all__ = ["beginnings", "plan"]

_FIRST_ROOM = 512  # states; grows if more are reached


@njit(nogil=True)
def beginnings(tables: Tables, outlook: Outlook, scratch: Scratch, candidates: np.ndarray) -> np.ndarray:
    """float64 (S,): cost of beginning at each candidate, plus the expected cost after it, from the first row alone."""
    nodes, moment = tables.nodes, moment_at(outlook, 0)
    sums = later_steps(outlook, 0)
    depth = tables.value_speech.shape[0]
    totals = np.empty(candidates.shape[0])
    lift_bonus(outlook.bonus, 0, scratch.bonus)
    for k in range(candidates.shape[0]):
        n = candidates[k]
        later = sums[min(nodes.run_length[n], sums.shape[0] - 1)]
        total = usual(nodes, moment, n) + (outlook.trust[0] + later) * unusual(nodes, moment, n)
        totals[k] = total + going_on(tables, moment, depth, n) - scratch.bonus[n]
    lower_bonus(outlook.bonus, 0, scratch.bonus)
    return totals


@njit(nogil=True)
def plan(
    tables: Tables, outlook: Outlook, history: History, scratch: Scratch, step: int, starts: Starts
) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest plan from any of `starts`, by the costs of known rows, of guessed ones, and those expected later.

    step: the number of the step of `starts` and of row 0 of the outlook. Returns nodes and dwells int32
    (R + n_guessed,), from the start on; all -1 if no path is long enough.
    """
    planning, shown_at = Planning(tables, outlook, history, scratch, step), scratch.shown_at
    n_layers = outlook.speaking.shape[0] + outlook.n_guessed
    oldest = max(0, history.n_shown - history.shown.shape[0])
    noted = note_until(history, shown_at, oldest, step)
    states = _first_layer(planning, starts)
    # not a literal 0, for which the next layer would be compiled once more: 5 s of a first start
    begin, end = np.int64(0), starts.nodes.shape[0]
    for layer in range(1, n_layers):
        noted = note_until(history, shown_at, noted, step + layer)
        states, next_end = _next_layer(planning, states, begin, end, layer)
        begin, end = end, next_end
    noted = note_until(history, shown_at, noted, history.n_shown + history.same_steps)
    pick = _cheapest(planning, states, begin, end, n_layers - 1)
    wipe(history, shown_at, oldest, noted)
    return _traced(states, pick, n_layers)


@njit(nogil=True)
def _first_layer(planning: Planning, starts: Starts) -> States:
    history, shown_at, noise = planning.history, planning.scratch.shown_at, planning.tables.noise
    nodes, moment, bonus = planning.tables.nodes, moment_at(planning.outlook, 0), planning.scratch.bonus
    states = empty_states(max(_FIRST_ROOM, starts.nodes.shape[0]))
    lift_bonus(planning.outlook.bonus, 0, bonus)
    for k in range(starts.nodes.shape[0]):
        n = np.int64(starts.nodes[k])
        states.node[k], states.dwell[k], states.cost[k], states.parent[k] = n, starts.dwells[k], 0.0, -1
        if starts.to_pay:
            states.cost[k] = step_price(nodes, moment, history, noise, shown_at, planning.step, n) - bonus[n]
    lower_bonus(planning.outlook.bonus, 0, bonus)
    return states


@njit(nogil=True)
def _next_layer(planning: Planning, states: States, begin: int, end: int, layer: int) -> tuple[States, int]:
    """Append the successors of the states at begin .. end - 1; returns the states and their new end."""
    edges, nodes, noise = planning.tables.edges, planning.tables.nodes, planning.tables.noise
    history, scratch, shown_at = planning.history, planning.scratch, planning.scratch.shown_at
    moment, step = moment_at(planning.outlook, layer), planning.step + layer
    goes_on, cut_start, cut_target = edges.goes_on, edges.cut_start, edges.cut_target
    cut_cost, silent_cut = edges.cut_cost, edges.silent_cut
    price, price_mark, slot, slot_mark = scratch.price, scratch.price_mark, scratch.slot, scratch.slot_mark
    n_nodes, depth = goes_on.shape[0], planning.tables.value_speech.shape[0]
    silent = 1.0 - np.float64(moment.speaking)
    bonus = scratch.bonus
    lift_bonus(planning.outlook.bonus, layer, bonus)
    promises, limit = cut_promises(planning, moment, states, begin, end)
    seen = 0
    scratch.counter[0] += 1
    mark = scratch.counter[0]
    new_end = end
    for k in range(begin, end):
        n, d, so_far = states.node[k], states.dwell[k], states.cost[k]
        n_cuts = cut_start[n + 1] - cut_start[n] if d == depth else 0
        states = with_room(states, new_end + n_cuts + 1)
        # -1 is the continue edge: of equal costs the first wins
        for e in range(-1 if goes_on[n] else 0, n_cuts):
            j, dwell, offer = n + 1, min(d + 1, depth), so_far
            if e >= 0:
                cut = cut_start[n] + e
                j, dwell = cut_target[cut], 1
                offer = so_far + (cut_cost[cut] + silent * silent_cut[n])
                if promises.shape[0]:
                    seen += 1
                    if promises[seen - 1] > limit:
                        continue
            if price_mark[j] != mark:
                price_mark[j] = mark
                price[j] = step_price(nodes, moment, history, noise, shown_at, step, j) - bonus[j]
            offer += price[j]
            place = (dwell - 1) * n_nodes + j
            if slot_mark[place] != mark:
                slot_mark[place], slot[place] = mark, new_end
                states.node[new_end], states.dwell[new_end] = j, dwell
                states.cost[new_end], states.parent[new_end] = offer, k
                new_end += 1
            elif offer < states.cost[slot[place]]:
                states.cost[slot[place]], states.parent[slot[place]] = offer, k
    lower_bonus(planning.outlook.bonus, layer, bonus)
    return states, prune(planning, moment, states, end, new_end)


@njit(nogil=True)
def _cheapest(planning: Planning, states: States, begin: int, end: int, layer: int) -> int:
    """The index of the last state with the lowest expected total cost; -1 if there is none."""
    sums = later_steps(planning.outlook, planning.outlook.n_guessed)
    moment = moment_at(planning.outlook, layer)
    best, pick = np.inf, -1
    for k in range(begin, end):
        total = states.cost[k] + _worth(planning, moment, sums, layer, states.node[k], states.dwell[k])
        if total < best:
            best, pick = total, k
    return pick


@njit(nogil=True, forceinline=True)
def _worth(planning: Planning, moment: Moment, sums: np.ndarray, layer: int, n: int, d: int) -> np.float64:
    """Expected cost after the plan's last layer in the state (n, d)."""
    nodes, outlook, step = planning.tables.nodes, planning.outlook, planning.step + layer
    n_guessed = outlook.n_guessed
    total = going_on(planning.tables, moment, d, n)
    end = min(n_guessed + nodes.run_length[n], sums.shape[0] - 1)
    if end > n_guessed and nodes.position[n] >= n_guessed:
        total += sums[end] * unusual(nodes, moment, n - n_guessed)
    share = 1.0
    for ahead in range(1, end - n_guessed + 1):
        share *= outlook.repeat_keep
        total += share * np.float64(repetition(planning.history, planning.scratch.shown_at, step + ahead, n + ahead))
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
