"""fp32 networks rewritten in fp16 and bf16: what they compute, what keeps float32, and what cannot be rewritten."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from engine.errors import ArtifactError, BackendError  # noqa: E402
from engine.inference.backends.libraries import shared_core  # noqa: E402
from engine.inference.manifest import GraphSpec, TensorSpec  # noqa: E402
from engine.inference.target import Precision  # noqa: E402
from export import precision as module  # noqa: E402
from export.precision import TypedModel, typed_model  # noqa: E402

LOW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
TOLERANCE: dict[Precision, float] = {"fp16": 2e-3, "bf16": 2e-2}
SPEC = GraphSpec(
    name="net",
    file="net.onnx",
    inputs=(TensorSpec("x", "float32", ("batch", 8, "frames")),),
    outputs=(TensorSpec("y", "float32", ("batch", 8, "frames")),),
    parity={},
)
ATTENTION = """
<ir_version: 10, opset_import: ["": 20]>
net (float[batch, 8, frames] x) => (float[batch, 8, frames] y) {
    c = Conv <pads = [1, 1]> (x, kernel)
    g = Gelu (c)
    r = Add (c, g)
    rows = Transpose <perm = [0, 2, 1]> (r)
    n = LayerNormalization (rows, scale, bias)
    q = MatMul (n, wq)
    k = MatMul (n, wk)
    kt = Transpose <perm = [0, 2, 1]> (k)
    s = MatMul (q, kt)
    scores = Mul (s, root)
    weights = Softmax (scores)
    a = MatMul (weights, n)
    sum = Add (rows, a)
    y = Transpose <perm = [0, 2, 1]> (sum)
}
"""


def parse(text: str, **constants: Any) -> Any:
    model = onnx.parser.parse_model(text)
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(model, full_check=True)
    return model


def attention(rng: np.random.Generator) -> Any:
    def weight(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)

    kernel, wq, wk, ones = weight(8, 8, 3), weight(8, 8), weight(8, 8), np.ones(8, np.float32)
    root = np.float32(8**-0.5)
    return parse(ATTENTION, kernel=kernel, wq=wq, wk=wk, scale=ones, bias=weight(8), root=root)


def net(body: str, inputs: str = "float[n, 4] x", outputs: str = "float[n, 4] y", **constants: Any) -> Any:
    return parse(f'<ir_version: 10, opset_import: ["": 20]> net ({inputs}) => ({outputs}) {{ {body} }}', **constants)


def write(folder: Path, model: Any, precision: Precision = "fp16") -> tuple[TypedModel, Any]:
    """The rewritten file, found to be valid ONNX with the inputs and outputs of old."""
    source = folder / "net.onnx"
    if not source.exists():
        onnx.save(model, source)
    typed = typed_model(source, folder / f"{precision}.onnx", precision, SPEC)
    onnx.checker.check_model(str(typed.file), full_check=True)
    found = onnx.load(typed.file)
    for before, after in ((model.graph.input, found.graph.input), (model.graph.output, found.graph.output)):
        assert [(v.name, v.type.tensor_type.elem_type) for v in before] == [
            (v.name, v.type.tensor_type.elem_type) for v in after
        ]
    casts = {name for node in found.graph.node if node.op_type == "Cast" for name in node.output}
    assert not any(node.op_type == "Cast" and node.input[0] in casts for node in found.graph.node)
    assert typed.n_casts == sum(node.name.endswith(".cast") for node in found.graph.node)
    return typed, found


def types(model: Any) -> dict[str, set[int]]:
    """Operator -> types of its first outputs."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    found: dict[str, set[int]] = {}
    for node in graph.node:
        found.setdefault(node.op_type, set()).add(known[node.output[0]])
    return found


def run(model: Any, precision: Precision, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    if precision == "bf16":  # ONNX Runtime has hardly an operator for it on a CPU
        openvino = pytest.importorskip("openvino")
        network = shared_core().read_model(model.SerializeToString())
        found = openvino.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(feeds)
        return [np.array(found[value.name]) for value in model.graph.output]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_convolution_norm_and_attention(tmp_path: Path, rng: np.random.Generator, precision: Precision) -> None:
    model = attention(rng)
    typed, found = write(tmp_path, model, precision)
    low = LOW[precision]
    kinds = types(found)
    assert kinds["Conv"] == kinds["MatMul"] == kinds["Gelu"] == {low}
    assert kinds["LayerNormalization"] == kinds["Softmax"] == {TensorProto.FLOAT}
    # x, the residual up, the normed rows down, scores up, weights down, the output up
    assert typed.n_casts == 6
    assert (typed.n_low, typed.n_float32, typed.out_of_range) == (12, 2, ())
    stored = {tensor.name: tensor.data_type for tensor in found.graph.initializer}
    assert stored[f"kernel.{precision}"] == stored[f"wq.{precision}"] == low
    assert stored["scale"] == stored["bias"] == TensorProto.FLOAT and len(stored) == 6
    feeds = {"x": rng.normal(size=(2, 8, 11)).astype(np.float32)}
    (expected,), (got,) = run(model, "fp16", feeds), run(found, precision, feeds)
    assert got.dtype == np.float32
    assert 0 < np.abs(got - expected).max() < TOLERANCE[precision] * np.abs(expected).max()


STEPS = ["MatMul", "Softmax", "Mul", "Add", "Tanh", "LayerNormalization", "Transpose", "Sub", "ReduceMean"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_any_network_stays_what_it_was(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    values, lines = ["x", "w"], []
    for i, (op, left, right) in enumerate(steps):
        a, b = (values[place % len(values)] for place in (left, right))
        if op == "ReduceMean":
            lines.append(f"mean{i} = ReduceMean ({b}, axis)")
            op, b = "Sub", f"mean{i}"
        fed = {"Softmax": a, "Tanh": a, "Transpose": a, "LayerNormalization": f"{a}, ones"}
        lines.append(f"v{i} = {op} ({fed.get(op, f'{a}, {b}')})")
        values.append(f"v{i}")
    lines.append(f"y = Add (x, {values[-1]})")
    w = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)
    constants = {"w": w, "ones": np.ones(4, np.float32), "axis": np.array([1])}
    model = net("\n".join(lines), "float[4, 4] x", "float[4, 4] y", **constants)
    folder = tmp_path_factory.mktemp("net")
    _, found = write(folder, model)
    feeds = {"x": np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)}
    (expected,), (got,) = run(model, "fp16", feeds), run(found, "fp16", feeds)
    if np.abs(expected).max() < 100:  # products of products grow, and with them what is lost
        np.testing.assert_allclose(got, expected, atol=0.05 * max(1, np.abs(expected).max()))
    for kinds in (types(found).get(op, set()) for op in ("Softmax", "LayerNormalization", "ReduceMean")):
        assert kinds <= {TensorProto.FLOAT}
    assert types(found).get("MatMul", {TensorProto.FLOAT16}) == {TensorProto.FLOAT16}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_masks(tmp_path: Path, precision: Precision) -> None:
    """-inf is -inf in every type; the least float32 is not, and keeps its operator and the softmax's rows finite."""
    body = "p = MatMul (x, w)  m = Where (keep, zero, least)  s = Add (p, m)  y = Softmax (s)"
    feeds = {"x": np.ones((2, 4), np.float32), "keep": np.array([[True, True, False, False], [False] * 4])}
    constants = {"w": np.eye(4, dtype=np.float32), "zero": np.float32(0)}
    inputs = "float[n, 4] x, bool[n, 4] keep"
    least = net(body, inputs, **constants, least=np.finfo(np.float32).min)
    typed, found = write(tmp_path, least, precision)
    assert typed.out_of_range == ("Where",) and types(found)["Add"] == {TensorProto.FLOAT}
    np.testing.assert_allclose(run(found, precision, feeds)[0], [[0.5, 0.5, 0, 0], [0.25] * 4], atol=1e-6)
    (tmp_path / "net.onnx").unlink()
    typed, found = write(tmp_path, net(body, inputs, **constants, least=-np.float32(np.inf)), precision)
    assert typed.out_of_range == () and types(found)["Add"] == {LOW[precision]}
    np.testing.assert_allclose(run(found, precision, feeds)[0][0], [0.5, 0.5, 0, 0], atol=1e-6)


def test_constants_that_fp16_cannot_hold(tmp_path: Path) -> None:
    body = "p = MatMul (x, w)  q = Add (p, tiny)  y = MatMul (x, huge)"
    constants = {"w": np.eye(4, dtype=np.float32), "tiny": np.float32(1e-6), "huge": np.eye(4, dtype=np.float32) * 7e4}
    model = net(body, outputs="float[n, 4] q, float[n, 4] y", **constants)
    feeds = {"x": np.full((1, 4), 0.5, np.float32)}
    typed, found = write(tmp_path, model)
    assert typed.out_of_range == ("Add", "MatMul")
    np.testing.assert_array_equal(run(found, "fp16", feeds)[1], run(model, "fp16", feeds)[1])
    assert write(tmp_path, model, "bf16")[0].out_of_range == ()  # it has float32's range


def test_a_constant_of_two_types_is_stored_once_in_each(tmp_path: Path, rng: np.random.Generator) -> None:
    model = net(
        "a = MatMul (x, w)  b = MatMul (a, w)  l = Log (w)  m = ReduceMax (l)  y = Add (b, m)",
        w=rng.uniform(1, 2, (4, 4)).astype(np.float32),
    )
    _, found = write(tmp_path, model)
    assert sorted(tensor.name for tensor in found.graph.initializer) == ["w", "w.fp16"]


def test_sinusoids_sound_and_resizing_stay_float32(tmp_path: Path, rng: np.random.Generator) -> None:
    model = net(
        """angles = MatMul (x, w)  twice = Add (angles, angles)  s = Sin (twice)
        wave = Reshape (x, flat)  sound = Conv <strides = [2]> (wave, k)  next = Conv (sound, k)
        time = Resize <mode = "linear"> (next, , scales)  near = Resize (next, , scales)
        line = Reshape (near, rows)  y = MatMul (s, w)""",
        outputs="float[n, 4] y, float[a, b] line, float[c, d, e] time",
        w=rng.normal(size=(4, 4)).astype(np.float32),
        k=rng.normal(size=(1, 1, 3)).astype(np.float32),
        flat=np.array([1, 1, -1]),
        rows=np.array([1, -1]),
        scales=np.array([1, 1, 2], np.float32),
    )
    _, found = write(tmp_path, model)
    names = [node.output[0] for node in found.graph.node if node.op_type != "Cast"]
    made = {name.removesuffix(".fp16"): name.endswith(".fp16") for name in names}
    for name, low in {"angles": False, "sound": False, "next": True, "time": False, "near": True, "y": True}.items():
        assert made[name] == low, name
    feeds = {"x": rng.normal(size=(3, 4)).astype(np.float32)}
    for expected, got in zip(run(model, "fp16", feeds), run(found, "fp16", feeds), strict=True):
        np.testing.assert_allclose(got, expected, atol=5e-3)


def test_tables_are_looked_up_in_the_low_type(tmp_path: Path) -> None:
    table = np.arange(12, dtype=np.float32).reshape(3, 4) / 3
    model = net("y = Gather (table, ids)", "int64[n] ids", table=table)
    _, found = write(tmp_path, model)
    assert [tensor.name for tensor in found.graph.initializer] == ["table.fp16"]
    (got,) = run(found, "fp16", {"ids": np.array([2, 0])})
    np.testing.assert_array_equal(got, table[[2, 0]].astype(np.float16))


BRANCH = """p = MatMul (x, w)
q = If (flag) <
    then_branch = yes () => (float[n, 4] a) {{ a = {op} (p, w) }},
    else_branch = no () => (float[n, 4] b) {{ b = Identity (x) }}
>
y = MatMul (q, w)"""


def test_branches_are_left_alone(tmp_path: Path, rng: np.random.Generator) -> None:
    w = rng.normal(size=(4, 4)).astype(np.float32)
    model = net(BRANCH.format(op="Add"), "float[4, 4] x, bool flag", "float[4, 4] y", w=w)
    _, found = write(tmp_path, model)
    for flag in (True, False):
        feeds = {"x": w, "flag": np.array(flag)}
        np.testing.assert_allclose(run(found, "fp16", feeds)[0], run(model, "fp16", feeds)[0], atol=2e-2)
    (tmp_path / "net.onnx").unlink()
    heavy = net(BRANCH.format(op="MatMul"), "float[4, 4] x, bool flag", "float[4, 4] y", w=w)
    with pytest.raises(BackendError, match="network net: MatMul inside If would stay float32"):
        write(tmp_path, heavy)


def test_weights_beside_the_network_are_converted_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    n, size = 40, 256
    weights = {f"w{i}": (rng.normal(size=(size, size)) / 16).astype(np.float32) for i in range(n)}
    body = " ".join(f"v{i + 1} = MatMul (v{i}, w{i})" for i in range(n))
    model = net(
        f"v0 = Identity (x) {body} y = Identity (v{n})", f"float[n, {size}] x", f"float[n, {size}] y", **weights
    )
    feeds = {"x": rng.normal(size=(1, size)).astype(np.float32)}
    (expected,) = run(model, "fp16", feeds)
    one_file = onnx.ModelProto()
    one_file.CopyFrom(model)
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    monkeypatch.setattr(module, "MAX_EMBEDDED_BYTES", 1 << 20)
    tracemalloc.start()
    typed = typed_model(tmp_path / "net.onnx", tmp_path / "low.onnx", "fp16", SPEC)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 8 * size * size * 4 < n * size * size * 4
    assert typed.file.stat().st_size < 100_000
    assert typed.weights is not None and typed.weights.name == "low.onnx.data"
    assert n * size * size * 2 <= typed.weights.stat().st_size < n * size * size * 2 + n * 4096
    onnx.checker.check_model(str(typed.file), full_check=True)
    (got,) = run(onnx.load(typed.file), "fp16", feeds)
    assert np.linalg.norm(got - expected) < 2e-2 * np.linalg.norm(expected)
    onnx.save(one_file, tmp_path / "one.onnx")
    again = typed_model(tmp_path / "one.onnx", tmp_path / "low2.onnx", "fp16", SPEC)
    assert again.weights is not None and again.weights.read_bytes() == typed.weights.read_bytes()


def test_what_cannot_be_rewritten(tmp_path: Path) -> None:
    for precision, spec in (("fp32", SPEC), ("fp16", GraphSpec("net", "f", (), (), {}, keep_fp32=True))):
        with pytest.raises(ValueError, match="network net is computed in fp32"):
            typed_model(tmp_path / "net.onnx", tmp_path / "low.onnx", precision, spec)  # type: ignore[arg-type]
    for content in (b"", b"no network", b"\xff" * 100):
        (tmp_path / "net.onnx").write_bytes(content)
        with pytest.raises((ArtifactError, BackendError)):
            typed_model(tmp_path / "net.onnx", tmp_path / "low.onnx", "fp16", SPEC)
    shape = ["n", 4]
    values = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Magic", ["x"], ["y"], domain="com.example")], "net", *values)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    (tmp_path / "net.onnx").write_bytes(helper.make_model(graph, opset_imports=imports).SerializeToString())
    with pytest.raises(BackendError, match=r"operator com\.example\.Magic is not standard ONNX"):
        typed_model(tmp_path / "net.onnx", tmp_path / "low.onnx", "fp16", SPEC)
