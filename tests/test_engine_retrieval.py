"""Steps of speech, node rows and costs, levels, rest: twins, planted answers, chunking, clip boundaries."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.character.steps import LEVEL_FRAMES, SpeechListener, StepListener, motion_level, node_rows, speech_steps
from engine.features.embedding import Embedding, embed_speech
from engine.features.onset import HIGH_FRAMES, OnsetEmbedding, OnsetListener, body_rhythm
from engine.features.rest import rest_distance
from engine.features.speech import LOOKAHEAD_SAMPLES, SpeechFeatures, speech_features
from engine.motion_graph.costs import CostOptions, MotionVectors, SpeechSteps, node_costs
from engine.skeleton import LEFT_SHOULDER, LEFT_WRIST, N_JOINTS, RIGHT_SHOULDER, RIGHT_WRIST
from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE, frame_count, frame_start, node_count
from tests.helpers import naive_speech as naive
from tests.helpers.fakes_recording import UNIT_PX, moved_by, noise, recording_of, restless, syllables, unseen, voiced

STEP_ARRAYS = ("low", "high", "level", "speaking")


def joined(parts: list[SpeechSteps]) -> SpeechSteps:
    return SpeechSteps(*(np.concatenate([getattr(part, name) for part in parts]) for name in STEP_ARRAYS))


def assert_same(a: SpeechSteps, b: SpeechSteps) -> None:
    for name in STEP_ARRAYS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def random_steps(n: int, rng: np.random.Generator, n_high: int = 5) -> SpeechSteps:
    low, high = (rng.normal(0, 0.3, (n, width)).astype(np.float32) for width in (7, n_high))
    return SpeechSteps(low, high, *(rng.uniform(size=(2, n)).astype(np.float32)))


def random_motion(n: int, rng: np.random.Generator, n_high: int = 5) -> MotionVectors:
    steps = random_steps(n, rng, n_high)
    return MotionVectors(steps.low, steps.high, steps.level)


@pytest.mark.parametrize("lookahead", [0, 8, HIGH_FRAMES - 1])
def test_steps_equal_the_naive_twin(rng: np.random.Generator, lookahead: int) -> None:
    samples = voiced(syllables(233, rng), rng)
    embedding = OnsetEmbedding(lookahead)
    rows, features = speech_features(samples), embed_speech(embedding, samples)
    steps = speech_steps(embedding, samples)
    np.testing.assert_allclose(steps.low, naive.node_means(features.low), atol=1e-6)
    np.testing.assert_allclose(steps.high, naive.node_means(features.high), atol=1e-6)
    assert len(steps.level) == node_count(233) == 59
    for step in range(59):
        assert (steps.level[step], steps.speaking[step]) == pytest.approx(
            naive.level_and_speaking(rows, step, lookahead), abs=1e-6
        )


@given(
    st.integers(0, 5 * SAMPLE_RATE),
    st.lists(st.integers(0, 5 * SAMPLE_RATE), max_size=20),
    st.sampled_from([0, 6, 63, 100]),
)
@settings(max_examples=25, deadline=None)
def test_chunks_of_samples_do_not_matter(n: int, ends: list[int], lookahead: int) -> None:
    samples = np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32)
    embedding = OnsetEmbedding(lookahead)
    listener = SpeechListener(embedding)
    cuts = [0, *sorted(min(end, n) for end in ends), n]
    steps = joined([*(listener.push(samples[a:b]) for a, b in pairwise(cuts)), listener.flush()])
    assert_same(steps, speech_steps(embedding, samples))
    assert len(steps.low) == node_count(frame_count(n))


class Hasty(OnsetEmbedding):
    """Says that it waits longer than it does: networks that work in blocks do so for some frames."""

    def listen(self) -> OnsetListener:
        return OnsetListener(0)


def test_levels_do_not_depend_on_when_features_come(rng: np.random.Generator) -> None:
    samples = voiced(syllables(200, rng), rng)
    listener = SpeechListener(Hasty(20))
    steps = joined([*(listener.push(part) for part in np.array_split(samples, 40)), listener.flush()])
    assert_same(steps, speech_steps(Hasty(20), samples))
    for step in range(50):
        level, _ = naive.level_and_speaking(speech_features(samples), step, 20)
        assert steps.level[step] == pytest.approx(level, abs=1e-6)


@pytest.mark.parametrize("lookahead", [0, 6])
def test_a_step_waits_for_its_lookahead_and_no_longer(rng: np.random.Generator, lookahead: int) -> None:
    listener, n_steps, samples = SpeechListener(OnsetEmbedding(lookahead)), 0, noise(200, rng)
    for frame in range(200):
        n_steps += len(listener.push(samples[frame_start(frame) : frame_start(frame + 1)]).low)
        n_rows = sum(frame_start(row) + LOOKAHEAD_SAMPLES <= frame_start(frame + 1) for row in range(frame + 1))
        assert n_steps == max(n_rows - lookahead, 0) // FRAMES_PER_NODE
    assert n_steps > 40


def test_memory_is_constant(rng: np.random.Generator) -> None:
    listener, hearing, second = StepListener(OnsetEmbedding()), SpeechFeatures(), noise(30, rng)
    for _ in range(20):
        listener.push(second, hearing.push(second))
        assert len(listener._rows) < 2 * HIGH_FRAMES + 60
        assert listener._features is not None and len(listener._features.low) < FRAMES_PER_NODE + HIGH_FRAMES


def test_rows_of_nodes_are_means(rng: np.random.Generator) -> None:
    for n, width in ((0, 3), (3, 3), (8, 1), (41, 16), (9, 0)):
        features = rng.normal(size=(n, width)).astype(np.float32)
        rows = node_rows(features)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows, naive.node_means(features), atol=1e-6)


def test_levels_are_ranks(rng: np.random.Generator) -> None:
    speed = np.repeat(rng.permutation(np.linspace(0.01, 0.1, 8)), 160)
    level = motion_level(recording_of(moved_by(speed), (40,) * 8)).reshape(8, 40)
    assert level.dtype == np.float32 and level.min() >= 0 and level.max() <= 1
    np.testing.assert_array_equal(np.argsort(level.mean(axis=1)), np.argsort(speed[::160]))
    statue = motion_level(recording_of(moved_by(np.zeros(80))))
    np.testing.assert_array_equal(statue, 0.5)


def test_levels_equal_the_naive_twin_inside_their_clip(rng: np.random.Generator) -> None:
    recording = recording_of(restless(320, rng), (30, 3, 47))
    rhythm, sizes = body_rhythm(recording), []
    for clip in recording.clips:
        for first in range(clip.start, clip.stop, FRAMES_PER_NODE):
            around = slice(max(first + 2 - LEVEL_FRAMES, clip.start), min(first + 2 + LEVEL_FRAMES, clip.stop))
            sizes.append(rhythm[around].mean())
    ranks = [np.mean([(other < own) / 2 + (other <= own) / 2 for other in sizes]) for own in sizes]
    np.testing.assert_allclose(motion_level(recording), ranks, atol=1e-6)


def test_a_lost_hand_is_no_calm_hand(rng: np.random.Generator) -> None:
    speed = rng.uniform(0.02, 0.06, 400)
    speed[200:300] = 0  # filled in: the hand seems to stand still
    seen = recording_of(moved_by(speed))
    assert motion_level(unseen(seen, slice(200, 300)))[62] > motion_level(seen)[62]


def test_loud_passages_have_the_level_of_large_gestures(rng: np.random.Generator) -> None:
    loud = syllables(900, rng) * np.repeat([1.0, 0.1, 1.0, 0.1], 225)
    level = speech_steps(OnsetEmbedding(), voiced(loud, rng)).level
    size = motion_level(recording_of(moved_by(0.1 * loud)))
    assert np.corrcoef(level[16:-16], size[16:-16])[0, 1] > 0.6


@pytest.mark.parametrize("n_high", [5, 0])
def test_node_costs_equal_the_naive_twin_and_do_not_depend_on_slices(rng: np.random.Generator, n_high: int) -> None:
    steps, motion = random_steps(30, rng, n_high), random_motion(50, rng, n_high)
    rest = rng.uniform(size=50).astype(np.float32)
    options = CostOptions(level_weight=0.7, idle_weight=1.3, listless_weight=0.4, similarity_weight=2.5)
    costs = node_costs(steps, motion, rest, options)
    assert costs.dtype == np.float32
    np.testing.assert_allclose(costs, naive.node_costs(steps, motion, rest, options), atol=1e-5)
    for t in (0, 7, 29):
        np.testing.assert_array_equal(node_costs(steps[t : t + 1], motion, rest, options)[0], costs[t])


def test_silence_calls_for_rest_and_speech_for_gestures(rng: np.random.Generator) -> None:
    steps, motion = random_steps(10, rng), random_motion(20, rng)
    quiet = replace(steps, low=steps.low * 0, high=steps.high * 0, level=steps.level * 0 + 0.5)
    motion = replace(motion, level=np.full(20, 0.5, np.float32))
    rest = np.linspace(0, 1, 20, dtype=np.float32)
    silent = node_costs(replace(quiet, speaking=np.zeros(10, np.float32)), motion, rest)
    spoken = node_costs(replace(quiet, speaking=np.ones(10, np.float32)), motion, rest)
    assert (silent.argmin(axis=1) == 0).all()
    assert (spoken.argmin(axis=1) == 19).all()
    assert np.ptp(silent, axis=1).min() > 3 * np.ptp(spoken, axis=1).max()


def test_silence_has_no_level() -> None:
    embedding: Embedding = OnsetEmbedding()
    steps = speech_steps(embedding, np.zeros(6 * SAMPLE_RATE, np.float32))
    assert not steps.speaking.any() and steps.level.max() < 0.01 and np.abs(steps.low).max() < 1e-6


def hands_at(heights: np.ndarray, jitter_px: float, rng: np.random.Generator) -> np.ndarray:
    """Joints with both hands `heights` (F,) pixels below the shoulders."""
    joints = np.zeros((len(heights), N_JOINTS, 3), np.float32)
    joints[:, LEFT_SHOULDER, 0], joints[:, RIGHT_SHOULDER, 0] = 150, 50
    joints[:, [LEFT_WRIST, RIGHT_WRIST], 0] = 130, 70
    joints[:, [LEFT_WRIST, RIGHT_WRIST], 1] = heights[:, None]
    joints[:, [LEFT_WRIST, RIGHT_WRIST], :2] += rng.normal(0, jitter_px, (len(heights), 2, 2))
    return joints


def rest_of(joints: np.ndarray, *clip_nodes: int, unit_px: float = UNIT_PX) -> np.ndarray:
    confidence = np.ones(joints.shape[:2], np.float32)
    return rest_distance(joints, confidence, np.cumsum([0, *clip_nodes]), unit_px)


def test_rest_is_where_the_hands_return(rng: np.random.Generator) -> None:
    heights = np.full(400, 150.0)
    gesturing = np.r_[80:160, 240:340]
    heights[gesturing] = 60 + 40 * np.sin(np.arange(len(gesturing)) / 3)
    rest = rest_of(hands_at(heights, 0.3, rng), 60, 40)
    away = np.zeros(100, bool)
    away[np.r_[20:40, 60:85]] = True
    assert rest.shape == (100,)
    assert rest.dtype == np.float32
    assert rest.min() == 0
    assert rest.max() == 1
    assert rest[away].min() > 0.4
    assert np.median(rest[~away]) < 0.1


def test_of_two_places_equally_popular_the_lower_is_rest(rng: np.random.Generator) -> None:
    rest = rest_of(hands_at(np.where(np.arange(400) // 40 % 2, 150.0, 20.0), 0.3, rng), 100).reshape(10, 10)
    assert rest[1::2, 2:-2].max() < rest[::2, 2:-2].min()


def test_somebody_who_never_rests_has_calmest_moments(rng: np.random.Generator) -> None:
    phase = np.cumsum(np.where(np.arange(400) < 200, 0.5, 0.1))
    rest = rest_of(hands_at(90 + 50 * np.sin(phase), 0.3, rng), 100)
    assert np.isfinite(rest).all()
    assert rest[50:].mean() < rest[:50].mean() - 0.1


def test_a_statue_is_at_rest() -> None:
    assert not rest_of(hands_at(np.full(40, 150.0), 0.0, np.random.default_rng(0)), 10).any()


def test_moving_the_camera_back_changes_nothing(rng: np.random.Generator) -> None:
    joints = restless(200, rng)
    near, far = recording_of(joints), recording_of(joints / 2 + 300)
    far = replace(far, unit_px=UNIT_PX / 2)
    np.testing.assert_allclose(motion_level(near), motion_level(far), atol=1e-2)
    np.testing.assert_allclose(rest_of(joints, 50), rest_of(joints / 2, 50, unit_px=UNIT_PX / 2), atol=1e-4)
