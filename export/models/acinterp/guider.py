"""Pose guider and background guider: images to features at the size of the latents (SPEC sections 5 and 9)."""

from torch import Tensor, nn
from torch.nn import functional

from export.models.acinterp.config import GuiderConfig

__all__ = ["Guider"]


class Guider(nn.Module):
    """Each frame by itself: pose images in 0..1, or offset flow divided by the longer side, channels (x, y)."""

    def __init__(self, config: GuiderConfig) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(config.in_channels, config.channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in zip(config.channels, config.channels[1:], strict=False):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(config.channels[-1], config.out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """float32 (frames, channels, H, W) -> (frames, C, H / 8, W / 8)."""
        features = functional.silu(self.conv_in(images))
        for block in self.blocks:
            features = functional.silu(block(features))
        return self.conv_out(features)
