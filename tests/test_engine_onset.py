"""Onset features of speech and motion: twins, chunking, look-ahead, clip boundaries, planted motion."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.embedding import Features
from engine.features.onset import HIGH_FRAMES, OnsetEmbedding, body_rhythm
from engine.features.recording import Recording
from engine.features.speech import FLUX, N_COLUMNS, SMOOTH_ENERGY, SPEAKING
from tests.helpers import naive_speech as naive
from tests.helpers.fakes_recording import UNIT_PX, moved_by, random_rows, recording_of, restless, unseen

NO_SAMPLES = np.empty(0, np.float32)


def heard(rows: np.ndarray, lookahead: int, ends: list[int]) -> Features:
    listener = OnsetEmbedding(lookahead).listen()
    cuts = [0, *sorted(min(end, len(rows)) for end in ends), len(rows)]
    parts = [*(listener.push(NO_SAMPLES, rows[a:b]) for a, b in pairwise(cuts)), listener.flush()]
    return Features(*(np.concatenate(part) for part in zip(*parts, strict=True)))


@pytest.mark.parametrize("lookahead", [0, 8, HIGH_FRAMES - 1])
def test_speech_equals_the_naive_twin(rng: np.random.Generator, lookahead: int) -> None:
    rows = random_rows(150, rng)
    found = heard(rows, lookahead, [])
    assert len(found.low) == len(found.high) == len(rows)
    for frame in range(len(rows)):
        low, high = naive.onset_features(rows, frame, lookahead)
        np.testing.assert_allclose(found.low[frame], low, atol=1e-6)
        np.testing.assert_allclose(found.high[frame], high, atol=1e-6)


@given(st.integers(0, 300), st.lists(st.integers(0, 300), max_size=20), st.sampled_from([0, 6, 63, 100]))
@settings(max_examples=40, deadline=None)
def test_chunks_of_rows_do_not_matter(n: int, ends: list[int], lookahead: int) -> None:
    rows = random_rows(n, np.random.default_rng(n))
    for one, other in zip(heard(rows, lookahead, ends), heard(rows, lookahead, []), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_feature_waits_for_its_lookahead_and_no_longer(rng: np.random.Generator) -> None:
    listener, n = OnsetEmbedding(6).listen(), 0
    for n_rows in range(1, 200):
        n += len(listener.push(NO_SAMPLES, random_rows(1, rng)).low)
        assert n == max(n_rows - 6, 0)
    assert len(listener._rows) < 100


@pytest.mark.parametrize("lookahead", [0, 20])
def test_hurried_waits_no_longer_and_hears_nothing_that_comes_later(rng: np.random.Generator, lookahead: int) -> None:
    hurried = OnsetEmbedding().with_lookahead(lookahead)
    assert hurried.lookahead_frames == lookahead
    assert OnsetEmbedding(3).with_lookahead(lookahead).lookahead_frames == min(lookahead, 3)
    assert hurried.sha256 == OnsetEmbedding().sha256
    rows = random_rows(160, rng)
    other = np.concatenate((rows[:100], random_rows(60, rng)))
    for one, two in zip(heard(rows, lookahead, []), heard(other, lookahead, []), strict=True):
        np.testing.assert_array_equal(one[: 100 - lookahead], two[: 100 - lookahead])
        assert np.abs(one[100:] - two[100:]).max() > 0.1


def test_features_are_at_most_of_norm_one(rng: np.random.Generator) -> None:
    recording = recording_of(restless(400, rng), (40, 3, 57))
    motion = OnsetEmbedding().motion(recording)
    for vectors in (*heard(random_rows(400, rng), 63, []), *motion):
        assert vectors.dtype == np.float32 and len(vectors) == 400
        assert np.linalg.norm(vectors, axis=1).max() <= 1 + 1e-6
    assert np.linalg.norm(motion.low[160:172], axis=1).max() < 0.6, "a clip of 3 nodes knows little"


def test_silence_has_no_rhythm() -> None:
    rows = np.zeros((200, N_COLUMNS), np.float32)
    rows[:, SMOOTH_ENERGY], rows[:, FLUX] = -2.5, -1.0
    assert max(np.abs(part).max() for part in heard(rows, 63, [])) < 1e-6


def test_the_motion_that_goes_with_the_voice_is_found(rng: np.random.Generator) -> None:
    """Planted: wrists and head as fast as the flux and the energy of the same frame."""
    beat = np.repeat(rng.uniform(0, 1, 100), 6)
    rows = np.zeros((600, N_COLUMNS), np.float32)
    rows[:, FLUX] = rows[:, SMOOTH_ENERGY] = 4 * beat - 2.75
    rows[:, SPEAKING] = 1
    motion = OnsetEmbedding().motion(recording_of(moved_by(0.1 * beat**2)))
    speech = heard(rows, 63, [])
    for voice, body in zip(speech, motion, strict=True):
        found = (voice @ body.T).argmax(axis=1)
        assert (np.abs(found - np.arange(600)) <= 2)[32:-32].mean() > 0.95
    low_of_own = np.einsum("fd,fd->f", speech.low, motion.low)
    assert low_of_own[32:-32].mean() > 0.7


def test_contexts_stay_inside_their_clip(rng: np.random.Generator) -> None:
    joints = restless(320, rng)
    whole = OnsetEmbedding().motion(recording_of(joints, (40, 40)))
    moved = joints.copy()
    moved[160:, :, :2] += 500
    far = OnsetEmbedding().motion(recording_of(moved, (40, 40)))
    np.testing.assert_allclose(far.low, whole.low, atol=1e-2, err_msg="a shot change is no movement")
    joints[160:] = joints[160:][::-1]
    other = OnsetEmbedding().motion(recording_of(joints, (40, 40)))
    np.testing.assert_allclose(whole.low[:160], other.low[:160], atol=1e-3)
    assert np.abs(whole.low[160:] - other.low[160:]).max() > 0.1


def test_a_lost_hand_is_no_calm_hand(rng: np.random.Generator) -> None:
    speed = rng.uniform(0.02, 0.06, 400)
    speed[200:300] = 0  # filled in: the hand seems to stand still
    seen = recording_of(moved_by(speed))
    assert body_rhythm(unseen(seen, slice(200, 300)))[210:290].mean() > body_rhythm(seen)[210:290].mean() + 0.3
    nobody = unseen(seen, slice(None))
    assert not body_rhythm(nobody).any()
    assert not any(part.any() for part in OnsetEmbedding().motion(nobody))


def test_moving_the_camera_back_changes_nothing(rng: np.random.Generator) -> None:
    near = recording_of(restless(200, rng))
    far: Recording = replace(near, joints=near.joints / 2 + 300, unit_px=UNIT_PX / 2)
    np.testing.assert_allclose(OnsetEmbedding().motion(near).low, OnsetEmbedding().motion(far).low, atol=1e-2)
