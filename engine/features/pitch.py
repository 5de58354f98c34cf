"""The pitch of a voice, frame by frame: the peak of the autocorrelation (Boersma 1993, "Accurate short-term analysis").

The autocorrelation of a windowed frame is divided by that of the window, so that its peak at the period of a voice is
near 1 and falls only with noise.
"""

import numpy as np

from engine.features.kernels.speech import MIN_STRENGTH, peaks
from engine.timebase import SAMPLE_RATE

__all__ = ["MIN_STRENGTH", "pitches"]

PITCH_HZ = (60.0, 440.0)  # of speaking voices, including children's
OCTAVE_COST = 0.03  # the period and twice the period fit equally well: prefer the shorter

_FIRST_LAG = int(SAMPLE_RATE / PITCH_HZ[1])
_LAST_LAG = int(SAMPLE_RATE / PITCH_HZ[0]) + 2
_RUMBLE_HZ = 50.0


def pitches(windows: np.ndarray, hann: np.ndarray) -> np.ndarray:
    """Frames of 16 kHz samples times the window `hann` (W,), float64 (n, W) -> float64 (n, 2).

    Columns: log2 of the pitch in Hz, and how strongly the frame is voiced, about 1 at most; zeros if there is no peak.
    A row depends only on its frame, bit for bit.
    """
    n_fft = 2 * windows.shape[1]
    rumble = int(_RUMBLE_HZ * n_fft / SAMPLE_RATE) + 1
    correlation = _autocorrelation(windows, n_fft, rumble)
    shape = _autocorrelation(hann[None], n_fft, 0)[0]
    energy = correlation[:, :1]
    lags = slice(_FIRST_LAG, _LAST_LAG)
    # a frame without energy has no pitch; the constant avoids division by zero
    relative = correlation[:, lags] / (energy + 1e-12) / (shape[lags] / shape[0])
    found = np.empty((len(windows), 2))
    peaks(relative, _FIRST_LAG, OCTAVE_COST, found)
    return found


def _autocorrelation(windows: np.ndarray, n_fft: int, n_dropped: int) -> np.ndarray:
    spectrum = np.fft.rfft(windows, n_fft, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    power[:, :n_dropped] = 0
    return np.asarray(np.fft.irfft(power, n_fft, axis=1))
