"""Speech features: one row of numbers per frame of speech, streaming, including whether anybody speaks.

The rows depend only on the samples, never on how they were divided into chunks: every step below works frame by frame
in a fixed order, so a live session and an offline render get the same bits. All levels are relative to what was heard
of this speaker so far: a microphone ten times louder gives the same rows. What was learned of a speaker may be carried
into the next stretch of speech, which is then heard well from its first frame on.
"""

from dataclasses import dataclass

import numpy as np

from engine.errors import InputError
from engine.features.kernels.speech import (
    BANDS,
    ENERGY,
    ENERGY_RATE,
    FLUX,
    FLUX_RATE,
    LOOKAHEAD_FRAMES,
    LOUDNESS,
    N_COLUMNS,
    NOVELTY,
    PITCH,
    SMOOTH_ENERGY,
    SMOOTH_ENERGY_RATE,
    SPEAKING,
    STRENGTH,
    TONE,
    Bands,
    Smoothing,
    band_levels,
    carried_state,
    new_state,
    speech_rows,
)
from engine.features.pitch import pitches
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
    "Speaker",
    "SpeechFeatures",
    "speech_features",
]

WINDOW = 1024  # samples, Hann: 64 ms, so that neighbouring frames (33 ms) overlap by half
LOOKBACK_SAMPLES = WINDOW // 2 - SAMPLE_RATE // FPS // 2  # the window is centred on the middle of its frame
# Row n is final once the samples before frame_start(n) + LOOKAHEAD_SAMPLES have arrived.
LOOKAHEAD_SAMPLES = frame_start(LOOKAHEAD_FRAMES) + 1 + WINDOW - LOOKBACK_SAMPLES

N_BANDS = 32
BAND_HZ = (80.0, 7600.0)
VOICE_HZ = (150.0, 4000.0)  # energy is measured in the range of voices: no rumble, no hiss
_BLOCK = 512  # frames analysed at once: limits the memory of a long push
_SMOOTH = np.hanning(2 * LOOKAHEAD_FRAMES + 3)[1:-1]
_SMOOTHING = Smoothing(_SMOOTH / _SMOOTH.sum(), -np.gradient(_SMOOTH / _SMOOTH.sum()))


def _bands() -> Bands:
    hertz = np.arange(WINDOW // 2 + 1) * SAMPLE_RATE / WINDOW
    mel = 2595 * np.log10(1 + hertz / 700)
    low, high = (2595 * np.log10(1 + edge / 700) for edge in BAND_HZ)
    place = (mel - low) / (high - low) * (N_BANDS - 1)
    below = np.where((place >= 0) & (place < N_BANDS - 1), np.floor(place), -1).astype(np.int64)
    voice = ((hertz >= VOICE_HZ[0]) & (hertz <= VOICE_HZ[1])).astype(np.float64)
    # a full-scale square wave is 0 dB; the 2 is for the one-sided spectrum
    return Bands(below, place - np.floor(place), voice, 2 / (WINDOW * (_HANN**2).sum()))


_HANN = np.hanning(WINDOW + 1)[:-1]
_MEL_BANDS = _bands()


@dataclass(frozen=True, eq=False)
class Speaker:
    """What was learned of a speaker and the room: levels, pitch, and how they vary; no sound."""

    state: np.ndarray  # of engine.features.kernels.speech


class SpeechFeatures:
    """Speech in, rows out: one stretch of 16 kHz speech in chunks of any size, in constant memory."""

    def __init__(self, speaker: Speaker | None = None) -> None:
        """speaker: as learned from earlier speech; None: not heard yet."""
        self._state = new_state() if speaker is None else speaker.state.copy()
        self._samples = np.zeros(LOOKBACK_SAMPLES, np.float32)  # silence before the beginning
        self._first_sample = -LOOKBACK_SAMPLES  # position of self._samples[0]
        self._levels = np.empty((0, BANDS + N_BANDS))
        self._n_samples = 0
        self._n_levels = 0
        self._n_rows = 0

    @property
    def speaker(self) -> Speaker:
        """What is known of the speaker now, for the next stretch: older speech counts less there."""
        return Speaker(carried_state(self._state))

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The next samples, float32 (n,), full scale 1 -> the rows that became final, float32 (m, N_COLUMNS).

        Raises InputError for samples that are not a row of finite numbers.
        """
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise InputError(
                f"speech of shape {samples.shape} contains NaN or infinity or is not mono; "
                "expected finite 16 kHz samples, shape (n,)"
            )
        self._n_samples += len(samples)
        return self._advance(samples)

    def flush(self) -> np.ndarray:
        """End of speech: the rows still due, as if silence followed; frame_count(n) rows in all."""
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
        levels = np.empty((n, BANDS + N_BANDS))
        levels[:, [TONE, STRENGTH]] = pitches(windows, _HANN)
        # numpy.fft works row by row; scipy.fft packs rows, so a frame's bits would depend on its neighbours
        band_levels(np.fft.rfft(windows, axis=1), _MEL_BANDS, levels)
        if self._n_levels == 0:
            self._levels = np.repeat(levels[:1], LOOKAHEAD_FRAMES, axis=0)
        self._levels = np.concatenate((self._levels, levels))
        self._n_levels += n

    def _emit(self) -> np.ndarray:
        n = max(len(self._levels) - 2 * LOOKAHEAD_FRAMES, 0)
        rows = np.zeros((n, N_COLUMNS), np.float32)
        speech_rows(self._levels, self._state, _SMOOTHING, rows)
        self._levels = self._levels[n:].copy()
        self._n_rows += n
        return rows


def speech_features(samples: np.ndarray) -> np.ndarray:
    """A whole speech at once, float32 (n,) at 16 kHz -> rows float32 (frame_count(n), N_COLUMNS)."""
    stream = SpeechFeatures()
    return np.concatenate((stream.push(samples), stream.flush()))
