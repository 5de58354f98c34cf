"""Noise schedules of the diffusion denoiser and the steps of its samplers, in NumPy.

Everything is float32 and equal to what diffusers computes in torch. The denoisers of this project predict v
(v = sqrt(a) * noise - sqrt(1 - a) * clean, with a the cumulative alpha), and their schedule ends in pure noise: a is 0
at the last timestep, so no formula here divides by the root of a. Golden data and facts: SPEC of AnimateAnyone, section
6.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.errors import InputError

__all__ = ["N_TIMESTEPS", "BetaSchedule", "Schedule", "boundary_scales", "make_schedule"]

BetaSchedule = Literal["linear", "scaled_linear"]

N_TIMESTEPS = 1000  # as in training
_BETA_START, _BETA_END = 0.00085, 0.012
_FINAL_ALPHA = np.float32(1.0)  # cumulative, after timestep 0
_LCM_ORIGINAL_STEPS = 50  # of the teacher that the LCM was distilled from
_LCM_SIGMA, _LCM_TIMESTEP_SCALE = 0.5, 10.0
_MIN_SNR_GAMMA = 5.0


@dataclass(frozen=True, eq=False)
class Schedule:
    """`betas` and `cumulative_alphas`: float32 (1000,), one per timestep. `timestep` arguments are in 0 .. 999."""

    betas: np.ndarray
    cumulative_alphas: np.ndarray

    def ddim_timesteps(self, n_steps: int) -> np.ndarray:
        """Timesteps of a DDIM run, "trailing": int64 (n_steps,) from 999 on. Raises InputError outside 1..1000."""
        _expect_steps(n_steps, N_TIMESTEPS)
        spread = N_TIMESTEPS - np.arange(n_steps) * (N_TIMESTEPS / n_steps)
        return np.round(spread).astype(np.int64) - 1

    def ddim_previous(self, timestep: int, n_steps: int) -> int:
        """Timestep to which a DDIM step leads; -1: no noise is left.

        If n_steps does not divide 1000, this is not always the next of `ddim_timesteps`, as in the reference.
        """
        return max(timestep - N_TIMESTEPS // n_steps, -1)

    def lcm_timesteps(self, n_steps: int) -> np.ndarray:
        """Timesteps of a latent consistency run, int64 (n_steps,). Raises InputError outside 1..50."""
        _expect_steps(n_steps, _LCM_ORIGINAL_STEPS)
        teacher = np.arange(_LCM_ORIGINAL_STEPS, 0, -1) * (N_TIMESTEPS // _LCM_ORIGINAL_STEPS) - 1
        places = np.arange(n_steps) * _LCM_ORIGINAL_STEPS // n_steps
        return teacher[places].astype(np.int64)

    def alpha(self, timestep: int) -> np.float32:
        """Cumulative alpha at a timestep; 1 after the last step, at -1."""
        return np.float32(self.cumulative_alphas[timestep]) if timestep >= 0 else _FINAL_ALPHA

    def clean(self, latents: np.ndarray, v: np.ndarray, timestep: int) -> np.ndarray:
        """The clean latents implied by a prediction v, float32 of the latents' shape."""
        signal, noise = self._roots(timestep)
        return signal * latents - noise * v

    def noise(self, latents: np.ndarray, v: np.ndarray, timestep: int) -> np.ndarray:
        """The noise implied by a prediction v, float32 of the latents' shape."""
        signal, noise = self._roots(timestep)
        return signal * v + noise * latents

    def add_noise(self, clean: np.ndarray, noise: np.ndarray, timestep: int) -> np.ndarray:
        """Clean latents noised to a timestep; exactly the noise at the last one, exactly the clean latents at -1."""
        signal, rest = self._roots(timestep)
        return signal * clean + rest * noise

    def velocity(self, clean: np.ndarray, noise: np.ndarray, timestep: int) -> np.ndarray:
        """What the network should predict: the training target."""
        signal, rest = self._roots(timestep)
        return signal * noise - rest * clean

    def signal_to_noise(self, timestep: int) -> np.float32:
        """Ratio of signal to noise in power at a timestep; 0 at the last one."""
        signal, noise = self._roots(timestep)
        return (signal / noise) ** 2

    def min_snr_weight(self, timestep: int) -> np.float32:
        """Weight of the training loss at a timestep: min-SNR with gamma 5 for v, hence with SNR + 1."""
        ratio = self.signal_to_noise(timestep) + np.float32(1)
        return min(ratio, np.float32(_MIN_SNR_GAMMA)) / ratio

    def ddim_step(self, latents: np.ndarray, v: np.ndarray, timestep: int, previous: int) -> np.ndarray:
        """One DDIM step without added noise (eta 0) from `timestep` to `previous`, see ddim_previous."""
        clean, noise = self.clean(latents, v, timestep), self.noise(latents, v, timestep)
        return self.add_noise(clean, noise, previous)

    def lcm_denoised(self, latents: np.ndarray, v: np.ndarray, timestep: int) -> np.ndarray:
        """The clean latents estimated by a latent consistency model at a timestep."""
        skip, out = boundary_scales(timestep)
        return out * self.clean(latents, v, timestep) + skip * latents

    def lcm_step(
        self, latents: np.ndarray, v: np.ndarray, timestep: int, previous: int, noise: np.ndarray
    ) -> np.ndarray:
        """One LCM step: denoised, then noised again to `previous`, the next of `lcm_timesteps`, -1 after the last."""
        return self.add_noise(self.lcm_denoised(latents, v, timestep), noise, previous)

    def _roots(self, timestep: int) -> tuple[np.float32, np.float32]:
        """Shares of signal and noise at a timestep."""
        alpha = self.alpha(timestep)
        return np.sqrt(alpha), np.sqrt(np.float32(1) - alpha)


def make_schedule(kind: BetaSchedule = "linear", zero_terminal_snr: bool = True) -> Schedule:
    """`linear` is what inference with the public weights uses; `scaled_linear` is what they were trained with."""
    if kind not in ("linear", "scaled_linear"):
        raise InputError(f"beta schedule {kind!r} is unknown: choose linear or scaled_linear")
    ends = (_BETA_START, _BETA_END) if kind == "linear" else (_BETA_START**0.5, _BETA_END**0.5)
    betas = _linspace(*ends)
    betas = betas if kind == "linear" else betas**2
    if zero_terminal_snr:
        betas = _without_signal_at_the_end(betas)
    alphas = _cumulative(np.float32(1) - betas)
    for table in (betas, alphas):
        table.flags.writeable = False  # one schedule may serve many threads
    return Schedule(betas, alphas)


def boundary_scales(timestep: int) -> tuple[np.float32, np.float32]:
    """Shares of the noisy and the clean latents in an LCM's result: at timestep 0, only the noisy ones."""
    scaled = timestep * _LCM_TIMESTEP_SCALE
    square = scaled**2 + _LCM_SIGMA**2
    return np.float32(_LCM_SIGMA**2 / square), np.float32(scaled / square**0.5)


def _without_signal_at_the_end(betas: np.ndarray) -> np.ndarray:
    """Betas changed so that the last cumulative alpha is 0 and the first is kept (arXiv 2305.08891, algorithm 1)."""
    roots = np.sqrt(_cumulative(np.float32(1) - betas))
    first, last = roots[0], roots[-1]
    roots = (roots - last) * (first / (first - last))
    cumulative = roots**2
    alphas = np.concatenate([cumulative[:1], cumulative[1:] / cumulative[:-1]])
    return np.float32(1) - alphas


def _cumulative(alphas: np.ndarray) -> np.ndarray:
    # torch multiplies in float64 and rounds every product
    return np.cumprod(alphas.astype(np.float64)).astype(np.float32)


def _linspace(start: float, end: float) -> np.ndarray:
    """Like torch.linspace: a float32 step from both ends to the middle, each value rounded once."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(N_TIMESTEPS - 1))
    place = np.arange(N_TIMESTEPS)
    upwards, downwards = np.float64(first) + step * place, np.float64(last) - step * (N_TIMESTEPS - 1 - place)
    return np.where(place < N_TIMESTEPS // 2, upwards, downwards).astype(np.float32)


def _expect_steps(n_steps: int, most: int) -> None:
    if not 1 <= n_steps <= most:
        raise InputError(f"{n_steps} denoising steps are not possible: use 1 to {most}")
