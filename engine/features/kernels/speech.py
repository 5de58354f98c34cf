"""From spectra to rows: levels and pitch of a frame, whether somebody speaks, and its row of numbers.

All levels are relative to what was heard of this speaker so far, kept as a running state of numbers.
"""

from typing import NamedTuple

import numpy as np

from engine.jit import FASTMATH, njit
from engine.timebase import FPS, SAMPLE_RATE

__all__ = [
    "BANDS",
    "ENERGY",
    "ENERGY_RATE",
    "FLUX",
    "FLUX_RATE",
    "LOOKAHEAD_FRAMES",
    "LOUDNESS",
    "MIN_STRENGTH",
    "NOVELTY",
    "N_COLUMNS",
    "PITCH",
    "SMOOTH_ENERGY",
    "SMOOTH_ENERGY_RATE",
    "SPEAKING",
    "STRENGTH",
    "TONE",
    "Bands",
    "Smoothing",
    "band_levels",
    "carried_state",
    "new_state",
    "peaks",
    "speech_rows",
]

# Columns of a row: energies, flux and pitch in standard deviations of this speaker's speech, rates in the same unit per
# frame, and 0..1 for speaking (somebody speaks from 0.5 on). Energy and flux ignore everything quieter than the voice;
# loudness and novelty are the same but include the pauses; pitch is 0 if there is none.
ENERGY, ENERGY_RATE, FLUX, FLUX_RATE, SMOOTH_ENERGY, SMOOTH_ENERGY_RATE, SPEAKING, LOUDNESS, NOVELTY, PITCH = range(10)
N_COLUMNS = 10

SUSTAIN_FRAMES = 3  # shorter sounds are clicks, not voices
LEAD_FRAMES = 2  # speech counts from this long before it is heard: hands start first
# frames after its own that the decision uses; the smoothing uses as many on both sides
LOOKAHEAD_FRAMES = LEAD_FRAMES + SUSTAIN_FRAMES - 1

MIN_SPEECH_DB = -75.0  # whatever the noise
SILENT_DB = -100.0  # below the noise of 16 bits nothing was recorded: says nothing about the room

FLOOR_RISE_DB = 3.0 / FPS  # of the room noise per frame; it falls by half the distance in one frame
STEADY_DB = 5.0  # spread of noise over the frames ahead
START_FRAMES = 60  # at first the floor rises faster, by START_FRAMES / frames heard, until it is known
PEAK_FALL_DB = 1.0 / FPS  # so that a quiet voice after a loud one is heard within seconds
NOISE_MARGIN_DB = 9.0  # speech is louder than the noise by this much
SPEECH_RANGE_DB = 25.0  # and at most this far below its own peaks
MEAN_RANGE_DB = 18.0  # and its mean at most this far: otherwise it was not speech
HYSTERESIS_DB = 4.0
HANG_FRAMES = 6  # after the last voice: gaps inside a sentence are not pauses
RELEASE_FRAMES = 8  # HANG + RELEASE / 2 = 0.33 s: a pause of 0.4 s lets the person calm down
ATTACK_FRAMES = 3
BAND_RANGE_DB = 14.0  # bands this far below the threshold do not count in the flux: noise fluctuates
PRIOR_FRAMES = 15  # half a second of assumed speech, weighed against the speaker's own
PRIOR_ENERGY_SD_DB, PRIOR_FLUX_DB, PRIOR_FLUX_SD_DB = 7.0, 3.0, 3.0
PRIOR_PITCH_SD = 0.25  # octaves
MEMORY_FRAMES = 20 * FPS  # a speaker's level is that of the last 20 s of voice
CARRIED_FRAMES = 5 * FPS  # into the next stretch: at most this weight, so that another voice is learned soon
CARRIED_FLOOR_FRAMES = START_FRAMES // 2  # and the floor rises faster again: the room may have changed
FLUX_CLIP_HIGH = 5.0
CLIP_LOW, CLIP_HIGH = -2.5, 3.0  # pauses are equal, however quiet the room
CLIP_LOUDNESS_LOW = -5.0
CLIP_PITCH = 2.5

MIN_STRENGTH = 0.5  # of the peak of the autocorrelation, for a frame to count as voiced

# Slots of the running state; energy, flux, novelty and pitch have three each: frames heard, mean, variance.
_N_SLOTS = 18
_HEARD, _FLOOR, _PEAK, _ON, _HOLD, _SOFT = range(6)
_ENERGY_N, _ENERGY_MEAN, _ENERGY_VAR, _FLUX_N, _FLUX_MEAN, _FLUX_VAR = range(6, 12)
_NOVELTY_N, _NOVELTY_MEAN, _NOVELTY_VAR, _PITCH_N, _PITCH_MEAN, _PITCH_VAR = range(12, _N_SLOTS)
# Columns of the levels of a frame, before comparison with others: dB of the voice, pitch, strength, bands
DB, TONE, STRENGTH, BANDS = range(4)


class Bands(NamedTuple):
    """How FFT bins are summed into bands."""

    below: np.ndarray  # int64: lower mel band of each bin, -1 for none
    share: np.ndarray  # share of each bin that goes to the band above
    voice: np.ndarray  # 1.0 for bins in the range of voices
    power_scale: float  # factor of squared amplitudes


class Smoothing(NamedTuple):
    """Weights of the frames around one, float64 (2 * LOOKAHEAD_FRAMES + 1,)."""

    values: np.ndarray  # for the smoothed level
    rates: np.ndarray  # for its rate of change


def new_state() -> np.ndarray:
    """State of a speaker not heard yet, float64, with the slots above."""
    state = np.zeros(_N_SLOTS)
    state[_FLOOR], state[_PEAK] = np.nan, SILENT_DB
    state[_ENERGY_N], state[_ENERGY_VAR] = PRIOR_FRAMES, PRIOR_ENERGY_SD_DB**2
    for n in (_FLUX_N, _NOVELTY_N):
        state[n : n + 3] = PRIOR_FRAMES, PRIOR_FLUX_DB, PRIOR_FLUX_SD_DB**2
    state[_PITCH_N], state[_PITCH_VAR] = PRIOR_FRAMES, PRIOR_PITCH_SD**2
    return state


def carried_state(state: np.ndarray) -> np.ndarray:
    """The state to begin the next stretch of a speaker with: levels and pitch as learned, but nobody speaks yet."""
    carried = state.copy()
    carried[[_ON, _HOLD, _SOFT]] = 0
    carried[_HEARD] = min(carried[_HEARD], CARRIED_FLOOR_FRAMES)
    for n in (_ENERGY_N, _FLUX_N, _NOVELTY_N, _PITCH_N):
        carried[n] = min(carried[n], CARRIED_FRAMES)
    return carried


@njit(fastmath=FASTMATH)
def band_levels(spectrum: np.ndarray, bands: Bands, levels: np.ndarray) -> None:
    """(n, bins) complex -> columns DB and BANDS of levels, in dB: voice energy, triangular mel bands."""
    band, share, voice, scale = bands.below, bands.share, bands.voice, bands.power_scale
    tiny = 10.0 ** (SILENT_DB / 10)
    for row in range(spectrum.shape[0]):
        levels[row, DB] = 0.0
        levels[row, BANDS:] = 0.0
        for k in range(spectrum.shape[1]):
            power = (spectrum[row, k].real ** 2 + spectrum[row, k].imag ** 2) * scale
            levels[row, DB] += voice[k] * power
            if band[k] >= 0:
                levels[row, BANDS + band[k]] += (1 - share[k]) * power
                levels[row, BANDS + 1 + band[k]] += share[k] * power
        levels[row, DB] = 10 * np.log10(max(levels[row, DB], tiny))
        for column in range(BANDS, levels.shape[1]):
            levels[row, column] = 10 * np.log10(max(levels[row, column], tiny))


@njit(fastmath=FASTMATH)
def _flux(levels: np.ndarray, i: int, least: float) -> float:
    """Mean rise over the bands between two frames, in dB; levels below `least` are noise."""
    total = 0.0
    for column in range(BANDS, levels.shape[1]):
        total += max(max(levels[i, column], least) - max(levels[i - 1, column], least), 0.0)
    return total / (levels.shape[1] - BANDS)


@njit(fastmath=FASTMATH)
def _learn(state: np.ndarray, slot: int, value: float) -> None:
    """Update a running mean and variance, which start from a prior and forget."""
    state[slot] = min(state[slot] + 1, MEMORY_FRAMES)
    off = value - state[slot + 1]
    state[slot + 1] += off / state[slot]
    state[slot + 2] += (off * (value - state[slot + 1]) - state[slot + 2]) / state[slot]


@njit(fastmath=FASTMATH)
def _threshold(state: np.ndarray, before: float, ahead: np.ndarray, high: float) -> float:
    """Advance noise floor and speech peak by one frame -> the level above which it is speech."""
    # digital silence, also in half a window, says nothing about the room
    if min(before, ahead[0]) > SILENT_DB:
        state[_HEARD] += 1
        unsteady = ahead.max() - ahead.min() - STEADY_DB
        if state[_HEARD] == 2:  # steady sound is noise, unsteady sound is speech that began before the recording
            state[_FLOOR] = ahead.min() - min(max(3 * unsteady, 0.0), 20.0)
        elif ahead[0] < state[_FLOOR]:
            state[_FLOOR] += 0.5 * (ahead[0] - state[_FLOOR])
        else:
            rise = FLOOR_RISE_DB * max(START_FRAMES / state[_HEARD], 1.0)
            state[_FLOOR] += min(rise, ahead[0] - state[_FLOOR])
    if np.isnan(state[_FLOOR]):
        return ahead.max() + SPEECH_RANGE_DB
    state[_PEAK] = max(state[_PEAK] - PEAK_FALL_DB, high)
    return max(state[_FLOOR] + NOISE_MARGIN_DB, state[_PEAK] - SPEECH_RANGE_DB, MIN_SPEECH_DB)


@njit(fastmath=FASTMATH)
def _decide(state: np.ndarray, low: float, high: float, threshold: float) -> float:
    """Hysteresis, hangover, soft edges -> certainty that somebody speaks, 0..1."""
    state[_ON] = 1.0 if high > threshold or (state[_ON] > 0 and low > threshold - HYSTERESIS_DB) else 0.0
    if state[_ON] > 0:
        state[_HOLD] = HANG_FRAMES + LEAD_FRAMES
        state[_SOFT] = min(state[_SOFT] + 1 / ATTACK_FRAMES, 1.0)
    elif state[_HOLD] > 0:
        state[_HOLD] -= 1
    else:
        state[_SOFT] = max(state[_SOFT] - 1 / RELEASE_FRAMES, 0.0)
    return state[_SOFT]


@njit(fastmath=FASTMATH)
def _pitch(state: np.ndarray, tone: float, strength: float, heard: bool) -> float:
    """Pitch in this speaker's standard deviations; learns only from clearly voiced frames."""
    if not heard or strength < MIN_STRENGTH:
        return 0.0
    if state[_PITCH_N] == PRIOR_FRAMES:
        state[_PITCH_MEAN] = tone
    _learn(state, _PITCH_N, tone)
    return min(max((tone - state[_PITCH_MEAN]) / np.sqrt(state[_PITCH_VAR]), -CLIP_PITCH), CLIP_PITCH)


@njit(fastmath=FASTMATH)
def speech_rows(levels: np.ndarray, state: np.ndarray, smoothing: Smoothing, rows: np.ndarray) -> None:
    """Levels of frames t .. t + n, and LOOKAHEAD_FRAMES more on either side -> rows; advances `state`."""
    smooth, smooth_rate = smoothing.values, smoothing.rates
    z = np.empty(2 * LOOKAHEAD_FRAMES + 1)
    for row in range(rows.shape[0]):
        i = row + LOOKAHEAD_FRAMES
        near = levels[i - LOOKAHEAD_FRAMES : i + LOOKAHEAD_FRAMES + 1, DB]
        ahead = near[LOOKAHEAD_FRAMES + LEAD_FRAMES :]
        low, high = ahead.max(), ahead.min()
        threshold = _threshold(state, near[LOOKAHEAD_FRAMES - 1], near[LOOKAHEAD_FRAMES:], high)
        rows[row, SPEAKING] = _decide(state, low, high, threshold)
        if state[_ENERGY_N] == PRIOR_FRAMES:  # nothing learned yet: speech is whatever is above the threshold
            state[_ENERGY_MEAN] = max(threshold + 6.0, low - 6.0)
        elif state[_ENERGY_MEAN] < state[_PEAK] - MEAN_RANGE_DB:  # that was noise, or somebody far away
            state[_ENERGY_N], state[_ENERGY_VAR] = PRIOR_FRAMES, PRIOR_ENERGY_SD_DB**2
            state[_ENERGY_MEAN] = state[_PEAK] - MEAN_RANGE_DB / 2
        least = threshold - BAND_RANGE_DB
        flux = _flux(levels, i, least)
        novelty = _flux(levels, i, SILENT_DB)
        heard = state[_ON] > 0 and levels[i, DB] > threshold - HYSTERESIS_DB
        if heard:
            _learn(state, _ENERGY_N, levels[i, DB])
            _learn(state, _FLUX_N, flux)
            _learn(state, _NOVELTY_N, novelty)
        sd, flux_sd = np.sqrt(state[_ENERGY_VAR]), np.sqrt(state[_FLUX_VAR])
        for k in range(z.shape[0]):
            z[k] = min(max((near[k] - state[_ENERGY_MEAN]) / sd, CLIP_LOW), CLIP_HIGH)
        rows[row, ENERGY] = z[LOOKAHEAD_FRAMES]
        rows[row, ENERGY_RATE] = (z[LOOKAHEAD_FRAMES + 1] - z[LOOKAHEAD_FRAMES - 1]) / 2
        rows[row, FLUX] = min((flux - state[_FLUX_MEAN]) / flux_sd, FLUX_CLIP_HIGH)
        rows[row, FLUX_RATE] = (_flux(levels, i + 1, least) - _flux(levels, i - 1, least)) / 2 / flux_sd
        rows[row, LOUDNESS] = min(max((levels[i, DB] - state[_ENERGY_MEAN]) / sd, CLIP_LOUDNESS_LOW), CLIP_HIGH)
        rows[row, NOVELTY] = min((novelty - state[_NOVELTY_MEAN]) / np.sqrt(state[_NOVELTY_VAR]), FLUX_CLIP_HIGH)
        rows[row, PITCH] = _pitch(state, levels[i, TONE], levels[i, STRENGTH], heard)
        rows[row, SMOOTH_ENERGY] = (smooth * z).sum()
        rows[row, SMOOTH_ENERGY_RATE] = (smooth_rate * z).sum()


@njit(fastmath=FASTMATH)
def peaks(correlation: np.ndarray, first_lag: int, octave_cost: float, found: np.ndarray) -> None:
    """correlation (n, lags) from first_lag on -> found (n, 2): log2 of the frequency in Hz, height; zeros if none."""
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
                offset = 0.5 * (r[k - 1] - r[k + 1]) / bend if bend < 0 else 0.0
                found[row, 0] = np.log2(SAMPLE_RATE / (first_lag + k + offset))
                found[row, 1] = r[k]
