"""ACInterp's six networks: their sizes, and the networks themselves, built one at a time from tensors by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from engine.errors import InputError
from export.models.acinterp.config import GuiderConfig, MotionConfig, UNetConfig
from export.models.acinterp.guider import Guider
from export.models.acinterp.unet import Denoiser, ReferenceNetwork

__all__ = ["LATENT_SCALE", "PARTS", "ACInterpConfig", "ACInterpParts"]

PARTS = ("image_encoder", "vae", "reference", "denoiser", "pose_guider", "background_guider")
LATENT_SCALE = 0.18215  # of Stable Diffusion 1.5's latents
FLOW_CHANNELS = 2

Part = TypeVar("Part")


def _published_encoder() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        projection_dim=768,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        image_size=224,
    )


def _vae(channels: tuple[int, ...], layers: int, norm_groups: int, sample_size: int) -> dict[str, Any]:
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "block_out_channels": channels,
        "layers_per_block": layers,
        "latent_channels": 4,
        "norm_num_groups": norm_groups,
        "sample_size": sample_size,
        "scaling_factor": LATENT_SCALE,
    }


@dataclass(frozen=True)
class ACInterpConfig:
    """Everything that determines the shapes; the defaults are the published sizes (SPEC section 2).

    vae: the config of diffusers' AutoencoderKL.
    """

    reference: UNetConfig = field(default_factory=UNetConfig)
    denoiser: UNetConfig = field(default_factory=partial(UNetConfig, motion=MotionConfig()))
    pose_guider: GuiderConfig = field(default_factory=GuiderConfig)
    background_guider: GuiderConfig = field(default_factory=partial(GuiderConfig, in_channels=FLOW_CHANNELS))
    image_encoder: CLIPVisionConfig = field(default_factory=_published_encoder)
    vae: Mapping[str, Any] = field(default_factory=partial(_vae, (128, 256, 512, 512), 2, 32, 256))

    def __post_init__(self) -> None:
        """Raises InputError if the parts do not fit each other."""
        read, written = self.denoiser, self.reference
        faults = {
            "the reference network's levels and the denoiser's": (
                (written.channels, written.attention, written.layers, written.latent_channels),
                (read.channels, read.attention, read.layers, read.latent_channels),
            ),
            "the image encoder's and the networks' embeddings": (
                (self.image_encoder.projection_dim,) * 2,
                (read.embedding_channels, written.embedding_channels),
            ),
            "the guiders' channels and the denoiser's": (
                (self.pose_guider.out_channels, self.background_guider.out_channels),
                (read.channels[0],) * 2,
            ),
            "the VAE's latent channels and the denoiser's": (self.vae.get("latent_channels"), read.latent_channels),
        }
        for what, (one, other) in faults.items():
            if one != other:
                raise InputError(f"parts that do not fit: {what} differ, {one} and {other}")

    @classmethod
    def small(cls) -> "ACInterpConfig":
        """Every kind of layer in the published networks, four transformers instead of sixteen: for tests and trials.

        Export dominates the time, and depends on the number of layers, not on their width.
        """
        unet = partial(
            UNetConfig, (32, 64), (4, 4), attention=(True, False), layers=1, norm_groups=8, embedding_channels=32
        )
        guider = partial(GuiderConfig, channels=(8, 16, 24, 32), out_channels=32)
        return cls(
            reference=unet(),
            denoiser=unet(motion=MotionConfig(heads=2)),
            pose_guider=guider(),
            background_guider=guider(in_channels=FLOW_CHANNELS),
            image_encoder=CLIPVisionConfig(
                hidden_size=32,
                intermediate_size=64,
                projection_dim=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                patch_size=32,
                image_size=224,
            ),
            vae=_vae((8, 8, 16, 16), 1, 4, 128),
        )

    def builders(self) -> dict[str, Callable[[], nn.Module]]:
        """By the names of PARTS."""
        return {
            "image_encoder": partial(CLIPVisionModelWithProjection, self.image_encoder),
            "vae": partial(AutoencoderKL.from_config, dict(self.vae)),
            "reference": partial(ReferenceNetwork, self.reference),
            "denoiser": partial(Denoiser, self.denoiser),
            "pose_guider": partial(Guider, self.pose_guider),
            "background_guider": partial(Guider, self.background_guider),
        }

    def empty(self, part: str) -> nn.Module:
        """A part without memory for its weights."""
        with torch.device("meta"):
            return self.builders()[part]()

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of a part's state dict."""
        return {name: tuple(tensor.shape) for name, tensor in self.empty(part).state_dict().items()}


@dataclass(frozen=True)
class ACInterpParts:
    """A complete model whose parts are built on demand, on every call: keep one at a time in memory.

    tensors: of every part, under `part.name`. licence: of the weights.
    """

    config: ACInterpConfig
    tensors: Mapping[str, Tensor]
    licence: str = "not stated"

    def image_encoder(self) -> CLIPVisionModelWithProjection:
        encoder = self._filled("image_encoder", CLIPVisionModelWithProjection)
        embeddings = encoder.vision_model.embeddings
        # no weight, so it is not in any checkpoint
        embeddings.position_ids = torch.arange(embeddings.num_positions)[None]
        return encoder

    def vae(self) -> AutoencoderKL:
        return self._filled("vae", AutoencoderKL)

    def reference(self) -> ReferenceNetwork:
        return self._filled("reference", ReferenceNetwork)

    def denoiser(self) -> Denoiser:
        return self._filled("denoiser", Denoiser)

    def pose_guider(self) -> Guider:
        return self._filled("pose_guider", Guider)

    def background_guider(self) -> Guider:
        return self._filled("background_guider", Guider)

    def _filled(self, name: str, kind: type[Part]) -> Part:
        part = self.config.empty(name)
        part.load_state_dict({key: self.tensors[f"{name}.{key}"] for key in part.state_dict()}, assign=True)
        part.eval().requires_grad_(False)
        assert isinstance(part, kind)
        return part
