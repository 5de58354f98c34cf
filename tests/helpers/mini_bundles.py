"""Bundles for retrieval by `mini`, of networks that multiply."""

import json
from pathlib import Path

import numpy as np

from engine.features.body import BODY_COLUMNS
from engine.features.mini import AUDIO_GRAPH, MOTION_GRAPH, mini_config
from engine.features.speech import N_COLUMNS
from engine.inference.manifest import MANIFEST, GraphSpec, TensorSpec
from tests.helpers.fakes_session import write_fake_bundle, write_manifest


def _product(columns: int, widths: tuple[int, int], factor: float) -> bytes:
    """A network with two matrices, ONNX."""
    from onnx import TensorProto, helper, numpy_helper

    source = {N_COLUMNS: "rows", len(BODY_COLUMNS): "descriptors"}[columns]
    nodes, weights, outputs = [], [], []
    for name, width in zip(("low", "high"), widths, strict=True):
        weight = np.random.default_rng(width).normal(0, factor, (columns, width)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"{name}_weight"))
        nodes.append(helper.make_node("MatMul", [source, f"{name}_weight"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", "frames", width)))
    taken = [helper.make_tensor_value_info(source, TensorProto.FLOAT, ("batch", "frames", columns))]
    graph = helper.make_graph(nodes, "product", taken, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def mini_bundle(folder: Path, factor: float = 0.1, verified: bool = True) -> Path:
    """A bundle for retrieval by `mini`, of networks that multiply."""
    parity = {"onnxruntime": {"reached": {}}} if verified else {}
    graphs, files = {}, {}
    for graph, source, columns in ((AUDIO_GRAPH, "rows", N_COLUMNS), (MOTION_GRAPH, "descriptors", len(BODY_COLUMNS))):
        files[f"{graph}.onnx"] = _product(columns, (3, 2), factor)
        graphs[graph] = GraphSpec(
            name=graph,
            file=f"{graph}.onnx",
            inputs=(TensorSpec(source, "float32", ("batch", "frames", columns)),),
            outputs=tuple(
                TensorSpec(name, "float32", ("batch", "frames", width)) for name, width in (("low", 3), ("high", 2))
            ),
            parity=parity,
        )
    write_fake_bundle(folder, files, graphs, mini_config(False, 3, 2, 4, 4))
    write_manifest(folder, {**json.loads((folder / MANIFEST).read_text()), "name": "mini"})
    return folder
