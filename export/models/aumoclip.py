"""AuMoCLIP, the joint embedding of speech and motion of TANGO (arXiv 2410.04221, section 3.2), as released.

It has two towers with two levels each. The low level keeps one vector per frame (30 fps) and comes from convolutions
alone; the high level summarises a window: its attention's first row, the "cls". No gradient of a high level ever
reaches a low one. Lengths are changed only by linear interpolation with aligned ends.

Tensor names are those of the published checkpoint. The speech and text encoders are in aumoclip_speech.py.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AuMoCLIPConfig", "AudioTower", "MotionTower", "resample"]

SLOPE = 0.2


@dataclass(frozen=True)
class AuMoCLIPConfig:
    """Sizes of the model's own parts; the defaults are the published ones."""

    width: int = 256  # of every feature
    hidden: int = 512  # of the mappings and the feed-forward layer
    heads: int = 8
    motion_channels: int = 825  # 55 joints times 15 numbers
    low_blocks: int = 3
    high_blocks: int = 6
    cnn_channels: int = 512  # of the speech encoder's convolutions, and of everything projected down
    encoder_channels: int = 768  # of the speech and text encoders' hidden states
    max_positions: int = 80  # at 15 fps
    position_period: int = 20

    @property
    def max_frames(self) -> int:
        """The longest motion, in frames at 30 fps, that has a position for every second frame."""
        return 2 * self.max_positions


def resample(sequence: Tensor, length: int) -> Tensor:
    """Linear interpolation over time with aligned ends: (batch, n, channels) -> (batch, length, channels)."""
    return F.interpolate(sequence.transpose(1, 2), size=length, mode="linear", align_corners=True).transpose(1, 2)


def _repeat_last(sequence: Tensor, length: int) -> Tensor:
    """Repeat the last row until the sequence is `length` long."""
    row = torch.arange(length, device=sequence.device).clamp(max=sequence.shape[1] - 1)
    return sequence.index_select(1, row)


def _append_tail(sequence: Tensor, length: int) -> Tensor:
    """Append the last rows once more, in order, if a sequence is a little shorter than `length`."""
    missing = length - sequence.shape[1]
    return torch.cat([sequence, sequence[:, -missing:]], 1) if missing > 0 else sequence


class Residual(nn.Module):
    """x + conv(lrelu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=1), nn.LeakyReLU(SLOPE), nn.Conv1d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.model(x)


class ConvStack(nn.Module):
    """Blocks of convolution, lrelu and residual; no normalisation. (B, T, channels) -> (B, T, width)"""

    def __init__(self, channels: int, width: int, n_blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(n_blocks):
            layers += [
                nn.Conv1d(channels if block == 0 else width, width, 3, padding=1),
                nn.LeakyReLU(SLOPE),
                Residual(width),
            ]
        self.main = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x.transpose(1, 2)).transpose(1, 2)


class Mapping(nn.Module):
    """Two linear layers with a lrelu between."""

    def __init__(self, channels: int, hidden: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class SummaryAttention(nn.Module):
    """Multi-head attention without residual or norm, which also returns what its first row attended to.

    Returns the attended rows (B, n, width) and the input with every head's channels multiplied by the weight that
    query 0 gives to that row (B, n, width).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_proj = nn.Linear(width, width)
        self.key_proj = nn.Linear(width, width)
        self.value_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = (
            self._split(projection(x)).transpose(1, 2)  # (B, heads, n, width / heads)
            for projection in (self.query_proj, self.key_proj, self.value_proj)
        )
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)  # (B, heads, n, n)
        attended = self.out_proj((weights @ value).transpose(1, 2).flatten(2))
        looked_at = weights[:, :, 0].transpose(1, 2)[..., None]  # (B, n, heads, 1)
        return attended, (self._split(x) * looked_at).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1)


class Positions(nn.Module):
    """Adds sinusoids of the position modulo a period; the table is part of the checkpoint."""

    pe: Tensor

    def __init__(self, config: AuMoCLIPConfig) -> None:
        super().__init__()
        position = torch.arange(config.max_positions) % config.position_period
        rate = torch.exp(torch.arange(0, config.width, 2) * (-math.log(10_000.0) / config.width))
        angle = position[:, None] * rate
        self.register_buffer("pe", torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[None])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]]


class MotionEncoder(nn.Module):
    """15 fps motion (B, n, 825) -> low (B, n, width) and contextual high (B, n, width)."""

    def __init__(self, config: AuMoCLIPConfig) -> None:
        super().__init__()
        self.feature_extractor = ConvStack(config.motion_channels, config.width, config.low_blocks)
        self.encoder_cnn = ConvStack(config.width + config.motion_channels, config.width, config.high_blocks)
        self.pos_encoding = Positions(config)
        layer = nn.TransformerEncoderLayer(config.width, config.heads, config.hidden, batch_first=True)
        self.encoder_trans = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, motion: Tensor) -> tuple[Tensor, Tensor]:
        low = self.feature_extractor(motion)
        high = self.encoder_cnn(torch.cat([low.detach(), motion], -1))
        return low, self.encoder_trans(self.pos_encoding(high))


class MotionTower(nn.Module):
    """30 fps motion (B, T, 825), T at most max_frames -> low (B, T, W), high (B, T, W), cls (B, W), weighted high."""

    def __init__(self, config: AuMoCLIPConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden
        self.motion_encoder_fintune = MotionEncoder(config)
        self.motion_low_mapping = Mapping(width, hidden, width)
        self.motion_high_mapping = Mapping(width, hidden, width)
        self.motion_sa = SummaryAttention(width, config.heads)

    def forward(self, motion: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        n_frames = motion.shape[1]
        low, high = self.motion_encoder_fintune(motion[:, ::2])
        attended, weighted = self.motion_sa(self.motion_high_mapping(high))
        low = self.motion_low_mapping(low)
        twice = 2 * low.shape[1]
        low, attended, weighted = (resample(x, twice)[:, :n_frames] for x in (low, attended, weighted))
        return low, attended, attended[:, 0], weighted


class AudioTower(nn.Module):
    """Features of the speech and text encoders at 50 Hz -> low (B, T, W), high (B, T, W), cls (B, W), weighted high.

    raw_low (B, n, 512) and ft_low are outputs of the frozen and the fine-tuned convolutions, raw_high (B, n, 768) and
    ft_high (B, n, 512) of the layers above, text (B, n, 768) the text encoder's hidden state of what is said then.
    T = 0.6 n rounded down, then up to an even number. ft_* may be a frame or two short: their last frames are repeated.
    """

    def __init__(self, config: AuMoCLIPConfig) -> None:
        super().__init__()
        width, hidden, down = config.width, config.hidden, config.cnn_channels
        self.audio_low_mapping = Mapping(2 * down, hidden, width)
        self.audio_high_mapping = Mapping(3 * down, hidden, width)
        self.audio_down_proj_2 = nn.Linear(config.encoder_channels, down)
        self.audio_down_proj_3 = nn.Linear(config.encoder_channels, down)
        self.audio_sa = SummaryAttention(width, config.heads)

    def forward(
        self, raw_low: Tensor, ft_low: Tensor, raw_high: Tensor, ft_high: Tensor, text: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        n_steps = raw_low.shape[1]
        low = torch.cat([raw_low, _append_tail(ft_low, n_steps)], -1)
        high = torch.cat([self.audio_down_proj_2(raw_high), self.audio_down_proj_3(text)], -1)
        high = torch.cat([_append_tail(ft_high, n_steps), high], -1)

        # 50 Hz to 30 and 15, in integers; an odd number of frames ends with its last frame twice
        n_low = n_steps * 3 // 5
        n_high = (n_low + 1) // 2
        low = _repeat_last(resample(low, n_low), 2 * n_high)
        high = _repeat_last(resample(high, n_steps * 3 // 10), n_high)

        low = self.audio_low_mapping(low)
        attended, weighted = self.audio_sa(self.audio_high_mapping(high))
        attended, weighted = (resample(x, 2 * n_high) for x in (attended, weighted))
        return low, attended, attended[:, 0], weighted
