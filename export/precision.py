"""fp32 ONNX -> ONNX whose types say what is computed in fp16 or bf16; the policy is engine.inference.precision."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, defs, helper

from engine.errors import ArtifactError, BackendError
from engine.inference.manifest import GraphSpec
from engine.inference.precision import (
    FLOWING_OPS,
    LOW_OPS,
    MAX_CONSTANT,
    MIN_SCALAR,
    TYPE_BLIND_OPS,
)
from engine.inference.session import one_line
from engine.inference.target import Precision
from export.onnx_weights import Weights, WeightWriter
from export.precision_rules import angle_nodes, captured, reads_sound, resamples

__all__ = ["TypedModel", "typed_model"]

_LOW_TYPES: dict[Precision, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
BF16_OPSET = 22  # the first whose convolutions and poolings may be bfloat16; it brought nothing else to these operators
MAX_EMBEDDED_BYTES = 1 << 30  # more weights than that go to a file beside the network
MAX_SKELETON_BYTES = 1 << 10  # tensors that tell of shapes are smaller

# where a value is: computed in the low type; float32 because nobody asked for less yet; float32 to stay
_LOW, _WEAK, _STRONG = "low", "weak", "strong"


@dataclass(frozen=True)
class TypedModel:
    """What was written: the network, the file with its weights where they are large, and the counts of its nodes."""

    file: Path
    weights: Path | None
    n_low: int
    n_float32: int
    n_casts: int
    out_of_range: tuple[str, ...]  # operators kept in float32 by a constant that the low type cannot hold


def typed_model(source: Path, target: Path, precision: Precision, spec: GraphSpec) -> TypedModel:
    """Write a float32 network in fp16 or bf16 with float32 where engine.inference.precision wants it.

    Inputs and outputs stay as they are. Weights are converted one by one; those of networks over 2 GiB are read from
    and written to files beside them. Raises ArtifactError where `source` is no sane network, BackendError where it
    has an operator that no type can be given to; ValueError for a network or precision that stays float32.
    """
    if precision == "fp32" or spec.keep_fp32:
        raise ValueError(f"network {spec.name} is computed in fp32: nothing is to be written")
    with ExitStack() as stack:
        try:
            model = onnx.load(str(source), load_external_data=False)
            types = _types(model)
        except Exception as error:  # protobuf's own errors and onnx's have no common base
            raise ArtifactError(f"{source} is no network that onnx can read: {one_line(error)}") from error
        if not model.graph.output:
            raise ArtifactError(f"{source} is no network that onnx can read: it has no outputs")
        weights = Weights(model.graph, source.parent)
        beside = target.with_name(f"{target.name}.data") if weights.bytes > MAX_EMBEDDED_BYTES else None
        writer = WeightWriter(stack.enter_context(beside.open("wb")) if beside else None)
        opset = _opset(model, precision)
        rewriting = _Rewriting(spec, precision, opset, types, weights, writer)
        rewriting.run(model.graph)
        typed = _assembled(model, opset, rewriting, writer)
    target.write_bytes(typed.SerializeToString(deterministic=True))
    return TypedModel(
        target, beside, rewriting.n_low, rewriting.n_float32, rewriting.n_casts, tuple(rewriting.out_of_range)
    )


class _Rewriting:
    """One walk through the nodes. A value in float32 has its old name, in the low type one with the type behind."""

    def __init__(
        self,
        spec: GraphSpec,
        precision: Precision,
        opset: int,
        types: dict[str, int],
        weights: Weights,
        writer: WeightWriter,
    ) -> None:
        self.spec, self.precision, self.opset = spec, precision, opset
        self.types, self.weights, self.writer = types, weights, writer
        self.low, self.suffix = _LOW_TYPES[precision], f".{precision}"
        self.low_type = "tensor(float16)" if precision == "fp16" else "tensor(bfloat16)"
        self.nodes: list[onnx.NodeProto] = []
        self.out_of_range: list[str] = []
        self.n_low = self.n_float32 = self.n_casts = 0
        self._places: dict[str, str] = {}
        self._written: set[str] = set()  # names that exist in the new graph
        self._angles: set[str] = set()  # nodes, by their first output

    def run(self, graph: onnx.GraphProto) -> None:
        self._angles = angle_nodes(graph)
        for value in graph.input:
            if value.name not in self.weights.names:
                self._places[value.name] = _WEAK
                self._written.add(value.name)
        for node in graph.node:
            if node.op_type != "Constant" or node.output[0] not in self.weights.names:
                self._node(node)
        for value in graph.output:
            self._name(value.name, low=False)

    def _node(self, node: onnx.NodeProto) -> None:
        inner = captured(node, self.spec)
        if node.op_type == "Cast" and self._is_float(node.input[0]) and self._is_float(node.output[0]):
            node = helper.make_node("Identity", node.input, node.output, name=node.name)
        floats = [i for i, name in enumerate(node.input) if self._is_float(name)]
        makes = [name for name in node.output if self._is_float(name)]
        for name in (*node.input, *inner):
            if name and not self._is_float(name):
                self._name(name, low=False)
        if not floats and not inner:
            self._emit(node, None)
            self._places.update(dict.fromkeys(makes, _WEAK))
            return
        for name in inner:
            self._name(name, low=False)
        if node.op_type in TYPE_BLIND_OPS:
            self._emit(node, {i: self._places.get(node.input[i]) == _LOW for i in floats})
            return
        parameter = self._parameter(node, floats) if floats else None
        place = self._place(node, [node.input[i] for i in floats]) if parameter else _STRONG
        if place != _LOW:
            self.n_float32 += 1
            self._emit(node, dict.fromkeys(floats, False))
            self._places.update(dict.fromkeys(makes, place))
            return
        self.n_low += 1
        formals = list(_formals(self._schema(node).inputs, len(node.input)))
        self._emit(node, {i: formals[i] == parameter for i in floats}, self._low_outputs(node, parameter))

    def _place(self, node: onnx.NodeProto, inputs: list[str]) -> str:
        """Where the policy wants a node to be computed."""
        constants = [name for name in inputs if name in self.weights.names]
        places = {self._places[name] for name in inputs if name not in self.weights.names}
        if node.op_type in LOW_OPS:
            place = _STRONG if node.output[0] in self._angles or reads_sound(node) else _LOW
        elif node.op_type not in FLOWING_OPS or _STRONG in places or resamples(node):
            place = _STRONG
        elif node.op_type == "Gather" and not places:
            place = _LOW
        else:
            place = _LOW if _LOW in places else _WEAK
        if place != _STRONG and not all(self._fits(name) for name in constants):
            self.out_of_range.append(node.op_type)
            return _STRONG
        return place

    def _fits(self, name: str) -> bool:
        """Whether the low type can hold a constant; it holds infinity."""
        array = self.weights.array(name)
        if array.size == 1 and 0 < abs(array.item()) < MIN_SCALAR[self.precision]:
            return False
        most = np.max(np.abs(array), where=np.isfinite(array), initial=0.0)
        return float(most) <= MAX_CONSTANT[self.precision]

    def _parameter(self, node: onnx.NodeProto, floats: list[int]) -> str | None:
        """Name of the type that the float32 inputs of a node share, if it may be the low one by ONNX."""
        schema = self._schema(node)
        parameter = list(_formals(schema.inputs, len(node.input)))[floats[0]]
        allowed = {t.type_param_str: t.allowed_type_strs for t in schema.type_constraints}
        return parameter if self.low_type in allowed.get(parameter, ()) else None

    def _low_outputs(self, node: onnx.NodeProto, parameter: str | None) -> set[str]:
        formals = _formals(self._schema(node).outputs, len(node.output))
        return {name for name, formal in zip(node.output, formals, strict=True) if formal == parameter}

    def _schema(self, node: onnx.NodeProto) -> defs.OpSchema:
        try:
            return defs.get_schema(node.op_type, self.opset, node.domain)
        except defs.SchemaError as error:
            name = ".".join(filter(None, (node.domain, node.op_type)))
            raise BackendError(
                f"network {self.spec.name}: operator {name} is not ONNX's own, no precision can be given to it"
            ) from error

    def _emit(self, node: onnx.NodeProto, as_low: dict[int, bool] | None, low_outputs: Iterable[str] = ()) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for i, low in (as_low or {}).items():
            copy.input[i] = self._name(node.input[i], low)
        for i, name in enumerate(node.output):
            if name in low_outputs and name:
                copy.output[i] = name + self.suffix
                self._places[name] = _LOW
        self._written.update(copy.output)
        self.nodes.append(copy)

    def _name(self, value: str, low: bool) -> str:
        """Name of a value in the type that is wanted; made at its first use, there is one cast of each at most."""
        wanted = value + self.suffix if low else value
        if not wanted or wanted in self._written:
            return wanted
        if value in self.weights.names:
            if self._is_float(value):
                dtype = helper.tensor_dtype_to_np_dtype(self.low) if low else np.dtype(np.float32)
                self.writer.write(wanted, self.weights.array(value).astype(dtype))
            else:
                self.writer.copy(self.weights, value)
        elif self._is_float(value):
            to = self.low if low else TensorProto.FLOAT
            origin = value if low else value + self.suffix
            self.nodes.append(helper.make_node("Cast", [origin], [wanted], name=f"{wanted}.cast", to=to))
            self.n_casts += 1
        self._written.add(wanted)
        return wanted

    def _is_float(self, name: str) -> bool:
        return bool(name) and self.types.get(name) == TensorProto.FLOAT


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of all values; shape inference runs without the weights, which would be copied."""
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(graph, field).extend(getattr(model.graph, field))
    known = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL and tensor.ByteSize() <= MAX_SKELETON_BYTES:
            graph.initializer.append(tensor)
        elif tensor.name not in known:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    inferred = onnx.shape_inference.infer_shapes(skeleton).graph
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def _opset(model: onnx.ModelProto, precision: Precision) -> int:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    return max(opset, BF16_OPSET) if precision == "bf16" else opset


def _assembled(model: onnx.ModelProto, opset: int, rewriting: _Rewriting, writer: WeightWriter) -> onnx.ModelProto:
    typed = onnx.ModelProto(ir_version=max(model.ir_version, 10), producer_name=model.producer_name)
    typed.opset_import.extend(entry for entry in model.opset_import if entry.domain not in ("", "ai.onnx"))
    typed.opset_import.append(helper.make_opsetid("", opset))
    typed.graph.name = model.graph.name
    typed.graph.input.extend(value for value in model.graph.input if value.name not in rewriting.weights.names)
    typed.graph.output.extend(model.graph.output)
    typed.graph.node.extend(rewriting.nodes)
    typed.graph.initializer.extend(writer.tensors)
    return typed


def _formals(parameters: Iterable[defs.OpSchema.FormalParameter], count: int) -> Iterator[str]:
    """Type parameter of each of `count` inputs or outputs; the last formal one may stand for many."""
    names = [parameter.type_str for parameter in parameters]
    for i in range(count):
        yield names[min(i, len(names) - 1)]
