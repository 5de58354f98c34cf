"""The obvious way to do what engine.motion_graph.search and the search of .official do fast."""

import math

import numpy as np

CONTINUE, RELAXED = 0, 2


def edge_cost(graph, clip, i, j, distance, kind, options):
    if kind == CONTINUE:
        return 0.0
    cost = options.cut_weight + options.distance_weight * float(distance) ** 2
    if kind == RELAXED:
        cost += options.relaxed_weight
    is_last, is_first = i == graph.n_nodes - 1 or clip[i] != clip[i + 1], j == 0 or clip[j] != clip[j - 1]
    if is_last or is_first:
        cost += options.gap_weight
    reach = options.return_s * 30 / 4
    if clip[i] == clip[j] and 0 <= i - j < reach:
        cost += options.return_penalty * (1 - (i - j) / reach)
    return cost


def edges_of(graph, options):
    """{source: [(target, cost, is a cut)]}."""
    clip = np.searchsorted(graph.clip_start, np.arange(graph.n_nodes), side="right")
    out = {}
    for i in range(graph.n_nodes):
        out[i] = [
            (
                int(graph.indices[e]),
                edge_cost(graph, clip, i, int(graph.indices[e]), graph.distance[e], graph.kind[e], options),
                graph.kind[e] != CONTINUE,
            )
            for e in range(graph.indptr[i], graph.indptr[i + 1])
        ]
    return out


def all_paths(n_steps, graph, options, start=None):
    """Every path of n_steps nodes that keeps the dwell rule, as (nodes, cuts, price of its cuts)."""
    out = edges_of(graph, options)
    starts = [start] if start is not None else np.flatnonzero(graph.kept).tolist()
    unfinished = [([n], [], 0.0, options.min_dwell) for n in starts]
    for _ in range(n_steps - 1):
        longer = []
        for nodes, cuts, price, dwell in unfinished:
            for j, cost, is_cut in out[nodes[-1]]:
                if is_cut and dwell < options.min_dwell:
                    continue
                now = 1 if is_cut else min(dwell + 1, options.min_dwell)
                new_cuts = [*cuts, len(nodes) - 1] if is_cut else cuts
                longer.append(([*nodes, j], new_cuts, price + cost, now))
        unfinished = longer
    return [(nodes, cuts, price) for nodes, cuts, price, _ in unfinished]


def path_cost(costs, nodes, price):
    return price + sum(float(costs[t, n]) for t, n in enumerate(nodes))


def viterbi_cost(costs, graph, options, start=None):
    """Cost of the cheapest path, by a table over (node, dwell) in plain Python."""
    out = edges_of(graph, options)
    starts = [start] if start is not None else np.flatnonzero(graph.kept).tolist()
    table = {(n, options.min_dwell): float(costs[0, n]) for n in starts}
    for row in costs[1:]:
        after = {}
        for (i, dwell), so_far in table.items():
            for j, cost, is_cut in out[i]:
                if is_cut and dwell < options.min_dwell:
                    continue
                state = (j, 1 if is_cut else min(dwell + 1, options.min_dwell))
                total = so_far + cost + float(row[j])
                if total < after.get(state, math.inf):
                    after[state] = total
        table = after
    return min(table.values(), default=math.inf)


def official_search(edges, is_continue, previous, motion, audio, mode, loop, jump_penalty, top_k):
    """The release's search: tables of visits are dictionaries, copied for every candidate.

    The increment is worked out per candidate too: the time of the release has a term per edge and step and
    none per node and step. motion and audio are pairs (low, high). Returns [(nodes, is_continue, cost)].
    """
    incoming = [[] for _ in previous]
    for (source, target), flag in zip(edges.tolist(), is_continue.tolist(), strict=True):
        incoming[target].append((source, flag))

    def increment(t, n):
        low, high = np.dot(audio[0][t], motion[0][n]), np.dot(audio[1][t], motion[1][n])
        if mode == "both":
            return 2 - float(low + high)
        return 1 - float(high if mode == "high_level" else low)

    steps = [{n: [(increment(0, n), None, 0, {n: 1})] for n in range(len(previous)) if previous[n] == -1}]
    for t in range(1, len(audio[0])):
        entries = {}
        for n in range(len(previous)):
            candidates = []
            for source, flag in incoming[n]:
                for rank, (cost, _, jumps, visits) in enumerate(steps[-1].get(source, [])):
                    seen = visits.copy()
                    if seen.get(n, 0) > 0:
                        cost = cost + loop * math.exp(seen[n])
                    jumps_now = jumps + (0 if flag else 1)
                    seen[n] = seen.get(n, 0) + 1
                    total = (cost + increment(t, n)) + jump_penalty * jumps_now
                    candidates.append((total, (source, rank, flag), jumps_now, seen))
            if candidates:
                entries[n] = sorted(candidates, key=lambda candidate: candidate[0])[:top_k]
        steps.append(entries)
    ends = [(entry[0], n, rank) for n in sorted(steps[-1]) for rank, entry in enumerate(steps[-1][n])]
    paths = []
    for cost, n, rank in sorted(ends, key=lambda end: end[0])[:top_k]:
        nodes, flags = [n], []
        for t in range(len(steps) - 1, 0, -1):
            n, rank, flag = steps[t][n][rank][1]
            nodes.append(n)
            flags.append(flag)
        paths.append((nodes[::-1], flags[::-1], cost))
    return paths
