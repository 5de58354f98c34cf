"""The release's graph and search: equal to recorded runs of it, and to a naive restatement of its rules."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.motion_graph.official import (
    OfficialFrames,
    OfficialGraph,
    OfficialSearchOptions,
    build_official_graph,
    largest_component,
    official_edges,
    official_frames,
    search_official,
)
from tests.helpers import naive_graph, naive_search

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("TANGO_GOLDEN_DIR", ROOT.parent / "shared" / "golden")) / "graph"
FILES = sorted(FOLDER.glob("*.npz"))
MODES = ("both", "high_level", "low_level")
REAL_TIE = 1e-5

needs_golden = pytest.mark.skipif(not FILES, reason=f"no golden graphs in {FOLDER} (set TANGO_GOLDEN_DIR)")


def golden(which):
    picked = [path for path in FILES if which(set(np.load(path).files))]
    return pytest.mark.parametrize("path", picked, ids=lambda path: path.stem)


def frames_in(data):
    return OfficialFrames(data["position"], data["velocity"], data["trans"], data["previous"], data["next"])


def graph_in(data):
    """The pruned graph of a file and the features of its nodes."""
    if "position" in data:
        graph = OfficialGraph(
            data["pruned_edges"].reshape(-1, 2),
            data["pruned_is_continue"].astype(bool),
            data["previous"][data["kept_nodes"]],
            data["kept_nodes"],
        )
        return graph, data["motion_low"][graph.frames], data["motion_high"][graph.frames]
    frames = np.arange(len(data["previous"]), dtype=np.int32)
    flags = data["edge_is_continue"].astype(bool)
    graph = OfficialGraph(data["edges"].reshape(-1, 2), flags, data["previous"], frames)
    return graph, data["motion_low"], data["motion_high"]


@needs_golden
@golden(lambda names: "position" in names)
def test_edges_and_pruning_are_the_releases(path):
    data = dict(np.load(path))
    edges, is_continue = official_edges(frames_in(data))
    np.testing.assert_array_equal(edges, data["edges"].reshape(-1, 2))
    np.testing.assert_array_equal(is_continue, data["edge_is_continue"].astype(bool))
    graph = build_official_graph(frames_in(data))
    np.testing.assert_array_equal(graph.frames, data["kept_nodes"])
    np.testing.assert_array_equal(graph.edges, data["pruned_edges"].reshape(-1, 2))
    np.testing.assert_array_equal(graph.is_continue, data["pruned_is_continue"].astype(bool))


@needs_golden
@golden(lambda names: any(name.startswith("n_") for name in names))
def test_ties_of_components_fall_as_in_the_release(path):
    data = np.load(path)
    cases = [name[2:] for name in data.files if name.startswith("n_")]
    assert cases
    for k in cases:
        edges = data[f"edges_{k}"].reshape(-1, 2)
        np.testing.assert_array_equal(largest_component(int(data[f"n_{k}"]), edges), data[f"kept_{k}"])


@needs_golden
@golden(lambda names: "run_mode" in names)
def test_paths_are_the_releases(path):
    data = dict(np.load(path))
    graph, motion_low, motion_high = graph_in(data)
    n_steps = len(data["audio_low"])
    for run in range(len(data["run_mode"])):
        dtype = np.float64 if data["run_float64"][run] else np.float32
        features = (motion_low, motion_high, data["audio_low"], data["audio_high"])
        options = OfficialSearchOptions(
            mode=MODES[data["run_mode"][run]],
            loop_penalty=float(data["run_loop_penalty"][run]),
            continue_penalty=float(data["run_continue_penalty"][run]),
            top_k=int(data["run_top_k"][run]),
        )
        paths = search_official(graph, *(values.astype(dtype) for values in features), options)
        assert len(paths) == data["run_num_paths"][run]
        for k, found in enumerate(paths):
            assert found.cost == pytest.approx(data["run_cost"][run, k], abs=1e-3)
            if data["run_margin"][run] < REAL_TIE:
                continue
            assert found.nodes.tolist() == data["run_path"][run, k, :n_steps].tolist()
            assert found.is_continue.tolist() == data["run_is_continue"][run, k, : n_steps - 1].tolist()


def make_frames(lengths, seed, n_joints=55):
    """Slow random motion in clips of these many frames: neighbours are alike, and so are some others."""
    rng = np.random.default_rng(seed)
    n_frames = sum(lengths)
    time = np.arange(n_frames)[:, None, None]
    values = [
        np.sin(rng.uniform(0.2, 0.6) * time + rng.uniform(0, 6, (1, n, 3))) + rng.normal(0, 0.2, (n_frames, n, 3))
        for n in (n_joints, n_joints, 1)
    ]
    previous, following = np.arange(n_frames) - 1, np.arange(n_frames) + 1
    start = 0
    for length in lengths:
        previous[start] = -1
        if length > 1:
            following[start + length - 1] = -1
        start += length
    position, velocity, trans = (x.astype(np.float32) for x in values)
    return OfficialFrames(position, velocity, trans[:, 0], previous, following)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_edges_are_the_naive_ones(lengths, seed):
    frames = make_frames(lengths, seed)
    edges, is_continue = official_edges(frames)
    wanted, wanted_continue = naive_graph.official_edges(frames)
    np.testing.assert_array_equal(edges, wanted)
    np.testing.assert_array_equal(is_continue, wanted_continue)


@pytest.mark.parametrize(("n_joints", "min_votes"), [(55, 45), (75, 62), (11, 9), (1, 1)])
def test_votes_are_the_same_share_of_any_number_of_joints(n_joints, min_votes):
    frames = make_frames([30, 20], 3, n_joints)
    edges, _ = official_edges(frames)
    np.testing.assert_array_equal(edges, naive_graph.official_edges(frames, min_votes)[0])


def test_equal_frames_are_not_closer_than_themselves():
    frames = make_frames([12], 0)
    still = OfficialFrames(*(np.zeros_like(x) for x in (frames.position, frames.velocity, frames.trans)),
                           frames.previous, frames.following)  # fmt: skip
    edges, is_continue = official_edges(still)
    assert is_continue.all() and len(edges) == 22, "the comparison is strict: nothing is below a threshold of 0"


def random_problem(rng, n_nodes, n_steps, width=16, every_edge=False):
    pairs = [(i, j) for i in range(n_nodes) for j in range(n_nodes) if i != j]
    n_edges = len(pairs) if every_edge else int(rng.integers(1, len(pairs)))
    picked = np.sort(rng.permutation(len(pairs))[:n_edges])
    edges = np.array([pairs[k] for k in picked], np.int32)
    previous = np.where(rng.random(n_nodes) < 0.3, -1, np.arange(n_nodes))
    graph = OfficialGraph(edges, rng.random(len(edges)) < 0.4, previous, np.arange(n_nodes, dtype=np.int32))
    features = []
    for n in (n_nodes, n_nodes, n_steps, n_steps):
        rows = rng.standard_normal((n, width))
        features.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return graph, features


@given(st.integers(0, 2**32 - 1), st.sampled_from(MODES), st.integers(1, 4), st.sampled_from([0, 0.02, 0.3]))
@settings(max_examples=60, deadline=None)
def test_paths_are_the_naive_ones(seed, mode, top_k, penalty):
    rng = np.random.default_rng(seed)
    n_steps = int(rng.integers(1, 25))
    graph, features = random_problem(rng, int(rng.integers(2, 8)), n_steps, width=int(rng.integers(3, 18)))
    options = OfficialSearchOptions(mode, loop_penalty=penalty, continue_penalty=0.1, top_k=top_k)
    found = search_official(graph, *features, options)
    wanted = naive_search.official_search(
        graph.edges, graph.is_continue, graph.previous, features[:2], features[2:], mode, penalty, 0.1, top_k
    )
    assert [path.cost for path in found] == pytest.approx([cost for _, _, cost in wanted])
    assert [path.nodes.tolist() for path in found] == [nodes for nodes, _, _ in wanted]
    assert [path.is_continue.tolist() for path in found] == [flags for _, flags, _ in wanted]


def test_long_searches_carry_their_state_across_blocks():
    graph, features = random_problem(np.random.default_rng(0), 9, 600, every_edge=True)
    graph.previous[0] = -1
    found = search_official(graph, *features, OfficialSearchOptions(loop_penalty=0.0))[0]
    wanted = naive_search.official_search(
        graph.edges, graph.is_continue, graph.previous, features[:2], features[2:], "both", 0.0, 0.1, 1
    )[0]
    assert found.nodes.tolist() == wanted[0]
    assert found.cost == pytest.approx(wanted[2])


def test_the_demo_cut_leaves_a_connected_part_of_at_most_that_size():
    frames = make_frames([40, 40], 1)
    whole = build_official_graph(frames)
    short = build_official_graph(frames, max_nodes=50, cut_start=10)
    assert len(whole.frames) == 80
    assert 0 < len(short.frames) <= 50
    assert not np.isin(short.frames, np.arange(10, 40)).any()
    assert (largest_component(len(short.frames), short.edges) == np.arange(len(short.frames))).all()
    np.testing.assert_array_equal(build_official_graph(frames, max_nodes=80).edges, whole.edges)


def test_joints_of_a_character_become_frames_of_the_release():
    rng = np.random.default_rng(0)
    joints = rng.standard_normal((20, 75, 3)).astype(np.float32)
    frames = official_frames(joints, np.array([0, 2, 5]))
    assert np.flatnonzero(frames.previous == -1).tolist() == [0, 8]
    assert np.flatnonzero(frames.following == -1).tolist() == [7, 19]
    np.testing.assert_allclose(frames.position + frames.trans[:, None], joints, atol=1e-5)
    np.testing.assert_allclose(frames.velocity[8], (frames.position[9] - frames.position[8]) * 30, atol=1e-4)
    np.testing.assert_allclose(frames.velocity[3], (frames.position[4] - frames.position[2]) * 15, atol=1e-4)
    assert len(build_official_graph(frames).frames) in (8, 12)


def test_what_does_not_fit_is_named():
    graph, features = random_problem(np.random.default_rng(0), 5, 6)
    with pytest.raises(ValueError, match="5 and 4 nodes"):
        search_official(graph, features[0], features[1][:4], *features[2:])
    with pytest.raises(ValueError, match="0 steps"):
        search_official(graph, *features[:2], features[2][:0], features[3][:0])
    frames = make_frames([9], 0)
    with pytest.raises(ValueError, match="translations"):
        official_edges(
            OfficialFrames(frames.position, frames.velocity, frames.trans[:5], frames.previous, frames.following)
        )
    with pytest.raises(ValueError, match="joints are"):
        official_frames(frames.position, np.array([0, 3]))
