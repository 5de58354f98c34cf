"""Sound that is enough like speech to have onsets and pauses."""

from pathlib import Path

import numpy as np
from scipy.io import wavfile

from engine.timebase import SAMPLE_RATE


def write_speech(path: Path, seconds: float = 7.3, rate: int = SAMPLE_RATE) -> Path:
    """Bursts of coloured noise with pauses: enough like speech to have onsets."""
    rng = np.random.default_rng(1)
    t = np.arange(int(seconds * rate)) / rate
    envelope = np.clip(np.sin(2 * np.pi * 2.1 * t), 0, 1) * (np.sin(2 * np.pi * 0.21 * t) > -0.5)
    samples = 0.3 * envelope * np.convolve(rng.normal(size=len(t)), np.ones(4) / 4, "same")
    wavfile.write(path, rate, (samples * 32767).astype(np.int16))
    return path


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise in syllables, with a pause in the middle."""
    rng = np.random.default_rng(seed)
    n = round(seconds * 16_000)
    t = np.arange(n) / 16_000
    loud = 0.02 + 0.4 * np.maximum(np.sin(2 * np.pi * 3.1 * t + seed), 0) ** 2
    loud[(t > seconds * 0.45) & (t < seconds * 0.6)] = 0.001
    return (rng.normal(0, 0.3, n) * loud).astype(np.float32).clip(-1, 1)
