"""The motion graph against its naive twin, and its promise: no path ever dies."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.motion_graph.connect import MIN_DWELL
from engine.motion_graph.graph import CONTINUE, CUT, RELAXED, GraphOptions, build_graph, natural_thresholds
from engine.motion_graph.kernels import bounds
from engine.motion_graph.kernels.cuts import NO_NODE, cheapest_cuts, nearest_cuts, spread_out
from engine.motion_graph.kernels.distances import cut_distances, distance, natural_distances, node_features
from engine.motion_graph.official import official_frames
from tests.helpers import naive_graph as naive

N_JOINTS, N_WORDS, UNIT_PX = 13, 6, 100.0


def make_motion(lengths, seed=0, still=False):
    """Smooth random joints and moving blobs of bits: (joints, surface, clip_start, weights)."""
    rng = np.random.default_rng(seed)
    clip_start = np.concatenate([[0], np.cumsum(lengths)])
    n_frames = 4 * int(clip_start[-1])
    time = np.arange(n_frames)[:, None, None]
    # Few paces, so that poses come back.
    pace, phase = rng.choice([0.05, 0.1, 0.15], (3, N_JOINTS, 3)), rng.uniform(0, 6, (3, N_JOINTS, 3))
    joints = UNIT_PX * (3 + sum(0.3 * np.sin(w * time + p) for w, p in zip(pace, phase, strict=True)))
    width = 16 + (12 * np.sin(0.1 * np.arange(n_frames)[:, None] + np.arange(N_WORDS))).astype(np.int64)
    surface = (np.uint64(1) << width.astype(np.uint64)) - np.uint64(1)
    if still:
        joints[:], surface[:] = joints[0], surface[0]
    weights = rng.uniform(0, 1, N_JOINTS)
    weights[3] = 0.0
    return joints.astype(np.float32), surface, clip_start, weights


def features_of(joints, surface, clip_start, weights):
    scaled = (joints / UNIT_PX * (weights / weights.sum())[:, None]).astype(np.float32)
    velocity = np.empty_like(scaled)
    for start, stop in zip(clip_start[:-1] * 4, clip_start[1:] * 4, strict=True):
        velocity[start:stop] = 4 * np.gradient(scaled[start:stop], axis=0)
    return node_features(scaled, velocity, surface, clip_start, surface_weight=1.0)


@pytest.fixture(scope="module")
def motion():
    return make_motion([17, 9, 12])


@pytest.fixture(scope="module")
def features(motion):
    return features_of(*motion)


@pytest.fixture(scope="module")
def distances(motion):
    joints, surface, clip_start, weights = motion
    return naive.all_distances(joints, surface, clip_start, weights, UNIT_PX)


def test_distance_is_the_naive_one(features, distances):
    found = np.array([[distance(features, a, b) for b in range(38)] for a in range(38)])
    np.testing.assert_allclose(found, distances, atol=2e-6)


def test_natural_distances_stop_at_clip_ends(features, distances):
    natural = natural_distances(features)
    assert np.flatnonzero(np.isnan(natural)).tolist() == [16, 25, 37]
    inside = ~np.isnan(natural[:-1])
    np.testing.assert_allclose(natural[:-1][inside], np.diagonal(distances, 1)[inside], atol=2e-6)


def test_cut_distances_are_window_distances(features, distances, motion):
    clip_start = motion[2]
    source, target = (grid.ravel() for grid in np.meshgrid(np.arange(38), np.arange(38), indexing="ij"))
    wanted = [naive.cut_cost(distances, clip_start, i, j, True) for i, j in zip(source, target, strict=True)]
    np.testing.assert_allclose(cut_distances(features, source, target), wanted, atol=1e-5)


def test_thresholds_are_the_papers(features, distances, motion):
    np.testing.assert_allclose(natural_thresholds(features), naive.thresholds(distances, motion[2]), atol=2e-6)


def test_bounds_never_exceed_the_distance(features, distances):
    pose_bound, bound = np.empty(38, np.float32), np.empty(38, np.float32)
    for i in range(38):
        bounds.row_bounds(features.group_means, features.pivots, i, pose_bound, bound)
        assert (pose_bound <= bound).all()
        assert (bound <= distances[i] + 1e-6).all()
    assert bound[:30].min() > 0.2 * distances[37, :30].min(), "bounds that bound nothing would pass too"


def assert_same_cuts(found, wanted, limit, tolerance=1e-5):
    """Equal sets, but for cuts whose cost is within rounding of the limit, and equal costs."""
    for i, j in found.keys() ^ wanted.keys():
        cost = found.get((i, j), wanted.get((i, j)))
        assert abs(cost - limit[i]) < tolerance, (i, j)
    for pair in found.keys() & wanted.keys():
        assert found[pair] == pytest.approx(wanted[pair], abs=tolerance)


def as_dict(targets, costs, first_row=0):
    row, place = np.nonzero(targets != NO_NODE)
    return {
        (int(i) + first_row, int(j)): float(cost)
        for i, j, cost in zip(row, targets[row, place], costs[row, place], strict=True)
    }


@pytest.mark.parametrize("windowed", [True, False])
@pytest.mark.parametrize("rows", [range(38), range(11, 29)])
def test_nearest_cuts_finds_what_the_double_loop_finds(features, distances, motion, windowed, rows):
    clip_start = motion[2]
    limit = np.quantile(distances, np.random.default_rng(1).uniform(0, 0.6, 38)).astype(np.float32)
    found = nearest_cuts(features, rows, limit, 38, min_skip=3, windowed=windowed)
    wanted = naive.admissible_cuts(distances, clip_start, limit, windowed)
    wanted = {pair: cost for pair, cost in wanted.items() if pair[0] in rows}
    assert 0.1 < len(wanted) / (38 * len(rows)) < 0.9
    assert_same_cuts(as_dict(*found, rows.start), wanted, limit)


@pytest.mark.parametrize("n_best", [1, 2, 5, 11])
def test_nearest_cuts_keeps_the_cheapest(features, distances, motion, n_best):
    limit = np.full(38, 10, np.float32)
    found = as_dict(*nearest_cuts(features, range(38), limit, n_best, min_skip=3, windowed=True))
    clip = naive.clip_of(motion[2])
    for i in range(38):
        costs = sorted(
            naive.cut_cost(distances, motion[2], i, j, True) for j in range(38) if not naive.is_pointless(clip, i, j)
        )
        mine = sorted(cost for (source, _), cost in found.items() if source == i)
        np.testing.assert_allclose(mine, costs[:n_best], atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_spread_out_takes_different_places_first(seed, n_keep, radius):
    rng = np.random.default_rng(seed)
    n_targets = int(rng.integers(0, 15))
    targets = np.full((1, 15), NO_NODE, np.int32)
    costs = np.full((1, 15), np.inf, np.float32)
    targets[0, :n_targets] = rng.permutation(20)[:n_targets]
    costs[0, :n_targets] = rng.permutation(15)[:n_targets] / 16
    found = as_dict(*spread_out(targets, costs, n_keep, radius))
    assert found == naive.spread_out(as_dict(targets, costs), n_keep, radius)


@pytest.mark.parametrize("windowed", [True, False])
def test_cheapest_cuts_is_the_brute_force_minimum(features, distances, motion, windowed):
    rng = np.random.default_rng(5)
    source_group, target_group = rng.integers(-1, 3, 38), rng.integers(-1, 2, 38)
    sources, targets, costs = cheapest_cuts(features, source_group, target_group, 3, windowed)
    clip = naive.clip_of(motion[2])
    for r in range(3):
        for c in range(2):
            best = min(
                (naive.cut_cost(distances, motion[2], i, j, windowed), i, j)
                for i in np.flatnonzero(source_group == r)
                for j in np.flatnonzero(target_group == c)
                if not naive.is_pointless(clip, i, j)
            )
            assert (sources[r, c], targets[r, c]) == best[1:]
            assert costs[r, c] == pytest.approx(best[0], abs=1e-5)


def assert_connected(graph, clip_start):
    """From every kept node, dwelt on, every other kept node is reached, and every state met on the way goes on."""
    states = naive.state_graph(zip(graph.sources, graph.indices, strict=True), graph.kind)
    parts = sorted(nx.strongly_connected_components(states), key=len)
    home = parts[-1]
    kept = np.flatnonzero(graph.kept)
    assert {node for node, _ in home} == set(kept.tolist())
    assert all(len(part) == 1 for part in parts[:-1]), "only states at the very start of a path are left behind"
    into_home = nx.ancestors(states, next(iter(home))) | home
    assert all((node, MIN_DWELL) in into_home for node in kept)
    assert all(states.out_degree(state) > 0 for state in home)
    for start, stop in pairwise(clip_start):
        share = graph.kept[start:stop].mean()
        assert share >= 0.9 if stop - start >= MIN_DWELL else share == 0


@given(st.lists(st.integers(1, 14), min_size=1, max_size=6), st.integers(0, 1000), st.sampled_from([0, 1, 2.5]))
@settings(max_examples=40, deadline=None)
def test_every_graph_is_strongly_connected(lengths, seed, factor):
    joints, surface, clip_start, weights = make_motion(lengths, seed)
    options = GraphOptions(threshold_factor=factor, max_cuts_per_node=4)
    if max(lengths) < MIN_DWELL:
        with pytest.raises(InputError, match="longest clip"):
            build_graph(joints, surface, clip_start, weights, UNIT_PX, options)
        return
    graph, report = build_graph(joints, surface, clip_start, weights, UNIT_PX, options)
    assert_connected(graph, clip_start)
    assert report.n_relaxed == graph.n_relaxed_edges
    assert report.n_kept == graph.n_kept
    assert report.n_dropped == (
        report.n_dropped_short_clips + report.n_dropped_clip_starts + report.n_dropped_clip_ends
    )


@pytest.mark.parametrize("rule", ["window", "paper"])
def test_graph_holds_the_naive_cuts_and_the_real_price_of_relaxed_ones(motion, distances, rule):
    joints, surface, clip_start, weights = motion
    options = GraphOptions(rule=rule, max_cuts_per_node=5)
    graph, _ = build_graph(joints, surface, clip_start, weights, UNIT_PX, options)
    clip, limit = naive.clip_of(clip_start), naive.limits(distances, clip_start, rule, 2.0, 0.5)
    last = {int(c): int(np.flatnonzero(graph.kept & (clip == c)).max()) for c in np.unique(clip[graph.kept])}
    wanted = naive.spread_out(naive.admissible_cuts(distances, clip_start, limit, rule == "window"), 5, 1)
    wanted = {
        (i, j): cost
        for (i, j), cost in wanted.items()
        if graph.kept[i] and graph.kept[j] and j + MIN_DWELL - 1 <= last[clip[j]]
    }
    edges = list(zip(graph.sources.tolist(), graph.indices.tolist(), graph.kind, graph.distance, strict=True))
    found = {(i, j): float(cost) for i, j, kind, cost in edges if kind == CUT}
    assert_same_cuts(found, wanted, limit)
    for i, j, kind, cost in edges:
        if kind == CONTINUE:
            assert j == i + 1 and clip[i] == clip[j] and cost == 0
        if kind == RELAXED:
            assert cost == pytest.approx(naive.cut_cost(distances, clip_start, i, j, rule == "window"), abs=1e-5)


def test_official_rule_joins_the_nodes_whose_frames_the_release_joins(motion, distances):
    joints, surface, clip_start, weights = motion
    options = GraphOptions(rule="official", max_cuts_per_node=1000)
    graph, _ = build_graph(joints, surface, clip_start, weights, UNIT_PX, options)
    frames = official_frames(joints, clip_start)
    edges, is_continue = naive.official_edges(frames, min_votes=-(-N_JOINTS * 45 // 55))
    clip = naive.clip_of(clip_start)
    wanted = {
        (i // 4, j // 4)
        for (i, j), goes_on in zip(np.asarray(edges).tolist(), is_continue, strict=True)
        if not goes_on and i % 4 == 3 and j % 4 == 0 and not naive.is_pointless(clip, i // 4, j // 4)
    }
    found = set(zip(graph.sources[graph.kind == CUT].tolist(), graph.indices[graph.kind == CUT].tolist(), strict=True))
    assert found and found <= wanted
    last = {int(c): int(np.flatnonzero(graph.kept & (clip == c)).max()) for c in np.unique(clip[graph.kept])}
    for i, j in wanted - found:
        assert not graph.kept[i] or not graph.kept[j] or j + MIN_DWELL - 1 > last[clip[j]]
    for i, j, cost in zip(graph.sources, graph.indices, graph.distance, strict=True):
        if cost > 0:
            assert cost == pytest.approx(naive.cut_cost(distances, clip_start, i, j, True), abs=1e-5)


def test_rows_are_ascending_and_dropped_nodes_have_no_edges(motion):
    joints, surface, clip_start, weights = motion
    graph, _ = build_graph(joints, surface, clip_start, weights, UNIT_PX)
    assert graph.indptr[0] == 0 and graph.indptr[-1] == graph.n_edges
    for n in range(graph.n_nodes):
        row = graph.indices[graph.indptr[n] : graph.indptr[n + 1]]
        assert (np.diff(row) > 0).all()
        assert graph.kept[n] or len(row) == 0
    assert graph.kept[graph.indices].all()
    dtypes = [a.dtype for a in (graph.indptr, graph.indices, graph.distance, graph.kind, graph.kept)]
    assert dtypes == [np.int64, np.int32, np.float32, np.uint8, bool]


def test_one_clip_without_any_admissible_cut_loops():
    joints, surface, clip_start, weights = make_motion([20])
    options = GraphOptions(threshold_factor=0.0)
    graph, report = build_graph(joints, surface, clip_start, weights, UNIT_PX, options)
    assert graph.n_cut_edges == graph.n_relaxed_edges == report.n_relaxed > 0
    assert report.n_components_before == 0
    assert report.relaxed_max > 0
    assert_connected(graph, clip_start)


def test_smallest_graph_has_three_nodes():
    joints, surface, clip_start, weights = make_motion([3])
    graph, _ = build_graph(joints, surface, clip_start, weights, UNIT_PX)
    assert list(zip(graph.sources, graph.indices, strict=True)) == [(0, 1), (1, 2), (2, 0)]


def test_a_person_who_never_moves():
    joints, surface, clip_start, weights = make_motion([12, 8], still=True)
    graph, _ = build_graph(joints, surface, clip_start, weights, UNIT_PX)
    assert_connected(graph, clip_start)
    assert graph.distance.max() < 1e-5


def test_building_twice_gives_the_same_graph_and_tells_progress(motion):
    joints, surface, clip_start, weights = motion
    told = []
    first, _ = build_graph(joints, surface, clip_start, weights, UNIT_PX, progress=lambda *at: told.append(at))
    second, _ = build_graph(joints, surface, clip_start, weights, UNIT_PX)
    for name in ("indptr", "indices", "distance", "kind", "kept"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert told == [(38, 38)]


def test_joints_never_seen_do_not_count(motion):
    joints, surface, clip_start, weights = motion
    confidence = np.ones(joints.shape[:2], np.float32)
    confidence[:, 7] = 0
    wild = joints.copy()
    wild[:, 7] = np.random.default_rng(1).normal(0, 1000, wild[:, 7].shape)
    seen, _ = build_graph(joints, surface, clip_start, weights, UNIT_PX, confidence=confidence)
    unseen, _ = build_graph(wild, surface, clip_start, weights, UNIT_PX, confidence=confidence)
    np.testing.assert_array_equal(seen.indices, unseen.indices)


def test_sync_needs_real_frames_on_both_sides(motion):
    joints, surface, clip_start, weights = motion
    graph, _ = build_graph(joints, surface, clip_start, weights, UNIT_PX)
    assert graph.has_sync(3, 20) and graph.has_sync(0, 1)
    assert not graph.has_sync(16, 20), "16 ends its clip"
    assert not graph.has_sync(3, 17), "17 starts its clip"
    assert not graph.has_sync(37, 20) and not graph.has_sync(3, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(joints=a["joints"].astype(np.float64)), "float64"),
        (lambda a: a.update(joints=a["joints"][:-4]), "frames of joints"),
        (lambda a: a.update(surface=a["surface"].astype(np.int64)), "uint64"),
        (lambda a: a.update(surface=a["surface"][:-1]), "surface"),
        (lambda a: a.update(clip_start=np.array([0, 20, 20, 38])), "clip starts"),
        (lambda a: a.update(joint_weights=np.zeros(N_JOINTS)), "weights"),
    ],
)
def test_unusable_arrays_are_named(motion, change, message):
    names = ("joints", "surface", "clip_start", "joint_weights")
    arguments = {name: array.copy() for name, array in zip(names, motion, strict=True)} | {"unit_px": UNIT_PX}
    change(arguments)
    with pytest.raises(ValueError, match=message):
        build_graph(**arguments)


def test_what_was_tracked_badly_is_named(motion):
    joints, surface, clip_start, weights = motion
    with pytest.raises(InputError, match="body size"):
        build_graph(joints, surface, clip_start, weights, float("nan"))
    holes = joints.copy()
    holes[5, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        build_graph(holes, surface, clip_start, weights, UNIT_PX)
