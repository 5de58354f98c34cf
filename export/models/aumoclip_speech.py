"""The speech side of AuMoCLIP: wav2vec 2.0 encoders (arXiv 2006.11477) as built by transformers, and their combination.

The release runs three of them on every waveform: a frozen encoder, a branch fine-tuned with the model, and a
recogniser whose text goes to the text encoder. Recogniser and frozen encoder start from the same public weights, so one
pass through the trunk serves both if the weights are still equal.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedConfig, Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Model
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder

from export.models.aumoclip import AuMoCLIPConfig

__all__ = ["FineTunedBranch", "SpeechNetwork", "TextNetwork", "prepare_for_export"]


class FineTunedBranch(nn.Module):
    """Convolutions and first encoder layer of the speech encoder, trained with the model, projected to 512 channels."""

    def __init__(self, config: AuMoCLIPConfig, speech: Wav2Vec2Config) -> None:
        super().__init__()
        one_layer = copy.deepcopy(speech)
        one_layer.num_hidden_layers = 1
        model = Wav2Vec2Model(one_layer)
        self.feature_extractor = model.feature_extractor
        self.feature_projection = model.feature_projection
        self.encoder = model.encoder
        self.proj_down = nn.Linear(speech.hidden_size, config.cnn_channels)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised waveform (B, samples) -> low (B, n, 512), high (B, n, 512) at 50 Hz."""
        low = self.feature_extractor(waveform).transpose(1, 2)
        # the high level never trains the convolutions
        hidden, _ = self.feature_projection(low.detach())
        return low, self.proj_down(self.encoder(hidden).last_hidden_state)


class SpeechNetwork(nn.Module):
    """Standardised waveform (B, samples) -> raw_low, raw_high, ft_low, ft_high, logits, all (B, n, channels) at 50 Hz.

    `frozen` None means that the recogniser's trunk is the frozen encoder and runs once for both.
    """

    def __init__(self, recogniser: Wav2Vec2ForCTC, branch: FineTunedBranch, frozen: Wav2Vec2Model | None) -> None:
        super().__init__()
        self.recogniser, self.branch, self.frozen = recogniser, branch, frozen

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        raw_low, raw_high = _trunk(self.recogniser.wav2vec2, waveform)
        logits = self.recogniser.lm_head(raw_high)
        if self.frozen is not None:
            raw_low, raw_high = _trunk(self.frozen, waveform)
        ft_low, ft_high = self.branch(waveform)
        return raw_low, raw_high, ft_low, ft_high, logits


def _trunk(model: Wav2Vec2Model, waveform: Tensor) -> tuple[Tensor, Tensor]:
    # not model.forward: its `extract_features` are already layer-normed, the embedding needs the plain convolutions
    low = model.feature_extractor(waveform).transpose(1, 2)
    hidden, _ = model.feature_projection(low)
    return low, model.encoder(hidden).last_hidden_state


class TextNetwork(nn.Module):
    """Token ids (B, tokens) of one text each, unpadded -> last hidden states (B, tokens, 768)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor) -> tuple[Tensor]:
        return (self.encoder(ids, attention_mask=torch.ones_like(ids)).last_hidden_state,)


def prepare_for_export(network: nn.Module) -> None:
    """Rearrange encoders in place so that run times compute the same result faster.

    Weight norm is folded in. Attention is written as two products without the guard against fully masked rows, which do
    not occur. Convolutions over time become convolutions over pictures of one row, because only for those do run times
    keep channels last throughout: in bf16 nearly half of the time went into transposing 28 MB for the only norm over
    time.
    """
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
        encoder = getattr(module, "feature_extractor", None)
        if isinstance(encoder, Wav2Vec2FeatureEncoder):
            module.feature_extractor = _RowEncoder(encoder)
        config = getattr(module, "config", None)
        if isinstance(config, PreTrainedConfig):
            config = copy.copy(config)  # others may be built from the same one
            config._attn_implementation = "eager"
            module.__dict__["config"] = config


class _RowEncoder(nn.Module):
    """Waveform (B, samples) -> (B, channels, n), as Wav2Vec2FeatureEncoder."""

    def __init__(self, encoder: Wav2Vec2FeatureEncoder) -> None:
        super().__init__()
        self.layers = nn.Sequential(*map(_RowLayer, encoder.conv_layers))

    def forward(self, waveform: Tensor) -> Tensor:
        return self.layers(waveform[:, None, None])[:, :, 0]


class _RowLayer(nn.Module):
    """Convolution, norm where there is one, activation: (B, channels, 1, T) -> (B, channels, 1, n)."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.convolution: nn.Conv1d = layer.conv
        self.norm: nn.Module | None = getattr(layer, "layer_norm", None)
        self.activation: nn.Module = layer.activation

    def forward(self, x: Tensor) -> Tensor:
        kernel, step = self.convolution.weight[:, :, None], self.convolution.stride[0]
        return self.activation(self._normalised(F.conv2d(x, kernel, self.convolution.bias, stride=(1, step))))

    def _normalised(self, x: Tensor) -> Tensor:
        norm = self.norm
        if norm is None:
            return x
        if isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels:
            x = x - x.mean((2, 3), keepdim=True)
            scale = torch.rsqrt(x.square().mean((2, 3), keepdim=True) + norm.eps) * norm.weight[:, None, None]
            return x * scale + norm.bias[:, None, None]
        return norm(x.transpose(1, 3)).transpose(1, 3)  # the layer norm of other speech encoders
