"""Ways to a node by a deadline: against every path of small graphs, planted answers, and their promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.motion_graph.online_graph import OnlineGraph
from engine.motion_graph.search import SearchOptions
from engine.motion_graph.ways import LATE_PRICE, WayFinder
from tests.helpers.naive_ways import cheapest, successors
from tests.helpers.random_graphs import make_live_graph, planted, prepare

SEEDS = st.integers(0, 2**32 - 1)


def check(prepared: OnlineGraph, start: tuple[int, int], way) -> None:
    """Every step is an edge, and cuts keep their distance."""
    node, dwell = start
    for after, by_cut in zip(way.nodes.tolist(), way.by_cut.tolist(), strict=True):
        found = {(j, cut): dwelt for j, dwelt, _, cut in successors(prepared, node, dwell)}
        assert (after, by_cut) in found
        node, dwell = after, found[after, by_cut]


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(0, 17), st.integers(0, 17), st.integers(1, 4), st.integers(0, 4), st.booleans())
def test_it_is_the_cheapest_of_all_paths(
    seed: int, node: int, target: int, first: int, more: int, speaking: bool
) -> None:
    search = SearchOptions(min_dwell=2 + seed % 2)
    prepared = prepare(make_live_graph(seed, (6, 5, 7)), seed, search=search)
    start, window = (node, 1 + seed % search.min_dwell), (first, first + more)
    way = WayFinder(prepared).find(start, target, window, speaking)
    cost, nodes = cheapest(prepared, start, target, window, speaking)
    if way is None:
        assert not nodes
        return
    assert way.cost == pytest.approx(cost, abs=1e-5)
    assert window[0] <= len(way.nodes) <= window[1] and way.nodes[-1] == target
    check(prepared, start, way)


def test_the_only_way_is_found() -> None:
    prepared = planted([10, 10], {(4, 13): 0.1, (9, 0): 0.1, (19, 0): 0.1})
    way = WayFinder(prepared).find((1, 3), 15, (6, 6), True)
    assert way is not None and way.nodes.tolist() == [2, 3, 4, 13, 14, 15]
    assert way.by_cut.tolist() == [False, False, False, True, False, False]


def test_it_takes_time_where_it_would_be_early_and_is_late_where_it_must() -> None:
    prepared = planted([12, 12], {(2, 0): 0.1, (5, 14): 0.1, (11, 0): 0.1, (23, 0): 0.1})
    ways = WayFinder(prepared)
    early = ways.find((0, 3), 14, (9, 9), True)
    assert early is not None and early.nodes.tolist() == [1, 2, 0, 1, 2, 3, 4, 5, 14]
    late = ways.find((0, 3), 14, (2, 8), True)
    assert late is not None and len(late.nodes) == 6
    exact = ways.find((0, 3), 14, (6, 6), True)
    assert exact is not None and late.cost == pytest.approx(exact.cost + 4 * LATE_PRICE)


def test_a_cut_must_keep_its_distance_to_the_last() -> None:
    prepared = planted([10, 10], {(1, 12): 0.1, (2, 15): 0.1, (9, 0): 0.1, (19, 0): 0.1})
    ways = WayFinder(prepared)
    assert ways.find((1, 3), 12, (1, 1), True) is not None
    assert ways.find((1, 1), 12, (1, 1), True) is None
    later = ways.find((1, 1), 15, (1, 3), True)  # dwell 3 is reached at node 3, beyond the cut
    assert later is None
    assert ways.find((1, 2), 15, (1, 3), True) is not None


def test_an_awful_cut_is_worth_waiting_for_a_better_one() -> None:
    prepared = planted([10, 10], {(1, 12): 3.0, (2, 12): 0.1, (9, 0): 0.1, (19, 0): 0.1})
    way = WayFinder(prepared).find((0, 3), 12, (1, 9), True)
    assert way is not None and way.nodes.tolist() == [1, 2, 12]


def test_where_no_way_leads() -> None:
    prepared = planted([10, 10], {(9, 0): 0.1, (19, 0): 0.1})
    assert WayFinder(prepared).find((0, 3), 15, (1, 60), True) is None
    with pytest.raises(ValueError, match="window"):
        WayFinder(prepared).find((0, 3), 15, (0, 4), True)
    with pytest.raises(ValueError, match="state"):
        WayFinder(prepared).find((0, 4), 15, (1, 4), True)
    with pytest.raises(ValueError, match="node 20"):
        WayFinder(prepared).find((0, 3), 20, (1, 4), True)


def test_silence_prefers_rest() -> None:
    """Two ways of equal length: through nodes away from rest, or near it."""
    prepared = planted([3, 8, 8, 6], {(2, 4): 0.1, (2, 12): 0.1, (7, 21): 0.1, (15, 21): 0.1, (10, 0): 0.1,
                                      (18, 0): 0.1, (24, 0): 0.1})  # fmt: skip
    for resting, passed in ((slice(3, 11), 4), (slice(11, 19), 12)):
        usual = np.full(25, 5.0)
        usual[resting] = 1.0
        tables = prepared.tables
        prepared.tables = tables._replace(nodes=tables.nodes._replace(usual_silence=usual))
        way = WayFinder(prepared).find((0, 3), 21, (7, 7), False)
        assert way is not None and way.nodes[2] == passed
