"""The live graph: all nodes, and only a few of the cuts, so that the pictures of every cut can be drawn beforehand.

A live search that may take about one cut a node loses nothing against one with 8 to 20 times as many: the larger choice
is mostly noise to a search that hears half a second ahead.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from engine.motion_graph.graph import CONTINUE, MotionGraph
from engine.motion_graph.search import SearchOptions, cut_costs

__all__ = ["DRAW_PRICE", "STEP_PRICE", "connecting_cuts", "edge_numbers", "leading_cuts", "live_graph"]

STEP_PRICE, DRAW_PRICE = 2.0, 8.0
"""A cut more is drawn where it saves four steps. For eight gestures of a minute of a person 281 cuts were added to 446;
of 200 random states and gestures, 198 then had a way that arrived 3 to 4 s later, and 82 without them."""
_FREE = 1e-6  # the cost of an edge that is there anyway; not 0, so that every step of a way is farther than the last


def edge_numbers(graph: MotionGraph, cuts: np.ndarray) -> np.ndarray:
    """int64 (C,): the edges that are these cuts, int (C, 2). Raises ValueError if one is not a cut of the graph."""
    if cuts.ndim != 2 or cuts.shape[1] != 2:
        raise ValueError(f"cuts of shape {cuts.shape}, expected (n, 2)")
    names = graph.sources.astype(np.int64) * graph.n_nodes + graph.indices
    wanted = cuts[:, 0].astype(np.int64) * graph.n_nodes + cuts[:, 1]
    inside = ((cuts >= 0) & (cuts < graph.n_nodes)).all()
    found = np.searchsorted(names, wanted)
    known = inside and bool(np.all(found < len(names))) and bool(np.all(names[found] == wanted))
    if not known or np.any(graph.kind[found] == CONTINUE):
        raise ValueError("a cut is not in the graph")
    return found


def live_graph(graph: MotionGraph, cuts: np.ndarray) -> MotionGraph:
    """The graph with all its nodes and continue edges, but only these cuts, int (C, 2).

    Raises ValueError if one is not a cut of the graph, or if a kept node is left without a way out.
    """
    stays = graph.kind == CONTINUE
    stays[edge_numbers(graph, cuts)] = True
    n_ways = np.bincount(graph.sources[stays], minlength=graph.n_nodes)
    if np.any(n_ways[graph.kept] == 0):
        raise ValueError("a node that is kept has no way out")
    return MotionGraph(
        n_nodes=graph.n_nodes,
        clip_start=graph.clip_start,
        indptr=np.concatenate([[0], np.cumsum(n_ways)]).astype(np.int64),
        indices=graph.indices[stays],
        distance=graph.distance[stays],
        kind=graph.kind[stays],
        kept=graph.kept,
        hand_gap=None if graph.hand_gap is None else graph.hand_gap[stays],
    )


def connecting_cuts(graph: MotionGraph, cuts: np.ndarray, hub: int, search: SearchOptions) -> np.ndarray:
    """The cuts that must be added to `cuts`, int (C, 2), so that every node can be reached from `hub`, and `hub` from
    everywhere, under the dwell rule: int32 (A, 2), ascending.

    The cheapest way from the hub to each node and back is kept, where edges that are there anyway are free; `hub` is a
    kept node, for example the one to rest at. Raises ValueError if the whole graph does not connect them.
    """
    depth = search.min_dwell
    costs = cut_costs(graph, search)
    costs[edge_numbers(graph, cuts)] = 0.0
    ways = _ways(graph, costs[graph.kind != CONTINUE], _FREE, depth)
    start = _settled(graph, hub, depth) * depth + depth - 1
    away, came_from = dijkstra(ways, indices=start, return_predecessors=True)
    back, goes_to = dijkstra(ways.T.tocsr(), indices=start, return_predecessors=True)
    states = np.flatnonzero(graph.kept)[:, None] * depth + np.arange(depth)
    nearest = states[np.arange(len(states)), np.argmin(away[states], axis=1)]
    free_to_cut = states[np.isfinite(away[states[:, -1]]), -1]
    if not (np.isfinite(away[nearest]).all() and np.isfinite(back[free_to_cut]).all()):
        raise ValueError("the graph is not connected")
    needed = {*_cuts_on_ways(nearest, came_from, away, depth, backwards=True)}
    needed |= {*_cuts_on_ways(free_to_cut, goes_to, back, depth, backwards=False)}
    added = sorted(needed - {(int(i), int(j)) for i, j in cuts})
    return np.array(added, np.int32).reshape(-1, 2)


def leading_cuts(graph: MotionGraph, cuts: np.ndarray, targets: Sequence[int], search: SearchOptions) -> np.ndarray:
    """The cuts that must be added to `cuts`, int (C, 2), so that each of `targets` can be reached soon from everywhere:
    int32 (A, 2), ascending.

    From every node where a path may cut the way is kept that is cheapest when a step costs STEP_PRICE and a cut that is
    not there yet DRAW_PRICE more than it does for a search. Nodes from which no way leads to a target are left out.
    """
    depth, n_nodes = search.min_dwell, graph.n_nodes
    chosen = {(int(i), int(j)) for i, j in cuts}
    added: set[tuple[int, int]] = set()
    is_cut = graph.kind != CONTINUE
    free = np.flatnonzero(graph.kept) * depth + depth - 1
    for target in targets:
        costs = cut_costs(graph, search) + DRAW_PRICE
        costs[edge_numbers(graph, np.array(sorted(chosen | added), np.int32).reshape(-1, 2))] -= DRAW_PRICE
        ways = _ways(graph, costs[is_cut], STEP_PRICE, depth)
        # one more state stands for all states of the target
        n_states = n_nodes * depth
        ends = target * depth + np.arange(depth)
        arrival = csr_array((np.full(depth, _FREE), (np.full(depth, n_states), ends)), shape=(n_states + 1,) * 2)
        ways.resize((n_states + 1, n_states + 1))
        distance, goes_to = dijkstra((ways.T + arrival).tocsr(), indices=n_states, return_predecessors=True)
        reached = free[np.isfinite(distance[free])]
        goes_to[goes_to == n_states] = -1
        added |= set(_cuts_on_ways(reached, goes_to, distance, depth, backwards=False))
    return np.array(sorted(added - chosen), np.int32).reshape(-1, 2)


def _ways(graph: MotionGraph, cut_price: np.ndarray, step_price: float, depth: int) -> csr_array:
    """The steps between states (n, d): node n, d + 1 nodes after the last cut, saturating. cut_price: of every cut."""
    is_cut = graph.kind != CONTINUE
    source, target = graph.sources.astype(np.int64), graph.indices.astype(np.int64)
    goes_on = source[~is_cut]
    here = [goes_on * depth + d for d in range(depth)] + [source[is_cut] * depth + depth - 1]
    there = [(goes_on + 1) * depth + min(d + 1, depth - 1) for d in range(depth)] + [target[is_cut] * depth]
    price = np.concatenate([np.zeros(depth * len(goes_on)), cut_price]) + step_price
    n_states = graph.n_nodes * depth
    return csr_array((price, (np.concatenate(here), np.concatenate(there))), shape=(n_states, n_states))


def _settled(graph: MotionGraph, node: int, depth: int) -> int:
    """The node where a path that enters `node` by a cut may cut again: a first node of a clip is entered in no other
    way, so that no path ever may cut there."""
    for _ in range(depth - 1):
        edge = graph.indptr[node] + np.searchsorted(
            graph.indices[graph.indptr[node] : graph.indptr[node + 1]], node + 1
        )
        if edge == graph.indptr[node + 1] or graph.indices[edge] != node + 1 or graph.kind[edge] != CONTINUE:
            break
        node += 1
    return node


def _cuts_on_ways(
    ends: np.ndarray, neighbour: np.ndarray, distance: np.ndarray, depth: int, backwards: bool
) -> list[tuple[int, int]]:
    """The cuts on the ways between the root of a tree and these states; neighbour: the next state towards the root."""
    on_way = np.zeros(len(distance), bool)
    on_way[ends] = True
    order = np.argsort(distance, kind="stable")
    cuts = []
    for state in order[::-1].tolist():  # the farthest first, so that whoever passes through a state has marked it
        other = int(neighbour[state])
        if other < 0 or not on_way[state]:
            continue
        on_way[other] = True
        first, second = (other, state) if backwards else (state, other)
        if second % depth == 0:
            cuts.append((first // depth, second // depth))
    return cuts
