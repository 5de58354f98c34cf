"""AuMoCLIP mini: the two towers of TANGO (arXiv 2410.04221, section 3.2) at a size that minutes of video can train.

Each tower has a low level, one vector per frame, and on top of it a high level, one vector per window. Convolutions
with growing dilation see 32 frames to either side; no layer knows its position in a clip. The high level builds on the
low one, but no gradient of the global loss reaches the low level.

Instead of a waveform network and all joints, the inputs are the rows of engine.features.speech and the descriptors of
engine.features.body: with as little data these gave a higher accuracy than larger inputs.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.features.body import BODY_COLUMNS
from engine.features.speech import N_COLUMNS

__all__ = ["AuMoMini", "MiniConfig", "MiniFeatures", "MiniTower"]

KERNEL = 3
_SCORE_LIMIT = (
    8.0  # of attention before the exponential, which then needs no maximum, so a sliding window is one average
)


@dataclass(frozen=True)
class MiniConfig:
    """Sizes, and the paper's ablations (section 4.3, table 2)."""

    audio_columns: int = N_COLUMNS
    motion_columns: int = len(BODY_COLUMNS)
    width: int = 24
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16)
    high_dilations: tuple[int, ...] = (1, 2)
    low_dim: int = 16
    high_dim: int = 16
    heads: int = 4
    window_frames: int = 128  # what the high level summarises: 4.27 s
    dropout: float = 0.3
    levels: Literal["both", "low"] = "both"
    pooling: Literal["token", "max"] = "token"  # class token: attention of one learned query
    layout: Literal["hierarchy", "split"] = "hierarchy"  # split: the high level has its own encoder
    stop_gradient: bool = True

    @property
    def low_reach_frames(self) -> int:
        """Frames to either side that a low feature depends on."""
        return (1 + sum(self.dilations)) * (KERNEL // 2)

    @property
    def high_lookback_frames(self) -> int:
        """Frames before its own that a high feature depends on."""
        own = (1 + sum(self.high_dilations)) * (KERNEL // 2)
        return self.low_reach_frames + own + self.window_frames // 2

    @property
    def high_lookahead_frames(self) -> int:
        """Frames after its own that a high feature depends on: the window has an even length."""
        return self.high_lookback_frames - 1

    @property
    def lookback_frames(self) -> int:
        return self.high_lookback_frames if self.levels == "both" else self.low_reach_frames

    @property
    def lookahead_frames(self) -> int:
        return self.high_lookahead_frames if self.levels == "both" else self.low_reach_frames


class MiniFeatures(NamedTuple):
    """Unit vectors. low: (batch, frames, D). high: (batch, frames, E), of the window around each frame.

    cls: (batch, E), of everything given. E is 0 where there is no high level.
    """

    low: Tensor
    high: Tensor
    cls: Tensor


class ResidualBlock(nn.Module):
    """Norm, dilated convolution to twice the width, GELU, dropout of whole channels, back to the width."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.spread = nn.Conv1d(width, 2 * width, KERNEL, padding=dilation * (KERNEL // 2), dilation=dilation)
        self.dropout = nn.Dropout1d(dropout)
        self.gather = nn.Conv1d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T) -> (B, C, T)
        y = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return x + self.gather(self.dropout(F.gelu(self.spread(y))))


class Encoder(nn.Sequential):
    """A convolution and a stack of residual blocks: (B, columns, T) -> (B, width, T)."""

    def __init__(self, columns: int, config: MiniConfig, dilations: tuple[int, ...]) -> None:
        blocks = [ResidualBlock(config.width, dilation, config.dropout) for dilation in dilations]
        super().__init__(nn.Conv1d(columns, config.width, KERNEL, padding=KERNEL // 2), *blocks)


class Projection(nn.Sequential):
    """(..., width) -> unit vectors (..., dim)."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, dim))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return F.normalize(x.float(), dim=-1)


class TokenPooling(nn.Module):
    """A class token: one learned query a head attends to the frames of a window, or to all."""

    def __init__(self, width: int, heads: int, window_frames: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window_frames
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, heads)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, T, C) -> (B, T, C), (B, C)
        y = self.norm(x)
        score = _SCORE_LIMIT * torch.tanh(self.score(y).float() / _SCORE_LIMIT)
        weight = score.exp().unsqueeze(-1)  # (B, T, heads, 1)
        value = self._by_head(self.value(y).float())
        mass = torch.cat([(weight * value).flatten(2), weight.flatten(2)], -1)  # (B, T, C + heads)
        return self._ratio(_sliding_mean(mass, self.window)), self._ratio(mass.mean(1))

    def _ratio(self, mass: Tensor) -> Tensor:
        value, weight = mass[..., : -self.heads], mass[..., -self.heads :]
        return (self._by_head(value) / weight.unsqueeze(-1)).flatten(-2)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads)


class MaxPooling(nn.Module):
    """The maximum of each channel over the frames of a window, or over all."""

    def __init__(self, window_frames: int) -> None:
        super().__init__()
        self.window = window_frames

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, T, C) -> (B, T, C), (B, C)
        padded = F.pad(x.transpose(1, 2), _around(self.window), value=-torch.inf)
        # in two dimensions: the exporter fixes the length of the one-dimensional kind
        return F.max_pool2d(padded.unsqueeze(2), (1, self.window), stride=1).squeeze(2).transpose(1, 2), x.amax(1)


class MiniTower(nn.Module):
    """Rows of one modality, float32 (B, T, columns), to its features; T is free."""

    offset: Tensor
    scale: Tensor

    def __init__(self, columns: int, config: MiniConfig) -> None:
        super().__init__()
        self.config = config
        # set from the data that is trained on
        self.register_buffer("offset", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))
        self.low = Encoder(columns, config, config.dilations)
        self.low_head = Projection(config.width, config.low_dim)
        if config.levels == "both":
            self.own = Encoder(columns, config, config.dilations) if config.layout == "split" else None
            self.high = Encoder(columns + config.width, config, config.high_dilations)
            token = config.pooling == "token"
            window = config.window_frames
            self.pool = TokenPooling(config.width, config.heads, window) if token else MaxPooling(window)
            self.high_head = Projection(config.width, config.high_dim)

    def forward(self, rows: Tensor) -> MiniFeatures:
        x = ((rows - self.offset) * self.scale).transpose(1, 2)
        seen = self.low(x)
        low = self.low_head(seen.transpose(1, 2))
        if self.config.levels == "low":
            return MiniFeatures(low, low[..., :0], low[:, 0, :0])
        if self.own is not None:
            seen = self.own(x)
        elif self.config.stop_gradient:
            seen = seen.detach()
        pooled, whole = self.pool(self.high(torch.cat([seen, x.to(seen.dtype)], 1)).transpose(1, 2))
        return MiniFeatures(low, self.high_head(pooled), self.high_head(whole))


class AuMoMini(nn.Module):
    """Both towers."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = MiniTower(config.audio_columns, config)
        self.motion = MiniTower(config.motion_columns, config)

    def forward(self, rows: Tensor, descriptors: Tensor) -> tuple[MiniFeatures, MiniFeatures]:
        """rows (B, T, audio_columns), descriptors (B, T, motion_columns) -> features of speech and of motion."""
        return self.audio(rows), self.motion(descriptors)


def _around(window: int) -> tuple[int, int]:
    return window // 2, (window - 1) // 2


def _sliding_mean(x: Tensor, window: int) -> Tensor:
    """(B, T, C) -> the mean over the window around each frame; frames that do not exist count as 0."""
    return F.avg_pool1d(F.pad(x.transpose(1, 2), _around(window)), window, stride=1).transpose(1, 2)
