"""Kernels of the research release's rules. No fastmath here: the results must be equal to the last bit."""

from typing import NamedTuple

import numpy as np

from engine.jit import njit

__all__ = [
    "Generations",
    "Moves",
    "Points",
    "Prices",
    "advance",
    "dot_products",
    "edges",
    "strong_components",
    "thresholds",
]

_OFFSETS = (-4, -3, -2, -1, 1, 2, 3, 4)
_ONE = np.uint64(1)  # with unsigned indices, Numba omits the code for negative ones
_TERMS = 32  # of a dot product at a time: this many columns stay in the L1 cache


class Points(NamedTuple):
    """Points of N frames."""

    values: np.ndarray  # float32 (N, 3, K)
    limits: np.ndarray  # float32 (N, K): points of another frame are alike below this *squared* distance


class Moves(NamedTuple):
    """The edges, by target."""

    start: np.ndarray  # int64 (N + 1,): edges into n are start[n] .. start[n + 1] - 1
    move: np.ndarray  # uint64 (E,): 2 * source, plus 1 if the edge is a jump


class Prices(NamedTuple):
    """The penalties of a path."""

    revisit: np.ndarray  # float64 (T + 1,): cost of showing a node that the path has shown c times; revisit[0] = 0
    jump: float  # cost per step of each jump on the path so far


class Generations(NamedTuple):
    """The best k paths to each node, in two alternating generations."""

    cost: np.ndarray  # float64 (2, n, k), ascending, inf if there is no entry
    jumps: np.ndarray  # int64 (2, n, k)
    visits: np.ndarray  # unsigned (2, n, k, n): how often the path of an entry has shown each node


@njit()
def _length(values: np.ndarray, i: int, j: int, k: int) -> np.float32:
    """float32 length of the difference between points k, with the squares added as (x + y) + z."""
    dx = values[i, 0, k] - values[j, 0, k]
    dy = values[i, 1, k] - values[j, 1, k]
    dz = values[i, 2, k] - values[j, 2, k]
    return np.sqrt(dx * dx + dy * dy + dz * dz)


@njit()
def thresholds(values: np.ndarray, previous: np.ndarray, following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance of every frame to its neighbours 1 to 4 frames away, and how many of them were used.

    values float32 (N, 3, K); returns float64 (N, K) and int64 (N,). Of a clip boundary, only the frame at the clip's
    end is left out of the average; frames beyond it, in the next clip, are included.
    """
    n_frames, _, n_points = values.shape
    total, used = np.zeros((n_frames, n_points)), np.zeros(n_frames, np.int64)
    for i in range(n_frames):
        for o in _OFFSETS:
            j = i + o
            if j < 0 or j >= n_frames or (o < 0 and following[j] == -1) or (o > 0 and previous[j] == -1):
                continue
            used[i] += 1
            for k in range(n_points):
                total[i, k] += np.float64(_length(values, i, j, k))
        if used[i] > 0:
            total[i] /= used[i]
    return total, used


@njit()
def _votes(values: np.ndarray, limits: np.ndarray, i: int, j: int) -> np.int32:
    a, b, most = values[i], values[j], limits[i]
    votes = np.int32(0)
    for k in range(a.shape[1]):
        dx, dy, dz = a[0, k] - b[0, k], a[1, k] - b[1, k], a[2, k] - b[2, k]
        votes += np.int32(1) if dx * dx + dy * dy + dz * dz < most[k] else np.int32(0)
    return votes


@njit()
def edges(
    position: Points,
    velocity: Points,
    trans: Points,
    previous: np.ndarray,
    following: np.ndarray,
    used: np.ndarray,
    min_votes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(E, 2) int32 and is_continue (E,) bool, ascending by source, then target.

    Frames with used = 0 have no edges.
    """
    places, place_limits = position.values, position.limits
    speeds, speed_limits = velocity.values, velocity.limits
    roots, root_limits = trans.values, trans.limits
    n_frames = places.shape[0]
    found, is_continue = np.empty((4 * n_frames + 4, 2), np.int32), np.empty(4 * n_frames + 4, np.bool_)
    n_found = 0
    for i in range(n_frames):
        if used[i] == 0:
            continue
        if len(found) < n_found + n_frames:
            room = 2 * len(found) + n_frames
            found = np.concatenate((found[:n_found], np.empty((room, 2), np.int32)))
            is_continue = np.concatenate((is_continue[:n_found], np.empty(room, np.bool_)))
        for j in range(n_frames):
            if j == i:
                continue
            adjacent = j == previous[i] or j == following[i]
            if not adjacent and (
                _votes(roots, root_limits, i, j) < 1
                or _votes(places, place_limits, i, j) < min_votes
                or _votes(speeds, speed_limits, i, j) < min_votes
            ):
                continue
            found[n_found, 0], found[n_found, 1], is_continue[n_found] = i, j, adjacent
            n_found += 1
    return found[:n_found].copy(), is_continue[:n_found].copy()


@njit()
def strong_components(
    out_start: np.ndarray, out_target: np.ndarray, in_start: np.ndarray, in_source: np.ndarray
) -> np.ndarray:
    """Strongly connected component of each vertex, int64 (n,), numbered as the release's graph library does.

    Depth-first search along outgoing edges, starts and neighbours ascending, gives a finishing order; in its reverse,
    each vertex still free collects the next component along incoming edges.
    """
    n = len(out_start) - 1
    seen, finished, n_finished = np.zeros(n, np.bool_), np.empty(n, np.int64), 0
    stack, edge = np.empty(n, np.int64), out_start[:-1].copy()
    for root in range(n):
        if seen[root]:
            continue
        seen[root], stack[0], depth = True, root, 1
        while depth > 0:
            v = stack[depth - 1]
            if edge[v] == out_start[v + 1]:
                finished[n_finished] = v
                n_finished += 1
                depth -= 1
                continue
            w = out_target[edge[v]]
            edge[v] += 1
            if not seen[w]:
                seen[w], stack[depth] = True, w
                depth += 1
    component, n_components = np.full(n, -1, np.int64), 0
    for root in finished[::-1]:
        if component[root] >= 0:
            continue
        component[root], stack[0], depth = n_components, root, 1
        while depth > 0:
            depth -= 1
            v = stack[depth]
            for e in range(in_start[v], in_start[v + 1]):
                w = in_source[e]
                if component[w] < 0:
                    component[w], stack[depth] = n_components, w
                    depth += 1
        n_components += 1
    return component


@njit()
def advance(
    increments: np.ndarray, moves: Moves, prices: Prices, generations: Generations, now: int, back: np.ndarray
) -> None:
    """One step per row of increments float64 (B, n).

    `now` (0 or 1) is the current generation before the block, (now + B) % 2 after it. back (B, n, k) integer is output:
    the number of the edge, by target, * k + the rank of the predecessor.
    """
    in_start, in_move, revisit = moves.start, moves.move, prices.revisit
    cost, jumps, visits = generations.cost, generations.jumps, generations.visits
    n_nodes, n_ranks = cost.shape[1], cost.shape[2]
    offers = np.empty(n_ranks * max(1, (in_start[1:] - in_start[:-1]).max()))
    place_of, rank_of = np.divmod(np.arange(len(offers)), n_ranks)
    due = np.empty((n_ranks, 2 * n_nodes))
    for t in range(increments.shape[0]):
        old = (now + t) % 2
        new = 1 - old
        cost_before, jumps_before, visits_before = cost[old], jumps[old], visits[old]
        _price_moves(jumps_before, prices.jump, due)
        for n in range(n_nodes):
            first, last, added = in_start[n], in_start[n + 1], increments[t, n]
            for rank in range(n_ranks):
                into, dues = in_move[first:last], due[rank]
                costs, seen = cost_before[:, rank], visits_before[:, rank, n]
                for k in range(into.shape[0]):
                    move = into[k]
                    s = move >> _ONE
                    # revisit[0] is 0: adding it avoids an unpredictable branch.
                    base = costs[s] + revisit[seen[s]]
                    offers[k * n_ranks + rank] = (base + added) + dues[move]
            for rank in range(n_ranks):
                pick, least = _least(offers, (last - first) * n_ranks)
                cost[new, n, rank] = least
                if least == np.inf:
                    continue
                offers[pick] = np.inf
                k, before = first + place_of[pick], rank_of[pick]
                s = in_move[k] >> _ONE
                jumps[new, n, rank] = jumps_before[s, before] + np.int64(in_move[k] & _ONE)
                back[t, n, rank] = k * n_ranks + before
                # One by one: slice assignment in Numba is ten times slower. (Passing rows on without a copy if a
                # predecessor has a single successor was slower too.)
                theirs, ours = visits_before[s, before], visits[new, n, rank]
                for m in range(ours.shape[0]):
                    ours[m] = theirs[m]
                ours[n] += 1


@njit()
def _price_moves(jumps: np.ndarray, jump_price: float, due: np.ndarray) -> None:
    """Into due (k, 2 n): the cost of an entry's jumps if it goes on, and if it jumps."""
    for s in range(jumps.shape[0]):
        for rank in range(jumps.shape[1]):
            due[rank, 2 * s] = jump_price * jumps[s, rank]
            due[rank, 2 * s + 1] = jump_price * (jumps[s, rank] + 1)


@njit(forceinline=True)
def _least(offers: np.ndarray, n: int) -> tuple[int, float]:
    """Index and value of the least of the first n; ties go to the first, as in a stable sort."""
    pick, least = 0, np.inf
    for m in range(n):
        if offers[m] < least:
            pick, least = m, offers[m]
    return pick, least


# Fused, but in the order written: equal vectors then have equal products, and equal nodes tie as in the release.
@njit(fastmath={"contract"})
def dot_products(rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
    """out[t, n] = rows[t] . columns[:, n], in the type of `out`; the number of terms must be a multiple of 4.

    For a matrix product of this size, waking up threads takes longer than the product itself.
    """
    out[:] = 0
    for first in range(0, columns.shape[0], _TERMS):
        for t in range(rows.shape[0]):
            line = out[t]
            for c in range(first, min(first + _TERMS, columns.shape[0]), 4):
                w, x, y, z = rows[t, c], rows[t, c + 1], rows[t, c + 2], rows[t, c + 3]
                a, b, d, e = columns[c], columns[c + 1], columns[c + 2], columns[c + 3]
                for n in range(line.shape[0]):
                    line[n] += w * a[n] + x * b[n] + y * d[n] + z * e[n]
