"""Streaming resampling: chunks never matter, sound stays where and what it is."""

from math import gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from engine.errors import InputError
from tango_rt.sound.resample import MAX_RATE_HZ, MIN_RATE_HZ, Resampler

RATES = [8000, 11025, 12000, 22050, 24000, 32000, 37123, 44100, 48000]


def resample(samples: np.ndarray, rate_hz: int, cuts: list[int] | None = None) -> np.ndarray:
    resampler = Resampler(rate_hz)
    return np.concatenate([*map(resampler.push, np.split(samples, sorted(cuts or []))), resampler.flush()])


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, n_samples).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    rate=st.sampled_from([*RATES, 16000]),
    n_samples=st.integers(0, 4000),
    cuts=st.lists(st.integers(0, 4000), max_size=12),
)
def test_chunks_never_matter(rate: int, n_samples: int, cuts: list[int]) -> None:
    samples = noise(n_samples)
    whole = resample(samples, rate)
    assert whole.dtype == np.float32
    assert abs(len(whole) - n_samples * 16000 / rate) <= 0.5
    np.testing.assert_array_equal(resample(samples, rate, [min(cut, n_samples) for cut in cuts]), whole)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_single_samples_give_the_same_as_all_at_once(rate: int) -> None:
    samples = noise(3000, rate)
    np.testing.assert_array_equal(resample(samples, rate, list(range(3000))), resample(samples, rate))


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_stays_in_its_place_and_what_cannot_be_kept_is_gone(rate: int) -> None:
    seconds = np.arange(rate) / rate
    wanted_s = np.arange(16000) / 16000
    for tone_hz in (100, 1000, 0.44 * min(rate, 16000)):
        out = resample(np.sin(2 * np.pi * tone_hz * seconds).astype(np.float32), rate)
        error = (out - np.sin(2 * np.pi * tone_hz * wanted_s))[400:-400]
        assert 10 * np.log10(0.5 / np.mean(error**2)) > 75, tone_hz
    if rate > 18000:
        aliased = resample(np.sin(2 * np.pi * 8800 * seconds).astype(np.float32), rate)
        assert np.abs(aliased[400:-400]).max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_as_another_resampler_does_it(rate: int) -> None:
    """Noise below 1.5 kHz against scipy's filter of whole files."""
    spectrum = np.fft.rfft(noise(rate * 2))
    spectrum[np.fft.rfftfreq(rate * 2, 1 / rate) > 1500] = 0
    samples = np.fft.irfft(spectrum).astype(np.float32)
    divisor = gcd(rate, 16000)
    window = ("kaiser", 14.0)
    reference = resample_poly(samples.astype(np.float64), 16000 // divisor, rate // divisor, window=window)
    error = (resample(samples, rate) - reference)[1000:-1000]
    assert 10 * np.log10(np.mean(reference**2) / np.mean(error**2)) > 60


@pytest.mark.parametrize("rate", RATES)
def test_it_waits_for_less_than_10_ms(rate: int) -> None:
    resampler = Resampler(rate)
    heard = done = 0
    for chunk in np.array_split(noise(rate // 4), 50):
        heard += len(chunk)
        done += len(resampler.push(chunk))
        assert heard * 16000 / rate - done <= resampler.lookahead_samples + 1
    assert resampler.lookahead_samples < 160


def test_16_khz_passes_through() -> None:
    samples = noise(1000)
    resampler = Resampler(16000)
    np.testing.assert_array_equal(resampler.push(samples), samples)
    assert len(resampler.flush()) == resampler.lookahead_samples == 0


@pytest.mark.parametrize("rate", [0, MIN_RATE_HZ - 1, MAX_RATE_HZ + 1])
def test_other_rates_are_refused(rate: int) -> None:
    with pytest.raises(InputError, match="8000 to 48000"):
        Resampler(rate)


def test_memory_is_constant() -> None:
    resampler = Resampler(44100)
    for k in range(100):
        resampler.push(noise(4410, k))
    assert len(resampler._window) < 4410
