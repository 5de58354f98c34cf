"""Any channels in, mono out, about as loud as the loudest channel.

Channels are mixed like FFmpeg does, which is right if they agree. If that loses level (one channel only, a voice in the
centre of 5.1, two speakers on two channels) the weights are raised, at most to 1; if channels cancel each other
(opposite phases), only the loudest is used. The loss is measured over a second around each moment, and weights change
in ramps, so that it is inaudible. The moments lie on a fixed grid: the pieces in which the sound arrives do not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler

__all__ = ["Downmix"]

_STEP_S = 0.1
_MEASURED_HZ = 16_000  # samples a second; enough to measure the level of channels and whether they agree
_REACH = 5  # steps before and after a moment that are considered

# Ratios of power to the loudest channel. A loss of up to 2 dB is accepted; beyond that, it is made up twice as fast as
# it grows. Channels count as cancelling once their sum is 3 dB below the loudest, until it is 1.5 dB below.
_SPARED = 10**-0.2
_CANCELLED, _RESTORED = 10**-0.3, 10**-0.15
# How much louder another channel must be than the only one in use (3 dB).
_LOUDER = 2.0


@dataclass(frozen=True)
class _Step:
    """A tenth of a second, and its measurements."""

    sound: np.ndarray  # float32 (n, channels)
    mixed: np.ndarray  # the same in FFmpeg's mix
    covariance: np.ndarray
    peak: float


class Downmix:
    """One stretch of sound. push and flush return mono float32; as many samples come out as went in."""

    def __init__(self, layout: AudioLayout, rate_hz: int) -> None:
        self.cancelled = False
        """Whether channels cancelled each other anywhere."""
        self._mix, self._heard = _default_weights(layout.name)
        self._length = round(rate_hz * _STEP_S)
        self._stride = max(1, rate_hz // _MEASURED_HZ)
        self._pending = np.zeros((0, len(self._mix)), np.float32)
        self._steps: list[_Step] = []
        self._n_past = 0  # steps that were already output
        self._alone: int | None = None
        self._weights: np.ndarray | None = None

    def push(self, sound: np.ndarray) -> np.ndarray:
        """Finite float32 (n, channels) -> the mono samples that became final, float32 (m,)."""
        if len(self._mix) == 1:
            return sound[:, 0]
        self._pending = np.concatenate([self._pending, sound]) if len(self._pending) else sound
        n_whole = len(self._pending) // self._length
        if n_whole:
            self._measure(self._pending[: n_whole * self._length], n_whole)
            self._pending = self._pending[n_whole * self._length :]
        return self._out(_REACH + 1)

    def flush(self) -> np.ndarray:
        """No more sound: what was still waiting, float32 (m,)."""
        if len(self._pending):
            self._measure(self._pending, 1)
            self._pending = self._pending[:0]
        return self._out(1)

    def _measure(self, sound: np.ndarray, n_steps: int) -> None:
        mixed = (sound @ self._mix).reshape(n_steps, -1)
        steps = sound.reshape(n_steps, -1, len(self._mix))
        some = steps[:, :: self._stride]
        with np.errstate(over="ignore", invalid="ignore"):  # values far beyond 1 are clipped later
            mean = np.full(some.shape[1], 1 / some.shape[1], np.float32) @ some
            covariance = some.transpose(0, 2, 1) @ some / some.shape[1] - mean[:, :, None] * mean[:, None]
        peak = np.maximum(mixed.max(axis=1), -mixed.min(axis=1)).tolist()
        self._steps += map(_Step, steps, mixed, covariance, peak)

    def _out(self, n_ahead: int) -> np.ndarray:
        """Mix the steps for which n_ahead steps are known, including themselves."""
        mixed: list[np.ndarray] = []
        while len(self._steps) - self._n_past >= n_ahead:
            if self._weights is None:
                self._weights = self._decide(self._n_past)
            following = self._decide(self._n_past + 1)
            mixed.append(_ramp(self._steps[self._n_past], self._weights, following, self._mix))
            self._weights = following
            self._n_past += 1
            if self._n_past > _REACH:
                del self._steps[0]
                self._n_past -= 1
        return np.concatenate(mixed) if mixed else np.zeros(0, np.float32)

    def _decide(self, moment: int) -> np.ndarray:
        """The weights, float32 (channels,), at the beginning of a step."""
        around = self._steps[max(0, moment - _REACH) : moment + _REACH]
        covariance: np.ndarray = sum(step.covariance for step in around)  # type: ignore[assignment]
        power = covariance.diagonal() * self._heard
        loudest = int(power.argmax())
        if power[loudest] <= 0:
            return self._mix if self._weights is None else self._weights
        left = float(self._mix @ covariance @ self._mix / power[loudest])
        if self._alone is None and left >= _SPARED:
            return self._mix
        self._choose(float(self._heard @ covariance @ self._heard / power[loudest]), power, loudest)
        if self._alone is not None:
            return np.eye(len(power), dtype=np.float32)[self._alone]
        gain = min(_SPARED / max(left, 1e-9), max(left, 1e-9) ** -0.5)
        peak = max(step.peak for step in self._steps[max(0, moment - 1) : moment + 1])
        return np.minimum(self._mix * max(1.0, min(gain, 1 / max(peak, 1e-9))), 1.0).astype(np.float32)

    def _choose(self, added: float, power: np.ndarray, loudest: int) -> None:
        """Decide whether to use one channel alone, and which. added: power of the sum, relative to the loudest."""
        if self._alone is None:
            if added < _CANCELLED:
                self._alone, self.cancelled = loudest, True
        elif added > _RESTORED:
            self._alone = None
        elif power[loudest] > _LOUDER * power[self._alone]:
            self._alone = loudest


def _ramp(step: _Step, before: np.ndarray, after: np.ndarray, default: np.ndarray) -> np.ndarray:
    if before is default and after is default:
        return step.mixed
    share = np.linspace(0, 1, len(step.sound), endpoint=False, dtype=np.float32)[:, None]
    mixed: np.ndarray = np.einsum("nc,nc->n", step.sound, before + share * (after - before))
    return mixed


@lru_cache(maxsize=64)
def _default_weights(layout_name: str) -> tuple[np.ndarray, np.ndarray]:
    """float32 (channels,): FFmpeg's weights, which add up to 1; and 1 for channels that may carry a voice, 0 for LFE.

    Layouts that FFmpeg cannot mix, or not without leaving a channel out, are averaged.
    """
    layout = AudioLayout(layout_name)
    heard = np.array([not channel.name.startswith("LFE") for channel in layout.channels], np.float32)
    if not heard.any():
        heard[:] = 1
    weights = _mixed_by_ffmpeg(layout)
    if weights is None or (weights[heard > 0] <= 0).any():
        weights = heard / heard.sum()
    return weights, heard


def _mixed_by_ffmpeg(layout: AudioLayout) -> np.ndarray | None:
    """The mono level of a 1 in each channel in turn."""
    n_channels = layout.nb_channels
    ones = AudioFrame.from_ndarray(np.eye(n_channels, dtype=np.float32).reshape(1, -1), "flt", layout.name)
    ones.sample_rate = 48_000
    # Without the limit, channels that agree would add up to more than 1.
    resampler = AudioResampler("flt", "mono", 48_000, options={"rematrix_maxval": "1"})
    try:
        mixed: Sequence[AudioFrame] = [*resampler.resample(ones), *resampler.resample(None)]
    except (av.FFmpegError, ValueError):
        return None
    return np.concatenate([frame.to_ndarray()[0] for frame in mixed])
