"""Real builds of small networks by every compiler that is installed; the TensorRT-RTX builder needs no GPU."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from engine.errors import ArtifactError, BackendError  # noqa: E402
from engine.inference.backends import BACKENDS  # noqa: E402
from engine.inference.backends.libraries import shared_core  # noqa: E402
from engine.inference.backends.tensorrt_library import error_log, load  # noqa: E402
from engine.inference.engines import EngineKey, current_key  # noqa: E402
from engine.inference.machine import Machine  # noqa: E402
from engine.inference.manifest import GraphSpec, TensorSpec  # noqa: E402
from engine.inference.target import Precision, Target  # noqa: E402
from export.compilers import CompileJob, compile_network  # noqa: E402
from tests.helpers.compile_jobs import PROFILE, SPEC, end_a_build, job, network  # noqa: E402
from tests.helpers.fakes_session import write_fake_bundle  # noqa: E402
from tests.helpers.machine import need  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
X = np.random.default_rng(1).normal(size=(2, 8, 11)).astype(np.float32)
RTX = pytest.mark.skipif(
    BACKENDS["tensorrt-rtx"].why_not_buildable() is not None, reason=str(BACKENDS["tensorrt-rtx"].why_not_buildable())
)


def run_onnxruntime(model: Path | bytes, x: np.ndarray) -> np.ndarray:
    """As it is, without optimising it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def expected(x: np.ndarray) -> np.ndarray:
    return run_onnxruntime(network(), x)


def run_openvino(blob: Path, precision: Precision) -> Any:
    pytest.importorskip("openvino")
    options = {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision]}
    return shared_core().import_model(io.BytesIO(blob.read_bytes()), "CPU", options)


@RTX
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_tensorrt_rtx_builds_an_engine_of_the_network(tmp_path: Path, precision: Precision) -> None:
    phases: list[str] = []
    built = compile_network(job(tmp_path, "tensorrt-rtx", precision, tell=phases.append))
    assert list(built) == ["net.engine"] and built["net.engine"].stat().st_size > 10_000
    assert any("building engine" in phase for phase in phases)


@RTX
def test_tensorrt_rtx_takes_scalars_and_fixed_shapes(tmp_path: Path) -> None:
    body = "f = Cast <to = 1> (step) s = Sin (f) y = Add (x, s)"
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> net (float[2, n] x, int64 step) => (float[2, n] y) {{ {body} }}'
    )
    spec = GraphSpec(
        name="net",
        file="net.onnx",
        inputs=(TensorSpec("x", "float32", (2, "n")), TensorSpec("step", "int64", (), 1000)),
        outputs=(TensorSpec("y", "float32", (2, "n")),),
        parity={},
        profiles={"fixed": {"n": (8, 8, 8)}},
    )
    assert compile_network(job(tmp_path, "tensorrt-rtx", "fp16", model.SerializeToString(), spec))


@RTX
def test_an_interrupted_build_ends(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    end_a_build(tmp_path, interrupt)


@RTX
def test_a_signal_ends_a_build(tmp_path: Path) -> None:
    """Where it comes while the library calls something of ours, and would swallow what is raised there."""
    code = (
        "import signal, sys; from pathlib import Path; from tests.helpers.compile_jobs import end_a_build\n"
        "end_a_build(Path(sys.argv[1]), lambda: signal.raise_signal(signal.SIGINT)); print('ended')"
    )
    found = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=ROOT)
    assert found.stdout == "ended\n", found.stderr


@RTX
def test_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the library says and does when it has too little, at the step where it does so."""
    library = load("tensorrt-rtx")
    full = job(tmp_path, "tensorrt-rtx")

    def saying(said: str) -> Any:
        def fail(**_: Any) -> Any:
            error_log(library).log(library.ILogger.Severity.ERROR, said)
            raise RuntimeError("no engine")

        return fail

    compile_network(full)  # and polygraphy is imported for this library
    from polygraphy.backend import trt as loaders

    monkeypatch.setattr(loaders, "CreateConfig", saying("[allocator.cpp] Error Code 2: OutOfMemory (Requested size 9)"))
    with pytest.raises(BackendError, match=r"network net: out of memory while tensorrt-rtx built it for batch 2, fram"):
        compile_network(full)
    monkeypatch.setattr(loaders, "CreateConfig", saying("Error Code 9: something else"))
    with pytest.raises(BackendError, match="network net: tensorrt-rtx cannot build it: Error Code 9: something else"):
        compile_network(full)


@pytest.mark.parametrize("backend", ["tensorrt-rtx", "openvino", "onnxruntime"])
def test_an_unsupported_operator_is_named(tmp_path: Path, backend: str) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20, "com.example": 1]> net (float[batch, 8, frames] x) '
        "=> (float[batch, frames, 8] y) { z = Relu (x) y = com.example.Magic (z) }"
    )
    odd = job(tmp_path, backend, content=model.SerializeToString())
    with pytest.raises(BackendError, match=r"^network net: .*Magic") as caught:
        compile_network(odd)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["tensorrt-rtx", "openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_is_no_network(tmp_path: Path, backend: str, precision: Precision) -> None:
    need(backend, precision)
    junk = job(tmp_path, backend, precision)
    junk.source.write_bytes(b"no network at all")
    with pytest.raises(ArtifactError, match=r"net\.onnx is not an? "):
        compile_network(junk)


@pytest.mark.usefixtures("float32_alone")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_precision_that_the_machine_lacks_is_refused(tmp_path: Path, backend: str, precision: Precision) -> None:
    """OpenVINO would take the precision for a hint, and compute in float32 without a word."""
    low = job(tmp_path, backend, precision)
    with pytest.raises(BackendError, match=rf"^{backend} .*{precision}.* fp32$") as refusal:
        compile_network(low)
    assert "\n" not in str(refusal.value) and list(low.folder.iterdir()) == []


def test_a_network_without_profile_is_refused_where_one_is_needed(tmp_path: Path) -> None:
    old = job(tmp_path, "tensorrt-rtx", spec=replace(SPEC, profiles={}))
    with pytest.raises(ArtifactError, match="network net has no profile, but tensorrt-rtx needs one: make"):
        compile_network(old)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_openvino_blob_computes_the_network(tmp_path: Path, precision: Precision, tolerance: float) -> None:
    need("openvino", precision)
    (blob,) = compile_network(job(tmp_path, "openvino", precision)).values()
    network = run_openvino(blob, precision)
    assert str(network.inputs[0].partial_shape) == "[1..2,8,4..32]"
    np.testing.assert_allclose(network({"x": X})["y"], expected(X), atol=tolerance)


def split(content: bytes, folder: Path) -> dict[str, bytes]:
    """The files of a network whose weights lie next to it."""
    folder.mkdir()
    model = onnx.load_from_string(content)
    onnx.save(model, folder / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("backend", ["tensorrt-rtx", "openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_engines_hold_weights_that_lay_beside_the_network(tmp_path: Path, backend: str, precision: Precision) -> None:
    need(backend, precision)
    files = split(network(), tmp_path / "split")
    bundle = write_fake_bundle(tmp_path / "bundle", files, {"net": replace(SPEC, weights=("weights.bin",))})
    (tmp_path / "work").mkdir()
    key = current_key(bundle, "net", Target(backend, precision, "usual"))
    built = compile_network(
        CompileJob(bundle.model("net"), bundle.graph("net"), key, tmp_path / "work", None, lambda _: None)
    )
    for folder in (tmp_path / "split", bundle.folder):
        (folder / "weights.bin").unlink()
    if backend == "onnxruntime":
        np.testing.assert_allclose(run_onnxruntime(built["net.engine"], X), expected(X), atol=1e-5)
    elif backend == "openvino":
        found = run_openvino(built["net.engine"], precision)({"x": X})
        np.testing.assert_allclose(found["y"], expected(X), atol=1e-5 if precision == "fp32" else 0.05)
    else:
        assert built["net.engine"].stat().st_size > 10_000


def test_onnxruntime_file_computes_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from export.compilers import onnxruntime as compiler

    for part, files in (("one", ["net.engine"]), ("two", ["net.engine", "net.engine.data"])):
        (tmp_path / part).mkdir()
        built = compile_network(job(tmp_path / part, "onnxruntime"))
        assert sorted(built) == files
        np.testing.assert_allclose(run_onnxruntime(built["net.engine"], X), expected(X), atol=1e-5)
        monkeypatch.setattr(compiler, "MAX_EMBEDDED_BYTES", 10)
        monkeypatch.setattr(compiler, "MIN_BESIDE_BYTES", 10)


@RTX
def test_the_other_tensorrt_wants_a_process_of_its_own(tmp_path: Path) -> None:
    from export.compilers import tensorrt

    compile_network(job(tmp_path, "tensorrt-rtx"))
    with pytest.raises(
        BackendError, match="this process has already built for the other TensorRT: build for tensorrt in"
    ):
        tensorrt._polygraphy("tensorrt", load("tensorrt-rtx"))


def test_timing_caches_are_of_the_builder_that_times(tmp_path: Path) -> None:
    from export.compilers import tensorrt

    cache = tmp_path / "timing.cache"
    key = EngineKey("net", "", "tensorrt", "10", Machine(), "fp32", "", "usual", PROFILE, {})
    timed = CompileJob(tmp_path / "net.onnx", SPEC, key, tmp_path, cache, lambda _: None)
    assert tensorrt._timing_cache(timed) == str(cache)
    assert tensorrt._timing_cache(replace(timed, key=replace(key, backend="tensorrt-rtx"))) is None
    assert tensorrt._timing_cache(replace(timed, timing_cache=None)) is None


# removed by TensorRT 11 or before: networks that are not strongly typed, implicit batches, sizes in the engine
REMOVED = re.compile(
    r"BuilderFlag\.(FP16|BF16|INT8|FP8|OBEY|PREFER|DIRECT)|(OBEY|PREFER)_PRECISION|STRICT_TYPES|EXPLICIT_BATCH|"
    r"\.max_workspace_size|\.max_batch_size|build_engine\b|build_cuda_engine|execute_v2|execute_async(_v2)?\b|"
    r"device_memory_size\b|get_binding|binding_is_input|num_bindings|set_binding_shape|algorithm_selector|"
    r"int8_calibrator|init_libnvinfer_plugins|\.precision_is_set|set_output_type|fp16\s*=\s*True|bf16\s*=\s*True"
)


def test_no_source_uses_what_tensorrt_has_removed() -> None:
    root = Path(__file__).resolve().parents[1]
    sources = [path for room in ("engine", "export", "tango_rt", "benchmarks") for path in (root / room).rglob("*.py")]
    users = [path for path in sources if re.search(r"tensorrt|polygraphy", path.read_text("utf-8"))]
    assert {"tensorrt.py", "tensorrt_library.py"} <= {path.name for path in users}
    found = [f"{path.name}: {use[0]}" for path in users for use in REMOVED.finditer(path.read_text("utf-8"))]
    assert found == []


def test_the_static_check_finds_what_it_looks_for() -> None:
    for line in ("config.set_flag(trt.BuilderFlag.FP16)", "context.execute_v2(b)", "config.max_workspace_size = 1"):
        assert REMOVED.search(line), line
    for line in ("context.execute_async_v3(stream)", "engine.device_memory_size_v2", "trt.BuilderFlag.TF32"):
        assert not REMOVED.search(line), line
