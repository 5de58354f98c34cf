"""Which operators of a network are computed in fp16 or bf16, and which keep float32.

The policy is applied when a network is compiled (export.precision): types are then fixed in the graph, and no library
option decides any precision. It is defined here so that the run time can tell whether an engine was compiled under the
present policy.
"""

import hashlib
import json
from collections.abc import Mapping

from engine.inference.manifest import GraphSpec
from engine.inference.target import Precision

__all__ = [
    "FLOWING_OPS",
    "LOW_OPS",
    "MAX_CONSTANT",
    "MIN_SCALAR",
    "POLICY_VERSION",
    "SINUSOIDS",
    "TYPE_BLIND_OPS",
    "describe",
    "policy_digest",
]

POLICY_VERSION = 1  # raise it when export.precision interprets the lists below differently

LOW_OPS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")
"""Sums of products, which take nearly all the time: computed in the low type, with float32 accumulators."""

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
"""Elementwise and data movement operators: computed in the type of their inputs, so that they need no casts.

If the types differ, float32 wins. Operators in neither list keep float32: normalisations, softmax, sums and means over
an axis, roots, powers, exponentials, logarithms, sinusoids.
"""

TYPE_BLIND_OPS = ("Cast", "Shape", "Size")
"""Accept either type; their output does not depend on it."""

SINUSOIDS = ("Cos", "Sin")
"""Products that compute their angles keep float32 too: bf16 cannot resolve the sine of an angle of 100."""

MAX_CONSTANT: Mapping[Precision, float] = {"fp16": 65504.0, "bf16": 255 / 128 * 2.0**127}
"""A finite constant above it, as in masks, keeps its operator in float32."""

MIN_SCALAR: Mapping[Precision, float] = {"fp16": 2.0**-14, "bf16": 2.0**-126}
"""So does a scalar below it, such as an epsilon: the type has fewer digits there, or none."""

_RULES = (  # part of the digest: a new wording makes every engine stale
    "convolutions over one axis with a stride, which read sound, keep float32",
    "cubic and linear resizing keeps float32",
    "tables of weights are looked up in the low type",
)


def policy_digest(spec: GraphSpec, precision: Precision) -> str:
    """sha256 in hex of everything that determines the types in a network; constant for float32 networks."""
    policy: list[object] = ["fp32"]
    if precision != "fp32" and not spec.keep_fp32:
        lists = [sorted(ops) for ops in (LOW_OPS, FLOWING_OPS, TYPE_BLIND_OPS, SINUSOIDS)]
        policy = [precision, POLICY_VERSION, *lists, MAX_CONSTANT[precision], MIN_SCALAR[precision], *_RULES]
    return hashlib.sha256(json.dumps(policy).encode()).hexdigest()


def describe(spec: GraphSpec, precision: Precision) -> str:
    """The policy of a network in words."""
    if precision == "fp32":
        return "float32 throughout"
    if spec.keep_fp32:
        return f"float32 throughout: this network is never computed in {precision}"
    return (
        f"{', '.join(LOW_OPS)} in {precision}; elementwise and data movement operators in the type of their inputs; "
        f"all other operators in float32, as are inputs and outputs; {'; '.join(_RULES)}"
    )
