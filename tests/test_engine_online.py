"""The online search against a naive twin and the exact search, planted answers, and its promises."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.motion_graph.costs import CostOptions, MotionVectors, SpeechSteps, node_costs, resting
from engine.motion_graph.graph import CONTINUE, CUT, MotionGraph
from engine.motion_graph.kernels.prices import node_noise
from engine.motion_graph.online import OnlineSearch
from engine.motion_graph.online_graph import OnlineGraph, OnlineOptions
from engine.motion_graph.search import SearchOptions, node_jitter, viterbi
from engine.motion_graph.spoken import joined
from engine.motion_graph.variety import VarietyOptions
from engine.motion_graph.words import Matches
from tests.helpers.naive_online import NaiveOnline
from tests.helpers.random_graphs import make_graph, make_live_graph, make_motion, make_steps, prepare, walk

EXACT = OnlineOptions(plan_nodes=1, persistence_nodes=0, trust=1, hesitation=0, discount=0, idle_cut=0, idle_repeat=0)
NO_REPEATS = VarietyOptions(repeat_weight=0)
SEEDS = st.integers(0, 2**32 - 1)


def edge_kinds(graph: MotionGraph) -> dict[tuple[int, int], int]:
    return dict(zip(zip(graph.sources.tolist(), graph.indices.tolist(), strict=True), graph.kind.tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 3), st.integers(1, 5), st.sampled_from([2, 3, 4]), st.sampled_from([0.0, 0.7]))
def test_decisions_equal_the_naive_twin(seed: int, ahead: int, length: int, dwell: int, variation: float) -> None:
    graph = make_live_graph(seed, (6, 5, 7))
    motion, rest = make_motion(graph.n_nodes, seed)
    options = OnlineOptions(lookahead_nodes=ahead, plan_nodes=length, persistence_nodes=3, discount=0.6)
    search = SearchOptions(min_dwell=dwell, seed=seed, variation=variation)
    parts = (graph, motion, rest, search, CostOptions(similarity_weight=2), VarietyOptions(repeat_s=2), options)
    naive, online = NaiveOnline(*parts), OnlineSearch(OnlineGraph(*parts))
    steps = make_steps(16, seed)
    shown = [online.begin(steps)]
    for t in range(len(steps) - 1):
        totals = naive.totals(steps[t:], shown, shown[-1], online.dwell)
        decision = online.advance(steps[t:])
        shown.append(decision.node)
        if not totals:
            assert not decision.cut
            continue
        # the value iteration of the search stops at a tolerance
        assert totals[decision.node, online.dwell] <= min(totals.values()) + 1e-3
        assert decision.cut == (online.dwell == 1)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(0, 4), st.integers(0, 40), st.sampled_from([2, 3]))
def test_decisions_with_a_bonus_equal_the_naive_twin(seed: int, ahead: int, n_bonus: int, dwell: int) -> None:
    graph, rng = make_live_graph(seed, (6, 5, 7)), np.random.default_rng(seed)
    motion, rest = make_motion(graph.n_nodes, seed)
    options = OnlineOptions(lookahead_nodes=ahead, persistence_nodes=3, discount=0.6)
    search = SearchOptions(min_dwell=dwell)
    parts = (graph, motion, rest, search, CostOptions(similarity_weight=2), VarietyOptions(repeat_s=2), options)
    naive, online = NaiveOnline(*parts), OnlineSearch(OnlineGraph(*parts))
    steps = make_steps(12, seed)
    said = Matches(
        np.sort(rng.integers(0, 6, n_bonus)),
        rng.integers(0, graph.n_nodes, n_bonus).astype(np.int32),
        (rng.integers(1, 33, n_bonus) / 8).astype(np.float32),
    )
    by_step: list[dict[int, float]] = [{} for _ in range(6)]
    for step, node, value in zip(*(part.tolist() for part in said), strict=True):
        by_step[step][node] = max(by_step[step].get(node, 0.0), value)
    bonus, shown = joined([(said, 0)], 6), [online.begin(steps)]
    for t in range(len(steps) - 1):
        totals = naive.totals(steps[t:], shown, shown[-1], online.dwell, by_step)
        decision = online.advance(steps[t:], bonus)
        shown.append(decision.node)
        if totals:
            assert totals[decision.node, online.dwell] <= min(totals.values()) + 1e-3
    assert not online._scratch.bonus.any()


def test_a_bonus_decides_the_first_node() -> None:
    graph = make_live_graph(1)
    prepared, steps = prepare(graph, 1), make_steps(4, 1)
    plain = OnlineSearch(prepared).begin(steps)
    for node in (3, 12):
        said = Matches(np.array([0]), np.array([node], np.int32), np.array([100], np.float32))
        assert OnlineSearch(prepared).begin(steps, joined([(said, 0)], 1)) == node
    assert OnlineSearch(prepared).begin(steps) == plain


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 14), st.sampled_from([2, 3, 4]), st.sampled_from([0.0, 0.5]))
def test_with_all_known_it_is_the_exact_search(seed: int, n_steps: int, dwell: int, variation: float) -> None:
    graph = make_graph([7, 5, 6], 40, seed)
    motion, rest = make_motion(graph.n_nodes, seed)
    search = SearchOptions(min_dwell=dwell, seed=seed, variation=variation)
    steps = make_steps(n_steps, seed)
    start = int(np.random.default_rng(seed).integers(graph.n_nodes))
    options = replace(EXACT, lookahead_nodes=n_steps)
    online = OnlineSearch(OnlineGraph(graph, motion, rest, search, CostOptions(), NO_REPEATS, options))
    costs = node_costs(steps, motion, rest)
    try:
        wanted = viterbi(costs, graph, search, start)
    except InputError:
        return
    online.jump(start)
    nodes = [start] + [online.advance(steps[t:]).node for t in range(n_steps - 1)]
    given_path = np.full(costs.shape, np.inf, np.float32)
    given_path[np.arange(n_steps), nodes] = costs[np.arange(n_steps), nodes]
    assert viterbi(given_path, graph, search, start).cost == pytest.approx(wanted.cost, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 6))
def test_with_all_known_the_first_node_is_the_best_too(seed: int, n_steps: int) -> None:
    graph = make_graph([6, 5], 20, seed)
    motion, rest = make_motion(graph.n_nodes, seed)
    steps = make_steps(n_steps, seed)
    options = replace(EXACT, lookahead_nodes=n_steps)
    prepared = OnlineGraph(graph, motion, rest, SearchOptions(), CostOptions(), NO_REPEATS, options)
    costs = node_costs(steps, motion, rest)
    nodes = walk(prepared, steps)
    given_path = np.full(costs.shape, np.inf, np.float32)
    given_path[np.arange(n_steps), nodes] = costs[np.arange(n_steps), nodes]
    assert viterbi(given_path, graph).cost == pytest.approx(viterbi(costs, graph).cost, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 12), st.sampled_from([2, 3]))
def test_a_bound_that_is_not_reached_changes_nothing(seed: int, ahead: int, dwell: int) -> None:
    """The graph has 24 nodes, so at most 24 * dwell states, and 70 edges."""
    search, steps = SearchOptions(min_dwell=dwell), make_steps(30, seed)
    prepared = prepare(make_live_graph(seed), seed, search=search)
    assert walk(prepared.ahead(ahead, 200), steps) == walk(prepared.ahead(ahead), steps)


def test_a_bounded_plan_finds_what_is_far_away() -> None:
    """A match begins 40 steps ahead, and one way leads there in time: the exact path takes it, and the bounded."""
    n = 60
    graph = make_live_graph(3, (n, n, n))
    rng = np.random.default_rng(2)
    low = np.zeros((3 * n, 8), np.float32)
    low[2 * n + 5 : 2 * n + 30, 0] = 1
    motion = MotionVectors(low, np.empty((3 * n, 0), np.float32), np.full(3 * n, 0.5, np.float32))
    spoken = np.zeros((60, 8), np.float32)
    spoken[40:, 0] = 1
    ones = np.ones(60, np.float32)
    steps = SpeechSteps(spoken, np.empty((60, 0), np.float32), ones / 2, ones)
    prepared = OnlineGraph(
        graph, motion, rng.random(3 * n).astype(np.float32), SearchOptions(), CostOptions(similarity_weight=4),
        NO_REPEATS, OnlineOptions(),
    )  # fmt: skip
    for most in (0, 24):
        search = OnlineSearch(prepared.ahead(60, most))
        search.jump(3)
        nodes = [search.advance(steps[t:]).node for t in range(59)]
        assert low[nodes[40:], 0].mean() > 0.9, most


def test_a_bounded_plan_costs_little_more_than_the_exact_one() -> None:
    """With equal knowledge, and a bound of an eighth of all states: 1 % of the cost in the mean of ten graphs."""
    ratios = []
    for seed in range(10):
        graph = make_live_graph(seed, (20, 25, 19))
        motion, rest = make_motion(graph.n_nodes, seed)
        steps, prices = make_steps(25, seed), []
        costs = node_costs(steps, motion, rest)
        for most in (0, 24):
            options = replace(EXACT, lookahead_nodes=25, most_states=most)
            prepared = OnlineGraph(graph, motion, rest, SearchOptions(), CostOptions(), NO_REPEATS, options)
            path, nodes = np.full(costs.shape, np.inf, np.float32), walk(prepared, steps)
            path[np.arange(25), nodes] = costs[np.arange(25), nodes]
            prices.append(viterbi(path, graph).cost)
        ratios.append(prices[1] / prices[0])
    assert 1 - 1e-6 <= np.mean(ratios) <= 1.01


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 4), st.sampled_from([2, 3, 4]), st.sampled_from([0, 1, 5, 20]))
def test_every_step_is_an_edge_and_dwells(seed: int, ahead: int, dwell: int, most: int) -> None:
    graph = make_live_graph(seed)
    options = OnlineOptions(lookahead_nodes=ahead, most_states=most)
    prepared = prepare(graph, seed, options, SearchOptions(min_dwell=min(dwell, 3)))
    kinds = edge_kinds(graph)
    steps = make_steps(60, seed)
    search = OnlineSearch(prepared)
    node, since = search.begin(steps), 99
    for t in range(59):
        decision = search.advance(steps[t:])
        kind = kinds[node, decision.node]
        assert decision.cut == (kind != CONTINUE)
        if decision.cut:
            assert since >= min(dwell, 3)
        since = 1 if decision.cut else since + 1
        assert all(kinds[cut] != CONTINUE for cut in decision.planned)
        node = decision.node


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(0, 3))
def test_rows_beyond_the_lookahead_change_nothing(seed: int, ahead: int) -> None:
    """So a node that is out never depends on what was heard later."""
    prepared = prepare(make_live_graph(seed), seed, OnlineOptions(lookahead_nodes=ahead))
    steps, other = make_steps(40, seed), make_steps(40, seed + 1)
    for heard in (1, 17):
        mixed = steps[: heard + ahead] + other[heard + ahead :]
        assert walk(prepared, mixed)[:heard] == walk(prepared, steps)[:heard]


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 200), st.sampled_from(["advance", "go_on", "follow"]))
def test_take_back_undoes_exactly(seed: int, n_before: int, how: str) -> None:
    prepared = prepare(make_live_graph(seed), seed)
    steps = make_steps(n_before + 30, seed)
    search, twin = OnlineSearch(prepared), OnlineSearch(prepared)
    for one in (search, twin):
        one.begin(steps)
        for t in range(n_before):
            one.advance(steps[t:])
    node, dwell = search.node, search.dwell
    if how == "advance":
        search.advance(make_steps(4, seed + 1))
    elif how == "go_on":
        if search.go_on() is None:
            return
    else:
        search.follow(0, cut=True)
    search.take_back()
    assert (search.node, search.dwell, search.n_steps) == (node, dwell, twin.n_steps)
    search.take_back()
    assert (search.node, search.dwell, search.n_steps) == (node, dwell, twin.n_steps)
    for t in range(n_before, n_before + 29):
        assert search.advance(steps[t:]) == twin.advance(steps[t:])


@given(SEEDS, st.integers(0, 2**63), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_noise_equals_that_of_the_exact_search(seed: int, search_seed: int, step: int) -> None:
    options = SearchOptions(seed=search_seed, variation=0.4)
    rows, row = node_jitter(options, step, 3, 40)
    prepared = prepare(make_live_graph(seed), search=options)
    for k in range(3):
        assert [node_noise(prepared.tables.noise, step + k, n) for n in range(40)] == rows[row[k]].tolist()


def test_memory_is_constant_over_20000_steps() -> None:
    prepared = prepare(make_live_graph(1))
    steps = make_steps(500, 1)
    search = OnlineSearch(prepared)
    search.begin(steps)
    arrays = [search._shown, *search._scratch]
    before = [(id(array), array.nbytes) for array in arrays]
    for t in range(20_000):
        search.advance(steps[t % 490 :])
    assert [(id(array), array.nbytes) for array in [search._shown, *search._scratch]] == before
    assert search.n_steps == 20_001
    assert (search._scratch.shown_at == -1).all()


def test_a_match_is_held_and_found() -> None:
    """Three clips; the speech is the motion of one of them. The path goes there and stays with it."""
    n, width = 40, 12
    graph = make_live_graph(3, (n, n, n))
    rng = np.random.default_rng(5)
    low = rng.standard_normal((3 * n, width)).astype(np.float32)
    low /= np.linalg.norm(low, axis=1, keepdims=True)
    # neighbours are alike, as contexts of speech are
    low = (0.5 * (low + np.roll(low, 1, axis=0))).astype(np.float32)
    motion = MotionVectors(low, np.empty((3 * n, 0), np.float32), np.full(3 * n, 0.5, np.float32))
    every = {(i, j): CUT for i in range(3 * n) for j in range(3 * n) if j - i not in (0, 1) and j % n < n - 4}
    every |= {(i, i + 1): CONTINUE for i in range(3 * n - 1) if (i + 1) % n}
    edges = sorted(every)
    graph = replace(
        graph,
        indptr=np.concatenate([[0], np.cumsum(np.bincount([i for i, _ in edges], minlength=3 * n))]),
        indices=np.array([j for _, j in edges], np.int32),
        kind=np.array([every[e] for e in edges], np.uint8),
        distance=np.zeros(len(edges), np.float32),
    )
    prepared = OnlineGraph(
        graph, motion, np.ones(3 * n, np.float32), SearchOptions(), CostOptions(similarity_weight=4), VarietyOptions(),
        OnlineOptions(lookahead_nodes=1),
    )  # fmt: skip
    spoken = np.arange(n + 4, 2 * n - 4)
    ones = np.ones(len(spoken), np.float32)
    steps = SpeechSteps(low[spoken], np.empty((len(spoken), 0), np.float32), ones / 2, ones)
    search = OnlineSearch(prepared)
    search.jump(3)
    found = [search.advance(steps[t:]).node for t in range(len(spoken) - 1)]
    np.testing.assert_array_equal(found[2:], spoken[3:])


def test_silence_leads_to_rest_and_speech_out_of_it() -> None:
    graph = make_live_graph(0, (60, 60))
    motion, _ = make_motion(120, 0)
    rest = np.where(np.arange(120) % 60 < 30, 0, 1).astype(np.float32)
    level = np.full(120, 0.5, np.float32)
    prepared = OnlineGraph(
        graph, MotionVectors(motion.low, motion.high, level), rest, SearchOptions(distance_weight=1), CostOptions(),
        VarietyOptions(), OnlineOptions(),
    )  # fmt: skip
    search = OnlineSearch(prepared)
    assert rest[search.begin_at_rest()] == 0
    quiet = [search.advance(resting(3, motion)).node for _ in range(400)]
    assert rest[quiet].mean() < 0.1
    lively = resting(3, motion, speaking=1.0)
    spoken = [search.advance(lively).node for _ in range(100)]
    assert rest[spoken].mean() > rest[quiet].mean() + 0.4


def test_dead_ends_are_left_by_a_hard_cut_to_rest() -> None:
    """Node 4 is the end of its clip and has no cut: nobody goes there by choice, but an interrupt may."""
    graph = make_graph([5, 6], 0)
    prepared = prepare(graph)
    search = OnlineSearch(prepared)
    search.jump(4)
    decision = search.advance(make_steps(3, 0))
    assert (decision.node, decision.cut, decision.planned) == (prepared.rest_node, False, ())
    assert search.dwell == prepared.depth


def test_what_cannot_be_searched_is_said() -> None:
    graph = make_live_graph(0)
    prepared = prepare(graph)
    with pytest.raises(RuntimeError, match="has not begun"):
        OnlineSearch(prepared).advance(make_steps(1, 0))
    search = OnlineSearch(prepared)
    assert search.go_on() is None
    with pytest.raises(ValueError, match="not a kept node"):
        search.jump(graph.n_nodes)
    search.begin(make_steps(2, 0))
    with pytest.raises(InputError, match="expected one row or more"):
        search.advance(make_steps(0, 0))
    with pytest.raises(InputError, match="of 3 and 2 numbers"):
        search.advance(make_steps(2, 0, width=4))
    for options in (
        OnlineOptions(lookahead_nodes=-1),
        OnlineOptions(plan_nodes=0),
        OnlineOptions(discount=1),
        OnlineOptions(most_states=-1),
    ):
        with pytest.raises(InputError, match="expected"):
            prepare(graph, options=options)
    with pytest.raises(ValueError, match="the graph has"):
        motion, rest = make_motion(3, 0)
        OnlineGraph(graph, motion, rest, SearchOptions(), CostOptions(), VarietyOptions(), OnlineOptions())


_WALK = """
from tests.helpers.random_graphs import make_live_graph, make_steps, prepare, walk
from engine.motion_graph.search import SearchOptions
print(walk(prepare(make_live_graph(7), 7, search=SearchOptions(seed=3, variation=0.4)), make_steps(300, 7)))
"""


def test_two_processes_give_the_same_nodes() -> None:
    here = walk(prepare(make_live_graph(7), 7, search=SearchOptions(seed=3, variation=0.4)), make_steps(300, 7))
    there = subprocess.run([sys.executable, "-c", _WALK], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(here)
