"""ONNX Runtime and OpenVINO: what they were given compiled, weights next to the file, low precision, shapes."""

import io
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import ArtifactError, BackendError, InputError
from engine.inference.backends import open_graph
from engine.inference.backends.libraries import shared_core
from engine.inference.backends.onnxruntime_session import DeviceBinding, OnnxRuntimeSession
from engine.inference.manifest import GraphSpec, TensorSpec
from engine.inference.session import RunOptions
from engine.inference.target import Precision
from tests.helpers.fakes_session import LINEAR, linear, linear_onnx

onnx = pytest.importorskip("onnx")
BOTH = pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
WIDE = GraphSpec(
    name="wide",
    file="wide.onnx",
    inputs=(TensorSpec("x", "float32", ("rows", 64)), TensorSpec("step", "int64", ())),
    outputs=(TensorSpec("y", "float32", ("rows", 64)),),
    parity={},
    weights=("wide.weights",),
)


def linear_inputs(batch: int = 2, frames: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch + frames)
    return {
        "rows": rng.normal(size=(batch, frames, 4)).astype(np.float32),
        "offset": rng.normal(size=(batch, 2)).astype(np.float32),
    }


def wide_inputs(step: int = 3) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(step).normal(size=(5, 64)).astype(np.float32), "step": np.array(step, np.int64)}


def wide_weight() -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(64, 64)) / 8).astype(np.float32)


def wide(x: np.ndarray, step: np.ndarray) -> np.ndarray:
    """What the network WIDE computes."""
    return np.float32(x @ wide_weight() + step)


@pytest.fixture
def wide_onnx(tmp_path: Path) -> Path:
    """WIDE with its weights in a file next to it."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Cast", ["step"], ["late"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["product", "late"], ["y"]),
    ]
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    values = [
        [helper.make_tensor_value_info(t.name, kinds[t.dtype], t.shape) for t in tensors]
        for tensors in (WIDE.inputs, WIDE.outputs)
    ]
    graph = helper.make_graph(nodes, "wide", *values, [numpy_helper.from_array(wide_weight(), "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    file = tmp_path / "wide.onnx"
    save(model, file, save_as_external_data=True, location="wide.weights", size_threshold=0)
    assert file.stat().st_size < 2000 and (tmp_path / "wide.weights").stat().st_size >= 64 * 64 * 4
    return file


def compiled(backend: str, source: Path, target: Path, precision: Precision = "fp32") -> Path:
    """What the compiler of a back end writes."""
    if backend == "onnxruntime":
        library = pytest.importorskip("onnxruntime")
        settings = library.SessionOptions()
        settings.log_severity_level = 4
        settings.optimized_model_filepath = str(target)
        if source.with_suffix(".weights").exists():  # else it goes on reading those of the source
            entry = "session.optimized_model_external_initializers_file_name"
            settings.add_session_config_entry(entry, f"{target.name}.data")
            settings.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "16")
        library.InferenceSession(str(source), settings, providers=["CPUExecutionProvider"])
        return target
    library = pytest.importorskip("openvino")
    hint = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[precision]
    blob = shared_core().compile_model(str(source), "CPU", {"INFERENCE_PRECISION_HINT": hint}).export_model()
    assert isinstance(blob, io.BytesIO)
    target.write_bytes(blob.getvalue())
    return target


@BOTH
def test_weights_beside_the_file_and_scalars(backend: Any, wide_onnx: Path) -> None:
    pytest.importorskip(backend)
    with open_graph(wide_onnx, WIDE, backend) as session:
        for step in (3, 40):
            given = wide_inputs(step)
            np.testing.assert_allclose(session.run(given)["y"], wide(**given), rtol=1e-5, atol=1e-4)


@BOTH
def test_lost_weights(backend: Any, wide_onnx: Path) -> None:
    pytest.importorskip(backend)
    (wide_onnx.parent / "wide.weights").unlink()
    with pytest.raises(ArtifactError, match=r"wide\.onnx is not a network that") as caught:
        open_graph(wide_onnx, WIDE, backend)
    assert "\n" not in str(caught.value)


@BOTH
def test_compiled_networks(backend: Any, wide_onnx: Path, tmp_path: Path) -> None:
    engine = compiled(backend, wide_onnx, tmp_path / "wide.engine")
    (tmp_path / "wide.weights").unlink()  # an engine stands alone
    with open_graph(engine, WIDE, backend, RunOptions(compiled=True)) as session:
        given = wide_inputs()
        np.testing.assert_allclose(session.run(given)["y"], wide(**given), rtol=1e-5, atol=1e-4)


@BOTH
@pytest.mark.parametrize("kind", ["half", "noise", "empty", "onnx"])
def test_corrupt_engines(backend: Any, kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "linear.onnx"
    source.write_bytes(linear_onnx())
    engine = compiled(backend, source, tmp_path / "linear.engine")
    whole = engine.read_bytes()
    content = {"half": whole[: len(whole) // 2], "noise": b"noise" * 100, "empty": b"", "onnx": linear_onnx()}[kind]
    engine.write_bytes(content)
    if kind == "onnx" and backend == "onnxruntime":
        return  # what it compiles is ONNX
    capfd.readouterr()
    with pytest.raises(ArtifactError, match=r"linear\.engine (is not a network|.* none, want)") as caught:
        open_graph(engine, LINEAR, backend, RunOptions(compiled=True))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("change", [(b"ov=20", b"ov=19"), (b"isa=", b"isa=Other ")])
def test_openvino_engines_of_another_version_or_cpu(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    source = tmp_path / "linear.onnx"
    source.write_bytes(linear_onnx())
    engine = compiled("openvino", source, tmp_path / "linear.engine")
    whole = engine.read_bytes()
    if change[0] not in whole:
        pytest.skip("this version of openvino writes another header")
    engine.write_bytes(whole.replace(*change)[: len(whole)])
    with pytest.raises(ArtifactError, match="run 'tango-export compile --backend openvino'"):
        open_graph(engine, LINEAR, "openvino", RunOptions(compiled=True))


def capabilities() -> list[str]:
    pytest.importorskip("openvino")
    return list(shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("is_compiled", [False, True])
def test_low_precision(wide_onnx: Path, tmp_path: Path, precision: Precision, is_compiled: bool) -> None:
    if precision.upper() not in capabilities():
        with pytest.raises(BackendError, match=f"does not compute in {precision}"):
            open_graph(wide_onnx, WIDE, "openvino", RunOptions(precision))
        return
    file = compiled("openvino", wide_onnx, tmp_path / "wide.engine", precision) if is_compiled else wide_onnx
    given = wide_inputs()
    with open_graph(file, WIDE, "openvino", RunOptions(precision, compiled=is_compiled)) as session:
        found = session.run(given)["y"]
    assert found.dtype == np.float32
    error = np.abs(found - wide(**given)).max()
    assert 1e-5 < error < {"bf16": 0.1, "fp16": 0.02}[precision]


def test_an_engine_in_float32_stays_in_float32(wide_onnx: Path, tmp_path: Path) -> None:
    """OpenVINO would import it in bfloat16 where the CPU has that."""
    engine = compiled("openvino", wide_onnx, tmp_path / "wide.engine")
    given = wide_inputs()
    with open_graph(engine, WIDE, "openvino", RunOptions(n_threads=1, compiled=True)) as session:
        np.testing.assert_allclose(session.run(given)["y"], wide(**given), rtol=1e-5, atol=1e-4)
        network: Any = session
        assert network._compiled.get_property("INFERENCE_NUM_THREADS") == 1
        assert network._compiled.get_property("PERFORMANCE_HINT") == "LATENCY"


@BOTH
def test_sizes_outside_the_profile(backend: Any, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    (tmp_path / "linear.onnx").write_bytes(linear_onnx())
    options = RunOptions(profile={"batch": (1, 2, 4), "frames": (1, 8, 64)})
    with open_graph(tmp_path / "linear.onnx", LINEAR, backend, options) as session:
        np.testing.assert_allclose(session.run(linear_inputs())["low"], linear(**linear_inputs())[0], atol=1e-5)
        with pytest.raises(InputError, match=r"compiled for frames 1\.\.64, got 65"):
            session.run(linear_inputs(1, 65))


def test_the_cpu_is_used_without_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "linear.onnx").write_bytes(linear_onnx())
    session = OnnxRuntimeSession(tmp_path / "linear.onnx", LINEAR, RunOptions())
    assert session.provider == "CPUExecutionProvider"
    for precision in ("fp16", "bf16"):
        with pytest.raises(BackendError, match=f"computes only in fp32 on a CPU, not in {precision}"):
            OnnxRuntimeSession(tmp_path / "linear.onnx", LINEAR, RunOptions(precision))  # type: ignore[arg-type]


def test_what_a_gpu_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """A GPU that refuses CUDA graphs, as it does where a node has to run on the CPU."""
    library = pytest.importorskip("onnxruntime")
    asked: list[Any] = []
    real = library.InferenceSession

    def opened(path: str, settings: Any, providers: list[Any]) -> Any:
        asked.append(providers[0])
        if providers[0][1]["enable_cuda_graph"] == "1":
            raise RuntimeError("all nodes must be partitioned to the CUDA EP")
        return real(path, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(library, "InferenceSession", opened)
    monkeypatch.setattr(library, "preload_dlls", lambda: print("looking for cuDNN"))
    (tmp_path / "linear.onnx").write_bytes(linear_onnx())
    pinned = {"batch": (1, 1, 1), "frames": (8, 8, 8)}
    with caplog.at_level(logging.WARNING):
        OnnxRuntimeSession(tmp_path / "linear.onnx", LINEAR, RunOptions(profile=pinned), on_gpu=True)
    assert asked == [
        ("CUDAExecutionProvider", {"use_tf32": "0", "enable_cuda_graph": "1"}),
        ("CUDAExecutionProvider", {"use_tf32": "0", "enable_cuda_graph": "0"}),
    ]
    assert "running without" in caplog.text
    asked.clear()
    for profile in (None, {"batch": (1, 1, 1), "frames": (1, 8, 8)}):
        OnnxRuntimeSession(tmp_path / "linear.onnx", LINEAR, RunOptions(profile=profile), on_gpu=True)
    OnnxRuntimeSession(tmp_path / "linear.onnx", LINEAR, RunOptions(profile=pinned, cuda_graphs=False), on_gpu=True)
    assert [settings["enable_cuda_graph"] for _, settings in asked] == ["0", "0", "0"]


class Counted:
    """A session's binding whose uploads are counted."""

    def __init__(self, binding: DeviceBinding, monkeypatch: pytest.MonkeyPatch) -> None:
        import onnxruntime

        self.binding, self.uploads = binding, 0
        real = onnxruntime.OrtValue.update_inplace

        def update(value: Any, array: np.ndarray) -> None:
            self.uploads += 1
            real(value, array)

        monkeypatch.setattr(onnxruntime.OrtValue, "update_inplace", update)

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        self.uploads = 0
        return self.binding.run(feeds)


def test_bound_inputs_and_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU as a device: the same calls as on a GPU."""
    library = pytest.importorskip("onnxruntime")
    session = library.InferenceSession(linear_onnx(), providers=["CPUExecutionProvider"])
    counted = Counted(DeviceBinding(session, LINEAR, "cpu"), monkeypatch)
    for batch, frames in ((2, 5), (2, 5), (1, 9), (2, 5)):
        given = linear_inputs(batch, frames)
        first = counted.run(given)
        for found, expected in zip(first, linear(**given), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)
        kept = first[0].copy()
        counted.run({name: array * 0 for name, array in given.items()})
        np.testing.assert_array_equal(first[0], kept)
    given = linear_inputs(2, 5)
    given["offset"].setflags(write=False)
    counted.run(given)
    given["rows"] = given["rows"] + 1
    np.testing.assert_allclose(counted.run(given)[0], linear(**given)[0], atol=1e-5)
    assert counted.uploads == 1  # the rows
    given["offset"] = given["offset"] + 1
    np.testing.assert_allclose(counted.run(given)[0], linear(**given)[0], atol=1e-5)
    with pytest.raises(Exception, match="rows"):
        counted.run({**given, "rows": np.zeros((2, 5, 3), np.float32)})
    np.testing.assert_allclose(counted.run(given)[0], linear(**given)[0], atol=1e-5)


def test_closed_networks_say_so(tmp_path: Path) -> None:
    (tmp_path / "linear.onnx").write_bytes(linear_onnx())
    for backend in ("onnxruntime", "openvino"):
        pytest.importorskip(backend)
        session = open_graph(tmp_path / "linear.onnx", replace(LINEAR), backend)  # type: ignore[arg-type]
        session.close()
        session.close()
        with pytest.raises(ValueError, match="closed"):
            session.run(linear_inputs())
