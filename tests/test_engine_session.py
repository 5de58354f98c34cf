"""Sessions: both back ends compute what NumPy computes, and refuse what does not fit before they run."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import ArtifactError, BackendError, InputError
from engine.inference.backends import open_graph
from engine.inference.backends.libraries import shared_core
from engine.inference.manifest import Bundle, TensorSpec
from engine.inference.session import RunOptions, Session, check_inputs
from tests.helpers.fakes_session import LINEAR, FunctionSession, linear, linear_onnx, write_fake_bundle

pytest.importorskip("onnx")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    graphs = {"linear": LINEAR}
    return write_fake_bundle(tmp_path / "bundle", {"linear.onnx": linear_onnx()}, graphs)


def opened(bundle: Bundle, backend: Any = "onnxruntime", **options: Any) -> Session:
    return open_graph(bundle.model("linear"), bundle.graph("linear"), backend, RunOptions(**options))


@pytest.fixture(params=["function", "onnxruntime", "openvino"])
def session(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Session]:
    if request.param == "function":
        with FunctionSession(linear, LINEAR) as fake:
            yield fake
    else:
        pytest.importorskip(request.param)
        with opened(bundle, request.param) as real:
            yield real


def inputs(batch: int = 2, frames: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch + frames)
    return {
        "rows": rng.normal(size=(batch, frames, 4)).astype(np.float32),
        "offset": rng.normal(size=(batch, 2)).astype(np.float32),
    }


def test_equals_numpy_in_every_shape(session: Session) -> None:
    for batch, frames in ((1, 1), (2, 5), (3, 128), (1, 7)):
        given = inputs(batch, frames)
        found = session.run(given)
        assert list(found) == ["low", "total"]
        for array, expected in zip(found.values(), linear(**given), strict=True):
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)


def test_any_layout_of_memory(session: Session) -> None:
    given = inputs(2, 6)
    strided = {name: np.asfortranarray(array) for name, array in given.items()}
    strided["rows"] = np.repeat(strided["rows"], 2, axis=1)[:, ::2]
    strided["offset"].setflags(write=False)
    np.testing.assert_array_equal(session.run(strided)["low"], session.run(given)["low"])


def test_results_stay_valid(session: Session) -> None:
    first = session.run(inputs(1, 3))
    kept = {name: array.copy() for name, array in first.items()}
    session.run(inputs(4, 3))
    session.run({name: array * 0 for name, array in inputs(1, 3).items()})
    session.close()
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        array += 1  # and belong to the caller


def test_threads_do_not_mix(session: Session) -> None:
    wrong: list[int] = []

    def work(batch: int) -> None:
        given = inputs(batch, 40)
        expected = linear(**given)[0]
        for _ in range(40):
            if not np.allclose(session.run(given)["low"], expected, atol=1e-5):
                wrong.append(batch)

    threads = [threading.Thread(target=work, args=(batch,)) for batch in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"offset": None}, "takes the inputs offset, rows, got rows"),
        ({"more": np.zeros(1, np.float32)}, "got more, offset, rows"),
        ({"rows": np.zeros((2, 5, 4))}, r"float64\[2, 5, 4\], want float32\[batch, frames, 4\]"),
        ({"rows": np.zeros((2, 5, 4), ">f4")}, r"want float32"),
        ({"rows": np.zeros((5, 4), np.float32)}, r"float32\[5, 4\], want float32\[batch"),
        ({"rows": np.zeros((2, 5, 3), np.float32)}, r"float32\[2, 5, 3\], want"),
        ({"rows": np.zeros((2, 0, 4), np.float32)}, r"float32\[2, 0, 4\], want"),
        ({"offset": np.zeros((3, 2), np.float32)}, r"input offset of network linear is float32\[3, 2\], want"),
        ({"rows": [[[0.0] * 4] * 5] * 2}, "rows of network linear is list, want"),
    ],
)
def test_refused_before_anything_is_run(session: Session, change: dict[str, Any], reason: str) -> None:
    given: dict[str, Any] = {**inputs(), **change}
    with pytest.raises(InputError, match=reason) as caught:
        session.run({name: array for name, array in given.items() if array is not None})
    assert "\n" not in str(caught.value)


def test_closed(session: Session) -> None:
    session.close()
    session.close()
    with pytest.raises(ValueError, match="closed"):
        session.run(inputs())


def test_fixed_sizes_and_symbols() -> None:
    spec = replace(LINEAR, inputs=(TensorSpec("ids", "int64", (1, "n")), TensorSpec("mask", "bool", ("n",))))
    check_inputs(spec, {"ids": np.zeros((1, 3), np.int64), "mask": np.ones(3, bool)})
    with pytest.raises(InputError, match="mask"):
        check_inputs(spec, {"ids": np.zeros((1, 3), np.int64), "mask": np.ones(4, bool)})
    with pytest.raises(InputError, match="ids"):
        check_inputs(spec, {"ids": np.zeros((2, 3), np.int64), "mask": np.ones(3, bool)})


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", ["half", "noise", "empty", "flipped"])
def test_corrupt_networks(tmp_path: Path, backend: Any, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(backend)
    whole = linear_onnx()
    content = {
        "half": whole[: len(whole) // 2],
        "noise": np.random.default_rng(0).bytes(500),
        "empty": b"",
        "flipped": bytes(byte ^ 0x55 if at % 7 == 0 else byte for at, byte in enumerate(whole)),
    }[kind]
    corrupt = write_fake_bundle(tmp_path / "bundle", {"linear.onnx": content}, {"linear": LINEAR})
    with pytest.raises(ArtifactError, match=r"linear\.onnx (is not a network|.* none, want)") as caught:
        opened(corrupt, backend)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_network_that_is_not_the_described_one(tmp_path: Path, backend: Any) -> None:
    pytest.importorskip(backend)
    other = replace(LINEAR, outputs=(TensorSpec("high", "float32", ("batch", 2)),))
    bundle = write_fake_bundle(tmp_path / "bundle", {"linear.onnx": linear_onnx()}, {"linear": other})
    with pytest.raises(ArtifactError, match=r"inputs and outputs low, offset, rows,.* total, want high"):
        opened(bundle, backend)


def test_bf16(bundle: Bundle) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(BackendError, match="use openvino or a GPU"):
        opened(bundle, precision="bf16")
    pytest.importorskip("openvino")
    core = shared_core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(BackendError, match="does not compute in bf16"):
            opened(bundle, "openvino", precision="bf16")
        return
    given = inputs(3, 64)
    with opened(bundle, "openvino", precision="bf16") as session:
        found = session.run(given)["low"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, linear(**given)[0], atol=0.05)


def test_choices(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="'tensorflow' is unknown: choose from onnxruntime, openvino, tensorrt,"):
        opened(bundle, "tensorflow")
    with pytest.raises(InputError, match="'int8' is unknown: choose from fp32, fp16, bf16"):
        opened(bundle, precision="int8")
    with pytest.raises(InputError, match="0 threads"):
        opened(bundle, n_threads=0)


def test_sizes_outside_a_profile() -> None:
    profile = {"batch": (1, 2, 4), "frames": (8, 8, 8)}
    check_inputs(LINEAR, inputs(4, 8), profile)
    for batch, frames, reason in ((5, 8, r"batch 1\.\.4, got 5"), (1, 7, r"frames 8\.\.8, got 7")):
        check_inputs(LINEAR, inputs(batch, frames))
        with pytest.raises(InputError, match=reason + ": outside the profile"):
            check_inputs(LINEAR, inputs(batch, frames), profile)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_missing_package_is_named(bundle: Bundle, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(BackendError, match=rf"{backend} is not installed: pip install 'tango-rt\[{backend}\]'"):
        opened(bundle, backend)


def test_a_broken_package_is_not_called_missing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "onnxruntime.py").write_text("import something_it_needs\n")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"broken .*lacks something_it_needs"):
        opened(bundle)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_quiet(bundle: Bundle, backend: str) -> None:
    pytest.importorskip(backend)
    code = (
        "import sys, numpy as np\nfrom engine.inference.manifest import Bundle\n"
        "from engine.inference.backends import open_graph\n"
        "assert not {'onnxruntime', 'openvino', 'torch'} & set(sys.modules)\n"
        f"bundle = Bundle.open({str(bundle.folder)!r})\n"
        f"session = open_graph(bundle.model('linear'), bundle.graph('linear'), {backend!r})\n"
        "session.run({'rows': np.ones((1, 2, 4), np.float32), 'offset': np.ones((1, 2), np.float32)})\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_network_that_fails_on_what_it_was_given(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The manifest allows any rank-3 rows; the network itself wants 4 columns."""
    pytest.importorskip("onnxruntime")
    loose = replace(LINEAR, inputs=(TensorSpec("rows", "float32", ("batch", "frames", "columns")), LINEAR.inputs[1]))
    bundle = write_fake_bundle(tmp_path / "bundle", {"linear.onnx": linear_onnx()}, {"linear": loose})
    given = {**inputs(), "rows": np.zeros((2, 5, 3), np.float32)}
    for backend in ("onnxruntime", "openvino"):
        pytest.importorskip(backend)
        session = opened(bundle, backend)
        with pytest.raises(BackendError, match=r"network linear failed on rows\[2, 5, 3\], offset") as caught:
            session.run(given)
        assert "\n" not in str(caught.value)
        session.close()
    assert capfd.readouterr() == ("", "")


def test_signals_do_no_harm_after_networks_are_closed(bundle: Bundle) -> None:
    """In the order of their opening, which is the one that matters to openvino."""
    pytest.importorskip("openvino")
    code = (
        "import signal\nfrom engine.inference.manifest import Bundle\n"
        "from engine.inference.backends import open_graph\n"
        f"bundle = Bundle.open({str(bundle.folder)!r})\n"
        "for _ in range(2):\n"
        "    model, spec = bundle.model('linear'), bundle.graph('linear')\n"
        "    first, second = (open_graph(model, spec, 'openvino') for _ in range(2))\n"
        "    first.close()\n"
        "    second.close()\n"
        "del first, second\n"
        "try:\n    signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "interrupted\n"), found.stderr
