"""Weights generated from their names: a model of the published size without the published weights.

For tests against recorded outputs and for timings; the outputs of such a model are meaningless.
"""

import math
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

__all__ = ["RuleWeights"]

FROZEN, TRUNK = "audio_encoder.", "asr.wav2vec2."
CTC_BIAS = "asr.lm_head.bias"


class RuleWeights(Mapping[str, Tensor]):
    """Tensors by canonical name, generated on every access: 325 M numbers need no memory until they are used.

    A name's own generator (crc32 of the name, xor the seed) fills it uniformly around a centre: norms and weight-norm
    gains around 1, everything else around 0, within sqrt(3 / fan-in), or sqrt(6 / fan-in) in the speech encoders'
    convolutions. The recogniser's bias is set so that texts come out.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], seed: int, fixed: Mapping[str, Tensor], one_trunk: bool
    ) -> None:
        """`fixed`: tensors that are not weights, such as tables; they are passed through.

        With `one_trunk` the frozen encoder gets the tensors of the recogniser's trunk.
        """
        self._shapes = shapes
        self._seed = seed
        self._fixed = fixed
        self._one_trunk = one_trunk

    def __getitem__(self, name: str) -> Tensor:
        if name in self._fixed:
            return self._fixed[name]
        if self._one_trunk and name.startswith(FROZEN):
            name = TRUNK + name.removeprefix(FROZEN)
        shape = self._shapes[name]
        generator = np.random.RandomState(zlib.crc32(name.encode()) ^ self._seed)
        centre, reach = _range(name, shape)
        uniform = generator.random_sample(shape)
        tensor = torch.from_numpy(np.asarray(centre + reach * (2 * uniform - 1), np.float32))
        if name == CTC_BIAS:
            tensor[1:4], tensor[0], tensor[4] = -50.0, 1.5, 0.5
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def _range(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Centre and half width of a tensor's values."""
    if name.endswith("weight_g"):
        return 1.0, 0.1
    if len(shape) >= 2:
        return 0.0, math.sqrt((6 if ".conv_layers." in name else 3) / math.prod(shape[1:]))
    if len(shape) == 1:
        return (1.0, 0.1) if name.endswith("weight") else (0.0, 0.05)
    return 0.07, 0.0
