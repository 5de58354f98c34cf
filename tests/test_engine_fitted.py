"""The fitted embedding: twins, chunking to the last bit, look-ahead, bounded memory."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.body import body_descriptors
from engine.features.embedding import Embedding
from engine.features.linear import AUDIO_COLUMNS, bin_means
from tests.helpers import naive_fitted as naive
from tests.helpers.fakes_recording import random_rows, recording_of, restless
from tests.helpers.random_fits import HALF, NO_SAMPLES, WIDTH, fitted_of, heard, linear_of


@pytest.mark.parametrize("lookahead", sorted(linear_of().speech))
def test_speech_equals_the_naive_twin(rng: np.random.Generator, lookahead: int) -> None:
    embedding, rows = linear_of(lookahead=lookahead), random_rows(60, rng)
    found = heard(embedding, rows)
    assert found.low.dtype == np.float32 and found.high.shape == (60, 0)
    for frame in range(60):
        np.testing.assert_allclose(found.low[frame], naive.linear_speech(embedding, rows, frame), atol=1e-6)


@pytest.mark.parametrize("mouth", [False, True])
def test_motion_equals_the_naive_twin(rng: np.random.Generator, mouth: bool) -> None:
    lips = rng.normal(size=(80, 2)).astype(np.float32)
    recording = recording_of(restless(80, rng), (8, 3, 9), mouth=lips)
    embedding, descriptors = linear_of(mouth=mouth), body_descriptors(recording, mouth)
    found = embedding.motion(recording)
    assert found.low.shape == (80, WIDTH) and found.high.shape == (80, 0)
    for frame in range(80):
        twin = naive.linear_motion(embedding, descriptors, recording.clip_start, frame)
        np.testing.assert_allclose(found.low[frame], twin, atol=1e-6)


def test_a_fit_sees_the_contexts_that_are_projected(rng: np.random.Generator) -> None:
    values, frames = rng.normal(size=(60, 3)), np.array([0, 1, 30, 59])
    twins = np.array([naive.context(values, frame, HALF) for frame in frames])
    np.testing.assert_allclose(bin_means(values, HALF, frames), twins, atol=1e-6)


@given(
    st.integers(0, 150),
    st.lists(st.integers(0, 150), max_size=20),
    st.sampled_from([0, 2, 4, 8, 13, 21, 31, 100]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_chunks_do_not_matter_to_the_last_bit(n: int, ends: list[int], lookahead: int, blended: bool) -> None:
    rows = random_rows(n, np.random.default_rng(n))
    embedding: Embedding = fitted_of() if blended else linear_of()
    embedding = embedding.with_lookahead(lookahead)
    found = heard(embedding, rows, ends)
    np.testing.assert_array_equal(found.low, heard(embedding, rows).low)
    assert len(found.low) == len(found.high) == n
    assert np.linalg.norm(found.low, axis=1).max(initial=0) <= 1 + 1e-6


@pytest.mark.parametrize("lookahead", [0, 3, 8, 31, 500])
def test_hurried_waits_no_longer_and_what_comes_later_changes_nothing(rng: np.random.Generator, lookahead: int) -> None:
    whole = fitted_of()
    hurried = whole.with_lookahead(lookahead)
    waits = hurried.lookahead_frames
    assert waits <= min(lookahead, whole.lookahead_frames) and hurried.sha256 == whole.sha256
    listener, n = hurried.listen(), 0
    rows = random_rows(120, rng)
    for frame in range(120):
        n += len(listener.push(NO_SAMPLES, rows[frame : frame + 1]).low)
        assert n == max(frame + 1 - waits, 0)
    other = np.concatenate((rows[:80], random_rows(40, rng)))
    one, two = heard(hurried, rows).low, heard(hurried, other).low
    np.testing.assert_array_equal(one[: 80 - waits], two[: 80 - waits])
    assert np.abs(one[80:] - two[80:]).max() > 0.1


def test_more_patience_hears_more(rng: np.random.Generator) -> None:
    """Every projection that is kept hears more than the one before: nobody waits for nothing."""
    heard_by = [len(part) for _, part in sorted(linear_of(half=80).speech.items())]
    assert heard_by == sorted(set(heard_by))


def test_similarity_is_the_mean_of_those_of_the_parts(rng: np.random.Generator) -> None:
    embedding, rows = fitted_of(), random_rows(80, rng)
    recording = recording_of(restless(80, rng))
    whole = heard(embedding, rows).low @ embedding.motion(recording).low.T
    parts = [heard(part, rows).low @ part.motion(recording).low.T for part in embedding.parts]
    np.testing.assert_allclose(whole, np.mean(parts, axis=0), atol=1e-6)


def test_memory_is_bounded(rng: np.random.Generator) -> None:
    listener, rows = fitted_of().listen(), random_rows(30, rng)
    for _ in range(20):
        listener.push(NO_SAMPLES, rows)
        assert listener._waiting is not None and max(len(part) for part in listener._waiting) <= 32
        for part in listener._listeners:
            assert len(part._rows) <= 64 + 30 + 2  # type: ignore[attr-defined]


def test_nothing_gives_nothing(rng: np.random.Generator) -> None:
    """A fit to silence or to a statue projects to zeros; that is neutral, no error."""
    empty = replace(linear_of(), body=linear_of().body * 0, speech_size=0.0, body_size=0.0)
    assert not empty.motion(recording_of(restless(80, rng))).low.any()
    rows = np.zeros((40, 10), np.float32)
    rows[:, AUDIO_COLUMNS] = empty.speech_mean
    assert not heard(empty, rows).low.any()
