"""Pitch: the naive twin, voices of known pitch, and what has none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.pitch import MIN_STRENGTH, PITCH_HZ, pitches
from engine.features.speech import LOOKBACK_SAMPLES, PITCH, SPEAKING, WINDOW, speech_features
from engine.timebase import FPS, SAMPLE_RATE, frame_start
from tests.helpers import naive_speech as naive
from tests.helpers.fakes_recording import noise, syllables, voiced

HANN = np.hanning(WINDOW + 1)[:-1]


def windows_of(samples: np.ndarray, n_frames: int) -> np.ndarray:
    """Frames times the window, float64 (n_frames, WINDOW)."""
    padded = np.concatenate((np.zeros(LOOKBACK_SAMPLES), samples.astype(np.float64), np.zeros(2 * WINDOW)))
    return np.stack([padded[frame_start(f) : frame_start(f) + WINDOW] * HANN for f in range(n_frames)])


def voice(hertz: np.ndarray | float, seconds: float, tilt: float = 1.0, first: int = 1) -> np.ndarray:
    """Harmonics `first` .. 20 of a pitch, the k-th of amplitude k ** -tilt."""
    n = int(seconds * SAMPLE_RATE)
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hertz, (n,))) / SAMPLE_RATE
    harmonics = [np.sin(k * phase + k) / k**tilt for k in range(first, 21)]
    samples = np.sum(harmonics, axis=0)
    return np.asarray(0.3 * samples / np.abs(samples).max(), np.float32)


def octaves_off(samples: np.ndarray, hertz: np.ndarray | float) -> np.ndarray:
    """By how many octaves the pitch found is wrong, over all frames but those at the ends."""
    n = int(len(samples) / SAMPLE_RATE * FPS)
    found = pitches(windows_of(samples, n), HANN)[2:-3]
    assert (found[:, 1] > MIN_STRENGTH).mean() > 0.95
    middles = [frame_start(f) + SAMPLE_RATE // FPS // 2 for f in range(n)][2:-3]
    true = np.broadcast_to(hertz, (len(samples),))[middles]
    return np.asarray(np.abs(found[:, 0] - np.log2(true)))


def test_equals_the_naive_twin(rng: np.random.Generator) -> None:
    glide = voice(np.linspace(80, 400, SAMPLE_RATE), 1)
    hissing = voiced(syllables(15, rng), rng)
    for samples in (glide, glide + noise(30, rng, 0.05), np.concatenate((hissing, np.zeros(4000, np.float32)))):
        n = len(samples) * FPS // SAMPLE_RATE - 1
        found = pitches(windows_of(samples, n), HANN)
        twins = np.array([naive.pitch(samples, frame) for frame in range(n)])
        np.testing.assert_allclose(found, twins, atol=1e-6)


@pytest.mark.parametrize("tilt", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("hertz", [75.0, 100.0, 140.0, 200.0, 290.0, 400.0])
def test_steady_voices_without_octave_errors(hertz: float, tilt: float) -> None:
    assert octaves_off(voice(hertz, 0.6, tilt), hertz).max() < 0.02


@pytest.mark.parametrize("hertz", [100.0, 180.0])
def test_a_voice_without_its_fundamental(hertz: float) -> None:
    """As over the telephone: the pitch is that of the harmonics together."""
    assert octaves_off(voice(hertz, 0.6, 0.3, first=3), hertz).max() < 0.02


def test_a_glide_is_followed() -> None:
    hertz = 110 * 2 ** (0.7 * np.sin(np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE * 2))
    assert np.quantile(octaves_off(voice(hertz, 3), hertz), 0.95) < 0.03


def test_a_voice_in_noise_and_over_hum(rng: np.random.Generator) -> None:
    samples = voice(150, 1) + noise(30, rng, 0.03)
    assert np.quantile(octaves_off(samples, 150), 0.9) < 0.03
    rumble = 0.5 * np.sin(2 * np.pi * 25 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    assert octaves_off(voice(150, 1) + rumble, 150).max() < 0.03


@pytest.mark.parametrize("level", [1e-4, 0.1])
def test_noise_has_no_pitch(rng: np.random.Generator, level: float) -> None:
    found = pitches(windows_of(noise(300, rng, level), 300), HANN)
    assert (found[:, 1] < MIN_STRENGTH).mean() > 0.98
    rows = speech_features(voiced(syllables(300, rng), rng))
    assert (rows[:, PITCH] != 0).mean() < 0.05 and rows[:, SPEAKING].mean() > 0.3


def test_silence_has_no_pitch() -> None:
    found = pitches(np.zeros((3, WINDOW)), HANN)
    assert np.isfinite(found).all() and not found[:, 1].any()


@given(st.integers(0, 2**32 - 1), st.floats(0, 2), st.floats(1e-6, 1e3))
@settings(max_examples=30, deadline=None)
def test_always_finite_in_range_and_the_same_alone_and_at_any_level(seed: int, tilt: float, gain: float) -> None:
    rng = np.random.default_rng(seed)
    windows = (rng.normal(size=(5, WINDOW)) * gain + voice(rng.uniform(60, 440), 0.1, tilt)[:WINDOW]) * HANN
    found = pitches(windows, HANN)
    assert np.isfinite(found).all()
    voiced_rows = found[found[:, 1] > 0]
    low, high = PITCH_HZ
    assert ((2 ** voiced_rows[:, 0] > low * 0.97) & (2 ** voiced_rows[:, 0] < high * 1.03)).all()
    for row in range(5):
        np.testing.assert_array_equal(pitches(windows[row : row + 1], HANN)[0], found[row])


def test_rows_tell_the_melody_relative_to_the_speaker(rng: np.random.Generator) -> None:
    """The same sentence an octave higher has the same melody."""
    at = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
    tune = 2 ** (0.3 * np.sin(at * 5))
    loud = np.where(at > 1, 0.1 + np.maximum(np.sin(2 * np.pi * 3 * at), 0), 0)  # the room first, then syllables
    room = noise(180, rng, 1e-4)
    low, high = (speech_features(voice(hertz * tune, 6) * loud + room)[:, PITCH] for hertz in (100, 200))
    spoken = np.flatnonzero((low != 0) & (high != 0))
    spoken = spoken[spoken > 2 * FPS]
    assert len(spoken) > 2 * FPS
    alike = np.abs(low[spoken] - high[spoken]) < 0.4
    assert alike.mean() > 0.95, "an octave is 2 to 4 deviations"
    middles = [frame_start(frame) + SAMPLE_RATE // FPS // 2 for frame in spoken[alike]]
    assert np.corrcoef(low[spoken][alike], np.log2(tune[middles]))[0, 1] > 0.95
