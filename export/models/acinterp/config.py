"""Sizes of ACInterp's networks, read from the JSON configs that AnimateAnyone's parts come with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import InputError

__all__ = ["GuiderConfig", "MotionConfig", "UNetConfig", "block_names"]

# What the networks here compute; a config that asks for anything else is refused (SPEC section 3).
FIXED = {
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "mid_block_type": "UNetMidBlock3DCrossAttn",
    "use_inflated_groupnorm": True,
    "unet_use_cross_frame_attention": False,
    "unet_use_temporal_attention": False,
    "motion_module_type": "Vanilla",
}
FIXED_MOTION = {"temporal_position_encoding": True, "temporal_attention_dim_div": 1}
MOTION_ATTENTION = "Temporal_Self"


@dataclass(frozen=True)
class MotionConfig:
    """Attention over frames. downscales: the levels that have it, 1 for the full latent size, 2, 4, ..."""

    heads: int = 8
    blocks: int = 1
    attentions: int = 2
    max_frames: int = 32
    downscales: tuple[int, ...] = (1, 2, 4, 8)
    mid: bool = True
    decoder_only: bool = False


@dataclass(frozen=True)
class UNetConfig:
    """Of the reference network (motion None) or the denoiser; the defaults are the published sizes.

    channels, heads and attention (does the level have spatial transformers?) count levels from the full latent size
    downwards. layers: of a level on the way down, one more on the way up. embedding_channels: of the image embedding.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    heads: tuple[int, ...] = (8, 8, 8, 8)
    attention: tuple[bool, ...] = (True, True, True, False)
    layers: int = 2
    norm_groups: int = 32
    norm_eps: float = 1e-5
    embedding_channels: int = 768
    latent_channels: int = 4
    out_channels: int = 4
    motion: MotionConfig | None = None

    @property
    def time_channels(self) -> int:
        return 4 * self.channels[0]

    @property
    def levels(self) -> range:
        return range(len(self.channels))

    @property
    def multiple(self) -> int:
        """Latent sizes that are multiples of this need no upsampling to a given size."""
        return 1 << (len(self.channels) - 1)

    def has_motion(self, level: int, up: bool) -> bool:
        motion = self.motion
        return motion is not None and 1 << level in motion.downscales and (up or not motion.decoder_only)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "UNetConfig":
        """From a config in the diffusers layout. Raises a one-line InputError for another architecture."""
        _refuse_others(raw, FIXED)
        try:
            channels = tuple(raw["block_out_channels"])
            heads = raw["attention_head_dim"]  # in this family it is the number of heads
            config = cls(
                channels=channels,
                heads=(heads,) * len(channels) if isinstance(heads, int) else tuple(heads),
                attention=tuple(kind.startswith("CrossAttn") for kind in raw["down_block_types"]),
                layers=raw["layers_per_block"],
                norm_groups=raw["norm_num_groups"],
                norm_eps=raw["norm_eps"],
                embedding_channels=raw["cross_attention_dim"],
                latent_channels=raw["in_channels"],
                out_channels=raw["out_channels"],
                motion=_motion(raw) if raw.get("use_motion_module") else None,
            )
            up = tuple(kind.startswith("CrossAttn") for kind in reversed(raw["up_block_types"]))
        except KeyError as error:
            raise InputError(
                f"a UNet config without {error.args[0]}: use the one that came with the weights"
            ) from error
        except (TypeError, AttributeError) as error:
            raise InputError(f"a UNet config with a value of another type: {error}") from error
        if not len(channels) == len(config.heads) == len(config.attention) or up != config.attention:
            raise InputError("a UNet config whose levels differ between block_out_channels, heads and block types")
        return config


@dataclass(frozen=True)
class GuiderConfig:
    """Of the pose guider; the background guider has two input channels (SPEC section 9)."""

    in_channels: int = 3
    channels: tuple[int, ...] = (16, 32, 96, 256)
    out_channels: int = 320

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "GuiderConfig":
        """Raises InputError if a size is missing."""
        try:
            return cls(
                in_channels=raw["conditioning_channels"],
                channels=tuple(raw["block_out_channels"]),
                out_channels=raw["conditioning_embedding_channels"],
            )
        except KeyError as error:
            raise InputError(f"a guider config without {error.args[0]}") from error
        except TypeError as error:
            raise InputError(f"a guider config with a value of another type: {error}") from error


def block_names(config: UNetConfig) -> tuple[str, ...]:
    """The spatial transformers' blocks in bank order: down, up, middle (SPEC section 4)."""
    last = len(config.channels) - 1
    down = [
        f"down_blocks.{level}.attentions.{layer}"
        for level in config.levels
        if config.attention[level]
        for layer in range(config.layers)
    ]
    up = [
        f"up_blocks.{last - level}.attentions.{layer}"
        for level in reversed(config.levels)
        if config.attention[level]
        for layer in range(config.layers + 1)
    ]
    return tuple(f"{name}.transformer_blocks.0" for name in (*down, *up, "mid_block.attentions.0"))


def _motion(raw: Mapping[str, Any]) -> MotionConfig:
    inner = raw["motion_module_kwargs"]
    _refuse_others(inner, FIXED_MOTION)
    kinds = inner["attention_block_types"]
    if set(kinds) != {MOTION_ATTENTION}:
        raise InputError(f"motion modules with attention {', '.join(kinds)}: only {MOTION_ATTENTION} is supported")
    return MotionConfig(
        heads=inner["num_attention_heads"],
        blocks=inner["num_transformer_block"],
        attentions=len(kinds),
        max_frames=inner["temporal_position_encoding_max_len"],
        downscales=tuple(raw["motion_module_resolutions"]),
        mid=raw["motion_module_mid_block"],
        decoder_only=raw["motion_module_decoder_only"],
    )


def _refuse_others(raw: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for name, wanted in fixed.items():
        if raw.get(name, wanted) != wanted:
            raise InputError(f"a UNet config with {name} {raw[name]!r}: only {wanted!r} is supported")
