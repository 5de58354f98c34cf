"""Slow, obvious versions of what engine.features.speech, .onset and engine.character.steps compute."""

import numpy as np
from scipy.stats import norm

from engine.character import steps as pooling
from engine.features import onset, speech
from engine.features.kernels import contexts
from engine.features.kernels import speech as hearing
from engine.motion_graph.costs import CostOptions, MotionVectors, SpeechSteps
from engine.timebase import FRAMES_PER_NODE, frame_count, frame_start, node_count


def levels(samples: np.ndarray, n_frames: int) -> np.ndarray:
    """(n_frames, 1 + N_BANDS) in dB: the whole signal between zeros, one frame after the other."""
    margin = 10 * speech.WINDOW
    padded = np.concatenate((np.zeros(margin), samples, np.zeros(margin)))
    hann = np.hanning(speech.WINDOW + 1)[:-1]
    hertz = np.fft.rfftfreq(speech.WINDOW, 1 / 16000)
    mel = 2595 * np.log10(1 + hertz / 700)
    low, high = (2595 * np.log10(1 + edge / 700) for edge in speech.BAND_HZ)
    centres = np.linspace(low, high, speech.N_BANDS)
    triangles = np.maximum(0, 1 - np.abs(mel - centres[:, None]) / (centres[1] - centres[0]))
    triangles[:, (mel < low) | (mel >= high)] = 0
    voice = (hertz >= speech.VOICE_HZ[0]) & (hertz <= speech.VOICE_HZ[1])
    out = []
    for frame in range(n_frames):
        start = margin + frame_start(frame) - speech.LOOKBACK_SAMPLES
        spectrum = np.fft.rfft(padded[start : start + speech.WINDOW] * hann)
        power = 2 * np.abs(spectrum) ** 2 / (speech.WINDOW * (hann**2).sum())
        bands = [power[voice].sum(), *(triangles @ power)]
        out.append(10 * np.log10(np.maximum(bands, 10 ** (hearing.SILENT_DB / 10))))
    return np.array(out)


def pitch(samples: np.ndarray, frame: int) -> tuple[float, float]:
    """log2 of the frequency and strength of one frame: every lag's product, one after the other."""
    margin = 10 * speech.WINDOW
    start = margin + frame_start(frame) - speech.LOOKBACK_SAMPLES
    hann = np.hanning(speech.WINDOW + 1)[:-1]
    windowed = np.concatenate((np.zeros(margin), samples, np.zeros(margin)))[start : start + speech.WINDOW] * hann
    spectrum = np.fft.rfft(windowed, 2 * speech.WINDOW)
    spectrum[: int(50 * 2 * speech.WINDOW / 16000) + 1] = 0
    steady = np.fft.irfft(spectrum)
    energy, shape = (steady**2).sum(), (hann**2).sum()
    height = {}
    for lag in range(36, 268):
        # what was cut off below 50 Hz rings on beyond the window: the product goes round
        own = (steady * np.roll(steady, -lag)).sum() / (energy + 1e-12 / (2 * speech.WINDOW))
        height[lag] = own / ((hann[lag:] * hann[:-lag]).sum() / shape)
    peaks = [lag for lag in range(37, 267) if height[lag] >= max(height[lag - 1], height[lag + 1])]
    if not peaks:
        return 0.0, 0.0
    lag = max(peaks, key=lambda lag: height[lag] - 0.03 * np.log2(lag / 36))
    left, top, right = (height[lag + k] for k in (-1, 0, 1))
    bend = left - 2 * top + right
    return float(np.log2(16000 / (lag + (0.5 * (left - right) / bend if bend < 0 else 0.0)))), top


def speech_features(samples: np.ndarray) -> np.ndarray:
    """(F, N_COLUMNS): the whole recording at hand, one frame after the other."""
    n, ahead = frame_count(len(samples)), speech.LOOKAHEAD_FRAMES
    found = levels(samples, n + ahead)
    db = np.concatenate((np.repeat(found[:1], ahead, axis=0), found))  # frame t is row t + ahead
    floor, peak, heard, on, hold, soft = None, hearing.SILENT_DB, 0, False, 0, 0.0
    energy = Moments(0.0, hearing.PRIOR_ENERGY_SD_DB)
    flux = Moments(hearing.PRIOR_FLUX_DB, hearing.PRIOR_FLUX_SD_DB)
    novelty = Moments(hearing.PRIOR_FLUX_DB, hearing.PRIOR_FLUX_SD_DB)
    octaves = Moments(0.0, hearing.PRIOR_PITCH_SD)
    smooth = np.hanning(2 * ahead + 3)[1:-1] / np.hanning(2 * ahead + 3).sum()
    rows = []
    for t in range(ahead, ahead + n):
        future = db[t : t + ahead + 1, 0]
        sustained = db[t + hearing.LEAD_FRAMES : t + ahead + 1, 0]
        if min(db[t - 1, 0], db[t, 0]) > hearing.SILENT_DB:
            heard += 1
            if heard == 2:
                spread = future.max() - future.min()
                floor = future.min() - np.clip(3 * (spread - hearing.STEADY_DB), 0, 20)
            elif floor is not None and db[t, 0] < floor:
                floor = (floor + db[t, 0]) / 2
            elif floor is not None:
                floor = min(floor + hearing.FLOOR_RISE_DB * max(hearing.START_FRAMES / heard, 1), db[t, 0])
        if floor is None:
            threshold = future.max() + hearing.SPEECH_RANGE_DB
        else:
            peak = max(peak - hearing.PEAK_FALL_DB, sustained.min())
            threshold = max(floor + hearing.NOISE_MARGIN_DB, peak - hearing.SPEECH_RANGE_DB, hearing.MIN_SPEECH_DB)
        stays = on and sustained.max() > threshold - hearing.HYSTERESIS_DB
        on = bool(sustained.min() > threshold or stays)
        if on:
            hold, soft = hearing.HANG_FRAMES + hearing.LEAD_FRAMES, min(soft + 1 / hearing.ATTACK_FRAMES, 1)
        elif hold > 0:
            hold -= 1
        else:
            soft = max(soft - 1 / hearing.RELEASE_FRAMES, 0)
        if energy.n == hearing.PRIOR_FRAMES:
            energy.mean = max(threshold + 6, sustained.max() - 6)
        elif energy.mean < peak - hearing.MEAN_RANGE_DB:
            energy = Moments(peak - hearing.MEAN_RANGE_DB / 2, hearing.PRIOR_ENERGY_SD_DB)
        least = threshold - hearing.BAND_RANGE_DB
        rises = np.maximum(np.diff(np.maximum(db[t - 2 : t + 2, 1:], least), axis=0), 0).mean(axis=1)
        news = np.maximum(np.diff(db[t - 1 : t + 1, 1:], axis=0), 0).mean()
        high, tone = 0.0, (0.0, 0.0)
        if on and db[t, 0] > threshold - hearing.HYSTERESIS_DB:
            energy.learn(db[t, 0])
            flux.learn(rises[1])
            novelty.learn(news)
            tone = pitch(samples, t - ahead)
        if tone[1] >= 0.5:
            if octaves.n == hearing.PRIOR_FRAMES:
                octaves.mean = tone[0]
            octaves.learn(tone[0])
            high = np.clip(
                (tone[0] - octaves.mean) / np.sqrt(octaves.variance), -hearing.CLIP_PITCH, hearing.CLIP_PITCH
            )
        loud = (db[t, 0] - energy.mean) / np.sqrt(energy.variance)
        z = (db[t - ahead : t + ahead + 1, 0] - energy.mean) / np.sqrt(energy.variance)
        z = np.clip(z, hearing.CLIP_LOW, hearing.CLIP_HIGH)
        rows.append(
            (
                z[ahead],
                (z[ahead + 1] - z[ahead - 1]) / 2,
                min((rises[1] - flux.mean) / np.sqrt(flux.variance), hearing.FLUX_CLIP_HIGH),
                (rises[2] - rises[0]) / 2 / np.sqrt(flux.variance),
                z @ smooth,
                -z @ np.gradient(smooth),
                soft,
                np.clip(loud, hearing.CLIP_LOUDNESS_LOW, hearing.CLIP_HIGH),
                min((news - novelty.mean) / np.sqrt(novelty.variance), hearing.FLUX_CLIP_HIGH),
                high,
            )
        )
    return np.array(rows).reshape(n, speech.N_COLUMNS)


class Moments:
    """Running mean and variance with forgetting."""

    def __init__(self, mean: float, sd: float) -> None:
        self.n, self.mean, self.variance = hearing.PRIOR_FRAMES, mean, sd**2

    def learn(self, value: float) -> None:
        self.n = min(self.n + 1, hearing.MEMORY_FRAMES)
        before = self.mean
        self.mean = before + (value - before) / self.n
        self.variance += ((value - before) * (value - self.mean) - self.variance) / self.n


def context(values: np.ndarray, centre: int, first: int, last: int, half: int, step: int) -> np.ndarray:
    """One channel (F,) around `centre` -> (2 * half / step,): the unknown counts as the mean of the known."""
    frames = np.arange(centre - half, centre + half)
    known = (frames >= first) & (frames < last)
    window = np.where(known, values[np.clip(frames, 0, len(values) - 1)], 0.0)
    window = np.where(known, window - window[known].mean(), 0.0).reshape(-1, step).mean(axis=1)
    size = np.sqrt((window**2).sum() + contexts.NOISE_VARIANCE * len(window))
    return np.asarray(window * np.sqrt(known.mean()) / size)


def onset_features(rows: np.ndarray, frame: int, lookahead: int) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of engine.features.onset for one frame of speech, all rows at hand."""
    last = min(frame + 1 + lookahead, len(rows))
    values = rows.astype(np.float64)
    columns = (speech.FLUX, speech.FLUX, speech.SMOOTH_ENERGY)
    parts = [context(values[:, c], frame, 0, last, onset.LOW_FRAMES, onset.LOW_STEP) for c in columns]
    high = context(values[:, speech.SMOOTH_ENERGY], frame, 0, last, onset.HIGH_FRAMES, onset.HIGH_STEP)
    return np.concatenate(parts) / np.sqrt(len(parts)), high


def level_and_speaking(rows: np.ndarray, step: int, lookahead: int) -> tuple[float, float]:
    """How loud the 4.27 s around a step are, and whether anybody speaks in it; all rows at hand."""
    first, middle = step * FRAMES_PER_NODE, step * FRAMES_PER_NODE + FRAMES_PER_NODE // 2
    heard = rows[: first + FRAMES_PER_NODE + lookahead].astype(np.float64)
    around = heard[max(middle - pooling.LEVEL_FRAMES, 0) : middle + pooling.LEVEL_FRAMES, speech.SMOOTH_ENERGY]
    level = norm.cdf(around.mean(), pooling.LEVEL_MEAN, pooling.LEVEL_SD)
    return float(level), float(heard[first : first + FRAMES_PER_NODE, speech.SPEAKING].mean())


def node_means(features: np.ndarray) -> np.ndarray:
    """(F, D) -> (ceil(F / 4), D)."""
    nodes = range(node_count(len(features)))
    means = [features[FRAMES_PER_NODE * n : FRAMES_PER_NODE * (n + 1)].astype(np.float64).mean(axis=0) for n in nodes]
    return np.array(means).reshape(len(means), features.shape[1])


def node_costs(
    steps: SpeechSteps,
    motion: MotionVectors,
    rest: np.ndarray,
    options: CostOptions,
) -> np.ndarray:
    costs = np.empty((len(steps.low), len(motion.low)))
    for t in range(len(steps.low)):
        for n in range(len(motion.low)):
            unlike = 1 - float(steps.low[t] @ motion.low[n])
            if motion.high.shape[1]:
                unlike += 1 - float(steps.high[t] @ motion.high[n])
            cost = options.similarity_weight * unlike
            cost += options.level_weight * (float(steps.level[t]) - float(motion.level[n])) ** 2
            cost += (1 - steps.speaking[t]) * options.idle_weight * rest[n]
            costs[t, n] = cost + steps.speaking[t] * options.listless_weight * (1 - rest[n])
    return costs
