"""torch -> ONNX: the dynamo exporter, axes that may change named explicitly, equal weights give equal bytes."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn

from engine.errors import BackendError
from engine.manifest import GraphSpec, TensorSpec

__all__ = ["OPSET", "Graph", "export_graph"]

OPSET = 20
MOST_BYTES = (1 << 31) - (1 << 20)  # a protobuf file ends at 2 GiB, and the graph itself needs some


@dataclass(frozen=True)
class Graph:
    """One ONNX file to be.

    `module(*inputs in order)` gives a tuple of tensors in the order of `outputs`. `dynamic` names the axes that may
    change, input -> axis -> symbol: {"rows": {0: "batch", 1: "frames"}}. `trials` are inputs of at least three shapes,
    on which the exported network is compared with the module.
    """

    name: str
    module: nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, str]]
    trials: tuple[dict[str, torch.Tensor], ...]


def export_graph(graph: Graph, path: Path) -> GraphSpec:
    """Write one self-contained ONNX file, checked by onnx with full shape inference.

    The module is switched to evaluation. Raises BackendError where it cannot be exported with the axes of `dynamic`.
    """
    n_bytes = sum(t.numel() * t.element_size() for t in (*graph.module.parameters(), *graph.module.buffers()))
    if n_bytes > MOST_BYTES:
        raise BackendError(
            f"graph {graph.name} has {n_bytes / (1 << 30):.1f} GiB of weights, one ONNX file takes at most 2: split it"
        )
    model = _exported(graph)
    _strip(model.graph)
    model.ClearField("metadata_props")
    spec = GraphSpec(graph.name, path.name, _tensors(model.graph.input), _tensors(model.graph.output), {})
    _check_dynamic(graph, spec)
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path), full_check=True)
    return spec


def _exported(graph: Graph) -> onnx.ModelProto:
    graph.module.eval()
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph.module,
                tuple(graph.inputs.values()),
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                # names become Dim.DYNAMIC; a named Dim is fixed without a word where the example has size 1
                dynamic_shapes=tuple(graph.dynamic.get(name, {}) for name in graph.inputs),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:500]
        raise BackendError(f"graph {graph.name} cannot be exported to ONNX: {reason}") from error
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about packages that it could use but does not need."""
    chatter = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            # two inputs that share an axis; what the axes are called in the end is checked
            warnings.filterwarnings("ignore", "# The axis name: .* will not be used", UserWarning)
            yield
    finally:
        chatter.setLevel(level)


def _strip(graph: onnx.GraphProto) -> None:
    """Take out stack traces and source paths: they tell about the machine, and bytes would differ for equal weights."""
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _strip(inner)


def _tensors(values: "list[onnx.ValueInfoProto]") -> tuple[TensorSpec, ...]:
    """Inputs or outputs as the manifest has them; a size that nobody named is "?" and its place."""
    specs = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(
            size.dim_value if size.HasField("dim_value") else size.dim_param or f"?{axis}"
            for axis, size in enumerate(tensor.shape.dim)
        )
        specs.append(TensorSpec(value.name, str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape))
    return tuple(specs)


def _check_dynamic(graph: Graph, spec: GraphSpec) -> None:
    if [tensor.name for tensor in spec.inputs] != list(graph.inputs):
        unused = sorted(set(graph.inputs) - {tensor.name for tensor in spec.inputs})
        raise BackendError(f"graph {graph.name} makes no use of its inputs {', '.join(unused)}")
    for tensor in spec.inputs:
        for axis, symbol in graph.dynamic.get(tensor.name, {}).items():
            if tensor.shape[axis] != symbol:
                raise BackendError(
                    f"graph {graph.name} fixes axis {axis} of {tensor.name} at {tensor.shape[axis]}, wanted {symbol}"
                )
