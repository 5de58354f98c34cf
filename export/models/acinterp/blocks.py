"""The levels of a UNet on frames folded into the batch, with the names of the Stable Diffusion 1.5 UNet."""

from collections.abc import Sequence

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional

from export.models.acinterp.attention import Condition, SpatialTransformer
from export.models.acinterp.config import UNetConfig
from export.models.acinterp.motion import MotionModule

__all__ = ["DownBlock", "Level", "MidBlock", "UpBlock"]


class Upsample(nn.Module):
    """Nearest neighbours, then a convolution.

    Not diffusers' own: that one compares the number of elements with 2^31, which fixes an exported graph's sizes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """(n, C, h, w) -> (n, C, 2h, 2w), or to a given height and width."""
        if size is None:
            return self.conv(functional.interpolate(features, scale_factor=2.0, mode="nearest"))
        return self.conv(functional.interpolate(features, size=tuple(size), mode="nearest"))


class Level(nn.Module):
    """Layers of residual block, spatial transformer and motion module; the last two if the level has them."""

    def __init__(self, config: UNetConfig, level: int, inputs: Sequence[int], attention: bool, motion: bool) -> None:
        """`inputs`: input channels of each layer."""
        super().__init__()
        channels = config.channels[level]
        self.resnets = nn.ModuleList([_resnet(config, before, channels) for before in inputs])
        self.attentions = nn.ModuleList()
        self.motion_modules = nn.ModuleList()
        for _ in inputs:
            if attention:
                transformer = SpatialTransformer(
                    channels, config.heads[level], config.norm_groups, config.embedding_channels
                )
                self.attentions.append(transformer)
            if motion and config.motion is not None:
                self.motion_modules.append(MotionModule(channels, config.motion))

    def layer(
        self, index: int, features: Tensor, time: Tensor, conditions: Sequence[Condition], frames: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Features after one layer, and what a bank stores of it."""
        stored = []
        features = self.resnets[index](features, time)
        if self.attentions:
            features, normalised = self.attentions[index](features, conditions[index])
            stored = [normalised]
        if self.motion_modules:
            features = self.motion_modules[index](features, frames)
        return features, stored


class DownBlock(Level):
    def __init__(self, config: UNetConfig, level: int) -> None:
        channels, before = config.channels[level], config.channels[max(level - 1, 0)]
        inputs = (before, *[channels] * (config.layers - 1))
        super().__init__(config, level, inputs, config.attention[level], config.has_motion(level, up=False))
        self.downsamplers = nn.ModuleList()
        if level < len(config.channels) - 1:
            self.downsamplers.append(Downsample2D(channels, use_conv=True, name="op"))

    def forward(
        self, features: Tensor, time: Tensor, conditions: Sequence[Condition], frames: int
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Features at the next level's size, the skips and the bank's tensors."""
        skips, bank = [], []
        for index in range(len(self.resnets)):
            features, stored = self.layer(index, features, time, conditions, frames)
            skips.append(features)
            bank += stored
        for downsample in self.downsamplers:
            features = downsample(features)
            skips.append(features)
        return features, skips, bank


class MidBlock(Level):
    def __init__(self, config: UNetConfig) -> None:
        channels = config.channels[-1]
        motion = config.motion is not None and config.motion.mid
        super().__init__(config, len(config.channels) - 1, (channels,), True, motion)
        self.resnets.append(_resnet(config, channels, channels))

    def forward(
        self, features: Tensor, time: Tensor, conditions: Sequence[Condition], frames: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Features and the bank's tensor."""
        features, stored = self.layer(0, features, time, conditions, frames)
        return self.resnets[1](features, time), stored


class UpBlock(Level):
    def __init__(self, config: UNetConfig, level: int) -> None:
        n_levels = len(config.channels)
        channels, below = config.channels[level], config.channels[min(level + 1, n_levels - 1)]
        above = config.channels[max(level - 1, 0)]
        carried = (below, *[channels] * config.layers)
        skips = (*[channels] * config.layers, above)  # the newest first
        inputs = [one + other for one, other in zip(carried, skips, strict=True)]
        super().__init__(config, level, inputs, config.attention[level], config.has_motion(level, up=True))
        self.upsamplers = nn.ModuleList()
        if level > 0:
            self.upsamplers.append(Upsample(channels))

    def forward(
        self,
        features: Tensor,
        skips: Sequence[Tensor],
        time: Tensor,
        conditions: Sequence[Condition],
        frames: int,
        size: Sequence[int] | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Features at the next level's size and the bank's tensors; `skips`: this block's own, the oldest first."""
        bank = []
        for index, skip in enumerate(reversed(skips)):
            features, stored = self.layer(index, torch.cat([features, skip], 1), time, conditions, frames)
            bank += stored
        for upsample in self.upsamplers:
            features = upsample(features, size)
        return features, bank


def _resnet(config: UNetConfig, before: int, after: int) -> ResnetBlock2D:
    return ResnetBlock2D(
        in_channels=before,
        out_channels=after,
        temb_channels=config.time_channels,
        groups=config.norm_groups,
        eps=config.norm_eps,
    )
