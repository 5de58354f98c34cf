"""Data augmentation: the same person mirrored, faster, in a noisier room, tracked less well.

Everything acts on a whole recording, on samples and joints and not on the rows made from them: speech features adapt
to noise and level, and speeds are roots, so noise on rows would differ from real noise. Rows and descriptors are then
computed as at run time.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
from scipy.signal import resample_poly

from engine.features.recording import Recording
from engine.skeleton import BODY, LEFT_HAND, N_JOINTS, RIGHT_HAND
from engine.timebase import FPS, FRAMES_PER_NODE, SAMPLE_RATE, frame_start

__all__ = ["AugmentOptions", "add_noise", "augmented", "drop_hands", "jitter", "mirror", "ride_gain", "tempo"]

_GAIN_STEP_S = 4.0  # a speaker turns away within seconds
_TEMPO_STEPS = 40  # tempi are multiples of 1/40: resampling by small numbers is exact and fast
_NOISE_S = 60
_DROP_S = (0.2, 1.5)


@dataclass(frozen=True)
class AugmentOptions:
    """Maximum changes of a recording; 0 leaves that part unchanged."""

    mirror: float = 0.5  # probability
    tempo: float = 0.15  # share by which it goes faster or slower
    gain_db: float = 4.0
    noise_snr_db: tuple[float, float] = (15.0, 45.0)
    noise: float = 0.5  # probability
    jitter: float = 0.004  # standard deviation in shoulder widths
    dropped_hands: float = 0.1  # share of the time


def augmented(recording: Recording, rng: np.random.Generator, options: AugmentOptions) -> Recording:
    """One variant of a recording, without `motion`, which would have to be recomputed."""
    if rng.random() < options.mirror:
        recording = mirror(recording)
    recording = tempo(recording, 1 + options.tempo * rng.uniform(-1, 1))
    recording = ride_gain(recording, rng, options.gain_db)
    if rng.random() < options.noise:
        recording = add_noise(recording, rng, rng.uniform(*options.noise_snr_db))
    recording = drop_hands(recording, rng, options.dropped_hands)
    return replace(jitter(recording, rng, options.jitter), motion=None)


def mirror(recording: Recording) -> Recording:
    """The mirror image: left and right are swapped."""
    other = _other_side()
    joints = recording.joints[:, other] * np.array([-1, 1, 1], np.float32)
    return replace(recording, joints=joints, confidence=recording.confidence[:, other], motion=None)


def tempo(recording: Recording, factor: float) -> Recording:
    """Speech and motion together, `factor` times as fast; the pitch rises, too, but the rows ignore that.

    Every clip is cut to whole nodes again; one that would become shorter than a node is left unchanged.
    """
    ratio = Fraction(round(factor * _TEMPO_STEPS), _TEMPO_STEPS)
    if ratio == 1:
        return recording
    nodes = np.diff(recording.clip_start)
    nodes_then = np.maximum((nodes / float(ratio)).astype(np.int64), 1)
    start = np.concatenate([[0], np.cumsum(nodes_then)])
    samples = np.zeros(frame_start(int(start[-1]) * FRAMES_PER_NODE), np.float32)
    chosen = []
    for clip, (first, last) in zip(recording.clips, pairwise(start * FRAMES_PER_NODE), strict=True):
        place = clip.start + np.arange(last - first) * float(ratio)
        chosen.append(np.minimum(place, clip.stop - 1))
        heard = recording.samples[frame_start(clip.start) : frame_start(clip.stop)]
        at = frame_start(int(first))
        part = resample_poly(heard, ratio.denominator, ratio.numerator)[: frame_start(int(last)) - at]
        samples[at : at + len(part)] = part
    frames = np.concatenate(chosen)
    return replace(
        recording,
        samples=samples,
        joints=_between(recording.joints, frames),
        confidence=recording.confidence[np.round(frames).astype(np.int64)],
        clip_start=start,
        mouth=None if recording.mouth is None else _between(recording.mouth, frames),
        motion=None,
    )


def ride_gain(recording: Recording, rng: np.random.Generator, most_db: float) -> Recording:
    """A level that wanders by up to `most_db` either way.

    A constant gain would change nothing: engine.features.speech is relative to the speaker's own level.
    """
    seconds = len(recording.samples) / SAMPLE_RATE
    n_stops = int(seconds / _GAIN_STEP_S) + 2
    gain_db = np.interp(
        np.arange(len(recording.samples)) / SAMPLE_RATE,
        np.arange(n_stops) * _GAIN_STEP_S,
        rng.uniform(-most_db, most_db, n_stops),
    )
    return replace(recording, samples=(recording.samples * 10 ** (gain_db / 20)).astype(np.float32))


def add_noise(recording: Recording, rng: np.random.Generator, snr_db: float) -> Recording:
    """Steady noise of a room, `snr_db` below the mean power of the recording; falls by 3 dB an octave."""
    n = min(len(recording.samples), _NOISE_S * SAMPLE_RATE)  # then repeated from its start
    spectrum = rng.standard_normal(n // 2 + 1) + 1j * rng.standard_normal(n // 2 + 1)
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(n // 2 + 1) + 1), n)
    power = float(np.mean(recording.samples.astype(np.float64) ** 2))
    noise *= np.sqrt(power / 10 ** (snr_db / 10) / max(float(np.mean(noise**2)), 1e-30))
    return replace(recording, samples=recording.samples + np.resize(noise, len(recording.samples)).astype(np.float32))


def jitter(recording: Recording, rng: np.random.Generator, deviation: float) -> Recording:
    """Add jitter of `deviation` shoulder widths to the joints."""
    trembling = rng.normal(0, 1, recording.joints.shape).astype(np.float32) * np.float32(deviation * recording.unit_px)
    return replace(recording, joints=recording.joints + trembling, motion=None)


def drop_hands(recording: Recording, rng: np.random.Generator, share: float) -> Recording:
    """Each hand is lost for about `share` of the time, in stretches: it stays as last seen, with confidence 0."""
    joints, confidence = recording.joints.copy(), recording.confidence.copy()
    for hand, wrist in ((LEFT_HAND, 15), (RIGHT_HAND, 16)):
        n_drops = rng.poisson(share * recording.duration_s / np.mean(_DROP_S))
        for _ in range(n_drops):
            first = int(rng.integers(0, recording.n_frames))
            clip = next(clip for clip in recording.clips if first < clip.stop)
            lost = slice(first, min(first + int(rng.uniform(*_DROP_S) * FPS), clip.stop))
            shape = joints[first, hand] - joints[first, wrist]
            joints[lost, hand] = joints[lost, wrist, None] + shape
            confidence[lost, hand] = 0
    return replace(recording, joints=joints, confidence=confidence, motion=None)


def _between(values: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """values (F, ...) at fractional frames, linear."""
    low = np.floor(frames).astype(np.int64)
    high = np.minimum(low + 1, len(values) - 1)
    share = (frames - low).reshape(-1, *[1] * (values.ndim - 1)).astype(np.float32)
    return np.asarray(values[low] * (1 - share) + values[high] * share, np.float32)


def _other_side() -> np.ndarray:
    """For every joint, its mirrored counterpart."""
    other = np.arange(N_JOINTS)
    other[1:4], other[4:7] = np.arange(4, 7), np.arange(1, 4)  # eyes, from the nose outwards
    pairs = np.arange(7, BODY.stop, 2)  # everything else on the body: left, right, left, right
    other[pairs], other[pairs + 1] = pairs + 1, pairs
    other[LEFT_HAND], other[RIGHT_HAND] = np.arange(N_JOINTS)[RIGHT_HAND], np.arange(N_JOINTS)[LEFT_HAND]
    return other
