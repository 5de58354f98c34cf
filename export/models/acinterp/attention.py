"""Spatial transformers: self-attention that also reads a reference, and cross-attention to a single token.

Rows are frames, batch-major: a clip's condition is held once and broadcast over its frames.
"""

from typing import NamedTuple

import torch
from diffusers.models.attention import FeedForward
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NORM_EPS", "Attention", "Condition", "SpatialTransformer", "TransformerBlock", "over_frames"]

NORM_EPS = 1e-6


class Condition(NamedTuple):
    """Inputs of a transformer other than the frames, float32 of batch b (1 or the number of clips).

    vector: (b, C), the result of cross-attention; None: that of a zero embedding. keys, values: (b, tokens, C), of the
    reference, after the transformer's own projections; None: self-attention alone.
    """

    vector: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None


def over_frames(clips: Tensor, rows: int) -> Tensor:
    """(b, ...) -> (rows, ...): repeat a clip's tensor for its frames; that of a single clip is left to broadcast."""
    n_clips = clips.shape[0]
    if n_clips == 1:
        return clips
    return clips[:, None].expand(-1, rows // n_clips, *clips.shape[1:]).flatten(0, 1)


class Attention(nn.Module):
    """Multi-head attention; only the output projection has a bias."""

    def __init__(self, channels: int, heads: int, context_channels: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_channels or channels, channels, bias=False)
        self.to_v = nn.Linear(context_channels or channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, tokens: Tensor, keys: Tensor | None = None, values: Tensor | None = None) -> Tensor:
        """(n, t, C) -> (n, t, C); further keys and values (n or 1, t', C) are appended to the tokens' own."""
        own_keys, own_values = self.to_k(tokens), self.to_v(tokens)
        if keys is not None and values is not None:
            rows = tokens.shape[0]
            own_keys = torch.cat([own_keys, keys.expand(rows, -1, -1)], 1)
            own_values = torch.cat([own_values, values.expand(rows, -1, -1)], 1)
        result = _attend(self._heads(self.to_q(tokens)), self._heads(own_keys), self._heads(own_values))
        return self._output(result.transpose(1, 2).flatten(2))

    def of_one(self, token: Tensor | None) -> Tensor:
        """(b, 1, E) -> (b, C): with a single token, every query gets the same (SPEC section 5); None: a zero token."""
        return self._output.bias[None] if token is None else self._output(self.to_v(token[:, 0]))

    def _heads(self, tokens: Tensor) -> Tensor:
        rows, n_tokens, channels = tokens.shape
        return tokens.view(rows, n_tokens, self.heads, channels // self.heads).transpose(1, 2)

    @property
    def _output(self) -> nn.Linear:
        projection = self.to_out[0]
        assert isinstance(projection, nn.Linear)
        return projection


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """(n, heads, t, d) each -> the queries' results."""
    if torch.compiler.is_exporting():
        # written out: the exporter's own form splits the keys by shape arithmetic, which compilers do not fuse
        weights = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(2, 3)
        return weights.softmax(-1) @ values
    return functional.scaled_dot_product_attention(queries, keys, values)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention as a vector, feed-forward, each with a residual.

    norm2 and the cross-attention's query and key projections have no effect with a single token; they exist because
    checkpoints are loaded strictly.
    """

    def __init__(self, channels: int, heads: int, embedding_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads, embedding_channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, activation_fn="geglu")

    def forward(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """(n, t, C) -> (n, t, C), and the normalised input of self-attention, which is what a bank stores."""
        normalised = self.norm1(tokens)
        read = [None if part is None else over_frames(part, tokens.shape[0]) for part in condition[1:]]
        tokens = tokens + self.attn1(normalised, *read)
        vector = self.attn2.of_one(None) if condition.vector is None else condition.vector
        tokens = tokens + over_frames(vector[:, None], tokens.shape[0])
        return tokens + self.ff(self.norm3(tokens)), normalised


class SpatialTransformer(nn.Module):
    """One transformer block over the pixels of each frame."""

    def __init__(self, channels: int, heads: int, norm_groups: int, embedding_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, channels, eps=NORM_EPS)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, heads, embedding_channels)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """(n, C, h, w) -> (n, C, h, w), and what a bank stores (n, h * w, C)."""
        height, width = features.shape[2:]
        tokens = self.proj_in(self.norm(features)).flatten(2).transpose(1, 2)
        tokens, stored = self.transformer_blocks[0](tokens, condition)
        rows, _, channels = tokens.shape
        result = tokens.transpose(1, 2).reshape(rows, channels, height, width)
        return features + self.proj_out(result), stored
