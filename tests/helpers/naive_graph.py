"""The obvious way to do what engine/motion_graph/graph.py, engine/motion_graph/connect.py and
engine/motion_graph/official.py do fast.
"""

import networkx as nx
import numpy as np

DWELL = 3


def bits_of(words):
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8))


def node_distance(position, velocity, surface, weights, a, b, velocity_weight=4.0, surface_weight=1.0):
    """d(a, b) in float64; position and velocity in body units, weights with sum 1."""
    total = 0.0
    for f in range(4):
        p, q = 4 * a + f, 4 * b + f
        for k, weight in enumerate(weights):
            total += weight * np.linalg.norm(position[p, k] - position[q, k])
            total += weight * velocity_weight * np.linalg.norm(velocity[p, k] - velocity[q, k])
        u, v = bits_of(surface[p]), bits_of(surface[q])
        union = np.count_nonzero(u | v)
        total += surface_weight * (1 - np.count_nonzero(u & v) / union if union else 0.0)
    return total / 4


def all_distances(joints, surface, clip_start, weights, unit_px):
    """(N, N) distances of all nodes."""
    position = joints.astype(np.float64) / unit_px
    velocity = np.zeros_like(position)
    for start, stop in zip(clip_start[:-1] * 4, clip_start[1:] * 4, strict=True):
        velocity[start:stop] = np.gradient(position[start:stop], axis=0)
    weights = np.asarray(weights, np.float64) / np.sum(weights)
    n_nodes = len(joints) // 4
    d = np.zeros((n_nodes, n_nodes))
    for a in range(n_nodes):
        for b in range(a):
            d[a, b] = d[b, a] = node_distance(position, velocity, surface, weights, a, b)
    return d


def clip_of(clip_start):
    return np.repeat(np.arange(len(clip_start) - 1), np.diff(clip_start))


def thresholds(d, clip_start):
    clip = clip_of(clip_start)
    t = np.zeros(len(d))
    for i in range(len(d)):
        near = [j for j in (i - 1, i, i + 1) if 0 <= j < len(d) and clip[j] == clip[i]]
        t[i] = np.mean([d[i, j] for j in near])
    return t


def cut_cost(d, clip_start, i, j, windowed):
    ends, starts = i + 1 in clip_start, j in clip_start
    if not windowed or ends or starts:
        return d[i, j]
    return (d[i, j - 1] + d[i + 1, j]) / 2


def is_pointless(clip, i, j, min_skip=3):
    return clip[i] == clip[j] and i - 1 <= j <= i + min_skip


def limits(d, clip_start, rule, factor, quantile):
    """The highest admissible cost of a cut out of each node."""
    t = thresholds(d, clip_start)
    return t if rule == "paper" else factor * np.maximum(t, np.quantile(t, quantile))


def admissible_cuts(d, clip_start, limit, windowed):
    """{(i, j): cost} of every admissible cut, however many."""
    clip = clip_of(clip_start)
    pairs = [(i, j) for i in range(len(d)) for j in range(len(d)) if not is_pointless(clip, i, j)]
    costs = {(i, j): cut_cost(d, clip_start, i, j, windowed) for i, j in pairs}
    return {(i, j): cost for (i, j), cost in costs.items() if cost <= limit[i]}


def spread_out(cuts, n_keep, radius):
    """Of each node's cuts the cheapest to different places first, then the cheapest of the others."""
    kept = {}
    for i in {i for i, _ in cuts}:
        by_cost = sorted((cost, j) for (source, j), cost in cuts.items() if source == i)
        chosen = []
        for cost, j in by_cost:
            if len(chosen) < n_keep and all(abs(j - other) > radius for _, other in chosen):
                chosen.append((cost, j))
        for cost, j in by_cost:
            if len(chosen) < n_keep and (cost, j) not in chosen:
                chosen.append((cost, j))
        kept.update({(i, j): cost for cost, j in chosen})
    return kept


def state_graph(edges, kinds, depth=DWELL):
    """States (node, dwell) and their moves; edges (i, j) with kinds, 0 for continue."""
    graph = nx.DiGraph()
    for (i, j), kind in zip(edges, kinds, strict=True):
        if kind == 0:
            for dwell in range(1, depth + 1):
                graph.add_edge((i, dwell), (j, min(dwell + 1, depth)))
        else:
            graph.add_edge((i, depth), (j, 1))
    return graph


def official_thresholds(frames, i):
    """Means over the neighbours 1 to 4 frames away, or None if none counts."""
    sums, used = [0.0, 0.0, 0.0], 0
    for offset in (-4, -3, -2, -1, 1, 2, 3, 4):
        j = i + offset
        if not 0 <= j < len(frames.previous):
            continue
        if (offset < 0 and frames.following[j] == -1) or (offset > 0 and frames.previous[j] == -1):
            continue
        used += 1
        sums = [total + part.astype(np.float64) for total, part in zip(sums, _apart(frames, i, j), strict=True)]
    return [total / used for total in sums] if used else None


def _apart(frames, i, j):
    return (
        np.linalg.norm(frames.position[i] - frames.position[j], axis=-1),
        np.linalg.norm(frames.velocity[i] - frames.velocity[j], axis=-1),
        np.linalg.norm(frames.trans[i] - frames.trans[j]),
    )


def official_edges(frames, min_votes=45):
    """The release's double loop: every pair of frames compared, pair by pair."""
    edges, is_continue = [], []
    for i in range(len(frames.previous)):
        limits = official_thresholds(frames, i)
        if limits is None:
            continue
        for j in range(len(frames.previous)):
            if i == j:
                continue
            if j == frames.previous[i] or j == frames.following[i]:
                edges.append((i, j))
                is_continue.append(True)
                continue
            position, velocity, trans = _apart(frames, i, j)
            if (
                trans < limits[2]
                and np.sum(position < limits[0]) >= min_votes
                and np.sum(velocity < limits[1]) >= min_votes
            ):
                edges.append((i, j))
                is_continue.append(False)
    return np.array(edges, np.int32).reshape(-1, 2), np.array(is_continue, bool)
