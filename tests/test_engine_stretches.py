"""Where stretches can be placed: against every path of small graphs, and the search finds a path through them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.motion_graph.graph import CONTINUE, MotionGraph
from engine.motion_graph.search import SearchOptions, viterbi_blocks
from engine.motion_graph.stretches import Stretch, place_stretches
from tests.helpers.random_graphs import make_live_graph


def possible(graph: MotionGraph, stretches: list[tuple[Stretch, int]], n_steps: int, min_dwell: int, start) -> bool:
    """Whether any path plays all of these at these steps, one step after the other."""
    kinds = {}
    for source, target, kind in zip(graph.sources.tolist(), graph.indices.tolist(), graph.kind.tolist(), strict=True):
        kinds.setdefault(source, []).append((target, kind != CONTINUE))
    forced = {step + k: one.first_node + k for one, step in stretches for k in range(one.n_nodes)}
    states = {(n, min_dwell) for n in np.flatnonzero(graph.kept).tolist()} if start is None else {start}
    for step in range(n_steps):
        if step:
            states = {
                (j, 1 if cut else min(dwell + 1, min_dwell))
                for n, dwell in states
                for j, cut in kinds.get(n, [])
                if not cut or dwell == min_dwell
            }
        states = {state for state in states if forced.get(step, state[0]) == state[0]}
    return bool(states)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.data())
def test_the_first_step_at_which_a_path_exists(seed: int, data: st.DataObject) -> None:
    graph = make_live_graph(seed, (6, 5, 7))
    n_steps, min_dwell = 24, data.draw(st.sampled_from([2, 3]))
    start = data.draw(st.one_of(st.none(), st.tuples(st.integers(0, 17), st.just(min_dwell))))
    places = [n for n in range(17) if n + 1 not in graph.clip_start]
    asked = data.draw(
        st.lists(st.tuples(st.sampled_from(places), st.integers(0, 22), st.integers(0, 4)), min_size=1, max_size=4)
    )
    stretches = [Stretch(n, 2, step, within) for n, step, within in sorted(asked, key=lambda one: one[1])]
    placed = place_stretches(graph, stretches, n_steps, min_dwell, start)
    before: list[tuple[Stretch, int]] = []
    end = 0
    for one, place in zip(stretches, placed, strict=True):
        last = min(one.step + one.within, n_steps - 2)
        steps = [
            step
            for step in range(max(one.step, end), last + 1)
            if possible(graph, [*before, (one, step)], n_steps, min_dwell, start)
        ]
        assert place == steps[0] if steps else isinstance(place, str)
        if isinstance(place, int):
            before.append((one, place))
            end = place + 2
    costs = np.random.default_rng(seed % 1000).random((n_steps, graph.n_nodes)).astype(np.float32)
    for one, place in before:
        for k in range(2):
            only = costs[place + k, one.first_node + k]
            costs[place + k] = np.inf
            costs[place + k, one.first_node + k] = only
    node, dwell = start or (None, None)
    path = viterbi_blocks([costs], graph, SearchOptions(min_dwell=min_dwell), node, dwell)
    for one, place in before:
        assert path.nodes[place : place + 2].tolist() == [one.first_node, one.first_node + 1]


def test_planted() -> None:
    graph = make_live_graph(1, (9, 7, 8))
    whole = Stretch(2, 5, 0, 0)
    assert place_stretches(graph, [whole], 5, 3) == [0]
    assert place_stretches(graph, [whole], 4, 3) == ["the speech is over before it ends"]
    assert place_stretches(graph, [whole, Stretch(3, 3, 4, 0)], 30, 3)[1] == "another cue is played then"
    assert place_stretches(graph, [Stretch(2, 5, 2, 0)], 30, 3, (0, 3)) == [2]
    assert place_stretches(graph, [Stretch(2, 5, 1, 0)], 30, 3, (0, 1)) == ["no way leads there in time"]
