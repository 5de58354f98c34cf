"""The measures: naive loops, planted answers, what says nothing scores nothing."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.embedding import Features
from engine.features.scores import (
    MAX_WINDOWS,
    NEAR,
    REACH,
    STRIDE,
    WINDOW,
    Interval,
    interval,
    low_hits,
    window_scores,
    window_starts,
)
from tests.helpers import naive_fitted as naive

NOTHING = np.empty((600, 0), np.float32)
INSIDE = np.arange(REACH, 600 - REACH)


def directions(n: int, rng: np.random.Generator, width: int = 8) -> np.ndarray:
    rows = rng.normal(size=(n, width))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_low_hits_equal_the_naive_twin(rng: np.random.Generator) -> None:
    speech, motion = directions(200, rng), directions(200, rng)
    motion[::3] = speech[::3]
    frames = np.arange(REACH, 200 - REACH)
    found = low_hits(speech, motion, frames)
    assert found.tolist() == [naive.low_hit(speech, motion, frame) for frame in frames]
    assert 0.3 < found.mean() < 0.9


@pytest.mark.parametrize(("shift", "hit"), [(0, True), (-NEAR, True), (NEAR - 1, True), (NEAR, False), (-9, False)])
def test_a_place_is_found_within_four_frames(rng: np.random.Generator, shift: int, hit: bool) -> None:
    """Motion `shift` frames after the speech that it belongs to."""
    speech = directions(600, rng)
    assert low_hits(speech, np.roll(speech, shift, axis=0), INSIDE).all() == hit


def test_chance_finds_a_quarter_and_nothing_finds_nothing(rng: np.random.Generator) -> None:
    found = low_hits(directions(600, rng), directions(600, rng), INSIDE)
    assert found.mean() == pytest.approx(2 * NEAR / (2 * REACH), abs=0.06)
    silent = np.zeros((600, 8), np.float32)
    assert not low_hits(silent, silent, INSIDE).any()


@pytest.mark.parametrize("wide", [False, True])
def test_windows_equal_naive_loops(rng: np.random.Generator, wide: bool) -> None:
    speech, noise = directions(600, rng), directions(600, rng)
    motion = speech + 3 * noise
    starts, queries = window_starts(600), np.array([0, 7, 20, 59])
    wanted = [Features(rows, rows if wide else NOTHING) for rows in (speech, motion)]
    scores = window_scores(*wanted, starts, queries)

    def like(a: int, b: int) -> float:
        if wide:
            return float(speech[starts[a] + 64] @ motion[starts[b] + 64])
        return float(sum(speech[starts[a] + k] @ motion[starts[b] + k] for k in range(WINDOW)))

    assert scores.n_candidates == len(starts) == 60
    for place, query in enumerate(queries):
        others = [like(query, other) for other in range(60)]
        far = [value for other, value in enumerate(others) if abs(starts[other] - starts[query]) >= 64]
        assert scores.first[place] == (max(others) == others[query])
        assert scores.far_beaten[place] == pytest.approx(np.mean([value < others[query] for value in far]))


def test_windows_of_the_truth_win_and_those_of_nothing_do_not(rng: np.random.Generator) -> None:
    speech, starts = directions(600, rng), window_starts(600)
    found = window_scores(Features(speech, NOTHING), Features(speech, NOTHING), starts)
    assert found.first.all() and (found.far_beaten == 1).all()
    silent = Features(np.zeros_like(speech), NOTHING)
    said_nothing = window_scores(silent, silent, starts)
    assert not said_nothing.first.any(), "where all are alike none is found"
    assert not said_nothing.far_beaten.any()


def test_nothing_lies_far_away_in_a_short_recording(rng: np.random.Generator) -> None:
    speech = Features(directions(150, rng), NOTHING[:150])
    scores = window_scores(speech, speech, window_starts(150))
    assert scores.n_candidates == 3 and np.isnan(scores.far_beaten).all()
    assert window_scores(speech, speech, window_starts(100)).n_candidates == 0


@given(st.integers(0, 60_000))
def test_window_starts(n_frames: int) -> None:
    starts = window_starts(n_frames)
    assert len(starts) <= MAX_WINDOWS
    assert (len(starts) == 0) == (n_frames < WINDOW)
    if len(starts):
        steps = {int(b - a) for a, b in pairwise(starts)}
        assert starts[0] == 0 and starts[-1] + WINDOW <= n_frames
        assert len(steps) <= 1 and all(step >= STRIDE for step in steps)
        assert n_frames - starts[-1] - WINDOW < max(steps, default=n_frames)


def test_interval_covers_the_truth(rng: np.random.Generator) -> None:
    """Blocks of neighbours that are alike: a bootstrap of single values would be far too sure."""
    inside = 0
    for _ in range(60):
        values = np.repeat(rng.uniform(size=40) < 0.6, 30)
        found = interval(values, 30, n_draws=200)
        assert found.low <= found.mean <= found.high and found.mean == pytest.approx(values.mean())
        inside += found.low <= 0.6 <= found.high
    assert 50 <= inside <= 60
    naive_one = interval(values, 1)
    assert naive_one.high - naive_one.low < 0.5 * (found.high - found.low)


@given(st.lists(st.integers(0, 50), max_size=5), st.integers(1, 60), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_interval_of_several_people(sizes: list[int], block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.uniform(-1, 1, size) for size in sizes]
    found = interval(parts, block, seed, n_draws=20)
    if not sum(sizes):
        assert np.isnan([found.mean, found.low, found.high]).all()
        return
    assert found.mean == pytest.approx(np.concatenate(parts).mean())
    assert found == interval(parts, block, seed, n_draws=20)


def test_interval_for_people() -> None:
    assert str(Interval(0.684, 0.5, 0.8123)) == "68 % [50, 81]"
