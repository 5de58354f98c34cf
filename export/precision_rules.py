"""Tests of single graph nodes for the precision policy: attributes, neighbourhood, subgraphs."""

import onnx

from engine.errors import BackendError
from engine.inference.manifest import GraphSpec
from engine.inference.precision import FLOWING_OPS, LOW_OPS, SINUSOIDS

__all__ = ["angle_nodes", "captured", "reads_sound", "resamples"]


def reads_sound(node: onnx.NodeProto) -> bool:
    """Whether it is a strided convolution over one axis: waveforms need more digits than the low types have."""
    strides = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "strides"), [])
    return node.op_type == "Conv" and len(strides) == 1 and strides[0] > 1


def resamples(node: onnx.NodeProto) -> bool:
    """Whether it resizes by interpolation, not just by copying."""
    mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"nearest")
    return node.op_type == "Resize" and mode != b"nearest"


def angle_nodes(graph: onnx.GraphProto) -> set[str]:
    """Products whose results reach a sine or cosine through elementwise operators only."""
    makers = {name: node for node in graph.node for name in node.output}
    open_names = [name for node in graph.node if node.op_type in SINUSOIDS for name in node.input]
    found, seen = set(), set(open_names)
    while open_names:
        node = makers.get(open_names.pop())
        if node is None:
            continue
        if node.op_type in LOW_OPS:
            found.add(node.output[0])
        elif node.op_type in FLOWING_OPS:
            fresh = set(node.input) - seen
            seen |= fresh
            open_names.extend(fresh)
    return found


def captured(node: onnx.NodeProto, spec: GraphSpec) -> list[str]:
    """Outer values used by the branches or the body of a node; these subgraphs stay float32."""
    bodies = [g for a in node.attribute for g in ([a.g] if a.HasField("g") else list(a.graphs))]
    names: list[str] = []
    for body in bodies:
        inner = {name for n in body.node for name in n.output} | {v.name for v in body.input}
        inner |= {tensor.name for tensor in body.initializer}
        for n in body.node:
            if n.op_type in LOW_OPS:
                raise BackendError(
                    f"network {spec.name}: {n.op_type} inside {node.op_type} would stay float32: export the network "
                    "without control flow, or compile it in fp32"
                )
            names += [name for name in (*n.input, *captured(n, spec)) if name and name not in inner]
        names += [value.name for value in body.output if value.name not in inner]
    return list(dict.fromkeys(names))
