"""Motion modules: attention over the frames of a clip, pixel by pixel (SPEC section 3)."""

import math

import torch
from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from export.models.acinterp.attention import NORM_EPS, Attention
from export.models.acinterp.config import MotionConfig

__all__ = ["MotionModule", "Positions"]

NORM_GROUPS = 32  # whatever the rest of the network has


class Positions(nn.Module):
    """Adds a sinusoidal table to the frames of a window, sine and cosine in turn."""

    pe: Tensor

    def __init__(self, channels: int, max_frames: int) -> None:
        super().__init__()
        frequencies = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
        angles = torch.arange(max_frames)[:, None] * frequencies
        self.register_buffer("pe", torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[None])

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, frames, C) -> (n, frames, C)."""
        return tokens + self.pe[:, : tokens.shape[1]]


class FrameAttention(Attention):
    """Positions count for queries, keys and values."""

    def __init__(self, channels: int, heads: int, max_frames: int) -> None:
        super().__init__(channels, heads)
        self.pos_encoder = Positions(channels, max_frames)

    def forward(self, tokens: Tensor, keys: Tensor | None = None, values: Tensor | None = None) -> Tensor:
        return super().forward(self.pos_encoder(tokens), keys, values)


class FrameBlock(nn.Module):
    def __init__(self, channels: int, config: MotionConfig) -> None:
        super().__init__()
        attentions = [FrameAttention(channels, config.heads, config.max_frames) for _ in range(config.attentions)]
        self.attention_blocks = nn.ModuleList(attentions)
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in attentions])
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor) -> Tensor:
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            tokens = tokens + attention(norm(tokens))
        return tokens + self.ff(self.ff_norm(tokens))


class FrameTransformer(nn.Module):
    def __init__(self, channels: int, config: MotionConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, channels, eps=NORM_EPS)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([FrameBlock(channels, config) for _ in range(config.blocks)])
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, features: Tensor, frames: int) -> Tensor:
        rows, channels, height, width = features.shape
        clips = rows // frames
        pixels = self.norm(features).view(clips, frames, channels, height * width)
        tokens = pixels.permute(0, 3, 1, 2).reshape(clips * height * width, frames, channels)
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens)
        pixels = self.proj_out(tokens).view(clips, height * width, frames, channels).permute(0, 2, 3, 1)
        return features + pixels.reshape(rows, channels, height, width)


class MotionModule(nn.Module):
    """(b * frames, C, h, w) -> the same; frames are unfolded in here and nowhere else."""

    def __init__(self, channels: int, config: MotionConfig) -> None:
        super().__init__()
        self.temporal_transformer = FrameTransformer(channels, config)

    def forward(self, features: Tensor, frames: int) -> Tensor:
        return self.temporal_transformer(features, frames)
