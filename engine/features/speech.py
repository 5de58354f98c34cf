"""What the engine hears: one row of numbers per frame of speech, streaming, and whether anybody speaks.

The rows depend on the samples alone, never on how they were cut into chunks: every step below works frame
by frame in a fixed order, so a live session and an offline render get the same bits. All levels are
relative to what was heard of this speaker so far: a microphone ten times louder gives the same rows.
"""

import numpy as np

from engine.errors import InputError
from engine.features.pitch import MIN_STRENGTH, pitches
from engine.jit import FASTMATH, njit
from engine.timebase import FPS, SAMPLE_RATE, frame_count, frame_start

__all__ = [
    "ENERGY",
    "ENERGY_RATE",
    "FLUX",
    "FLUX_RATE",
    "LOOKAHEAD_FRAMES",
    "LOOKAHEAD_SAMPLES",
    "LOOKBACK_SAMPLES",
    "LOUDNESS",
    "NOVELTY",
    "N_COLUMNS",
    "PITCH",
    "SMOOTH_ENERGY",
    "SMOOTH_ENERGY_RATE",
    "SPEAKING",
    "SpeechFeatures",
    "speech_features",
]

# Columns of a row: energies, flux and pitch in standard deviations of this speaker's speech, rates in the same a
# frame, and 0..1 for speaking (somebody speaks from 0.5 on). Energy and flux are blind to what lies under the voice,
# loudness and novelty are the same and see into the pauses; pitch is 0 where there is none.
ENERGY, ENERGY_RATE, FLUX, FLUX_RATE, SMOOTH_ENERGY, SMOOTH_ENERGY_RATE, SPEAKING, LOUDNESS, NOVELTY, PITCH = range(10)
N_COLUMNS = 10

WINDOW = 1024  # samples, Hann: 64 ms, so that neighbouring frames (33 ms) overlap by half
LOOKBACK_SAMPLES = WINDOW // 2 - SAMPLE_RATE // FPS // 2  # the window is centred on the middle of its frame
SUSTAIN_FRAMES = 3  # what is shorter is a click, not a voice
LEAD_FRAMES = 2  # speech counts from this long before it is heard: hands start first
# what the decision sees beyond its frame; the smoothing takes as much on both sides
LOOKAHEAD_FRAMES = LEAD_FRAMES + SUSTAIN_FRAMES - 1
# Row n is final once the samples before frame_start(n) + LOOKAHEAD_SAMPLES are there.
LOOKAHEAD_SAMPLES = frame_start(LOOKAHEAD_FRAMES) + 1 + WINDOW - LOOKBACK_SAMPLES

N_BANDS = 32
BAND_HZ = (80.0, 7600.0)
VOICE_HZ = (150.0, 4000.0)  # energy is measured where voices are: no rumble, no hiss
LEAST_SPEECH_DB = -75.0  # whatever the noise
SILENT_DB = -100.0  # below the noise of 16 bits nothing was recorded: tells nothing about the room

FLOOR_RISE_DB = 3.0 / FPS  # of the room noise; it falls by half the distance at once
STEADY_DB = 5.0  # spread of a noise over the frames ahead
START_FRAMES = 60  # at first the floor rises faster, START_FRAMES / frames heard, until it is known
PEAK_FALL_DB = 1.0 / FPS  # so that a quiet voice after a loud one is heard within seconds
NOISE_MARGIN_DB = 9.0  # speech stands out of the noise by this much
SPEECH_RANGE_DB = 25.0  # and lies at most this far below its own peaks
MEAN_RANGE_DB = 18.0  # and its mean at most this far: else that was not speech
HYSTERESIS_DB = 4.0
HANG_FRAMES = 6  # after the last voice: gaps inside a sentence are no pauses
RELEASE_FRAMES = 8  # HANG + RELEASE / 2 = 0.33 s: a pause of 0.4 s lets the person calm down
ATTACK_FRAMES = 3
BAND_RANGE_DB = 14.0  # bands this far under the threshold take no part in the flux: noise flutters
PRIOR_FRAMES = 15  # half a second of assumed speech weighs against the speaker's own
PRIOR_ENERGY_SD_DB, PRIOR_FLUX_DB, PRIOR_FLUX_SD_DB = 7.0, 3.0, 3.0
PRIOR_PITCH_SD = 0.25  # octaves
MEMORY_FRAMES = 20 * FPS  # a speaker's level is that of the last 20 s of voice
FLUX_CLIP_HIGH = 5.0
CLIP_LOW, CLIP_HIGH = -2.5, 3.0  # a pause is a pause, however quiet the room
CLIP_LOUDNESS_LOW = -5.0
CLIP_PITCH = 2.5

_BLOCK = 512  # frames analysed at once: bounds the memory of a long push
_SMOOTH = np.hanning(2 * LOOKAHEAD_FRAMES + 3)[1:-1]
_SMOOTH /= _SMOOTH.sum()
_SMOOTH_RATE = -np.gradient(_SMOOTH)
# Slots of the running state; energy, flux, novelty and pitch hold frames heard, mean, variance.
_N_SLOTS = 18
_HEARD, _FLOOR, _PEAK, _ON, _HOLD, _SOFT = range(6)
_ENERGY_N, _ENERGY_MEAN, _ENERGY_VAR, _FLUX_N, _FLUX_MEAN, _FLUX_VAR = range(6, 12)
_NOVELTY_N, _NOVELTY_MEAN, _NOVELTY_VAR, _PITCH_N, _PITCH_MEAN, _PITCH_VAR = range(12, _N_SLOTS)
# Columns of what is known of a frame before it is compared with others: dB of the voice, pitch, strength, bands
_DB, _TONE, _STRENGTH, _BANDS = range(4)


def _band_layout() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per FFT bin: its lower mel band (-1: none), the share of the band above, 1 where the voice is."""
    hertz = np.arange(WINDOW // 2 + 1) * SAMPLE_RATE / WINDOW
    mel = 2595 * np.log10(1 + hertz / 700)
    low, high = (2595 * np.log10(1 + edge / 700) for edge in BAND_HZ)
    place = (mel - low) / (high - low) * (N_BANDS - 1)
    band = np.where((place >= 0) & (place < N_BANDS - 1), np.floor(place), -1).astype(np.int64)
    voice = ((hertz >= VOICE_HZ[0]) & (hertz <= VOICE_HZ[1])).astype(np.float64)
    return band, place - np.floor(place), voice


_BAND, _SHARE, _VOICE = _band_layout()
_HANN = np.hanning(WINDOW + 1)[:-1]
# of a full-scale square wave: 0 dB; one-sided spectrum, hence the 2
_POWER_SCALE = 2 / (WINDOW * (_HANN**2).sum())


@njit(fastmath=FASTMATH)
def _levels(spectrum, band, share, voice, scale, levels):  # type: ignore[no-untyped-def]
    """(n, bins) complex -> columns _DB and _BANDS of levels, in dB: voice energy, triangular mel bands."""
    tiny = 10.0 ** (SILENT_DB / 10)
    for row in range(spectrum.shape[0]):
        levels[row, _DB] = 0.0
        levels[row, _BANDS:] = 0.0
        for k in range(spectrum.shape[1]):
            power = (spectrum[row, k].real ** 2 + spectrum[row, k].imag ** 2) * scale
            levels[row, _DB] += voice[k] * power
            if band[k] >= 0:
                levels[row, _BANDS + band[k]] += (1 - share[k]) * power
                levels[row, _BANDS + 1 + band[k]] += share[k] * power
        levels[row, _DB] = 10 * np.log10(max(levels[row, _DB], tiny))
        for column in range(_BANDS, levels.shape[1]):
            levels[row, column] = 10 * np.log10(max(levels[row, column], tiny))


@njit(fastmath=FASTMATH)
def _flux(levels, i, least):  # type: ignore[no-untyped-def]
    """Mean rise over the bands between two frames, in dB; what lies under `least` is noise."""
    total = 0.0
    for column in range(_BANDS, levels.shape[1]):
        total += max(max(levels[i, column], least) - max(levels[i - 1, column], least), 0.0)
    return total / (levels.shape[1] - _BANDS)


@njit(fastmath=FASTMATH)
def _learn(state, slot, value):  # type: ignore[no-untyped-def]
    """Running mean and variance that start from a prior and forget."""
    state[slot] = min(state[slot] + 1, MEMORY_FRAMES)
    off = value - state[slot + 1]
    state[slot + 1] += off / state[slot]
    state[slot + 2] += (off * (value - state[slot + 1]) - state[slot + 2]) / state[slot]


@njit(fastmath=FASTMATH)
def _threshold(state, before, ahead, high):  # type: ignore[no-untyped-def]
    """Move noise floor and speech peak on by one frame -> the level above which it is speech."""
    # digital silence, and the window half in it, tells nothing about the room
    if min(before, ahead[0]) > SILENT_DB:
        state[_HEARD] += 1
        unsteady = ahead.max() - ahead.min() - STEADY_DB
        if state[_HEARD] == 2:  # steady is noise, unsteady is speech that had begun before the recording
            state[_FLOOR] = ahead.min() - min(max(3 * unsteady, 0.0), 20.0)
        elif ahead[0] < state[_FLOOR]:
            state[_FLOOR] += 0.5 * (ahead[0] - state[_FLOOR])
        else:
            rise = FLOOR_RISE_DB * max(START_FRAMES / state[_HEARD], 1.0)
            state[_FLOOR] += min(rise, ahead[0] - state[_FLOOR])
    if np.isnan(state[_FLOOR]):
        return ahead.max() + SPEECH_RANGE_DB
    state[_PEAK] = max(state[_PEAK] - PEAK_FALL_DB, high)
    return max(state[_FLOOR] + NOISE_MARGIN_DB, state[_PEAK] - SPEECH_RANGE_DB, LEAST_SPEECH_DB)


@njit(fastmath=FASTMATH)
def _decide(state, low, high, threshold):  # type: ignore[no-untyped-def]
    """Hysteresis, hang-over, soft edges -> how surely somebody speaks, 0..1."""
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
def _pitch(state, tone, strength, heard):  # type: ignore[no-untyped-def]
    """Pitch in deviations of this speaker's; only what is surely a voice is learned from."""
    if not heard or strength < MIN_STRENGTH:
        return 0.0
    if state[_PITCH_N] == PRIOR_FRAMES:
        state[_PITCH_MEAN] = tone
    _learn(state, _PITCH_N, tone)
    return min(max((tone - state[_PITCH_MEAN]) / np.sqrt(state[_PITCH_VAR]), -CLIP_PITCH), CLIP_PITCH)


@njit(fastmath=FASTMATH)
def _rows(levels, state, smooth, smooth_rate, rows):  # type: ignore[no-untyped-def]
    """Levels of frames t .. t + n, LOOKAHEAD_FRAMES more on either side -> rows; moves `state` on."""
    z = np.empty(2 * LOOKAHEAD_FRAMES + 1)
    for row in range(rows.shape[0]):
        i = row + LOOKAHEAD_FRAMES
        near = levels[i - LOOKAHEAD_FRAMES : i + LOOKAHEAD_FRAMES + 1, _DB]
        ahead = near[LOOKAHEAD_FRAMES + LEAD_FRAMES :]
        low, high = ahead.max(), ahead.min()
        threshold = _threshold(state, near[LOOKAHEAD_FRAMES - 1], near[LOOKAHEAD_FRAMES:], high)
        rows[row, SPEAKING] = _decide(state, low, high, threshold)
        if state[_ENERGY_N] == PRIOR_FRAMES:  # nothing learned yet: speech is what stands above the threshold
            state[_ENERGY_MEAN] = max(threshold + 6.0, low - 6.0)
        elif state[_ENERGY_MEAN] < state[_PEAK] - MEAN_RANGE_DB:  # that was noise, or somebody far away
            state[_ENERGY_N], state[_ENERGY_VAR] = PRIOR_FRAMES, PRIOR_ENERGY_SD_DB**2
            state[_ENERGY_MEAN] = state[_PEAK] - MEAN_RANGE_DB / 2
        least = threshold - BAND_RANGE_DB
        flux = _flux(levels, i, least)
        novelty = _flux(levels, i, SILENT_DB)
        heard = state[_ON] > 0 and levels[i, _DB] > threshold - HYSTERESIS_DB
        if heard:
            _learn(state, _ENERGY_N, levels[i, _DB])
            _learn(state, _FLUX_N, flux)
            _learn(state, _NOVELTY_N, novelty)
        sd, flux_sd = np.sqrt(state[_ENERGY_VAR]), np.sqrt(state[_FLUX_VAR])
        for k in range(z.shape[0]):
            z[k] = min(max((near[k] - state[_ENERGY_MEAN]) / sd, CLIP_LOW), CLIP_HIGH)
        rows[row, ENERGY] = z[LOOKAHEAD_FRAMES]
        rows[row, ENERGY_RATE] = (z[LOOKAHEAD_FRAMES + 1] - z[LOOKAHEAD_FRAMES - 1]) / 2
        rows[row, FLUX] = min((flux - state[_FLUX_MEAN]) / flux_sd, FLUX_CLIP_HIGH)
        rows[row, FLUX_RATE] = (_flux(levels, i + 1, least) - _flux(levels, i - 1, least)) / 2 / flux_sd
        rows[row, LOUDNESS] = min(max((levels[i, _DB] - state[_ENERGY_MEAN]) / sd, CLIP_LOUDNESS_LOW), CLIP_HIGH)
        rows[row, NOVELTY] = min((novelty - state[_NOVELTY_MEAN]) / np.sqrt(state[_NOVELTY_VAR]), FLUX_CLIP_HIGH)
        rows[row, PITCH] = _pitch(state, levels[i, _TONE], levels[i, _STRENGTH], heard)
        rows[row, SMOOTH_ENERGY] = (smooth * z).sum()
        rows[row, SMOOTH_ENERGY_RATE] = (smooth_rate * z).sum()


def _new_state() -> np.ndarray:
    state = np.zeros(_N_SLOTS)
    state[_FLOOR], state[_PEAK] = np.nan, SILENT_DB
    state[_ENERGY_N], state[_ENERGY_VAR] = PRIOR_FRAMES, PRIOR_ENERGY_SD_DB**2
    for n in (_FLUX_N, _NOVELTY_N):
        state[n : n + 3] = PRIOR_FRAMES, PRIOR_FLUX_DB, PRIOR_FLUX_SD_DB**2
    state[_PITCH_N], state[_PITCH_VAR] = PRIOR_FRAMES, PRIOR_PITCH_SD**2
    return state


class SpeechFeatures:
    """Speech in, rows out: one stretch of 16 kHz speech in chunks of any size, memory constant for ever."""

    def __init__(self) -> None:
        self._state = _new_state()
        self._samples = np.zeros(LOOKBACK_SAMPLES, np.float32)  # silence before the beginning
        self._first_sample = -LOOKBACK_SAMPLES  # place of self._samples[0]
        self._levels = np.empty((0, _BANDS + N_BANDS))
        self._n_samples = 0
        self._n_levels = 0
        self._n_rows = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The next samples, float32 (n,), full scale 1 -> the rows that became final, float32 (m, N_COLUMNS).

        Raises InputError for samples that are not a row of finite numbers.
        """
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise InputError(
                f"speech of shape {samples.shape} holds NaN or infinity or is not mono; "
                "want finite 16 kHz samples, shape (n,)"
            )
        self._n_samples += len(samples)
        return self._advance(samples)

    def flush(self) -> np.ndarray:
        """The speech is over: the rows still due, as if silence followed; frame_count(n) rows in all."""
        n_rows = frame_count(self._n_samples) - self._n_rows
        return self._advance(np.zeros(LOOKAHEAD_SAMPLES, np.float32))[:n_rows]

    def _advance(self, samples: np.ndarray) -> np.ndarray:
        self._samples = np.concatenate((self._samples, samples))
        end = self._first_sample + len(self._samples)
        blocks = [np.empty((0, N_COLUMNS), np.float32)]
        n_ready = frame_count(max(end - WINDOW + LOOKBACK_SAMPLES + 1, 0))
        while self._n_levels < n_ready:
            self._analyse(min(n_ready - self._n_levels, _BLOCK))
            blocks.append(self._emit())
        drop = frame_start(self._n_levels) - LOOKBACK_SAMPLES - self._first_sample
        self._samples = self._samples[drop:].copy()  # no later frame needs them
        self._first_sample += drop
        return np.concatenate(blocks)

    def _analyse(self, n: int) -> None:
        """Append the levels of the next n frames."""
        frames = range(self._n_levels, self._n_levels + n)
        starts = np.array([frame_start(frame) for frame in frames]) - LOOKBACK_SAMPLES - self._first_sample
        windows = self._samples[starts[:, None] + np.arange(WINDOW)] * _HANN
        levels = np.empty((n, _BANDS + N_BANDS))
        levels[:, [_TONE, _STRENGTH]] = pitches(windows, _HANN)
        # numpy.fft works row by row; scipy.fft packs rows, and a frame's bits would depend on its neighbours
        _levels(np.fft.rfft(windows, axis=1), _BAND, _SHARE, _VOICE, _POWER_SCALE, levels)
        if self._n_levels == 0:
            self._levels = np.repeat(levels[:1], LOOKAHEAD_FRAMES, axis=0)
        self._levels = np.concatenate((self._levels, levels))
        self._n_levels += n

    def _emit(self) -> np.ndarray:
        n = max(len(self._levels) - 2 * LOOKAHEAD_FRAMES, 0)
        rows = np.zeros((n, N_COLUMNS), np.float32)
        _rows(self._levels, self._state, _SMOOTH, _SMOOTH_RATE, rows)
        self._levels = self._levels[n:].copy()
        self._n_rows += n
        return rows


def speech_features(samples: np.ndarray) -> np.ndarray:
    """All of the speech at once, float32 (n,) at 16 kHz -> rows float32 (frame_count(n), N_COLUMNS)."""
    stream = SpeechFeatures()
    return np.concatenate((stream.push(samples), stream.flush()))
