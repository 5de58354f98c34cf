"""The loop that turns noise into the latents of a clip: sampler, guidance, prior frames, windows over a long clip.

Latents are float32 (frames, 4, height, width). A network is any function from named arrays to {"v": ...}, for example
the `run` of an engine.inference.session.Session; see the graphs `denoiser` and `denoiser_plain` of an acinterp bundle.
SPEC of AnimateAnyone: guidance section 4, samplers and windows sections 5 and 6, prior frames section 9.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from engine.blending.schedule import Schedule, make_schedule
from engine.errors import InputError

__all__ = [
    "DenoiseOptions",
    "Denoisers",
    "Network",
    "PriorForm",
    "Priors",
    "Progress",
    "Sampler",
    "context_windows",
    "denoise",
]

Network = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Progress = Callable[[int, np.ndarray], None]
"""Called with the number of steps done and the latents after the last of them."""
Sampler = Literal["ddim", "lcm"]
PriorForm = Literal["noised", "clean", "none"]


@dataclass(frozen=True)
class DenoiseOptions:
    """How latents are made."""

    steps: int = 20
    sampler: Sampler = "ddim"  # "lcm" is only useful with distilled weights
    guidance: float = 3.5  # how far to go beyond the prediction without a reference; 1: not at all, and half the work
    priors: PriorForm = "noised"  # insert real frames noised to each timestep (for weights not trained on clean ones)
    schedule: Schedule = field(default_factory=make_schedule, repr=False)
    context_frames: int = 24  # longer clips are computed in windows of this many frames
    context_overlap: int = 4  # frames

    def __post_init__(self) -> None:
        if self.sampler not in ("ddim", "lcm"):
            raise InputError(f"sampler {self.sampler!r} is unknown: choose ddim or lcm")
        if self.priors not in ("noised", "clean", "none"):
            raise InputError(f"priors {self.priors!r} are not noised, clean or none")
        if not (np.isfinite(self.guidance) and self.guidance >= 1):
            raise InputError(f"guidance is {self.guidance}, expected 1 or more")
        if not 0 <= self.context_overlap < self.context_frames:
            raise InputError(f"windows of {self.context_frames} frames cannot overlap by {self.context_overlap}")
        self.timesteps()

    def timesteps(self) -> np.ndarray:
        """One per step, int64 (steps,). Raises InputError for too many steps for the sampler."""
        timesteps = self.schedule.ddim_timesteps if self.sampler == "ddim" else self.schedule.lcm_timesteps
        return timesteps(self.steps)


@dataclass(frozen=True)
class Denoisers:
    """The two networks of guidance; `plain`, without reference and image, is not needed at guidance 1."""

    conditional: Network
    plain: Network | None = None


@dataclass(frozen=True, eq=False)
class Priors:
    """Frames that are known."""

    frames: np.ndarray  # int64 (m,), their positions
    latents: np.ndarray  # float32 (m, 4, h, w)
    noise: np.ndarray | None = None  # like latents, for the noised form


def denoise(
    networks: Denoisers,
    latents: np.ndarray,
    features: np.ndarray,
    reference: Mapping[str, np.ndarray],
    options: DenoiseOptions,
    priors: Priors | None = None,
    step_noise: Sequence[np.ndarray] = (),
    progress: Progress | None = None,
) -> np.ndarray:
    """Noise -> latents, float32 (frames, 4, height, width).

    features: from the guiders, (frames, channels, height, width). reference: outputs of the graph `reference`, by name.
    priors: ignored if options.priors is "none". step_noise: for "lcm", steps - 1 arrays like the latents. Raises
    ValueError if arrays do not match or priors are missing, InputError if a network is missing.
    """
    _check(networks, latents, features, options, priors, step_noise)
    known = None if options.priors == "none" else priors
    call = _Prediction(networks, features, reference, options)
    timesteps = [*options.timesteps().tolist(), -1]
    latents = latents.astype(np.float32)  # a copy: prior frames are written into it
    for step, timestep in enumerate(timesteps[:-1]):
        _put(latents, known, options, timestep)
        v = call(latents, timestep)
        if options.sampler == "ddim":
            previous = options.schedule.ddim_previous(timestep, options.steps)
            latents = options.schedule.ddim_step(latents, v, timestep, previous)
        else:
            previous = timesteps[step + 1]
            noise = step_noise[step] if previous >= 0 else np.zeros_like(latents)
            latents = options.schedule.lcm_step(latents, v, timestep, previous, noise)
        if progress is not None:
            progress(step + 1, latents)
    _put(latents, known, options, -1)
    return latents


def context_windows(n_frames: int, context_frames: int, overlap: int) -> list[np.ndarray]:
    """Frames of each window, int64; the last one wraps to the first frame. A clip that fits is one window."""
    if n_frames <= context_frames:
        return [np.arange(n_frames)]
    starts = range(0, n_frames, context_frames - overlap)
    return [np.arange(start, start + context_frames) % n_frames for start in starts]


class _Prediction:
    """v of all frames at a timestep, averaged over windows and with guidance applied."""

    def __init__(
        self, networks: Denoisers, features: np.ndarray, reference: Mapping[str, np.ndarray], options: DenoiseOptions
    ) -> None:
        self._networks = networks
        self._features = np.ascontiguousarray(features, np.float32)
        self._reference = dict(reference)
        self._guidance = np.float32(options.guidance)
        self._windows = context_windows(len(features), options.context_frames, options.context_overlap)
        counts = np.bincount(np.concatenate(self._windows), minlength=len(features))
        self._counts = counts.astype(np.float32)[:, None, None, None]

    def __call__(self, latents: np.ndarray, timestep: int) -> np.ndarray:
        if len(self._windows) == 1:
            return self._guided(latents, self._features, timestep)
        total = np.zeros_like(latents)
        for window in self._windows:
            total[window] += self._guided(latents[window], self._features[window], timestep)
        return total / self._counts

    def _guided(self, latents: np.ndarray, features: np.ndarray, timestep: int) -> np.ndarray:
        fed = {"latents": latents, "timestep": np.array(timestep, np.int64), "features": features}
        v = self._networks.conditional({**fed, **self._reference})["v"]
        if self._networks.plain is None or self._guidance == 1:
            return v
        plain = self._networks.plain(fed)["v"]
        return plain + self._guidance * (v - plain)


def _put(latents: np.ndarray, priors: Priors | None, options: DenoiseOptions, timestep: int) -> None:
    """Overwrite the latents of known frames."""
    if priors is None:
        return
    known = priors.latents
    if options.priors == "noised" and priors.noise is not None:
        known = options.schedule.add_noise(known, priors.noise, timestep)
    latents[priors.frames] = known


def _check(
    networks: Denoisers,
    latents: np.ndarray,
    features: np.ndarray,
    options: DenoiseOptions,
    priors: Priors | None,
    step_noise: Sequence[np.ndarray],
) -> None:
    _expect(latents.ndim == 4 and len(latents) > 0, f"latents of shape {latents.shape}, expected (frames, 4, h, w)")
    fits = features.ndim == 4 and (len(features), *features.shape[2:]) == (len(latents), *latents.shape[2:])
    _expect(fits, f"features of shape {features.shape} do not fit latents of shape {latents.shape}")
    if options.guidance != 1 and not networks.plain:
        raise InputError(f"guidance {options.guidance} needs the network denoiser_plain")
    if options.sampler == "lcm":
        shapes = [noise.shape for noise in step_noise]
        wanted = [latents.shape] * (options.steps - 1)
        _expect(shapes == wanted, f"noise for {len(shapes)} steps, expected {len(wanted)} of the latents' shape")
    if options.priors == "none":
        return
    _expect(priors is not None, f"options.priors is {options.priors!r}, but there are no priors")
    for array in _arrays(priors, options.priors):
        _expect(array.shape[1:] == latents.shape[1:], f"prior frames of shape {array.shape} in {latents.shape}")


def _arrays(priors: Priors | None, form: PriorForm) -> Iterator[np.ndarray]:
    """The arrays of the priors that are inserted into latents; raises ValueError if they do not match."""
    if priors is None:
        return
    yield priors.latents
    _expect(len(priors.frames) == len(priors.latents), f"{len(priors.latents)} priors at {len(priors.frames)} places")
    if form == "noised":
        _expect(priors.noise is not None and len(priors.noise) == len(priors.latents), "priors without their noise")
        if priors.noise is not None:
            yield priors.noise


def _expect(fits: object, otherwise: str) -> None:
    if not fits:
        raise ValueError(otherwise)
