"""Work for compilers: a small network, a job to compile it, and one that is interrupted."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.inference.backends import BACKENDS
from engine.inference.engines import current_key
from engine.inference.manifest import GraphSpec, Profile, TensorSpec
from engine.inference.target import Precision, Target
from export.compilers import CompileJob, compile_network
from tests.helpers.fakes_session import write_fake_bundle

PROFILE: Profile = {"batch": (1, 1, 2), "frames": (4, 8, 32)}
SPEC = GraphSpec(
    name="net",
    file="net.onnx",
    inputs=(TensorSpec("x", "float32", ("batch", 8, "frames")),),
    outputs=(TensorSpec("y", "float32", ("batch", "frames", 8)),),
    parity={},
    profiles={"usual": PROFILE},
)
BODY = """
    c = Conv <pads = [1, 1]> (x, kernel)
    rows = Transpose <perm = [0, 2, 1]> (c)
    n = LayerNormalization (rows, scale)
    t = Transpose <perm = [0, 2, 1]> (n)
    s = MatMul (n, t)
    weights = Softmax (s)
    y = MatMul (weights, n)
"""


def network(body: str = BODY) -> bytes:
    head = '<ir_version: 10, opset_import: ["": 20]> net (float[batch, 8, frames] x) => (float[batch, frames, 8] y)'
    model = onnx.parser.parse_model(f"{head} {{ {body} }}")
    kernel = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)
    for name, array in {"kernel": kernel, "scale": np.ones(8, np.float32)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return bytes(model.SerializeToString())


def job(
    folder: Path,
    backend: str,
    precision: Precision = "fp32",
    content: bytes | None = None,
    spec: GraphSpec = SPEC,
    tell: Callable[[str], None] = lambda _: None,
) -> CompileJob:
    missing = BACKENDS[backend].why_not_buildable()
    if missing is not None:
        pytest.skip(missing)
    bundle = write_fake_bundle(
        folder / "bundle", {"net.onnx": network() if content is None else content}, {"net": spec}
    )
    (folder / "work").mkdir()
    key = current_key(bundle, "net", Target(backend, precision, next(iter(spec.profiles), "")))
    return CompileJob(bundle.model("net"), bundle.graph("net"), key, folder / "work", None, tell)


def end_a_build(folder: Path, interrupt: Callable[[], None]) -> None:
    interrupted = job(folder, "tensorrt-rtx", tell=lambda step: interrupt() if "optimizing" in step else None)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        compile_network(interrupted)
    assert list(interrupted.folder.iterdir()) == [] and signal.getsignal(signal.SIGINT) is before
