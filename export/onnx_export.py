"""torch -> ONNX: the dynamo exporter, dynamic axes named explicitly, equal weights give equal bytes."""

import gc
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import nn

from engine.errors import BackendError
from engine.inference.manifest import GraphSpec, Profile, TensorSpec
from export.shared_weights import SharedWeights

__all__ = ["OPSET", "Graph", "export_graph"]

OPSET = 20
MAX_BYTES = (1 << 31) - (1 << 20)  # the limit of a protobuf file is 2 GiB, and the graph itself needs some


@dataclass(frozen=True)
class Graph:
    """A network to be exported to an ONNX file.

    `module(*inputs in order)` gives a tuple of tensors in the order of `outputs`. `dynamic` names the axes that may
    change, input -> axis -> symbol: {"rows": {0: "batch", 1: "frames"}}. `trials` are inputs of at least three shapes,
    on which the exported network is compared with the module. `profiles` are the sizes that it may be compiled for, a
    bound for every symbol of the inputs. keep_fp32: it is never computed in fp16 or bf16. below: input -> its integers
    are less than this. share_weights: larger tensors lie in files of their own, which other networks may share.
    """

    name: str
    module: nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, str]]
    trials: tuple[dict[str, torch.Tensor], ...]
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    keep_fp32: bool = False
    below: Mapping[str, int] = field(default_factory=dict)
    share_weights: bool = False

    @property
    def weight_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.module.parameters(), *self.module.buffers()))


def export_graph(graph: Graph, path: Path, weights: SharedWeights | None = None) -> GraphSpec:
    """Write an ONNX file, checked by onnx with full shape inference; self-contained unless it shares weights.

    weights: those in the folder of `path`; None: a network that shares weights has none to share with. The module is
    switched to evaluation. Raises BackendError if it cannot be exported with the axes in `dynamic` or is too large for
    one file.
    """
    if graph.weight_bytes > MAX_BYTES and not graph.share_weights:
        raise BackendError(
            f"graph {graph.name} has {graph.weight_bytes / (1 << 30):.1f} GiB of weights, but an ONNX file holds at "
            "most 2: let it share weights"
        )
    exported = _exported(graph)
    files = (weights or SharedWeights(path.parent)).move_out(exported) if graph.share_weights else ()
    model = ir.to_proto(exported)
    _strip(model.graph)
    model.ClearField("metadata_props")
    spec = GraphSpec(
        name=graph.name,
        file=path.name,
        inputs=_tensors(model.graph.input, graph.below),
        outputs=_tensors(model.graph.output, {}),
        parity={},
        weights=files,
        profiles=graph.profiles,
        keep_fp32=graph.keep_fp32,
    )
    _check_dynamic(graph, spec)
    _check_profiles(spec)
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path), full_check=True)
    return spec


def _exported(graph: Graph) -> ir.Model:
    """The network with its weights still in torch's memory."""
    graph.module.eval()
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph.module,
                tuple(graph.inputs.values()),
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                # names become Dim.DYNAMIC; a named Dim is silently fixed if the example has size 1
                dynamic_shapes=_dynamic_shapes(graph),
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
    _rename_inner(program.model.graph)
    return program.model


def _rename_inner(graph: ir.Graph) -> None:
    """The exporter names values after their operators, and outputs as requested: a name may occur twice."""
    shown = (*graph.inputs, *graph.outputs)
    taken, known = {value.name for value in shown}, {id(value) for value in shown}
    for value in (*graph.initializers.values(), *(value for node in graph for value in node.outputs)):
        if value.name in taken and id(value) not in known:
            value.name = f"{value.name}.inner"


def _dynamic_shapes(graph: Graph) -> tuple[Any, ...]:
    """In the order of the module's arguments; variadic ones are one tuple."""
    shapes = [graph.dynamic.get(name, {}) for name in graph.inputs]
    kinds = [argument.kind for argument in inspect.signature(graph.module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    n_named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:n_named], tuple(shapes[n_named:]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's messages about optional packages, and a quarter faster.

    It makes millions of objects that live until it ends: garbage collection would find nothing.
    """
    collecting = gc.isenabled()
    gc.disable()
    chatter = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            # two inputs that share an axis; the final names of the axes are checked
            warnings.filterwarnings("ignore", "# The axis name: .* will not be used", UserWarning)
            yield
    finally:
        chatter.setLevel(level)
        if collecting:
            gc.enable()


def _strip(graph: onnx.GraphProto) -> None:
    """Remove stack traces and source paths: they expose the machine, and bytes would differ for equal weights."""
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


def _tensors(values: "list[onnx.ValueInfoProto]", below: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    """Inputs or outputs as in the manifest; an unnamed size is "?" and its position."""
    specs = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(
            size.dim_value if size.HasField("dim_value") else size.dim_param or f"?{axis}"
            for axis, size in enumerate(tensor.shape.dim)
        )
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        specs.append(TensorSpec(value.name, dtype, shape, below.get(value.name)))
    return tuple(specs)


def _check_dynamic(graph: Graph, spec: GraphSpec) -> None:
    if [tensor.name for tensor in spec.inputs] != list(graph.inputs):
        unused = sorted(set(graph.inputs) - {tensor.name for tensor in spec.inputs})
        raise BackendError(f"graph {graph.name} does not use its inputs {', '.join(unused)}")
    for tensor in spec.inputs:
        for axis, symbol in graph.dynamic.get(tensor.name, {}).items():
            if tensor.shape[axis] != symbol:
                raise BackendError(
                    f"graph {graph.name} fixes axis {axis} of {tensor.name} at {tensor.shape[axis]}, wanted {symbol}"
                )


def _check_profiles(spec: GraphSpec) -> None:
    symbols = {size for tensor in spec.inputs for size in tensor.shape if isinstance(size, str)}
    for name, profile in spec.profiles.items():
        if set(profile) != symbols:
            raise ValueError(f"profile {name} of graph {spec.name} bounds {sorted(profile)}, wanted {sorted(symbols)}")
