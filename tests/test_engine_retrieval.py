"""Vectors of speech and motion, node costs, rest: twins, planted answers, chunking, clip boundaries."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.rest import rest_distance
from engine.retrieval import (
    FULL_LOOKAHEAD_FRAMES,
    CostOptions,
    SpeechSteps,
    SpeechVectors,
    joint_speeds,
    node_costs,
    node_vectors,
    speech_vectors,
)
from engine.skeleton import LEFT_SHOULDER, LEFT_WRIST, N_JOINTS, NOSE, RIGHT_SHOULDER, RIGHT_WRIST
from engine.speech import FLUX, N_COLUMNS, SMOOTH_ENERGY, SPEAKING
from engine.timebase import FRAMES_PER_NODE, node_count
from tests import naive_speech as naive

UNIT_PX = 100.0


def rows_like_speech(rng: np.random.Generator, n_frames: int) -> np.ndarray:
    rows = rng.normal(size=(n_frames, N_COLUMNS)).astype(np.float32)
    rows[:, SPEAKING] = rng.uniform(size=n_frames) < 0.8
    return rows


def moved_by(speed: np.ndarray) -> np.ndarray:
    """Joints (F, 75, 3) whose wrists and head move at `speed` (F,) shoulder widths a frame."""
    joints = np.zeros((len(speed), N_JOINTS, 3), np.float32)
    joints[:, LEFT_SHOULDER, 0], joints[:, RIGHT_SHOULDER, 0] = 150, 50
    path = np.cumsum(speed) * UNIT_PX
    for joint in (LEFT_WRIST, RIGHT_WRIST, NOSE):
        joints[:, joint, 1] = 100 + path
    return joints


def confident(joints: np.ndarray) -> np.ndarray:
    return np.ones(joints.shape[:2], np.float32)


def assert_same(a: SpeechSteps, b: SpeechSteps) -> None:
    for name in ("low", "high", "level", "speaking"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("lookahead", [0, 8, FULL_LOOKAHEAD_FRAMES])
def test_speech_steps_equal_the_naive_twin(rng: np.random.Generator, lookahead: int) -> None:
    rows = rows_like_speech(rng, 233)
    steps = speech_vectors(rows, lookahead)
    assert len(steps.low) == node_count(233)
    for step in range(len(steps.low)):
        low, high, speaking = naive.speech_step(rows, step, lookahead)
        np.testing.assert_allclose(steps.low[step], low, atol=1e-6)
        np.testing.assert_allclose(steps.high[step], high, atol=1e-6)
        assert steps.speaking[step] == pytest.approx(speaking)


@given(st.integers(0, 300), st.lists(st.integers(0, 300), max_size=20), st.sampled_from([0, 6, 62, 100]))
@settings(max_examples=40, deadline=None)
def test_chunks_of_rows_do_not_matter(n: int, ends: list[int], lookahead: int) -> None:
    rows = rows_like_speech(np.random.default_rng(n), n)
    stream = SpeechVectors(lookahead)
    cuts = [0, *sorted(min(end, n) for end in ends), n]
    parts = [*(stream.push(rows[a:b]) for a, b in pairwise(cuts)), stream.flush()]
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("low", "high", "level", "speaking")
    }
    assert_same(SpeechSteps(**joined), speech_vectors(rows, lookahead))


def test_a_step_waits_for_its_lookahead_and_no_longer(rng: np.random.Generator) -> None:
    stream, n_steps = SpeechVectors(lookahead_frames=6), 0
    for n_rows in range(1, 200):
        n_steps += len(stream.push(rows_like_speech(rng, 1)).low)
        assert n_steps == max(n_rows - 6, 0) // FRAMES_PER_NODE
    assert len(stream._rows) < 200


def test_vectors_are_at_most_of_norm_one(rng: np.random.Generator) -> None:
    steps = speech_vectors(rows_like_speech(rng, 600))
    motion = node_vectors(
        joints := rng.normal(size=(400, N_JOINTS, 3)).astype(np.float32) * 50,
        confident(joints),
        np.array([0, 40, 43, 100]),
        UNIT_PX,
    )
    for vectors in (steps.low, steps.high, motion.low, motion.high):
        assert np.linalg.norm(vectors, axis=1).max() <= 1 + 1e-6
    assert np.linalg.norm(motion.low[40:43], axis=1).max() < 0.6  # a clip of 3 nodes knows little
    for level in (steps.level, motion.level):
        assert ((level >= 0) & (level <= 1)).all()


def test_silence_has_no_rhythm() -> None:
    rows = np.zeros((200, N_COLUMNS), np.float32)
    rows[:, SMOOTH_ENERGY], rows[:, FLUX] = -2.5, -1.0
    steps = speech_vectors(rows)
    assert not steps.low.any()
    assert not steps.high.any()
    assert steps.level.max() < 0.01
    assert not steps.speaking.any()


def test_the_motion_that_goes_with_the_voice_is_found(rng: np.random.Generator) -> None:
    """Planted: wrists and head as fast as the flux and the energy of the same frame."""
    beat = np.repeat(rng.uniform(0, 1, 100), 6)
    rows = np.zeros((600, N_COLUMNS), np.float32)
    rows[:, FLUX] = rows[:, SMOOTH_ENERGY] = 4 * beat - 2.75
    rows[:, SPEAKING] = 1
    joints = moved_by(0.1 * beat**2)
    motion = node_vectors(joints, confident(joints), np.array([0, 150]), UNIT_PX)
    steps = speech_vectors(rows)
    costs = node_costs(steps, motion, np.zeros(150, np.float32))
    assert (costs.argmin(axis=1) == np.arange(150))[16:-16].mean() > 0.95
    assert np.diag(costs)[16:-16].mean() < 0.9
    loud = steps.level[16:-16]
    assert np.corrcoef(loud, motion.level[16:-16])[0, 1] > 0.8


def test_contexts_stay_inside_their_clip(rng: np.random.Generator) -> None:
    joints = rng.normal(size=(320, N_JOINTS, 3)).astype(np.float32) * 50
    clip_start = np.array([0, 40, 80])
    before = joint_speeds(joints, clip_start, UNIT_PX)
    joints[160:, :, :2] += 500  # a shot change is no movement
    np.testing.assert_allclose(joint_speeds(joints, clip_start, UNIT_PX), before, rtol=1e-3, atol=1e-3)
    whole = node_vectors(joints, confident(joints), clip_start, UNIT_PX)
    joints[160:] = joints[160:][::-1]
    other = node_vectors(joints, confident(joints), clip_start, UNIT_PX)
    np.testing.assert_allclose(whole.low[:40], other.low[:40], atol=1e-3)
    assert np.abs(whole.low[40:] - other.low[40:]).max() > 0.1


def test_a_lost_hand_is_no_calm_hand(rng: np.random.Generator) -> None:
    speed = rng.uniform(0.02, 0.06, 400)
    speed[200:300] = 0  # filled in: the hand seems to stand still
    joints = moved_by(speed)
    confidence = confident(joints)
    seen = node_vectors(joints, confidence, np.array([0, 100]), UNIT_PX)
    confidence[200:300] = 0
    lost = node_vectors(joints, confidence, np.array([0, 100]), UNIT_PX)
    assert lost.level[62] > seen.level[62]


def test_node_costs_equal_the_naive_twin_and_do_not_depend_on_slices(rng: np.random.Generator) -> None:
    steps = speech_vectors(rows_like_speech(rng, 120))
    joints = rng.normal(size=(200, N_JOINTS, 3)).astype(np.float32) * 50
    motion = node_vectors(joints, confident(joints), np.array([0, 20, 50]), UNIT_PX)
    rest = rng.uniform(size=50).astype(np.float32)
    options = CostOptions(level_weight=0.7, idle_weight=1.3, listless_weight=0.4)
    costs = node_costs(steps, motion, rest, options)
    assert costs.dtype == np.float32
    np.testing.assert_allclose(costs, naive.node_costs(steps, motion, rest, options), atol=1e-5)
    for t in (0, 7, 29):
        one = SpeechSteps(*(getattr(steps, name)[t : t + 1] for name in ("low", "high", "level", "speaking")))
        np.testing.assert_array_equal(node_costs(one, motion, rest, options)[0], costs[t])


def test_silence_calls_for_rest_and_speech_for_gestures(rng: np.random.Generator) -> None:
    steps = speech_vectors(rows_like_speech(rng, 40))
    quiet = replace(steps, low=steps.low * 0, high=steps.high * 0, level=steps.level * 0 + 0.5)
    joints = moved_by(np.full(80, 0.02))
    motion = replace(
        node_vectors(joints, confident(joints), np.array([0, 20]), UNIT_PX),
        level=np.full(20, 0.5, np.float32),
    )
    rest = np.linspace(0, 1, 20, dtype=np.float32)
    silent = node_costs(replace(quiet, speaking=np.zeros(10, np.float32)), motion, rest)
    spoken = node_costs(replace(quiet, speaking=np.ones(10, np.float32)), motion, rest)
    assert (silent.argmin(axis=1) == 0).all()
    assert (spoken.argmin(axis=1) == 19).all()
    assert np.ptp(silent, axis=1).min() > 3 * np.ptp(spoken, axis=1).max()


def hands_at(heights: np.ndarray, jitter_px: float, rng: np.random.Generator) -> np.ndarray:
    """Joints with both hands `heights` (F,) pixels below the shoulders."""
    joints = np.zeros((len(heights), N_JOINTS, 3), np.float32)
    joints[:, LEFT_SHOULDER, 0], joints[:, RIGHT_SHOULDER, 0] = 150, 50
    joints[:, [LEFT_WRIST, RIGHT_WRIST], 0] = 130, 70
    joints[:, [LEFT_WRIST, RIGHT_WRIST], 1] = heights[:, None]
    joints[:, [LEFT_WRIST, RIGHT_WRIST], :2] += rng.normal(0, jitter_px, (len(heights), 2, 2))
    return joints


def test_rest_is_where_the_hands_return(rng: np.random.Generator) -> None:
    heights = np.full(400, 150.0)
    gesturing = np.r_[80:160, 240:340]
    heights[gesturing] = 60 + 40 * np.sin(np.arange(len(gesturing)) / 3)
    joints = hands_at(heights, 0.3, rng)
    rest = rest_distance(joints, confident(joints), np.array([0, 60, 100]), UNIT_PX)
    away = np.zeros(100, bool)
    away[np.r_[20:40, 60:85]] = True
    assert rest.shape == (100,)
    assert rest.dtype == np.float32
    assert rest.min() == 0
    assert rest.max() == 1
    assert rest[away].min() > 0.4
    assert np.median(rest[~away]) < 0.1


def test_of_two_places_equally_popular_the_lower_is_rest(rng: np.random.Generator) -> None:
    joints = hands_at(np.where(np.arange(400) // 40 % 2, 150.0, 20.0), 0.3, rng)
    rest = rest_distance(joints, confident(joints), np.array([0, 100]), UNIT_PX).reshape(10, 10)
    assert rest[1::2, 2:-2].max() < rest[::2, 2:-2].min()


def test_somebody_who_never_rests_has_calmest_moments(rng: np.random.Generator) -> None:
    phase = np.cumsum(np.where(np.arange(400) < 200, 0.5, 0.1))
    joints = hands_at(90 + 50 * np.sin(phase), 0.3, rng)
    rest = rest_distance(joints, confident(joints), np.array([0, 100]), UNIT_PX)
    assert np.isfinite(rest).all()
    assert rest[50:].mean() < rest[:50].mean() - 0.1


def test_a_statue_is_at_rest() -> None:
    joints = hands_at(np.full(40, 150.0), 0.0, np.random.default_rng(0))
    rest = rest_distance(joints, confident(joints), np.array([0, 10]), UNIT_PX)
    assert not rest.any()


def test_moving_the_camera_back_changes_nothing(rng: np.random.Generator) -> None:
    joints = rng.normal(size=(200, N_JOINTS, 3)).astype(np.float32) * 50
    a = node_vectors(joints, confident(joints), np.array([0, 50]), UNIT_PX)
    b = node_vectors(joints / 2 + 300, confident(joints), np.array([0, 50]), UNIT_PX / 2)
    np.testing.assert_allclose(a.low, b.low, atol=1e-3)
    rest = [rest_distance(j, confident(j), np.array([0, 50]), u) for j, u in ((joints, 100), (joints / 2, 50))]
    np.testing.assert_allclose(rest[0], rest[1], atol=1e-4)
