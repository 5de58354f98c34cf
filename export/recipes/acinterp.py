"""ACInterp as a bundle: eight graphs, frames folded into the first axis, weights of the larger ones shared.

The reference network and the denoiser's projections of its output are one graph, computed once per clip; the denoiser
is two, with and without the reference, for the two halves of guidance (SPEC of AnimateAnyone, sections 4 and 8).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from engine.blending.acinterp import FRAMES, GIVEN, PX_PER_LATENT
from engine.inference.manifest import Profile
from export.acinterp_checkpoints import ACInterpParts, Width, load_acinterp, random_acinterp
from export.bundle import Recipe
from export.models.acinterp import Denoiser, Guider, ReferenceNetwork, UNetConfig, block_names
from export.models.acinterp.parts import LATENT_SCALE
from export.onnx_export import Graph

__all__ = ["acinterp_recipe", "make_recipe", "random_recipe"]

NAME = "acinterp"
SIZES_PX: dict[Width, tuple[int, ...]] = {"full": (512, 768), "small": (128, 192)}
TRIAL_LATENTS = ((16, 24), (8, 8), (24, 16))  # height and width; the first is the exporter's example
CLIP_SIZE_PX = 224


def acinterp_recipe(folder: Path) -> Recipe:
    """From a folder of the public parts; see export.acinterp_checkpoints.load_acinterp."""
    return make_recipe(load_acinterp(folder), "full")


def random_recipe(seed: int, width: Width) -> Recipe:
    """With made-up weights of the published size or of a small one, for tests and timings."""
    return make_recipe(random_acinterp(seed, width), width)


def make_recipe(parts: ACInterpParts, width: Width) -> Recipe:
    """From given networks; `width` determines the frame sizes that the bundle can be compiled for."""
    sizes_px = SIZES_PX[width]
    config = {"frames": FRAMES, "given_frames": GIVEN, "width": width, "sizes_px": list(sizes_px)}
    return Recipe(name=NAME, graphs=_graphs(parts, sizes_px), config=config, licence=parts.licence)


def _graphs(parts: ACInterpParts, sizes_px: tuple[int, ...]) -> Iterator[Graph]:
    """One at a time: together they would not fit in memory."""
    yield _image_encoder(parts, sizes_px)
    yield from _vae(parts, sizes_px)
    yield _guider("pose_guider", "images", parts.pose_guider(), sizes_px)
    yield _guider("background_guider", "flow", parts.background_guider(), sizes_px)
    denoiser = parts.denoiser()
    yield _denoiser(denoiser, sizes_px)
    yield _plain(denoiser, sizes_px)
    yield _reference(parts.reference(), denoiser, sizes_px)


class _ImageEncoder(nn.Module):
    def __init__(self, clip: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (self.clip(pixels).image_embeds[:, None],)


class _VaeEncoder(nn.Module):
    """The mean of the latents' distribution, as used at inference."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae: Any = vae

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (self.vae.encode(pixels).latent_dist.mean * LATENT_SCALE,)


class _VaeDecoder(nn.Module):
    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae: Any = vae

    def forward(self, latents: Tensor) -> tuple[Tensor]:
        return ((self.vae.decode(latents / LATENT_SCALE).sample / 2 + 0.5).clamp(0, 1),)


class _Single(nn.Module):
    """A network of one output, as a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images),)


class _Reference(nn.Module):
    """The denoiser's view of a reference image: keys and values of every block, then the vectors."""

    def __init__(self, reference: ReferenceNetwork, denoiser: Denoiser) -> None:
        super().__init__()
        self.reference, self.denoiser = reference, denoiser

    def forward(self, latents: Tensor, embedding: Tensor) -> tuple[Tensor, ...]:
        bank = self.reference(latents, embedding)
        return (*self.denoiser.keys_values(bank), *self.denoiser.vectors(embedding))


class _Conditional(nn.Module):
    """`reference`: the outputs of _Reference."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, latents: Tensor, timestep: Tensor, features: Tensor, *reference: Tensor) -> tuple[Tensor]:
        n = len(reference) // 3 * 2
        return (self.denoiser(latents, timestep, features, reference[n:], reference[:n], FRAMES),)


class _Plain(nn.Module):
    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, latents: Tensor, timestep: Tensor, features: Tensor) -> tuple[Tensor]:
        return (self.denoiser(latents, timestep, features, None, None, FRAMES),)


def _image_encoder(parts: ACInterpParts, sizes_px: tuple[int, ...]) -> Graph:
    trials = tuple({"pixels": _noise(seed, 1, 3, CLIP_SIZE_PX, CLIP_SIZE_PX)} for seed in range(3))
    return Graph(
        name="image_encoder",
        module=_ImageEncoder(parts.image_encoder()),
        inputs=trials[0],
        outputs=("embedding",),
        dynamic={},
        trials=trials,
        profiles={str(size): {} for size in sizes_px},
    )


def _vae(parts: ACInterpParts, sizes_px: tuple[int, ...]) -> Iterator[Graph]:
    vae = parts.vae()
    images = dict(zip(TRIAL_LATENTS, (2, 1, 3), strict=True))
    pixels = tuple({"pixels": _noise(1, n, 3, PX_PER_LATENT * h, PX_PER_LATENT * w)} for (h, w), n in images.items())
    yield Graph(
        name="vae_encoder",
        module=_VaeEncoder(vae),
        inputs=pixels[0],
        outputs=("latents",),
        dynamic={"pixels": {0: "images", 2: "pixel_height", 3: "pixel_width"}},
        trials=pixels,
        profiles=_profiles(sizes_px, "images", "pixel_height", "pixel_width"),
    )
    latents = tuple({"latents": _noise(2, n, 4, h, w)} for (h, w), n in images.items())
    yield Graph(
        name="vae_decoder",
        module=_VaeDecoder(vae),
        inputs=latents[0],
        outputs=("pixels",),
        dynamic={"latents": {0: "images", 2: "height", 3: "width"}},
        trials=latents,
        profiles=_profiles(sizes_px, "images", "height", "width"),
    )


def _guider(name: str, fed: str, guider: Guider, sizes_px: tuple[int, ...]) -> Graph:
    channels = guider.conv_in.in_channels
    trials = tuple(
        {fed: _noise(3, frames, channels, PX_PER_LATENT * h, PX_PER_LATENT * w)}
        for (h, w), frames in zip(TRIAL_LATENTS, (2, FRAMES, 3), strict=True)
    )
    return Graph(
        name=name,
        module=_Single(guider),
        inputs=trials[0],
        outputs=("features",),
        dynamic={fed: {0: "frames", 2: "pixel_height", 3: "pixel_width"}},
        trials=trials,
        profiles=_profiles(sizes_px, "frames", "pixel_height", "pixel_width"),
    )


def _reference(reference: ReferenceNetwork, denoiser: Denoiser, sizes_px: tuple[int, ...]) -> Graph:
    width = reference.config.embedding_channels
    trials = tuple({"latents": _noise(4, 1, 4, *size), "embedding": _noise(5, 1, 1, width)} for size in TRIAL_LATENTS)
    return Graph(
        name="reference",
        module=_Reference(reference, denoiser),
        inputs=trials[0],
        outputs=tuple(_reference_shapes(denoiser, TRIAL_LATENTS[0])),
        dynamic={"latents": {2: "height", 3: "width"}},
        trials=trials,
        profiles=_profiles(sizes_px, "height", "width"),
        share_weights=True,
    )


def _denoiser(denoiser: Denoiser, sizes_px: tuple[int, ...]) -> Graph:
    downscales = _downscales(denoiser.config)
    tokens = {
        f"{kind}_{number:02}": {1: f"tokens_{downscale}"}
        for number, downscale in enumerate(downscales)
        for kind in ("keys", "values")
    }
    trials = tuple(
        {
            **_clip(denoiser, size),
            **{name: _noise(7, *shape) for name, shape in _reference_shapes(denoiser, size).items()},
        }
        for size in TRIAL_LATENTS
    )
    symbols = ("height", "width", *(f"tokens_{downscale}" for downscale in sorted(set(downscales))))
    return Graph(
        name="denoiser",
        module=_Conditional(denoiser),
        inputs=trials[0],
        outputs=("v",),
        dynamic={**_CLIP_AXES, **tokens},
        trials=trials,
        profiles=_profiles(sizes_px, *symbols),
        share_weights=True,
    )


def _plain(denoiser: Denoiser, sizes_px: tuple[int, ...]) -> Graph:
    trials = tuple(_clip(denoiser, size) for size in TRIAL_LATENTS)
    return Graph(
        name="denoiser_plain",
        module=_Plain(denoiser),
        inputs=trials[0],
        outputs=("v",),
        dynamic=_CLIP_AXES,
        trials=trials,
        profiles=_profiles(sizes_px, "height", "width"),
        share_weights=True,
    )


_CLIP_AXES = {name: {2: "height", 3: "width"} for name in ("latents", "features")}


def _clip(denoiser: Denoiser, size: tuple[int, int]) -> dict[str, Tensor]:
    """Inputs of both halves of guidance."""
    return {
        "latents": _noise(6, FRAMES, 4, *size),
        "timestep": torch.tensor(size[0] * 31),
        "features": _noise(8, FRAMES, denoiser.config.channels[0], *size),
    }


def _downscales(config: UNetConfig) -> list[int]:
    """For every transformer in bank order, the factor by which its features are smaller than the latents."""
    last = len(config.channels) - 1
    downscales = []
    for name in block_names(config):
        side, place, *_ = name.split(".")
        level = last
        if side != "mid_block":
            level = int(place) if side == "down_blocks" else last - int(place)
        downscales.append(1 << level)
    return downscales


def _reference_shapes(denoiser: Denoiser, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor that the graph `reference` gives for latents of a size, in order."""
    height, width = size
    channels = [block.norm1.normalized_shape[0] for block in denoiser.blocks()]
    keys: dict[str, tuple[int, ...]] = {}
    for number, (downscale, n_channels) in enumerate(zip(_downscales(denoiser.config), channels, strict=True)):
        n_tokens = (height // downscale) * (width // downscale)
        keys |= {f"{kind}_{number:02}": (1, n_tokens, n_channels) for kind in ("keys", "values")}
    return {**keys, **{f"vectors_{number:02}": (1, n_channels) for number, n_channels in enumerate(channels)}}


def _profiles(sizes_px: tuple[int, ...], *symbols: str) -> dict[str, Profile]:
    """One per size, for exactly that size: engines have fixed shapes. Images go through the VAE one by one."""
    profiles: dict[str, Profile] = {}
    for size_px in sizes_px:
        size = size_px // PX_PER_LATENT
        known = {
            "images": 1,
            "frames": FRAMES,
            "height": size,
            "width": size,
            "pixel_height": size_px,
            "pixel_width": size_px,
            **{f"tokens_{downscale}": (size // downscale) ** 2 for downscale in (1, 2, 4, 8)},
        }
        profiles[str(size_px)] = {symbol: (known[symbol],) * 3 for symbol in symbols}
    return profiles


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
