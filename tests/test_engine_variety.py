"""Paths that do not repeat themselves: the price of a repetition, and a planted choice between two equal moments."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.motion_graph.graph import CONTINUE, CUT, MotionGraph
from engine.motion_graph.search import SearchOptions, viterbi
from engine.motion_graph.variety import VarietyOptions, repetition_costs, varied_path


def naive_repetition_costs(nodes: list[int], away: np.ndarray, options: VarietyOptions) -> np.ndarray:
    reach = round(options.repeat_s * 30 / 4)
    costs = np.zeros((len(nodes), len(away)))
    for t in range(len(nodes)):
        for s in range(t):
            if 4 <= t - s <= reach:
                for n in range(len(away)):
                    if abs(n - nodes[s]) <= 1:
                        price = options.repeat_weight * (1 - (t - s) / reach) * away[n]
                        costs[t, n] = max(costs[t, n], price)
    return costs


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.floats(0.7, 6), st.integers(0, 99))
def test_costs_equal_the_naive_twin(nodes: list[int], repeat_s: float, seed: int) -> None:
    away = np.random.default_rng(seed).uniform(size=10).astype(np.float32)
    options = VarietyOptions(repeat_weight=1.5, repeat_s=repeat_s)
    got = repetition_costs(np.array(nodes, np.int32), away, options)
    np.testing.assert_allclose(got, naive_repetition_costs(nodes, away, options), atol=1e-5)


def ring(n_clips: int, n: int) -> MotionGraph:
    """Clips of n nodes; from the end of each a cut to the start of every clip."""
    starts = np.arange(n_clips) * n
    edges = []
    for node in range(n_clips * n):
        if (node + 1) % n:
            edges.append((node, node + 1, CONTINUE))
        else:
            edges += [(node, int(start), CUT) for start in starts]
    source, target, kind = (np.array(column) for column in zip(*edges, strict=True))
    n_nodes = n_clips * n
    return MotionGraph(
        n_nodes=n_nodes,
        clip_start=np.append(starts, n_nodes),
        indptr=np.concatenate([[0], np.cumsum(np.bincount(source, minlength=n_nodes))]),
        indices=target.astype(np.int32),
        distance=np.zeros(len(edges), np.float32),
        kind=kind.astype(np.uint8),
        kept=np.ones(n_nodes, bool),
    )


def test_equal_moments_take_turns() -> None:
    """Clip 0 is a little better than clips 1 and 2: the exact path loops it, the varied one goes round."""
    graph = ring(3, 6)
    costs = np.ones((72, 18), np.float32)
    costs[:, :6] = 0.95
    search = SearchOptions(cut_weight=0.1, return_penalty=0, gap_weight=0)
    looped = viterbi(costs, graph, search)
    assert set(looped.nodes // 6) == {0}
    away = np.ones(18, np.float32)
    varied = varied_path(lambda: [costs.copy()], graph, away, search, VarietyOptions(repeat_s=5))
    assert set(varied.nodes // 6) == {0, 1, 2}
    own = repetition_costs(varied.nodes, away, VarietyOptions(repeat_s=5))
    base = costs[np.arange(72), varied.nodes].sum() + 0.1 * len(varied.cuts)
    assert abs(varied.cost - (base + own[np.arange(72), varied.nodes].sum())) < 1e-2


def test_rest_may_come_back() -> None:
    graph = ring(3, 6)
    costs = np.ones((72, 18), np.float32)
    costs[:, :6] = 0.95
    search = SearchOptions(cut_weight=0.1, return_penalty=0, gap_weight=0)
    varied = varied_path(lambda: [costs.copy()], graph, np.zeros(18, np.float32), search)
    np.testing.assert_array_equal(varied.nodes, viterbi(costs, graph, search).nodes)


def test_blocks_do_not_matter() -> None:
    graph = ring(3, 6)
    costs = np.random.default_rng(3).uniform(size=(90, 18)).astype(np.float32)
    away = np.linspace(0, 1, 18, dtype=np.float32)
    whole = varied_path(lambda: [costs.copy()], graph, away)
    cut_up = varied_path(lambda: (costs[k : k + 7].copy() for k in range(0, 90, 7)), graph, away)
    np.testing.assert_array_equal(whole.nodes, cut_up.nodes)
