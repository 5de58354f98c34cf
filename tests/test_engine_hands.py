"""The hand gap of cuts, and its price: against a naive twin, planted answers, and paths that avoid it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.motion_graph.graph import CONTINUE
from engine.motion_graph.hands import hand_gaps
from engine.motion_graph.search import SearchOptions, cut_costs, viterbi
from engine.skeleton import LEFT_HAND, N_JOINTS
from tests.helpers.naive_hands import hand_gap
from tests.helpers.random_graphs import make_graph


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 6), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_gaps_are_those_of_the_naive_twin(seed: int, lengths: list[int]) -> None:
    graph = make_graph(lengths, 15, seed)
    joints = np.random.default_rng(seed).uniform(-50, 50, (4 * graph.n_nodes, N_JOINTS, 3)).astype(np.float32)
    gaps = hand_gaps(graph, joints, 12.5)
    assert gaps.dtype == np.float32 and gaps.shape == (graph.n_edges,)
    for gap, i, j, kind in zip(gaps, graph.sources, graph.indices, graph.kind, strict=True):
        wanted = 0.0 if kind == CONTINUE else hand_gap(joints, graph.clip_start, int(i), int(j), 12.5)
        assert gap == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_a_hand_that_is_elsewhere_for_half_of_the_frames() -> None:
    graph = make_graph([4, 4], 0)
    graph = replace(
        graph,
        indptr=np.array([0, 1, 3, 4, 4, 5, 6, 7, 7]),
        indices=np.array([1, 2, 6, 3, 5, 6, 7], np.int32),
        kind=np.array([0, 0, 1, 0, 0, 0, 0], np.uint8),
        distance=np.zeros(7, np.float32),
    )
    joints = np.zeros((32, N_JOINTS, 3), np.float32)
    joints[8:12, LEFT_HAND, 0] = 30  # node 2, next to node 6 in the transition 1 -> 6
    np.testing.assert_allclose(hand_gaps(graph, joints, 20.0), [0, 0, 0.75, 0, 0, 0, 0])


def test_the_price_begins_where_a_morph_loses_the_hand() -> None:
    graph = make_graph([10, 10], 30, 1)
    gap = np.where(graph.kind == CONTINUE, 0, np.linspace(0, 0.5, graph.n_edges)).astype(np.float32)
    plain, priced = (cut_costs(one, SearchOptions()) for one in (graph, replace(graph, hand_gap=gap)))
    np.testing.assert_allclose(priced - plain, 100 * np.maximum(gap.astype(float) - 0.2, 0))
    free = SearchOptions(hand_gap_weight=0)
    np.testing.assert_array_equal(cut_costs(replace(graph, hand_gap=gap), free), plain)


def test_a_path_takes_the_cut_that_keeps_the_hands() -> None:
    """Two cuts lead to the same place a node apart: the nearer one is taken until its hands are far apart."""
    graph = make_graph([12, 12], 0)
    edges = {(n, n + 1): (0.0, 0.0) for n in range(23) if n != 11} | {(4, 15): (0.1, 0.45), (5, 16): (0.2, 0.1)}
    ordered = sorted(edges)
    sources = np.array([i for i, _ in ordered])
    graph = replace(
        graph,
        indptr=np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=24))]),
        indices=np.array([j for _, j in ordered], np.int32),
        kind=np.array([j != i + 1 for i, j in ordered], np.uint8),
        distance=np.array([edges[edge][0] for edge in ordered], np.float32),
    )
    costs = np.full((12, 24), 5, np.float32)
    costs[:5, :5] = 0  # the first clip at first, then the second
    costs[5:, 15:] = 0
    assert viterbi(costs, graph, start=0).nodes[4:6].tolist() == [4, 15]
    gaps = replace(graph, hand_gap=np.array([edges[edge][1] for edge in ordered], np.float32))
    costs[5, 5] = 0
    assert viterbi(costs, gaps, start=0).nodes[4:7].tolist() == [4, 5, 16]
