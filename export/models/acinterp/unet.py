"""Reference network and denoiser: one UNet, written without hooks; the output of the first is input of the second.

SPEC sections 3 and 4. Conditions come in bank order: the transformers on the way down, on the way up, the middle one.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn
from torch.nn import functional

from export.models.acinterp.attention import Condition, TransformerBlock, over_frames
from export.models.acinterp.blocks import DownBlock, Level, MidBlock, UpBlock
from export.models.acinterp.config import UNetConfig, block_names

__all__ = ["Denoiser", "ReferenceNetwork"]


class UNet(nn.Module):
    """Everything up to the last level; only the denoiser has more after it."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_in = nn.Conv2d(config.latent_channels, config.channels[0], 3, padding=1)
        self.time_proj = Timesteps(config.channels[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(config.channels[0], config.time_channels)
        self.down_blocks = nn.ModuleList([DownBlock(config, level) for level in config.levels])
        self.mid_block = MidBlock(config)
        self.up_blocks = nn.ModuleList([UpBlock(config, level) for level in reversed(config.levels)])

    def vectors(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """The cross-attentions' results for image embeddings (b, 1, E): (b, C) each, in bank order."""
        return tuple(block.attn2.of_one(embedding) for block in self.blocks())

    def blocks(self) -> Iterator[TransformerBlock]:
        """In bank order."""
        for name in block_names(self.config):
            block = self.get_submodule(name)
            assert isinstance(block, TransformerBlock)
            yield block

    def embedded(self, timestep: Tensor) -> Tensor:
        """() or (b,) -> (1 or b, time channels); the sinusoid is float32 whatever the network's type."""
        return self.time_embedding(self.time_proj(timestep.reshape(-1)).to(self.conv_in.weight.dtype))

    def levels(
        self, features: Tensor, time: Tensor, conditions: Sequence[Condition], frames: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Features after the first convolution (n, C, h, w) -> those of the last level, and the bank."""
        share = _by_block(conditions, (*self.down_blocks, *self.up_blocks, self.mid_block))
        odd = self._is_odd(features)
        skips, down_bank, up_bank = [features], [], []
        for block in self.down_blocks:
            features, new_skips, stored = block(features, time, share[block], frames)
            skips += new_skips
            down_bank += stored
        features, mid_bank = self.mid_block(features, time, share[self.mid_block], frames)
        for block in self.up_blocks:
            n_skips = self.config.layers + 1
            own, skips = skips[-n_skips:], skips[:-n_skips]
            size = skips[-1].shape[2:] if odd and skips else None
            features, stored = block(features, own, time, share[block], frames, size)
            up_bank += stored
        return features, [*down_bank, *up_bank, *mid_bank]

    def _is_odd(self, features: Tensor) -> bool:
        """Whether doubling misses the skips' sizes. Exported graphs take multiples only: no arithmetic on shapes."""
        return not torch.compiler.is_exporting() and any(size % self.config.multiple for size in features.shape[2:])


class ReferenceNetwork(UNet):
    """The output of every transformer's first layer norm for a reference image, at timestep 0.

    It has no other output; layers after the last bank tensor have no effect, but are in the checkpoints.
    """

    def forward(self, latents: Tensor, embedding: Tensor) -> tuple[Tensor, ...]:
        """float32 latents (b, 4, h, w), embedding (b, 1, E) -> bank tensors (b, tokens, C) in bank order."""
        time = self.embedded(torch.zeros(1, dtype=torch.int64, device=latents.device))
        conditions = [Condition(vector) for vector in self.vectors(embedding)]
        _, bank = self.levels(self.conv_in(latents), time, conditions, frames=1)
        return tuple(bank)


class Denoiser(UNet):
    """v of a clip's latents, with motion modules if the config has them."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.conv_norm_out = nn.GroupNorm(config.norm_groups, config.channels[0], eps=config.norm_eps)
        self.conv_out = nn.Conv2d(config.channels[0], config.out_channels, 3, padding=1)

    def keys_values(self, bank: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Bank tensors (b, tokens, C) -> (k0, v0, k1, v1, ...), as this network's self-attentions project them."""
        pairs = zip(self.blocks(), bank, strict=True)
        return tuple(project(stored) for block, stored in pairs for project in (block.attn1.to_k, block.attn1.to_v))

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        features: Tensor | None,
        vectors: Sequence[Tensor] | None,
        keys_values: Sequence[Tensor] | None,
        frames: int,
    ) -> Tensor:
        """One call of the denoiser.

        Args:
            latents: float32 (b * frames, 4, h, w), frames folded batch-major.
            timestep: int64, () for all clips or (b,).
            features: of the guiders, (b * frames, C, h, w); None: none.
            vectors: what `vectors` gives, of batch 1 or b; None: those of a zero embedding.
            keys_values: what `keys_values` gives, of batch 1 or b; None: self-attention without reference.
            frames: of each clip, at most the motion modules' table.

        Returns:
            v, (b * frames, 4, h, w).
        """
        if self.config.motion is not None and not 0 < frames <= self.config.motion.max_frames:
            raise ValueError(f"{frames} frames in a window, wanted 1 to {self.config.motion.max_frames}")
        time = over_frames(self.embedded(timestep), latents.shape[0])
        hidden = self.conv_in(latents)
        if features is not None:
            hidden = hidden + features
        hidden, _ = self.levels(hidden, time, self._conditions(vectors, keys_values), frames)
        return self.conv_out(functional.silu(self.conv_norm_out(hidden)))

    def _conditions(self, vectors: Sequence[Tensor] | None, keys_values: Sequence[Tensor] | None) -> list[Condition]:
        n_blocks = len(block_names(self.config))
        none = [None] * n_blocks
        keys, values = (keys_values[::2], keys_values[1::2]) if keys_values is not None else (none, none)
        parts = zip(none if vectors is None else vectors, keys, values, strict=True)
        conditions = [Condition(*part) for part in parts]
        assert len(conditions) == n_blocks, f"{len(conditions)} conditions for {n_blocks} transformers"
        return conditions


def _by_block(conditions: Sequence[Condition], blocks: Sequence[nn.Module]) -> dict[nn.Module, list[Condition]]:
    """Each block's share, one for every transformer that it has."""
    rest = iter(conditions)
    return {block: list(islice(rest, len(block.attentions))) for block in blocks if isinstance(block, Level)}
