"""Resamples live sound from any usual rate to 16 kHz: bit-identical however it is cut into chunks.

Every output sample is one sum over the input samples around its time, so nothing depends on chunks. Existing streaming
resamplers work in blocks and have a latency of 20 to 115 ms (soxr, all qualities); this one waits for half a filter,
3.6 ms, or 7.3 ms at 8 kHz.
"""

from functools import lru_cache
from math import gcd

import numpy as np
from scipy.special import i0

from engine.errors import InputError
from engine.timebase import SAMPLE_RATE
from tango_rt.sound.kernels import apply_filter

__all__ = ["MAX_RATE_HZ", "MIN_RATE_HZ", "Resampler"]

MIN_RATE_HZ = 8_000
MAX_RATE_HZ = 48_000

_STOP_DB = 90.0
# Transition band, relative to half the lower rate. Energy and pitch of speech above 7.2 kHz say nothing about gestures;
# half the width would double the latency.
_TRANSITION = 0.1


class Resampler:
    """One stream of mono sound; memory does not grow. Aligned: output sample k is for the time k / 16000 s.

    For n samples in, round(n * 16000 / rate) come out, including flush; beyond both ends is silence.
    """

    def __init__(self, rate_hz: int) -> None:
        """Raises InputError for a rate outside 8 to 48 kHz."""
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise InputError(f"a sample rate of {rate_hz} Hz: wanted {MIN_RATE_HZ} to {MAX_RATE_HZ}")
        self.rate_hz = rate_hz
        self._half = 0 if rate_hz == SAMPLE_RATE else _half_width(rate_hz)
        self._first = 1 - self._half  # number of the first sample in the window
        self._window = np.zeros(self._half - 1, np.float32) if self._half else np.zeros(0, np.float32)
        self._n_in = 0
        self._n_out = 0

    @property
    def lookahead_samples(self) -> int:
        """16 kHz samples that an output sample waits for: the half of the filter ahead of it."""
        return -(-self._half * SAMPLE_RATE // self.rate_hz)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples, float32 (n,) -> the 16 kHz samples that became final, float32 (m,)."""
        if self.rate_hz == SAMPLE_RATE:
            return samples.astype(np.float32, copy=False)
        self._n_in += len(samples)
        self._window = np.concatenate([self._window, samples.astype(np.float32, copy=False)])
        # sample k needs those up to number k * rate // 16000 + half
        return self._until(max(0, -(-(self._n_in - self._half) * SAMPLE_RATE // self.rate_hz)))

    def flush(self) -> np.ndarray:
        """No more samples: what was still waiting, float32 (m,)."""
        if self.rate_hz == SAMPLE_RATE:
            return np.zeros(0, np.float32)
        self._window = np.concatenate([self._window, np.zeros(self._half, np.float32)])
        return self._until((2 * self._n_in * SAMPLE_RATE + self.rate_hz) // (2 * self.rate_hz))

    def _until(self, n_out: int) -> np.ndarray:
        out = np.empty(max(0, n_out - self._n_out), np.float32)
        phases = _phases(self.rate_hz)
        down = self.rate_hz // gcd(self.rate_hz, SAMPLE_RATE)
        apply_filter(self._window, self._first + self._half - 1, phases, down, self._n_out, out)
        self._n_out += len(out)
        spent = self._n_out * self.rate_hz // SAMPLE_RATE - self._half + 1 - self._first
        if spent > 0:
            self._window = self._window[spent:].copy()
            self._first += spent
        return out


def _half_width(rate_hz: int) -> int:
    """Samples that the filter reaches on either side, by Kaiser's formula."""
    band_hz = _TRANSITION * min(rate_hz, SAMPLE_RATE) / 2
    return int(np.ceil((_STOP_DB - 7.95) / (2 * 2.285 * 2 * np.pi * band_hz) * rate_hz))


@lru_cache(maxsize=8)  # one takes 12 MB for a rate without a common divisor with 16,000
def _phases(rate_hz: int) -> np.ndarray:
    """float32 (phases, 2 * half): row p has the weights of samples -half + 1 .. half around a position p / phases
    after a sample."""
    n_phases = SAMPLE_RATE // gcd(rate_hz, SAMPLE_RATE)
    half = _half_width(rate_hz)
    offsets = np.arange(-half + 1, half + 1) - np.arange(n_phases)[:, None] / n_phases
    cutoff = min(rate_hz, SAMPLE_RATE) * (1 - _TRANSITION / 2) / rate_hz
    beta = 0.1102 * (_STOP_DB - 8.7)
    window = i0(beta * np.sqrt(np.maximum(0.0, 1 - (offsets / half) ** 2))) / i0(beta)
    weights = cutoff * np.sinc(cutoff * offsets) * window
    table: np.ndarray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return table
