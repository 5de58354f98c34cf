"""The search of one stream, one node at a time: an exact plan over the rows that are known, sparse.

States are (node, dwell) as in engine/motion_graph/kernels/paths.py. Only those within reach of where the stream is are
looked at, and a node is priced when it is reached first. No fast mathematics and no matrix products: every sum has one
order, so equal input gives equal choices in every process.
"""

import numpy as np

from engine.jit import njit

__all__ = ["beginnings", "discounted_values", "node_noise", "plan", "run_lengths"]

_FIRST_ROOM = 512  # states; grows where more are reached
_ONE = np.float32(1)


@njit(nogil=True)
def run_lengths(goes_on):  # type: ignore[no-untyped-def]
    """int32 (N,): how many continue edges follow one another from each node."""
    lengths = np.zeros(goes_on.shape[0], np.int32)
    for n in range(goes_on.shape[0] - 2, -1, -1):
        if goes_on[n]:
            lengths[n] = lengths[n + 1] + 1
    return lengths


@njit(nogil=True)
def discounted_values(goes_on, cut_start, cut_target, cut_cost, node_cost, discount, tolerance, depth):  # type: ignore[no-untyped-def]
    """float64 (depth, N): discount times the least discounted cost of going on for ever from (n, dwell d + 1).

    inf where no path goes on for ever. Sweeps run backwards, so that one of them carries values along whole stretches.
    """
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


@njit(nogil=True)
def node_noise(noise, step, n):  # type: ignore[no-untyped-def]
    """engine.motion_graph.search.node_jitter of one node at one step, float32. noise: seed uint64, variation, patch
    size.
    """
    seed, variation, patch = noise
    word = _mixed(_mixed(_mixed(seed) + np.uint64(step // patch)) + np.uint64(n // patch)) >> np.uint64(40)
    return np.float32(np.float64(word) * (variation / 16777216.0))


@njit(nogil=True)
def _mixed(word):  # type: ignore[no-untyped-def]
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@njit(nogil=True)
def _product(a, b):  # type: ignore[no-untyped-def]
    # Eight sums side by side, in an order that is written down: one sum alone waits for every addition.
    n = a.shape[0] // 8 * 8
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0)
    for k in range(0, n, 8):
        s0 += a[k] * b[k]
        s1 += a[k + 1] * b[k + 1]
        s2 += a[k + 2] * b[k + 2]
        s3 += a[k + 3] * b[k + 3]
        s4 += a[k + 4] * b[k + 4]
        s5 += a[k + 5] * b[k + 5]
        s6 += a[k + 6] * b[k + 6]
        s7 += a[k + 7] * b[k + 7]
    total = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
    for k in range(n, a.shape[0]):
        total += a[k] * b[k]
    return total


@njit(nogil=True)
def _node_cost(motion, rows, t, n):  # type: ignore[no-untyped-def]
    """engine.motion_graph.costs.node_costs of one node at one row, float32."""
    low, high, level, away, listless, similarity_weight, level_weight = motion
    heard_low, heard_high, heard_level, speaking = rows
    cost = _ONE - _product(low[n], heard_low[t])
    if high.shape[1] > 0:
        cost += _ONE - _product(high[n], heard_high[t])
    cost *= similarity_weight
    apart = level[n] - heard_level[t]
    cost += level_weight * (apart * apart)
    return cost + ((_ONE - speaking[t]) * away[n] + speaking[t] * listless[n])


@njit(nogil=True)
def _usual(means, speaking, n):  # type: ignore[no-untyped-def]
    return speaking * means[0][n] + (1.0 - speaking) * means[1][n]


@njit(nogil=True)
def _unusual(motion, rows, means, t, n):  # type: ignore[no-untyped-def]
    """What node n costs at row t more than it does on average."""
    return np.float64(_node_cost(motion, rows, t, n)) - _usual(means, np.float64(rows[3][t]), n)


@njit(nogil=True)
def _repetition(repeats, shown_at, step, n):  # type: ignore[no-untyped-def]
    """What engine.motion_graph.variety adds for a node that was shown lately."""
    reach, away = repeats[2], repeats[3]
    since = step - shown_at[n]
    if shown_at[n] < 0 or since < repeats[4] or since > reach:
        return np.float32(0)
    return np.float32(1 - since / reach) * away[n]


@njit(nogil=True)
def _note(repeats, shown_at, first, end, forget):  # type: ignore[no-untyped-def]
    """Write steps first .. end - 1 of what was shown into shown_at (N,), the last step of each node; or wipe them."""
    ring, near = repeats[0], repeats[5]
    for step in range(first, end):
        n = ring[step % ring.shape[0]]
        for m in range(max(0, n - near), min(shown_at.shape[0], n + near + 1)):
            shown_at[m] = -1 if forget else step


@njit(nogil=True)
def _note_until(repeats, shown_at, noted, now):  # type: ignore[no-untyped-def]
    """Write down what was shown before step `now` and is another moment; returns the first step that is not noted."""
    end = max(noted, min(repeats[1], now - repeats[4] + 1))
    _note(repeats, shown_at, noted, end, False)
    return end


@njit(nogil=True)
def _grown(pool, needed):  # type: ignore[no-untyped-def]
    node, dwell, cost, parent = pool
    n = node.shape[0]
    if needed <= n:
        return pool
    room = max(2 * n, needed)
    wider = (np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room), np.empty(room, np.int32))
    wider[0][:n], wider[1][:n], wider[2][:n], wider[3][:n] = node, dwell, cost, parent
    return wider


@njit(nogil=True)
def _price(motion, rows, means, expectation, position, last_row, layer, j):  # type: ignore[no-untyped-def]
    """What node j is expected to cost `layer` steps ahead: by its row, or by how its stretch fits the last row."""
    trust, keeps = expectation[1], expectation[2]
    if layer <= last_row:
        if trust == 1.0:
            return np.float64(_node_cost(motion, rows, layer, j))
        usual = _usual(means, np.float64(rows[3][layer]), j)
        return usual + trust * _unusual(motion, rows, means, layer, j)
    ahead = layer - last_row
    cost = _usual(means, np.float64(rows[3][last_row]), j)
    if ahead < keeps.shape[0] and position[j] >= ahead:
        cost += keeps[ahead] * _unusual(motion, rows, means, last_row, j - ahead)
    return cost


@njit(nogil=True)
def _worth(graph, motion, rows, means, values, expectation, gains, repeats, shown_at, step, n, d):  # type: ignore[no-untyped-def]
    """What is to be expected after the plan's last step, `step`, in the state (n, d)."""
    n_guessed, _, _, repeat_keep = expectation
    position, length = graph[1], graph[2]
    last_row = rows[3].shape[0] - 1
    speaking = np.float64(rows[3][last_row])
    total = speaking * values[0][d - 1, n] + (1.0 - speaking) * values[1][d - 1, n]
    end = min(n_guessed + length[n], gains.shape[0] - 1)
    if end > n_guessed and position[n] >= n_guessed:
        total += gains[end] * _unusual(motion, rows, means, last_row, n - n_guessed)
    share = 1.0
    for ahead in range(1, end - n_guessed + 1):
        share *= repeat_keep
        total += share * np.float64(_repetition(repeats, shown_at, step + ahead, n + ahead))
    return total


@njit(nogil=True)
def _gains(n_guessed, keeps):  # type: ignore[no-untyped-def]
    """Sums of keeps behind the guessed steps, (K + 1,)."""
    gains = np.zeros(keeps.shape[0])
    for k in range(n_guessed + 1, keeps.shape[0]):
        gains[k] = gains[k - 1] + keeps[k]
    return gains


@njit(nogil=True)
def beginnings(graph, motion, rows, means, values, expectation, nodes):  # type: ignore[no-untyped-def]
    """float64 (S,): what it costs to begin at each of `nodes` and what is expected after it, by the first row alone."""
    gains = _gains(0, expectation[2])
    speaking = np.float64(rows[3][0])
    depth = values[0].shape[0]
    totals = np.empty(nodes.shape[0])
    for k in range(nodes.shape[0]):
        n = nodes[k]
        unusual = _unusual(motion, rows, means, 0, n)
        going_on = speaking * values[0][depth - 1, n] + (1.0 - speaking) * values[1][depth - 1, n]
        reach = gains[min(graph[2][n], gains.shape[0] - 1)]
        totals[k] = _usual(means, speaking, n) + (expectation[1] + reach) * unusual + going_on
    return totals


@njit(nogil=True)
def plan(graph, motion, rows, means, values, expectation, noise, repeats, step, starts, scratch):  # type: ignore[no-untyped-def]
    """The cheapest plan from any of `starts` over the known rows, some guessed ones, and what is expected after them.

    graph: goes_on bool (N,), position in the clip int32 (N,), run_lengths, cut_start, cut_target, cut_cost, and what a
    cut costs more in silence (N,). motion: MotionVectors, away, listless (N,), two weights. rows: SpeechSteps; row 0 is
    the step of `starts`. means, values: as engine.motion_graph.online says, in speech and in silence. expectation:
    guessed steps, trust, keeps (K + 1,), repeat_keep. repeats: ring of shown nodes, how many were shown so far, reach,
    what a repetition costs (N,), steps and nodes that are the same moment. step: number of the step of `starts`.
    starts: nodes and dwells int32 (S,), whether their own row counts. scratch: slot int32, mark int64 (D * N,), price
    float64, mark int64 (N,), shown_at int64 (N,) of -1, counter (1,). Returns nodes and dwells int32 (known + guessed
    steps + 1,), from the start on; -1 where no path goes on.
    """
    goes_on, position, _, cut_start, cut_target, cut_cost, silent_cut = graph
    n_guessed = expectation[0]
    slot, slot_mark, price, price_mark, shown_at, counter = scratch
    n_nodes, depth = goes_on.shape[0], values[0].shape[0]
    last_row = rows[3].shape[0] - 1
    n_layers = last_row + n_guessed + 1
    pool = (
        np.empty(_FIRST_ROOM, np.int32), np.empty(_FIRST_ROOM, np.int32),
        np.empty(_FIRST_ROOM), np.empty(_FIRST_ROOM, np.int32),
    )  # fmt: skip
    oldest = max(0, repeats[1] - repeats[0].shape[0])
    noted = _note_until(repeats, shown_at, oldest, step)
    pool = _grown(pool, starts[0].shape[0])
    first = np.zeros(n_layers + 1, np.int64)
    first[1] = starts[0].shape[0]
    for k in range(first[1]):
        n = starts[0][k]
        pool[0][k], pool[1][k], pool[2][k], pool[3][k] = n, starts[1][k], 0.0, -1
        if starts[2]:
            pool[2][k] = _price(motion, rows, means, expectation, position, last_row, 0, n)
            pool[2][k] += np.float64(_repetition(repeats, shown_at, step, n))
            if noise[1] != 0.0:
                pool[2][k] += node_noise(noise, step, n)
    for layer in range(1, n_layers):
        now = step + layer
        noted = _note_until(repeats, shown_at, noted, now)
        counter[0] += 1
        stamp = counter[0]
        silent = 1.0 - np.float64(rows[3][min(layer, last_row)])
        end = first[layer]
        for k in range(first[layer - 1], first[layer]):
            n, d, so_far = pool[0][k], pool[1][k], pool[2][k]
            n_cuts = cut_start[n + 1] - cut_start[n] if d == depth else 0
            pool = _grown(pool, end + n_cuts + 1)
            # -1 is the continue edge: of equal offers the first stays
            for e in range(-1 if goes_on[n] else 0, n_cuts):
                j, dwell, offer = n + 1, min(d + 1, depth), so_far
                if e >= 0:
                    edge = cut_start[n] + e
                    j, dwell, offer = cut_target[edge], 1, so_far + (cut_cost[edge] + silent * silent_cut[n])
                if price_mark[j] != stamp:
                    price_mark[j] = stamp
                    price[j] = _price(motion, rows, means, expectation, position, last_row, layer, j)
                    price[j] += np.float64(_repetition(repeats, shown_at, now, j))
                    if noise[1] != 0.0:
                        price[j] += node_noise(noise, now, j)
                offer += price[j]
                place = (dwell - 1) * n_nodes + j
                if slot_mark[place] != stamp:
                    slot_mark[place], slot[place] = stamp, end
                    pool[0][end], pool[1][end], pool[2][end], pool[3][end] = j, dwell, offer, k
                    end += 1
                elif offer < pool[2][slot[place]]:
                    pool[2][slot[place]], pool[3][slot[place]] = offer, k
        first[layer + 1] = end

    gains = _gains(n_guessed, expectation[2])
    noted = _note_until(repeats, shown_at, noted, repeats[1] + repeats[4])
    best, pick = np.inf, np.int64(-1)
    for k in range(first[n_layers - 1], first[n_layers]):
        total = pool[2][k] + _worth(
            graph, motion, rows, means, values, expectation, gains, repeats, shown_at, step + n_layers - 1,
            pool[0][k], pool[1][k],
        )  # fmt: skip
        if total < best:
            best, pick = total, np.int64(k)
    _note(repeats, shown_at, oldest, noted, True)
    nodes, dwells = np.full(n_layers, -1, np.int32), np.full(n_layers, -1, np.int32)
    if pick >= 0:
        for layer in range(n_layers - 1, -1, -1):
            nodes[layer], dwells[layer] = pool[0][pick], pool[1][pick]
            pick = np.int64(pool[3][pick])
    return nodes, dwells
