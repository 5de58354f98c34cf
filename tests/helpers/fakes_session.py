"""Networks without training: a function that satisfies Session, and bundles of tiny ONNX files."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from engine.inference.manifest import MANIFEST, Bundle, GraphSpec, TensorSpec, bundle_sha256, file_spec
from engine.inference.session import check_inputs

LINEAR = GraphSpec(
    name="linear",
    file="linear.onnx",
    inputs=(TensorSpec("rows", "float32", ("batch", "frames", 4)), TensorSpec("offset", "float32", ("batch", 2))),
    outputs=(TensorSpec("low", "float32", ("batch", "frames", 2)), TensorSpec("total", "float32", ("batch", 2))),
    parity={},
)
WEIGHT = np.arange(8, dtype=np.float32).reshape(4, 2) / 8


class FunctionSession:
    """Runs a function in place of a network; satisfies engine.inference.session.Session."""

    def __init__(self, function: Callable[..., tuple[np.ndarray, ...]], spec: GraphSpec) -> None:
        self.spec = spec
        self._function: Callable[..., tuple[np.ndarray, ...]] | None = function

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._function is None:
            raise ValueError(f"the session of network {self.spec.name} is closed")
        check_inputs(self.spec, inputs)
        outputs = self._function(*(inputs[tensor.name] for tensor in self.spec.inputs))
        return {tensor.name: array for tensor, array in zip(self.spec.outputs, outputs, strict=True)}

    def close(self) -> None:
        self._function = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def linear(rows: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the network LINEAR computes."""
    low = rows @ WEIGHT + offset[:, None]
    return low, low.sum(axis=1)


def linear_onnx() -> bytes:
    """LINEAR as an ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    one, axis = (numpy_helper.from_array(np.array([1], np.int64), name) for name in ("one", "axis"))
    nodes = [
        helper.make_node("MatMul", ["rows", "weight"], ["product"]),
        helper.make_node("Unsqueeze", ["offset", "one"], ["wide"]),
        helper.make_node("Add", ["product", "wide"], ["sum"]),
        helper.make_node("Identity", ["sum"], ["low"]),  # as exporters leave them: one tensor, two names
        helper.make_node("ReduceSum", ["sum", "axis"], ["total"], keepdims=0),
    ]
    values = [
        [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.shape) for t in tensors]
        for tensors in (LINEAR.inputs, LINEAR.outputs)
    ]
    graph = helper.make_graph(nodes, "linear", *values, [numpy_helper.from_array(WEIGHT, "weight"), one, axis])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def write_fake_bundle(
    folder: Path, files: Mapping[str, bytes], graphs: Mapping[str, GraphSpec], config: dict[str, Any] | None = None
) -> Bundle:
    """A bundle of given files; the manifest is what the writer in export would have written."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    specs = {name: file_spec(folder / name) for name in files}
    named = {name: replace(graph, name=name) for name, graph in graphs.items()}
    sha256 = bundle_sha256(specs, config or {})
    bundle = Bundle(folder, "fake", sha256, config or {}, named, specs, "made for tests", {"onnx": "1"})
    write_manifest(folder, bundle.to_dict())
    return Bundle.open(folder)


def write_manifest(folder: Path, fields: Any) -> None:
    (folder / MANIFEST).write_text(json.dumps(fields), "utf-8")
