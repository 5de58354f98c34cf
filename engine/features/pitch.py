"""The pitch of a voice, frame by frame: the peak of the autocorrelation (Boersma 1993, "Accurate short-term analysis").

The autocorrelation of a windowed frame is divided by that of the window, so its peak at the period of a voice stands
near 1 and falls with noise alone.
"""

import numpy as np

from engine.jit import FASTMATH, njit
from engine.timebase import SAMPLE_RATE

__all__ = ["MIN_STRENGTH", "pitches"]

PITCH_HZ = (60.0, 440.0)  # of speaking voices, children's included
MIN_STRENGTH = 0.5  # of the peak, for a frame to count as voiced
OCTAVE_COST = 0.03  # the period and twice the period fit equally well: the shorter one is meant

_FIRST_LAG = int(SAMPLE_RATE / PITCH_HZ[1])
_LAST_LAG = int(SAMPLE_RATE / PITCH_HZ[0]) + 2
_RUMBLE_HZ = 50.0


@njit(fastmath=FASTMATH)
def _peaks(correlation, first_lag, octave_cost, found):  # type: ignore[no-untyped-def]
    """correlation (n, lags) from first_lag on -> found (n, 2): log2 of the frequency in Hz, height; zeros: none."""
    for row in range(correlation.shape[0]):
        r = correlation[row]
        best = -1.0
        found[row] = 0.0
        for k in range(1, r.shape[0] - 1):
            if r[k] < r[k - 1] or r[k] < r[k + 1]:
                continue
            score = r[k] - octave_cost * np.log2((first_lag + k) / first_lag)
            if score > best:
                best = score
                bend = r[k - 1] - 2 * r[k] + r[k + 1]
                beside = 0.5 * (r[k - 1] - r[k + 1]) / bend if bend < 0 else 0.0
                found[row, 0] = np.log2(SAMPLE_RATE / (first_lag + k + beside))
                found[row, 1] = r[k]


def pitches(windows: np.ndarray, hann: np.ndarray) -> np.ndarray:
    """Frames of 16 kHz samples times the window `hann` (W,), float64 (n, W) -> float64 (n, 2).

    Columns: log2 of the pitch in Hz, and how strongly the frame is voiced, about 1 at most; zeros where there is no
    peak. A row depends on its frame alone, bit for bit.
    """
    n_fft = 2 * windows.shape[1]
    rumble = int(_RUMBLE_HZ * n_fft / SAMPLE_RATE) + 1
    correlation = _autocorrelation(windows, n_fft, rumble)
    shape = _autocorrelation(hann[None], n_fft, 0)[0]
    energy = correlation[:, :1]
    lags = slice(_FIRST_LAG, _LAST_LAG)
    # a frame without energy has no pitch; the sum keeps the division defined
    relative = correlation[:, lags] / (energy + 1e-12) / (shape[lags] / shape[0])
    found = np.empty((len(windows), 2))
    _peaks(relative, _FIRST_LAG, OCTAVE_COST, found)
    return found


def _autocorrelation(windows: np.ndarray, n_fft: int, n_dropped: int) -> np.ndarray:
    spectrum = np.fft.rfft(windows, n_fft, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    power[:, :n_dropped] = 0
    return np.asarray(np.fft.irfft(power, n_fft, axis=1))
