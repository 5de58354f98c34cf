"""Simulates other voices and microphones with plain, deterministic signal processing."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from scipy.signal import butter, fftconvolve, istft, resample_poly, sosfilt, stft

from engine.timebase import SAMPLE_RATE

__all__ = ["EFFECTS", "pitched", "stretched"]

_WINDOW = 1024
_HOP = 256
_TELEPHONE_HZ = (300.0, 3400.0)
_ROOM_DECAY_S = 0.5  # by 60 dB
_ROOM_NOISE_DB = -20.0  # under the speech
_QUIET_DB = -20.0
_CLIP_SHARE = 0.1  # of the largest sample


def stretched(samples: np.ndarray, tempo: float) -> np.ndarray:
    """float32 (n,) -> about n / tempo samples of the same pitch: phase vocoder (Flanagan and Golden 1966)."""
    _, _, spectrum = stft(samples, nperseg=_WINDOW, noverlap=_WINDOW - _HOP)
    spectrum = np.pad(spectrum, ((0, 0), (0, 2)))
    places = np.arange(0, spectrum.shape[1] - 2, tempo)
    left = places.astype(int)
    share = places - left
    size = (1 - share) * np.abs(spectrum[:, left]) + share * np.abs(spectrum[:, left + 1])
    turn = np.angle(spectrum[:, left + 1]) - np.angle(spectrum[:, left])
    usual = 2 * np.pi * _HOP * np.arange(len(spectrum))[:, None] / _WINDOW
    turn = usual + (turn - usual + np.pi) % (2 * np.pi) - np.pi
    phase = np.angle(spectrum[:, :1]) + np.cumsum(np.hstack([np.zeros_like(turn[:, :1]), turn[:, :-1]]), axis=1)
    _, made = istft(size * np.exp(1j * phase), nperseg=_WINDOW, noverlap=_WINDOW - _HOP)
    return _fitted_to(made, round(len(samples) / tempo))


def pitched(samples: np.ndarray, semitones: float) -> np.ndarray:
    """Of the same length; formants shift along, as for a larger or smaller speaker."""
    ratio = Fraction(2 ** (semitones / 12)).limit_denominator(50)
    slower = stretched(samples, float(1 / ratio))
    return _fitted_to(resample_poly(slower, ratio.denominator, ratio.numerator), len(samples))


def telephone(samples: np.ndarray) -> np.ndarray:
    band = butter(4, _TELEPHONE_HZ, "bandpass", fs=SAMPLE_RATE, output="sos")
    return np.asarray(sosfilt(band, samples), np.float32)


def room(samples: np.ndarray) -> np.ndarray:
    """Reverberation as loud as the direct sound, and white noise."""
    rng = np.random.default_rng(0)
    seconds = np.arange(int(_ROOM_DECAY_S * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.normal(size=len(seconds)) * 10 ** (-3 * seconds / _ROOM_DECAY_S)
    response = tail / np.linalg.norm(tail)
    response[0] += 1
    heard = fftconvolve(samples, response)[: len(samples)]
    noise = rng.normal(size=len(heard)) * np.sqrt(np.mean(heard**2)) * 10 ** (_ROOM_NOISE_DB / 20)
    return np.asarray(heard + noise, np.float32)


def quiet(samples: np.ndarray) -> np.ndarray:
    return np.asarray(samples * 10 ** (_QUIET_DB / 20), np.float32)


def clipped(samples: np.ndarray) -> np.ndarray:
    most = _CLIP_SHARE * float(np.abs(samples).max(initial=0))
    return np.asarray(np.clip(samples, -most, most), np.float32)


def _fitted_to(samples: np.ndarray, n: int) -> np.ndarray:
    return np.pad(samples[:n], (0, max(n - len(samples), 0))).astype(np.float32)


EFFECTS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "unchanged": (1.0, lambda samples: samples),
    "tempo 0.9": (0.9, lambda samples: stretched(samples, 0.9)),
    "tempo 1.1": (1.1, lambda samples: stretched(samples, 1.1)),
    "pitch -4 semitones": (1.0, lambda samples: pitched(samples, -4)),
    "pitch +4 semitones": (1.0, lambda samples: pitched(samples, 4)),
    "telephone, 300 to 3400 Hz": (1.0, telephone),
    "room, noise at 20 dB": (1.0, room),
    "20 dB quieter": (1.0, quiet),
    "clipped at a tenth of the peak": (1.0, clipped),
}
"""Tempo of the result, and the function that makes it."""
