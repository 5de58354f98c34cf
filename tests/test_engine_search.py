"""The Viterbi search against brute force, a naive table, planted answers, and its own promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.motion_graph.graph import CONTINUE, RELAXED
from engine.motion_graph.search import SearchOptions, node_jitter, viterbi, viterbi_blocks
from tests.helpers import naive_search as naive
from tests.helpers.random_graphs import make_graph


def assert_walks(path, graph, options):
    """Only edges of the graph, cuts where it says, and the dwell between them."""
    kinds = {(int(i), int(j)): int(kind) for i, j, kind in zip(graph.sources, graph.indices, graph.kind, strict=True)}
    cuts = [
        t
        for t, (i, j) in enumerate(zip(path.nodes[:-1].tolist(), path.nodes[1:].tolist(), strict=True))
        if kinds[i, j] != CONTINUE
    ]
    assert path.cuts.tolist() == cuts
    assert (np.diff(path.cuts) >= options.min_dwell).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.sampled_from([2, 3, 4]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_path_at_all_is_cheaper(seed, n_steps, min_dwell, fixed_start):
    rng = np.random.default_rng(seed)
    graph = make_graph([int(n) for n in rng.integers(1, 5, 3)], int(rng.integers(0, 14)), seed)
    options = SearchOptions(min_dwell=min_dwell, return_s=float(rng.uniform(0.2, 2)))
    costs = rng.random((n_steps, graph.n_nodes), dtype=np.float32)
    start = int(rng.integers(graph.n_nodes)) if fixed_start else None
    paths = naive.all_paths(n_steps, graph, options, start)
    if not paths:
        with pytest.raises(InputError, match="no path"):
            viterbi(costs, graph, options, start)
        return
    best = min(naive.path_cost(costs, nodes, price) for nodes, _, price in paths)
    path = viterbi(costs, graph, options, start)
    assert path.cost == pytest.approx(best, rel=1e-9)
    assert (path.nodes.tolist(), path.cuts.tolist()) in [(nodes, cuts) for nodes, cuts, _ in paths]
    assert start is None or path.nodes[0] == start


@pytest.mark.parametrize("seed", range(4))
def test_long_paths_cost_what_the_naive_table_says(seed):
    graph = make_graph([30, 21, 9], 200, seed, n_relaxed=10)
    costs = np.random.default_rng(seed).random((120, 60), dtype=np.float32) * 2
    options = SearchOptions(cut_weight=0.2, distance_weight=0.5, gap_weight=0.3)
    path = viterbi(costs, graph, options)
    assert path.cost == pytest.approx(naive.viterbi_cost(costs, graph, options), rel=1e-9)
    assert_walks(path, graph, options)
    assert len(path.cuts) > 5


def planted_walk(graph, n_steps, dwell, seed):
    rng = np.random.default_rng(seed)
    out = naive.edges_of(graph, SearchOptions())
    while True:
        nodes, since = [int(rng.integers(graph.n_nodes))], dwell
        while len(nodes) < n_steps:
            ways = [(j, cut) for j, _, cut in out[nodes[-1]] if since >= dwell or not cut]
            if not ways:
                break
            j, cut = ways[int(rng.integers(len(ways)))]
            since = 1 if cut else since + 1
            nodes.append(j)
        else:
            return np.array(nodes)


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_path_is_found(seed):
    graph = make_graph([40, 40, 20], 400, seed)
    options = SearchOptions()
    planted = planted_walk(graph, 200, options.min_dwell, seed)
    costs = np.random.default_rng(seed).uniform(20, 25, (200, 100)).astype(np.float32)
    costs[np.arange(200), planted] = 0
    np.testing.assert_array_equal(viterbi(costs, graph, options).nodes, planted)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_blocks_of_any_size_give_the_same_path(sizes, variation):
    graph = make_graph([20, 20], 120)
    n_steps = sum(sizes) + 1
    costs = np.random.default_rng(len(sizes)).random((n_steps, 40), dtype=np.float32)
    options = SearchOptions(variation=variation, seed=7)
    blocks = np.split(costs, np.cumsum([1, *sizes])[:-1])
    whole, pieces = viterbi(costs, graph, options), viterbi_blocks(iter(blocks), graph, options)
    np.testing.assert_array_equal(whole.nodes, pieces.nodes)
    np.testing.assert_array_equal(whole.cuts, pieces.cuts)
    assert whole.cost == pieces.cost


def test_one_step_takes_the_cheapest_kept_node():
    graph = make_graph([10], 20)
    graph.kept[4] = False
    costs = np.linspace(2, 1, 10, dtype=np.float32)[None].copy()
    costs[0, 4] = 0
    path = viterbi(costs, graph)
    assert path.nodes.tolist() == [9] and path.cost == 1 and len(path.cuts) == 0


def test_ties_go_to_the_lowest_node():
    graph = make_graph([4, 4, 4], 0)
    assert viterbi(np.zeros((4, 12), np.float32), graph).nodes.tolist() == [0, 1, 2, 3]
    assert viterbi(np.zeros((1, 12), np.float32), graph).nodes.tolist() == [0]


def test_a_forbidden_node_is_avoided():
    graph = make_graph([30], 200)
    costs = np.random.default_rng(0).random((50, 30), dtype=np.float32)
    costs[:, 10:15] = np.inf
    assert not np.isin(viterbi(costs, graph).nodes, np.arange(10, 15)).any()


def test_equal_seeds_perform_equally_and_others_do_not():
    graph = make_graph([60], 600)
    costs = np.random.default_rng(0).random((100, 60), dtype=np.float32)
    nodes = [viterbi(costs, graph, SearchOptions(seed=s, variation=1.0)).nodes for s in (1, 1, 2, 3)]
    np.testing.assert_array_equal(nodes[0], nodes[1])
    assert (nodes[0] != nodes[2]).any() and (nodes[2] != nodes[3]).any()


def test_jitter_is_spread_evenly_and_depends_on_time_not_on_blocks():
    options = SearchOptions(seed=5, variation=0.5)
    rows, row_of = node_jitter(options, 0, 800, 800)
    assert rows.dtype == np.float32 and rows.shape == (100, 800)
    assert rows.min() >= 0 and rows.max() < 0.5
    assert rows.mean() == pytest.approx(0.25, abs=0.01)
    later, later_row_of = node_jitter(options, 13, 50, 800)
    np.testing.assert_array_equal(later[later_row_of], rows[row_of[13:63]])
    assert np.unique(rows[:, ::8]).size > 0.99 * rows[:, ::8].size
    assert (rows[:, 0] == rows[:, 7]).all() and (rows[:, 7] != rows[:, 8]).any()
    assert not node_jitter(SearchOptions(), 0, 10, 10)[0].any()


def test_a_path_does_not_cut_back_into_what_it_has_just_shown():
    graph = make_graph([150], 2000)
    costs = np.random.default_rng(0).random((300, 150), dtype=np.float32) * 4

    def steps_back(penalty):
        path = viterbi(costs, graph, SearchOptions(distance_weight=2.0, return_penalty=penalty, return_s=8.0))
        back = path.nodes[path.cuts] - path.nodes[path.cuts + 1]
        return np.count_nonzero((back >= 0) & (back < 30))

    assert steps_back(5.0) < steps_back(0.0)


def test_relaxed_cuts_are_a_last_resort():
    graph = make_graph([40], 200, n_relaxed=100)
    costs = np.random.default_rng(2).random((100, 40), dtype=np.float32) * 4
    kinds = dict(zip(zip(graph.sources, graph.indices, strict=True), graph.kind, strict=True))

    def n_relaxed(weight):
        path = viterbi(costs, graph, SearchOptions(distance_weight=2.0, relaxed_weight=weight))
        return sum(kinds[path.nodes[t], path.nodes[t + 1]] == RELAXED for t in path.cuts)

    assert n_relaxed(0.0) > 3
    assert n_relaxed(50.0) == 0


def test_what_cannot_be_searched_is_named():
    graph, costs = make_graph([10], 20), np.zeros((5, 10), np.float32)
    for bad, error, message in (
        (costs[:0], InputError, "no costs"),
        (costs[:, :9], ValueError, r"\(5, 9\)"),
        (costs[0], ValueError, r"\(10,\)"),
        (np.full((5, 10), np.nan, np.float32), InputError, "NaN"),
        (np.full((5, 10), np.inf, np.float32), InputError, "no path"),
    ):
        with pytest.raises(error, match=message):
            viterbi(bad, graph)
    with pytest.raises(ValueError, match="start 10"):
        viterbi(costs, graph, start=10)
    with pytest.raises(InputError, match="min_dwell"):
        viterbi(costs, graph, SearchOptions(min_dwell=1))
    graph.kept[:] = False
    with pytest.raises(InputError, match="keeps no node"):
        viterbi(costs, graph)
