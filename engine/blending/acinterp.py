"""ACInterp at run time: eight frames between two clips, guided by poses and the background's motion, without torch.

The networks are the graphs of a bundle `acinterp`. Images are converted here, latents are made in
engine.blending.denoise. SPEC of AnimateAnyone: images section 5, frames and flow section 9. Colours are RGB.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
from PIL import Image

from engine.blending.denoise import DenoiseOptions, Denoisers, Priors, Progress, denoise
from engine.errors import InputError

__all__ = [
    "FRAMES",
    "GIVEN",
    "MIDDLE",
    "PX_PER_LATENT",
    "SIZE_STEP_PX",
    "GraphRunner",
    "Interpolator",
    "background_flow",
    "clip_pixels",
    "pictures",
]

FRAMES = 16  # per call
GIVEN = 4  # real frames at each end
MIDDLE = slice(GIVEN, FRAMES - GIVEN)
PX_PER_LATENT = 8
SIZE_STEP_PX = 64  # other sizes would need shape-dependent upsampling

_LATENT_CHANNELS = 4
_CLIP_SIZE_PX = 224
_CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_CLIP_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


class GraphRunner(Protocol):
    """The networks of a bundle, for example engine.inference.networks.Networks."""

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Outputs of one network by name."""


class Interpolator:
    """Frames between clips, at one size. Results of `reference` and `latents` may be kept and reused."""

    def __init__(
        self, networks: GraphRunner, height_px: int, width_px: int, options: DenoiseOptions | None = None
    ) -> None:
        """Raises InputError for sizes that are not multiples of 64."""
        if min(height_px, width_px) < SIZE_STEP_PX or height_px % SIZE_STEP_PX or width_px % SIZE_STEP_PX:
            raise InputError(f"frames of {width_px}x{height_px} pixels, expected multiples of {SIZE_STEP_PX}")
        self._networks = networks
        self._size_px = (height_px, width_px)
        self._options = options or DenoiseOptions()

    def interpolate(
        self,
        reference: Mapping[str, np.ndarray],
        start: np.ndarray,
        end: np.ndarray,
        features: np.ndarray,
        seed: int,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """The eight frames in the middle, uint8 (8, height, width, 3).

        reference: from `reference`. start, end: from `latents`, float32 (4, 4, h, w). features: from `features`, for
        all 16 frames. Equal seeds give equal noise. Raises ValueError if an array has another number of frames.
        """
        for name, array, n_frames in (("start", start, GIVEN), ("end", end, GIVEN), ("features", features, FRAMES)):
            if len(array) != n_frames:
                raise ValueError(f"{name} of {len(array)} frames, expected {n_frames}")
        noise, *step_noise = self._noises(seed)
        places = np.r_[:GIVEN, FRAMES - GIVEN : FRAMES]
        known = Priors(places, np.concatenate([start, end]), noise[places])
        latents = self._denoise(noise, features, reference, known, step_noise, progress)
        return pictures(self.decode(latents[MIDDLE]))

    def animate(
        self,
        reference: Mapping[str, np.ndarray],
        features: np.ndarray,
        noise: np.ndarray,
        step_noise: Sequence[np.ndarray] = (),
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Latents of a clip with no known frames, as in AnimateAnyone: float32 (frames, 4, h, w).

        noise: shaped like the result. step_noise: see engine.blending.denoise.denoise.
        """
        return self._denoise(noise, features, reference, None, step_noise, progress)

    def reference(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """The denoiser's inputs from a real picture, uint8 (H, W, 3), by name; computed once per clip.

        Read-only copies, so that they are not sent to a GPU again (engine.inference.session.Session.run).
        """
        latents = self.latents([image])
        embedding = self._networks.run("image_encoder", {"pixels": clip_pixels(image)})["embedding"]
        outputs = self._networks.run("reference", {"latents": latents, "embedding": embedding})
        return {name: _frozen(array) for name, array in outputs.items()}

    def latents(self, images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Latents of real pictures, uint8 (H, W, 3) each -> float32 (n, 4, h, w): the mean of their distribution."""
        pixels = (_planes(image, self._size_px) * 2 - 1 for image in images)
        return self._each("vae_encoder", "pixels", "latents", pixels)

    def features(self, poses: Sequence[np.ndarray] | np.ndarray, flow: np.ndarray | None = None) -> np.ndarray:
        """The guidance of each frame, float32 (frames, C, h, w).

        poses: drawn poses, uint8 (H, W, 3) each. flow: from `background_flow` at this size; None: no background
        guidance.
        """
        images = np.concatenate([_planes(pose, self._size_px) for pose in poses])
        features = self._networks.run("pose_guider", {"images": images})["features"]
        if flow is None:
            return features
        if flow.shape != (len(images), *self._size_px, 2):
            raise ValueError(f"background flow of shape {flow.shape}, expected {(len(images), *self._size_px, 2)}")
        channels_first = np.ascontiguousarray(flow.transpose(0, 3, 1, 2), np.float32)
        return features + self._networks.run("background_guider", {"flow": channels_first})["features"]

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Latents (n, 4, h, w) -> float32 (n, 3, height, width) in 0..1; one frame at a time, as in training."""
        return self._each("vae_decoder", "latents", "pixels", (frame[None] for frame in latents))

    def _each(self, graph: str, fed: str, given: str, parts: Iterable[np.ndarray]) -> np.ndarray:
        """Run a network that takes one image at a time on all of them."""
        return np.concatenate([self._networks.run(graph, {fed: np.ascontiguousarray(part)})[given] for part in parts])

    def _denoise(
        self,
        noise: np.ndarray,
        features: np.ndarray,
        reference: Mapping[str, np.ndarray],
        known: Priors | None,
        step_noise: Sequence[np.ndarray],
        progress: Progress | None,
    ) -> np.ndarray:
        options = self._options if known is not None else replace(self._options, priors="none")
        networks = Denoisers(partial(self._networks.run, "denoiser"), partial(self._networks.run, "denoiser_plain"))
        return denoise(networks, noise, features, reference, options, known, step_noise, progress)

    def _noises(self, seed: int) -> list[np.ndarray]:
        """The noise that a call starts from, and the noise that the sampler adds between its steps."""
        n = self._options.steps if self._options.sampler == "lcm" else 1
        height, width = (size // PX_PER_LATENT for size in self._size_px)
        generator = np.random.Generator(np.random.PCG64(seed))
        return list(generator.standard_normal((n, FRAMES, _LATENT_CHANNELS, height, width), np.float32))


def background_flow(homographies: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """How far the background of each frame moved, float32 (frames, height, width, 2) of (x, y).

    homographies: float64 (frames, 3, 3) on pixels (x, y, 1). The result is the displacement of each pixel in units of
    the longer side. Raises ValueError for other shapes, InputError for homographies that turn the picture inside out.
    """
    homographies = np.asarray(homographies, np.float64)
    if homographies.ndim != 3 or homographies.shape[1:] != (3, 3) or not np.isfinite(homographies).all():
        raise ValueError(f"homographies of shape {homographies.shape}, expected finite (frames, 3, 3)")
    y, x = np.mgrid[:height_px, :width_px].astype(np.float64)
    places = np.stack([x, y, np.ones_like(x)], axis=-1)
    moved = np.einsum("fij,hwj->fhwi", homographies, places)
    depth = moved[..., 2:]
    if not (((depth > 0).all(axis=(1, 2, 3))) | ((depth < 0).all(axis=(1, 2, 3)))).all():
        raise InputError("a homography turns the picture inside out")
    offset = moved[..., :2] / depth - places[..., :2]
    return (offset / max(height_px, width_px)).astype(np.float32)


def clip_pixels(image: np.ndarray) -> np.ndarray:
    """A picture as CLIP sees it: uint8 (H, W, 3), stretched to a square -> float32 (1, 3, 224, 224)."""
    pixels = _planes(image, (_CLIP_SIZE_PX, _CLIP_SIZE_PX), Image.Resampling.BICUBIC)
    mean, deviation = (values[:, None, None] for values in (_CLIP_MEAN, _CLIP_DEVIATION))
    return (pixels - mean) / deviation


def pictures(pixels: np.ndarray) -> np.ndarray:
    """float32 (n, 3, H, W) in 0..1 -> uint8 (n, H, W, 3)."""
    return np.ascontiguousarray(np.rint(pixels * 255).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


def _frozen(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.setflags(write=False)
    return copy


def _planes(
    image: np.ndarray, size_px: tuple[int, int], resampling: Image.Resampling = Image.Resampling.LANCZOS
) -> np.ndarray:
    """A picture at another height and width, float32 (1, 3, height, width) in 0..1."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype}{list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"a picture is {found}, expected RGB uint8[height, width, 3]")
    height_px, width_px = size_px
    if image.shape[:2] != size_px:
        # not OpenCV: its filters do not widen for smaller pictures, and the network was trained on Pillow's
        image = np.asarray(Image.fromarray(image).resize((width_px, height_px), resampling))
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None]).astype(np.float32) / np.float32(255)
