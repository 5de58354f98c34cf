"""TensorRT: what a session does with addresses, shapes, copies and graphs, on the fakes; and what the real one says."""

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import ArtifactError, BackendError, InputError
from engine.inference.backends import open_graph
from engine.inference.backends.tensorrt_library import error_log, load, version
from engine.inference.backends.tensorrt_session import MAX_SHAPES, TensorRtSession
from engine.inference.manifest import GraphSpec, TensorSpec
from engine.inference.session import RunOptions
from tests.helpers.fakes_session import LINEAR, linear, linear_onnx
from tests.helpers.fakes_tensorrt import FakeContext, FakeCuda, FakeTensorRt, engine_bytes, fake_nvml

SIZES = {"batch": (1, 2, 4), "frames": (1, 8, 64)}
PINNED = {"height": (4, 4, 4), "tokens": (3, 3, 3)}
STEP = GraphSpec(
    name="step",
    file="step.onnx",
    inputs=(
        TensorSpec("latents", "float32", (2, 4, "height")),
        TensorSpec("timestep", "int64", ()),
        TensorSpec("keys", "float32", (1, "tokens")),
    ),
    outputs=(TensorSpec("v", "float32", (2, 4, "height")), TensorSpec("late", "bool", ())),
    parity={},
)


def step(latents: np.ndarray, timestep: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the network STEP computes."""
    return np.float32(latents * keys.sum() + timestep), np.asarray(timestep > 500)


def step_inputs(timestep: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(timestep)
    return {
        "latents": rng.normal(size=(2, 4, 4)).astype(np.float32),
        "timestep": np.array(timestep, np.int64),
        "keys": np.arange(3, dtype=np.float32)[None],
    }


def linear_inputs(batch: int = 2, frames: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch * 100 + frames)
    return {
        "rows": rng.normal(size=(batch, frames, 4)).astype(np.float32),
        "offset": rng.normal(size=(batch, 2)).astype(np.float32),
    }


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", fake_nvml())
    return fake


@pytest.fixture
def library(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    fake = FakeTensorRt(cuda, {"linear": linear, "step": step})
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    return fake


Opener = Callable[..., TensorRtSession]


@pytest.fixture
def opener(library: FakeTensorRt, tmp_path: Path, cuda: FakeCuda) -> Iterator[Opener]:
    """Opens sessions; whatever they were, nothing may be left behind."""
    opened: list[TensorRtSession] = []

    def make(spec: GraphSpec = LINEAR, sizes: Any = SIZES, **options: Any) -> TensorRtSession:
        file = tmp_path / f"{spec.name}.engine"
        file.write_bytes(engine_bytes(spec, sizes))
        opened.append(TensorRtSession(file, spec, RunOptions(compiled=True, **options), "tensorrt"))
        return opened[-1]

    yield make
    for session in opened:
        session.close()
    assert cuda.owned == (0, 0, 0, 0, 0)


def test_equals_numpy_in_every_shape(opener: Opener) -> None:
    with opener() as session:
        for batch, frames in ((1, 1), (2, 8), (4, 64), (1, 7), (2, 8), (1, 1)):
            given = linear_inputs(batch, frames)
            found = session.run(given)
            assert list(found) == ["low", "total"]
            for array, expected in zip(found.values(), linear(**given), strict=True):
                assert array.dtype == np.float32
                np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 12)), max_size=14), graphs=st.booleans())
def test_any_order_of_shapes(opener: Opener, shapes: list[tuple[int, int]], graphs: bool, cuda: FakeCuda) -> None:
    with opener(cuda_graphs=graphs) as session:
        for batch, frames in shapes:
            given = linear_inputs(batch, frames)
            np.testing.assert_allclose(session.run(given)["low"], linear(**given)[0], rtol=1e-5, atol=1e-5)
        assert session.n_graphs == graphs * min(MAX_SHAPES, len({*shapes, (4, 64), (2, 8)}))
        assert len(cuda.executables) == session.n_graphs and not cuda.graphs


def test_scalars_and_other_dtypes(opener: Opener) -> None:
    with opener(STEP, PINNED) as session:
        for timestep in (3, 999):
            given = step_inputs(timestep)
            found = session.run(given)
            np.testing.assert_allclose(found["v"], step(**given)[0], rtol=1e-6)
            assert found["late"].dtype == bool and found["late"].shape == () and found["late"] == (timestep > 500)


def test_a_graph_is_recorded_once_for_each_shape(opener: Opener, cuda: FakeCuda, library: FakeTensorRt) -> None:
    session = opener()
    assert (session.n_graphs, library.enqueued, cuda.launches) == (2, 4, 0)  # most and usual: warm-up, recording
    for _ in range(3):
        session.run(linear_inputs(2, 8))
        session.run(linear_inputs(1, 5))
        session.run(linear_inputs(4, 64))
    assert (session.n_graphs, library.enqueued, cuda.launches) == (3, 6, 9)
    owned = cuda.owned
    for frames in range(20, 20 + 2 * MAX_SHAPES):
        session.run(linear_inputs(1, frames))
    assert session.n_graphs == MAX_SHAPES == len(cuda.executables)
    assert cuda.owned[:4] == owned[:4]  # other shapes need no other memory
    np.testing.assert_allclose(session.run(linear_inputs(2, 8))["low"], linear(**linear_inputs(2, 8))[0], atol=1e-5)


def test_a_pinned_profile_has_one_graph(opener: Opener, library: FakeTensorRt) -> None:
    session = opener(STEP, PINNED, profile=PINNED)
    assert (session.n_graphs, len(library.contexts), library.enqueued) == (1, 1, 2)


def test_graphs_off(opener: Opener, cuda: FakeCuda, library: FakeTensorRt) -> None:
    session = opener(STEP, PINNED, cuda_graphs=False)
    given = step_inputs()
    np.testing.assert_allclose(session.run(given)["v"], step(**given)[0], rtol=1e-6)
    assert (session.n_graphs, cuda.launches, library.enqueued) == (0, 0, 2)


def test_a_refused_recording_is_said_once(
    opener: Opener, library: FakeTensorRt, caplog: pytest.LogCaptureFixture, cuda: FakeCuda
) -> None:
    library.can_be_recorded = False
    session = opener()
    for shape in ((1, 3), (2, 3), (1, 3)):
        given = linear_inputs(*shape)
        np.testing.assert_allclose(session.run(given)["low"], linear(**given)[0], atol=1e-5)
    assert [record.message for record in caplog.records] == [
        "network linear cannot be recorded as a CUDA graph, running without"
    ]
    assert (session.n_graphs, cuda.launches, len(cuda.graphs)) == (0, 0, 0)


def test_what_cannot_change_is_uploaded_once(opener: Opener, cuda: FakeCuda) -> None:
    session = opener(STEP, PINNED)
    first = step_inputs(1)
    first["keys"] = first["keys"].copy()
    first["keys"].setflags(write=False)
    session.run(first)
    cuda.uploads.clear()
    for timestep in (2, 3):
        given = {**step_inputs(timestep), "keys": first["keys"]}
        np.testing.assert_allclose(session.run(given)["v"], step(**given)[0], rtol=1e-6)
    assert cuda.uploads == [128, 8, 128, 8]  # latents and timestep, no keys
    other = np.arange(5, dtype=np.float32)
    other.setflags(write=False)
    for keys in (other[None, 2:], first["keys"]):
        given = {**step_inputs(4), "keys": keys}
        np.testing.assert_allclose(session.run(given)["v"], step(**given)[0], rtol=1e-6)


def test_what_may_change_is_uploaded_every_time(opener: Opener) -> None:
    session = opener(STEP, PINNED)
    ours = np.ones((1, 3), np.float32)
    shown = ours[:]
    shown.setflags(write=False)  # a view: who has the array still writes to it
    for keys in (ours, shown):
        for value in (1, 5):
            ours[:] = value
            given = {**step_inputs(), "keys": keys}
            np.testing.assert_allclose(session.run(given)["v"], step(**given)[0], rtol=1e-6)


def test_any_layout_of_memory(opener: Opener) -> None:
    session = opener()
    given = linear_inputs(2, 6)
    strided = {name: np.asfortranarray(array) for name, array in given.items()}
    strided["rows"] = np.repeat(strided["rows"], 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(session.run(strided)["low"], session.run(given)["low"])


def test_results_stay_valid(opener: Opener) -> None:
    session = opener()
    first = session.run(linear_inputs(1, 3))
    kept = {name: array.copy() for name, array in first.items()}
    session.run({name: array * 0 for name, array in linear_inputs(1, 3).items()})
    session.close()
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        array += 1  # and belong to the caller


def test_threads_do_not_mix(opener: Opener) -> None:
    session = opener()
    wrong: list[int] = []

    def work(batch: int) -> None:
        given = linear_inputs(batch, 40)
        expected = linear(**given)[0]
        for _ in range(60):
            if not np.allclose(session.run(given)["low"], expected, atol=1e-5):
                wrong.append(batch)

    threads = [threading.Thread(target=work, args=(batch,)) for batch in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_refused_before_anything_is_queued(opener: Opener, cuda: FakeCuda, library: FakeTensorRt) -> None:
    session = opener()
    before = library.enqueued, cuda.launches, len(cuda.uploads)
    with pytest.raises(InputError, match=r"compiled for frames 1\.\.64, got 65: outside the profile"):
        session.run(linear_inputs(1, 65))
    with pytest.raises(InputError, match="takes the inputs"):
        session.run({})
    with pytest.raises(InputError, match="want float32"):
        session.run({**linear_inputs(), "rows": np.zeros((2, 5, 4))})
    assert (library.enqueued, cuda.launches, len(cuda.uploads)) == before


def test_a_narrower_profile_bounds_inputs_and_memory(opener: Opener, cuda: FakeCuda) -> None:
    wide = opener()
    n_bytes = sum(block.size for block in cuda.device.values())
    wide.close()
    session = opener(profile={"batch": (1, 1, 1), "frames": (1, 8, 16)})
    assert sum(block.size for block in cuda.device.values()) < n_bytes / 4
    with pytest.raises(InputError, match=r"frames 1\.\.16, got 17"):
        session.run(linear_inputs(1, 17))


def test_closed(opener: Opener, cuda: FakeCuda) -> None:
    session = opener()
    session.run(linear_inputs())
    assert cuda.owned == (5, 4, 1, 0, 3)
    session.close()
    session.close()
    assert cuda.owned == (0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="closed"):
        session.run(linear_inputs())


def test_forgotten_sessions_give_back_what_they_hold(library: FakeTensorRt, cuda: FakeCuda, tmp_path: Path) -> None:
    (tmp_path / "linear.engine").write_bytes(engine_bytes(LINEAR, SIZES))
    session = TensorRtSession(tmp_path / "linear.engine", LINEAR, RunOptions(compiled=True), "tensorrt")
    assert cuda.owned[0] > 0
    del session
    library.contexts.clear()
    gc.collect()
    assert cuda.owned == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("n_bytes", [500, 1100, 5110, 7000, 7200])
def test_out_of_memory(library: FakeTensorRt, cuda: FakeCuda, opener: Opener, n_bytes: int) -> None:
    cuda.n_bytes = n_bytes
    with pytest.raises(BackendError, match=r"out of memory: \d+\.\d\d GiB needed, \d.* GiB are free") as caught:
        opener()
    assert "\n" not in str(caught.value) and cuda.owned == (0, 0, 0, 0, 0)


def test_a_run_that_fails(opener: Opener, cuda: FakeCuda) -> None:
    session = opener(STEP, PINNED)
    given = step_inputs()
    given["keys"] = given["keys"].copy()
    given["keys"].setflags(write=False)
    session.run(given)
    cuda.fail_next_wait = True
    with pytest.raises(BackendError, match=r"network step failed on latents\[2, 4, 4\].*cudaErrorLaunchFailure"):
        session.run(given)
    cuda.uploads.clear()
    np.testing.assert_allclose(session.run(given)["v"], step(**given)[0], rtol=1e-6)
    assert len(cuda.uploads) == 3  # nothing on the GPU is trusted any longer


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"noise" * 100, "magicTagRead"),
        (linear_onnx, "magicTagRead"),
        (engine_bytes(LINEAR, SIZES, version="10.1.0.27"), "expecting 10.13.2.6 got 10.1.0.27"),
        (engine_bytes(LINEAR, SIZES, gpu="NVIDIA Other"), r"on NVIDIA Fake 9000 \(generated on an incompatible device"),
    ],
)
def test_files_that_are_no_engine_of_this_machine(
    library: FakeTensorRt, cuda: FakeCuda, tmp_path: Path, content: Any, reason: str
) -> None:
    if callable(content):
        pytest.importorskip("onnx")
        content = content()
    file = tmp_path / "linear.engine"
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=reason) as caught:
        TensorRtSession(file, LINEAR, RunOptions(compiled=True), "tensorrt")
    assert "run 'tango-export compile --backend tensorrt'" in str(caught.value) and "\n" not in str(caught.value)
    assert cuda.owned == (0, 0, 0, 0, 0)


def test_no_room_for_an_engine(opener: Opener, library: FakeTensorRt, cuda: FakeCuda) -> None:
    library.out_of_memory = True
    with pytest.raises(BackendError, match=r"no room on the GPU for linear\.engine \(1\.00 of 1\.00 GiB are free\)"):
        opener()


def test_no_room_for_a_context(opener: Opener, library: FakeTensorRt, cuda: FakeCuda) -> None:
    library.out_of_memory_later = True
    with pytest.raises(BackendError, match=r"network linear: tensorrt could not prepare it: .*GiB are free\)"):
        opener()
    assert cuda.owned == (0, 0, 0, 0, 0)


def test_outputs_of_unknown_size(opener: Opener, library: FakeTensorRt, cuda: FakeCuda) -> None:
    library.says_sizes = False
    with pytest.raises(BackendError, match="network linear: tensorrt could not say how large its outputs are"):
        opener()
    assert cuda.owned == (0, 0, 0, 0, 0)


def test_what_the_bindings_raise(opener: Opener, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> None:
    session = opener()

    def fail(context: Any) -> list[str]:
        raise RuntimeError("shape inference\nfailed")

    monkeypatch.setattr(FakeContext, "infer_shapes", fail)
    with pytest.raises(BackendError, match=r"network linear failed on .*: shape inference failed"):
        session.run(linear_inputs(1, 1))
    session.close()
    with pytest.raises(BackendError, match="network linear cannot be opened by tensorrt: shape inference failed"):
        opener()
    assert cuda.owned == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"outputs": (TensorSpec("high", "float32", ("batch", 2)),)}, "low, offset, rows, total, want high"),
        ({"outputs": (LINEAR.outputs[0], TensorSpec("total", "int32", ("batch", 2)))}, r"total as FLOAT\[-1, 2\]"),
        ({"inputs": (TensorSpec("rows", "float32", ("batch", "frames", 5)), LINEAR.inputs[1])}, r"rows as FLOAT\[-1"),
        ({"inputs": (LINEAR.inputs[0], TensorSpec("offset", "float32", ("batch",)))}, r"offset as FLOAT\[-1, 2\]"),
    ],
)
def test_engines_of_another_network(
    library: FakeTensorRt, cuda: FakeCuda, tmp_path: Path, change: Any, reason: str
) -> None:
    file = tmp_path / "linear.engine"
    file.write_bytes(engine_bytes(LINEAR, SIZES))
    with pytest.raises(ArtifactError, match=reason):
        TensorRtSession(file, replace(LINEAR, **change), RunOptions(compiled=True), "tensorrt")
    assert cuda.owned == (0, 0, 0, 0, 0)


def test_engines_of_another_profile(opener: Opener) -> None:
    with pytest.raises(ArtifactError, match=r"compiled for frames 1\.\.64, the profile wants 1\.\.65: run"):
        opener(profile={"batch": (1, 2, 4), "frames": (1, 8, 65)})


def test_onnx_is_no_engine(library: FakeTensorRt, tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match="is not an engine: tensorrt runs the output of 'tango-export compile --backend tensorrt'"
    ):
        open_graph(tmp_path / "linear.onnx", LINEAR, "tensorrt", RunOptions())


@pytest.mark.parametrize("graphs", [True, False])
def test_rtx_records_its_own_graphs(
    cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graphs: bool
) -> None:
    rtx = FakeTensorRt(cuda, {"linear": linear}, rtx=True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", rtx)
    (tmp_path / "linear.engine").write_bytes(engine_bytes(LINEAR, SIZES, version=rtx.__version__))
    options = RunOptions(compiled=True, cuda_graphs=graphs)
    with open_graph(tmp_path / "linear.engine", LINEAR, "tensorrt-rtx", options) as session:
        given = linear_inputs(1, 9)
        np.testing.assert_allclose(session.run(given)["low"], linear(**given)[0], atol=1e-5)
        strategies = {context.how.cuda_graph_strategy.name for context in rtx.contexts}
        assert strategies == {"WHOLE_GRAPH_CAPTURE" if graphs else "DISABLED"}
        assert cuda.launches == 0
    assert cuda.owned == (0, 0, 0, 0, 0)


def test_missing_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    for backend in ("tensorrt", "tensorrt-rtx"):
        with pytest.raises(BackendError, match=rf"{backend} is not installed: pip install 'tango-rt\[{backend}\]'"):
            load(backend)
    (tmp_path / "tensorrt.py").write_text("print('found it')\nraise ImportError('libnvinfer.so.10: cannot open')\n")
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"broken \(libnvinfer\.so\.10: cannot open\): pip install"):
        load("tensorrt")


def test_loading_is_quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noisy = (
        "import warnings\nprint('found it')\nwarnings.warn('old CUDA', DeprecationWarning)\n__version__ = '11.1.0.2'\n"
    )
    (tmp_path / "tensorrt.py").write_text(noisy)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert version("tensorrt") == "11.1.0.2"
    finally:
        sys.modules.pop("tensorrt", None)
    assert capfd.readouterr() == ("", "")


def test_the_installers_module(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    installed = FakeTensorRt(cuda, {}, rtx=True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", installed)
    assert load("tensorrt-rtx") is installed


def rtx() -> Any:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    return load("tensorrt-rtx")


def test_the_real_library_builds_without_a_gpu(capfd: pytest.CaptureFixture[str]) -> None:
    trt = rtx()
    pytest.importorskip("onnx")
    log = error_log(trt)
    log.take()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, log).parse(linear_onnx())
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for tensor in LINEAR.inputs:
        profile.set_shape(
            tensor.name, *(tuple(SIZES[s][at] if isinstance(s, str) else s for s in tensor.shape) for at in range(3))
        )
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config).nbytes > 10_000
    assert log.take() == "" and capfd.readouterr() == ("", "")


def test_the_real_library_says_what_is_wrong_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    trt = rtx()
    log = error_log(trt)
    assert trt.Runtime(log).deserialize_cuda_engine(b"noise" * 100) is None
    reason = log.take()
    assert reason and "\n" not in reason and log.take() == "" and capfd.readouterr() == ("", "")


def test_no_gpu(tmp_path: Path) -> None:
    rtx()
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if runtime.cudaGetDeviceCount()[0] == runtime.cudaError_t.cudaSuccess:
        pytest.skip("there is a GPU")
    (tmp_path / "linear.engine").write_bytes(b"plan")
    with pytest.raises(
        BackendError, match="tensorrt-rtx needs an NVIDIA GPU with its driver, CUDA finds none"
    ) as caught:
        open_graph(tmp_path / "linear.engine", LINEAR, "tensorrt-rtx", RunOptions(compiled=True))
    assert "\n" not in str(caught.value)
