"""Sound known exactly at every rate, and how far another is from it."""

import numpy as np


def chirp(rate: int, seconds: float = 2.0) -> np.ndarray:
    """A sweep from 200 to 3,400 Hz, known exactly at every rate."""
    t = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 * t + 800 * t * t))).astype(np.float32)


def lag(samples: np.ndarray, reference: np.ndarray) -> int:
    """By how many samples the first comes later than the second."""
    size = 2 * max(len(samples), len(reference))
    spectrum = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(reference, size))
    peak = int(np.argmax(np.fft.irfft(spectrum, size)))
    return peak if peak < size // 2 else peak - size


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
