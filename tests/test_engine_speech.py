"""Speech features: chunking, gain, silence, real recordings."""

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.features.kernels.speech import CLIP_LOW
from engine.features.speech import (
    ENERGY,
    FLUX,
    LOOKAHEAD_FRAMES,
    LOOKAHEAD_SAMPLES,
    LOUDNESS,
    N_COLUMNS,
    NOVELTY,
    SMOOTH_ENERGY,
    SPEAKING,
    SpeechFeatures,
    speech_features,
)
from engine.timebase import FPS, SAMPLE_RATE, frame_at_sample, frame_count, frame_start
from tests.helpers import naive_speech as naive
from tests.helpers.speech import speech


def voice(rng: np.random.Generator, seconds: float, level: float = 0.1) -> np.ndarray:
    """Something like speech: a buzz of harmonics in syllables of 4 a second, loudness changing."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * 120 * k * t + k) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 2 * t + 0.5), 0, None) ** 0.5 * (1 + 0.5 * np.sin(2 * np.pi * 0.3 * t))
    return (level * buzz * syllables + rng.normal(0, level / 300, len(t))).astype(np.float32)


def noise(rng: np.random.Generator, seconds: float, level: float) -> np.ndarray:
    return rng.normal(0, level, int(seconds * SAMPLE_RATE)).astype(np.float32)


def in_chunks(samples: np.ndarray, ends: list[int]) -> np.ndarray:
    stream = SpeechFeatures()
    cuts = [0, *sorted(ends), len(samples)]
    parts = [stream.push(samples[a:b]) for a, b in pairwise(cuts)]
    return np.concatenate((*parts, stream.flush()))


def speaking(samples: np.ndarray) -> np.ndarray:
    return np.asarray(speech_features(samples)[:, SPEAKING] >= 0.5)


def test_equals_the_naive_twin(rng: np.random.Generator) -> None:
    parts = (noise(rng, 0.6, 1e-3), voice(rng, 1.5), np.zeros(9000, np.float32), voice(rng, 1, 0.3))
    samples = np.concatenate((*parts, noise(rng, 1.0, 1e-3)))
    np.testing.assert_allclose(speech_features(samples), naive.speech_features(samples), atol=1e-4)


@given(st.integers(0, 12_000), st.lists(st.integers(0, 12_000), max_size=12))
@settings(max_examples=40, deadline=None)
def test_chunks_do_not_matter(n: int, ends: list[int]) -> None:
    samples = voice(np.random.default_rng(n), 0.75)[:n]
    whole = speech_features(samples)
    assert whole.shape == (frame_count(n), N_COLUMNS)
    np.testing.assert_array_equal(in_chunks(samples, [min(end, n) for end in ends]), whole)


def test_single_samples_give_the_same_bits(rng: np.random.Generator) -> None:
    samples = voice(rng, 0.4)
    np.testing.assert_array_equal(in_chunks(samples, list(range(1, len(samples)))), speech_features(samples))


def test_rows_arrive_when_the_declared_lookahead_was_heard(rng: np.random.Generator) -> None:
    samples = voice(rng, 1.0)
    stream, n_rows = SpeechFeatures(), 0
    for end in range(100, len(samples), 100):
        n_rows += len(stream.push(samples[end - 100 : end]))
        assert n_rows >= frame_at_sample(max(end - LOOKAHEAD_SAMPLES, 0))
        assert n_rows == 0 or frame_start(n_rows - 1 + LOOKAHEAD_FRAMES) < end


def test_what_comes_later_changes_nothing(rng: np.random.Generator) -> None:
    samples = voice(rng, 2.0)
    stream = SpeechFeatures()
    early = stream.push(samples[:16000])
    np.testing.assert_array_equal(early, speech_features(np.concatenate((samples[:16000], -samples)))[: len(early)])


@pytest.mark.parametrize("gain", [0.1, 0.3, 10.0])
def test_the_level_of_the_microphone_does_not_matter(rng: np.random.Generator, gain: float) -> None:
    samples = np.concatenate((noise(rng, 0.5, 3e-4), voice(rng, 4)))
    off = np.abs(speech_features(samples * np.float32(gain)) - speech_features(samples))[FPS:]
    assert off[:, [ENERGY, FLUX, SMOOTH_ENERGY, SPEAKING]].max() < 0.05


def test_speech_is_standardised_by_what_was_heard(rng: np.random.Generator) -> None:
    samples = voice(rng, 20)
    rows = speech_features(samples)[5 * FPS :]
    loud = rows[:, ENERGY] > CLIP_LOW
    assert abs(rows[loud, ENERGY].mean()) < 0.5
    assert 0.4 < rows[loud, ENERGY].std() < 1.5


@pytest.mark.parametrize("level", [0.0, 3e-5, 1e-3, 1e-2, 0.1])
def test_silence_and_steady_noise_are_not_speech(rng: np.random.Generator, level: float) -> None:
    rows = speech_features(noise(rng, 5, level))
    assert not (rows[:, SPEAKING] > 0).any()
    assert np.isfinite(rows).all()


def test_a_pause_is_found_and_a_short_gap_is_not(rng: np.random.Generator) -> None:
    gap, pause = noise(rng, 0.2, 1e-4), noise(rng, 1.0, 1e-4)
    said = speaking(np.concatenate((voice(rng, 3.1), gap, voice(rng, 3.1), pause, voice(rng, 2))))
    assert said[FPS : int(6.4 * FPS)].all()
    assert not said[int(6.95 * FPS) : int(7.2 * FPS)].any()
    assert said[int(7.5 * FPS) :].all()


def test_clicks_are_not_speech(rng: np.random.Generator) -> None:
    samples = np.concatenate((voice(rng, 2), noise(rng, 3, 1e-4)))
    samples[3 * SAMPLE_RATE :: SAMPLE_RATE // 2] = 0.9
    assert not speaking(samples)[int(2.8 * FPS) :].any()


def test_a_quiet_voice_is_heard_after_a_loud_one(rng: np.random.Generator) -> None:
    samples = np.concatenate((voice(rng, 3, 0.5), noise(rng, 8, 1e-5), voice(rng, 6, 0.02)))
    assert speaking(samples)[-5 * FPS : -FPS].mean() > 0.9


def test_digital_silence_says_nothing_about_the_room(rng: np.random.Generator) -> None:
    samples = np.concatenate((np.zeros(3 * SAMPLE_RATE, np.float32), noise(rng, 3, 1e-3), voice(rng, 2)))
    said = speaking(samples)
    assert not said[: int(5.8 * FPS)].any()
    assert said[int(6.3 * FPS) :].mean() > 0.95


def test_an_onset_is_a_peak_of_flux(rng: np.random.Generator) -> None:
    samples = np.concatenate((noise(rng, 2, 1e-4), voice(rng, 1)))
    assert abs(int(speech_features(samples)[:, FLUX].argmax()) - 2 * FPS) <= 1


@pytest.mark.parametrize("samples", [np.array([0.0, np.nan]), np.array([np.inf]), np.zeros((4, 2))])
def test_unusable_samples_are_refused(samples: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected finite 16 kHz samples"):
        SpeechFeatures().push(samples)


def test_memory_is_constant(rng: np.random.Generator) -> None:
    stream, sizes = SpeechFeatures(), set()
    for _ in range(50):
        stream.push(noise(rng, 1.0, 0.1))
        sizes.add((len(stream._samples), len(stream._levels)))
    assert max(size for size, _ in sizes) < 2048
    assert {n for _, n in sizes} == {2 * LOOKAHEAD_FRAMES}


def test_a_minute_takes_well_under_a_third_of_a_second(rng: np.random.Generator) -> None:
    samples = noise(rng, 60, 0.1)
    speech_features(samples[:16000])
    started = time.process_time()
    speech_features(samples)
    assert time.process_time() - started < 0.3


@pytest.mark.parametrize(
    ("name", "least", "most", "pauses_s"),
    [
        ("english_historic_address_11s.flac", 0.65, 0.9, [(2.6, 3.1), (4.8, 5.1)]),
        ("english_speaker_14s.flac", 0.75, 0.95, [(7.4, 7.45), (13.6, 14.0)]),
        ("english_talk_60s.wav", 0.85, 0.97, [(0.0, 2.9), (24.5, 24.6)]),
        ("spanish_10s.wav", 0.5, 0.75, [(0.0, 1.3), (7.9, 10.0)]),
    ],
)
def test_real_recordings(
    data_dir: Path, name: str, least: float, most: float, pauses_s: list[tuple[float, float]]
) -> None:
    """Shares and pauses as seen on the waveforms; the first is old and noisy, the last has clicks."""
    audio = pytest.importorskip("tango_rt.sound.audio")
    said = speaking(audio.read_audio(data_dir / "speech" / name))
    assert least < said.mean() < most
    for start, end in pauses_s:
        assert not said[round(start * FPS) : round(end * FPS)].any()


def carried(first: np.ndarray, second: np.ndarray, sizes: list[int] | None = None) -> np.ndarray:
    """Rows of a second stretch, heard with what was learned from a first one."""
    before = SpeechFeatures()
    before.push(first)
    before.flush()
    after = SpeechFeatures(before.speaker)
    chunks = np.split(second, np.cumsum(sizes or [])[:-1]) if sizes else [second]
    rows = [after.push(chunk) for chunk in chunks]
    return np.concatenate([*rows, after.flush()])


def test_a_known_speaker_is_heard_as_in_one_recording() -> None:
    first, second = speech(6.0, seed=1), speech(3.0, seed=2)
    wanted = speech_features(np.concatenate([first, second]))[180:210]
    known, unknown = carried(first, second)[:30], speech_features(second)[:30]
    for column in (ENERGY, SMOOTH_ENERGY, LOUDNESS, NOVELTY):
        near, far = (np.abs(rows[2:, column] - wanted[2:, column]).mean() for rows in (known, unknown))
        assert near < 0.5 * far, column


def test_what_was_learned_does_not_depend_on_chunks() -> None:
    first, second = speech(3.0, seed=1), speech(2.0, seed=2)
    np.testing.assert_array_equal(carried(first, second, [1, 1599, 7, 16_000, 14_393]), carried(first, second))


def test_another_voice_is_learned_sooner_than_in_one_recording() -> None:
    """15 dB quieter, after 30 s."""
    loud, quiet = speech(30.0, seed=1), 0.18 * speech(14.0, seed=2)
    one = speech_features(np.concatenate([loud, quiet]))[900:]
    known, fresh = carried(loud, quiet), speech_features(quiet)
    off, without = (np.abs(rows[300:, ENERGY] - fresh[300:, ENERGY]).mean() for rows in (known, one))
    assert off < 0.75 * without
