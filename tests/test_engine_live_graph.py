"""The live graph: a few cuts that keep every node within reach, property by property and with planted answers."""

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.motion_graph.graph import CONTINUE, CUT, MotionGraph
from engine.motion_graph.live_graph import (
    DRAW_PRICE,
    STEP_PRICE,
    connecting_cuts,
    edge_numbers,
    leading_cuts,
    live_graph,
)
from engine.motion_graph.search import SearchOptions
from tests.helpers.random_graphs import make_live_graph

DWELL = SearchOptions().min_dwell


def cuts_of(graph: MotionGraph) -> np.ndarray:
    cut = graph.kind != CONTINUE
    return np.column_stack([graph.sources[cut], graph.indices[cut]])


def states(graph: MotionGraph) -> nx.DiGraph:
    """(node, nodes since the last cut), and how one leads to another."""
    ways = nx.DiGraph()
    for i, j, kind in zip(graph.sources.tolist(), graph.indices.tolist(), graph.kind.tolist(), strict=True):
        if kind == CONTINUE:
            ways.add_edges_from(((i, d), (j, min(d + 1, DWELL))) for d in range(1, DWELL + 1))
        else:
            ways.add_edge((i, DWELL), (j, 1))
    return ways


def settled(graph: MotionGraph, hub: int) -> tuple[int, int]:
    """The state of a path that has entered the hub by a cut, once it may cut again."""
    end = min(n for n in graph.clip_start.tolist() if n > hub)
    return min(hub + DWELL - 1, end - 1), DWELL


def reachable(graph: MotionGraph, hub: int) -> set[tuple[int, int]]:
    return {settled(graph, hub)} | nx.descendants(states(graph), settled(graph, hub))


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(0, 23))
@settings(max_examples=60, deadline=None)
def test_every_node_is_reached_from_the_hub_and_leads_back(seed: int, n_chosen: int, hub: int) -> None:
    whole = make_live_graph(seed)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(cuts_of(whole))[:n_chosen]
    of_whole = reachable(whole, hub)
    to_hub = {state for state in of_whole if nx.has_path(states(whole), state, settled(whole, hub))}
    connected = to_hub == of_whole and {node for node, _ in of_whole} == set(np.flatnonzero(whole.kept).tolist())
    if not connected:
        with pytest.raises(ValueError, match="not connected"):
            connecting_cuts(whole, chosen, hub, SearchOptions())
        return
    added = connecting_cuts(whole, chosen, hub, SearchOptions())
    assert added.dtype == np.int32 and added.shape[1] == 2
    assert not {*map(tuple, added.tolist())} & {*map(tuple, chosen.tolist())}
    graph = live_graph(whole, np.concatenate([chosen, added]))
    found = reachable(graph, hub)
    assert {node for node, _ in found} == set(np.flatnonzero(whole.kept).tolist())
    assert all(nx.has_path(states(graph), state, settled(graph, hub)) for state in found)


def two_takes(extra: tuple[tuple[int, int], ...]) -> MotionGraph:
    """Clips of 10 nodes, with a cut from the end of each to the start of the other, and more."""
    edges = {(n, n + 1): CONTINUE for n in range(19) if n != 9} | {(9, 10): CUT, (19, 0): CUT}
    edges |= dict.fromkeys(extra, CUT)
    ordered = sorted(edges)
    sources = [i for i, _ in ordered]
    return MotionGraph(
        n_nodes=20,
        clip_start=np.array([0, 10, 20]),
        indptr=np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=20))]),
        indices=np.array([j for _, j in ordered], np.int32),
        distance=np.array([0.0 if edges[edge] == CONTINUE else 0.25 for edge in ordered], np.float32),
        kind=np.array([edges[edge] for edge in ordered], np.uint8),
        kept=np.ones(20, bool),
    )


def test_only_what_is_missing_is_added() -> None:
    graph = two_takes(((5, 2), (7, 12), (15, 3)))
    nothing = np.zeros((0, 2), np.int32)
    used = np.array([[7, 12], [15, 3]])  # back to 2 over 19 -> 0, without 5 -> 2
    assert connecting_cuts(graph, used, 4, SearchOptions()).tolist() == [[9, 10], [19, 0]]
    rest = two_takes(())
    assert connecting_cuts(rest, nothing, 4, SearchOptions()).tolist() == [[9, 10], [19, 0]]
    assert connecting_cuts(rest, np.array([[9, 10], [19, 0]]), 4, SearchOptions()).tolist() == []


def test_a_large_gap_of_the_hands_is_not_added_if_there_is_another_way() -> None:
    graph = two_takes(((8, 10),))
    gap = np.zeros(graph.n_edges, np.float32)
    gap[edge_numbers(graph, np.array([[8, 10]]))] = 0.9
    added = connecting_cuts(replace(graph, hand_gap=gap), np.zeros((0, 2), int), 0, SearchOptions())
    assert [8, 10] not in added.tolist()


def test_the_live_graph_holds_its_cuts_and_all_continue_edges() -> None:
    whole = make_live_graph(3)
    gap = np.random.default_rng(3).random(whole.n_edges).astype(np.float32)
    whole = replace(whole, hand_gap=gap)
    chosen = cuts_of(whole)[::2]
    chosen = np.concatenate([chosen, connecting_cuts(whole, chosen, 0, SearchOptions())])
    graph = live_graph(whole, chosen)
    assert {*map(tuple, cuts_of(graph).tolist())} == {*map(tuple, chosen.tolist())}
    assert np.count_nonzero(graph.kind == CONTINUE) == np.count_nonzero(whole.kind == CONTINUE)
    of_whole = dict(
        zip(zip(whole.sources, whole.indices, strict=True), zip(whole.distance, gap, strict=True), strict=True)
    )
    assert graph.hand_gap is not None
    for edge, distance, its_gap in zip(
        zip(graph.sources, graph.indices, strict=True), graph.distance, graph.hand_gap, strict=True
    ):
        assert of_whole[edge] == (distance, its_gap)


@pytest.mark.parametrize("cuts", [[[0, 1]], [[0, 0]], [[-1, 3]], [[3, 99]], [[99, 3]], [[2**31, 0]]])
def test_what_is_no_cut_of_the_graph_is_refused(cuts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="not in the graph"):
        edge_numbers(two_takes(()), np.array(cuts))


def test_a_graph_with_a_dead_end_is_refused() -> None:
    with pytest.raises(ValueError, match="no way out"):
        live_graph(two_takes(()), np.array([[9, 10]]))
    with pytest.raises(ValueError, match="shape"):
        live_graph(two_takes(()), np.zeros(4, int))


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.lists(st.integers(0, 21), min_size=1, max_size=3, unique=True))
@settings(max_examples=60, deadline=None)
def test_targets_are_reached_from_wherever_the_whole_graph_reaches_them(
    seed: int, n_chosen: int, targets: list[int]
) -> None:
    graph = make_live_graph(seed)
    cuts = cuts_of(graph)
    # what the graph must keep to be one: the ways out of the ends of clips
    ends = cuts[np.isin(cuts[:, 0], graph.clip_start[1:] - 1)]
    picked = np.unique(
        np.concatenate([ends, cuts[np.random.default_rng(seed).permutation(len(cuts))[:n_chosen]]]), axis=0
    )
    added = leading_cuts(graph, picked, targets, SearchOptions())
    assert not {*map(tuple, added.tolist())} & {*map(tuple, picked.tolist())}
    few = states(live_graph(graph, np.concatenate([picked, added])))
    whole = states(graph)
    for target in targets:
        there = [(target, d) for d in range(1, DWELL + 1)]
        for node in range(graph.n_nodes):
            assert led(few, (node, DWELL), there) == led(whole, (node, DWELL), there)


def led(ways: nx.DiGraph, start: tuple[int, int], ends: list[tuple[int, int]]) -> bool:
    return start in ends or any(end in ways and start in ways and nx.has_path(ways, start, end) for end in ends)


@pytest.mark.parametrize("n_apart", [int(DRAW_PRICE / STEP_PRICE) - 1, int(DRAW_PRICE / STEP_PRICE) + 1])
def test_a_cut_is_added_where_it_saves_enough_steps(n_apart: int) -> None:
    """From node 2 to the target by a new cut, or from n_apart nodes later by one that is there."""
    later = 2 + n_apart
    graph = two_takes(((2, 15), (later, 15)))
    there = cuts_of(graph)
    there = there[~((there[:, 0] == 2) & (there[:, 1] == 15))]
    added = leading_cuts(graph, there, [15], SearchOptions()).tolist()
    assert ([2, 15] in added) == (n_apart > DRAW_PRICE / STEP_PRICE)
