"""Which operators of a network are computed in fp16 or bf16, and which keep float32.

The policy is applied when a network is compiled (export.precision): types are then written in the graph, and no
switch of a library decides any precision. Here is what it says, so that the run time can tell whether an engine was
made under the policy of today.
"""

import hashlib
import json
from collections.abc import Mapping

from engine.inference.manifest import GraphSpec
from engine.inference.target import Precision

__all__ = [
    "FLOWING_OPS",
    "LOW_OPS",
    "MIN_SCALAR",
    "MOST",
    "POLICY_VERSION",
    "SINUSOIDS",
    "TYPE_BLIND_OPS",
    "describe",
    "policy_digest",
]

POLICY_VERSION = 1  # to be raised when export.precision reads the lists below in another way

LOW_OPS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")
"""Sums of products, where nearly all the time goes: computed in the low type, with its float32 accumulators."""

# fmt: off
FLOWING_OPS = (
    "Abs", "Add", "ArgMax", "ArgMin", "AveragePool", "Clip", "Concat", "DepthToSpace", "Div", "Elu", "Equal",
    "Erf", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Gelu", "Greater", "GreaterOrEqual",
    "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Max", "MaxPool", "Mean", "Min",
    "Mul", "Neg", "PRelu", "Pad", "ReduceMax", "ReduceMin", "Relu", "Reshape", "Resize", "ScatterElements",
    "ScatterND", "Selu", "Sigmoid", "Sign", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub", "Sum", "Tanh",
    "Tile", "TopK", "Transpose", "Unsqueeze", "Where",
)
# fmt: on
"""Elementwise steps and movements of data: in the type of what they are fed, so that they cost no cast.

Float32 wins where the types differ. All operators of neither list keep float32: normalisations, softmax, sums and
means over an axis, roots, powers, exponentials, logarithms, sinusoids.
"""

TYPE_BLIND_OPS = ("Cast", "Shape", "Size")
"""Take either type; what they give does not depend on it."""

SINUSOIDS = ("Cos", "Sin")
"""Products that give their angles keep float32, too: an angle of 100 has no sine in bf16."""

MOST: Mapping[Precision, float] = {"fp16": 65504.0, "bf16": 255 / 128 * 2.0**127}
"""A finite constant beyond it, as in masks, keeps its operator in float32."""

MIN_SCALAR: Mapping[Precision, float] = {"fp16": 2.0**-14, "bf16": 2.0**-126}
"""So does a single number below it, as an epsilon: the type has fewer digits there or none."""

_RULES = (
    "convolutions over one axis with a stride, which read sound, keep float32",
    "cubic and linear resizing keeps float32",
    "tables of weights are looked up in the low type",
)


def policy_digest(spec: GraphSpec, precision: Precision) -> str:
    """sha256 in hex of all that decides the types in a network; float32 networks have one that never changes."""
    policy: list[object] = ["fp32"]
    if precision != "fp32" and not spec.keep_fp32:
        lists = [sorted(ops) for ops in (LOW_OPS, FLOWING_OPS, TYPE_BLIND_OPS, SINUSOIDS)]
        policy = [precision, POLICY_VERSION, *lists, MOST[precision], MIN_SCALAR[precision], *_RULES]
    return hashlib.sha256(json.dumps(policy).encode()).hexdigest()


def describe(spec: GraphSpec, precision: Precision) -> str:
    """The policy of a network in words."""
    if precision == "fp32":
        return "float32 throughout"
    if spec.keep_fp32:
        return f"float32 throughout: this network is never computed in {precision}"
    return (
        f"{', '.join(LOW_OPS)} in {precision}; elementwise steps and movements of data in the type of what they are "
        f"fed; all other operators in float32, inputs and outputs too; {'; '.join(_RULES)}"
    )
