"""Verification: what agrees passes, what does not is named, and what was not measured is said."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from engine.errors import ArtifactError, BackendError, InputError
from engine.inference.backends import BACKENDS, open_graph
from engine.inference.engine_sets import read_set
from engine.inference.engines import REPORT, current_key, engines_folder, set_folder, write_engine
from engine.inference.manifest import Bundle, GraphSpec, TensorSpec
from engine.inference.networks import NetworkOptions, Networks
from engine.inference.report import Agreement, read_any_report
from engine.inference.session import RunOptions
from engine.inference.target import Target
from export.comparison import compare_outputs
from export.compile import CompileOptions, compile_bundle
from export.report import table, verdict
from export.verify import GATES, measure_latency, random_inputs, trial_sizes, verify
from tests.helpers.fakes_session import LINEAR, FunctionSession, linear, linear_onnx, write_fake_bundle
from tests.helpers.machine import need, replace_answers

PROFILES = {"live": {"batch": (1, 1, 2), "frames": (2, 8, 16)}, "one": {"batch": (1, 1, 1), "frames": (8, 8, 8)}}
PARITY = {"reached": {"low": {"max_abs": 3e-7, "mean_abs": 1e-8, "cosine": 0.9999999}}}


def changed_onnx(change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """LINEAR with other weights: an engine that computes something else."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(linear_onnx())
    for tensor in model.graph.initializer:
        if tensor.name == "weight":
            array = change(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), "weight"))
    return bytes(model.SerializeToString())


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    spec = replace(LINEAR, profiles=PROFILES, parity={"onnxruntime": PARITY})
    graphs = {"linear": spec, "exact": replace(spec, keep_fp32=True)}
    return write_fake_bundle(tmp_path / "bundle", {"linear.onnx": linear_onnx()}, graphs)


def compiled(bundle: Bundle, backend: str, precision: str = "fp32", profile: str = "live") -> Path:
    options = CompileOptions(Target(backend, precision, profile), verify=False, progress=False)  # type: ignore[arg-type]
    return Path(compile_bundle(bundle.folder, options)["engines"])


def swapped(bundle: Bundle, tmp_path: Path, content: bytes) -> None:
    """Make `content` the onnxruntime engine of the network linear, with a record that is in order."""
    compiled(bundle, "onnxruntime")
    (tmp_path / "other").write_bytes(content)
    key = current_key(bundle, "linear", Target("onnxruntime", "fp32", "live"))
    folder = set_folder(
        engines_folder(bundle), Target("onnxruntime", "fp32", "live"), BACKENDS["onnxruntime"].machine()
    )
    write_engine(folder, key, {"linear.engine": tmp_path / "other"}, {})


@pytest.mark.parametrize(
    ("backend", "precision"), [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")]
)
def test_engines_that_agree_pass(bundle: Bundle, backend: str, precision: str) -> None:
    need(backend, precision)  # type: ignore[arg-type]
    folder = compiled(bundle, backend, precision)
    report = verify(bundle, Target(backend, precision))  # type: ignore[arg-type]
    assert report.passed is True and report.why == ""
    assert read_any_report(folder) == report and len(report.sha256) == 64
    found = read_set(bundle, folder.parent, Target(backend, precision, "live"))  # type: ignore[arg-type]
    assert found.verified and report.engines == {graph: engine.digest for graph, engine in found.engines.items()}
    network = report.networks["linear"]
    assert network.trials == tuple({"batch": b, "frames": f} for b, f in ((1, 2), (1, 8), (2, 16)))
    assert network.reached.keys() == {"low", "total"} and network.notes == ()
    assert network.torch == {"max_abs": 3e-7, "cosine": 0.9999999}
    assert network.asked == GATES[precision]  # type: ignore[index]
    assert report.networks["exact"].asked == GATES["fp32"]
    exact = report.networks["exact"].reached["low"].relative_l2
    assert exact < 1e-6
    if precision == "bf16":
        assert 1e-4 < network.reached["low"].relative_l2 < 1e-2  # it is computed in bf16 indeed
    for latency in (network.latency, network.reference):
        assert latency is not None and 0 < latency.median_ms <= latency.p99_ms and latency.n_runs >= 3
    assert report.median_ms is not None and report.reference_ms is not None
    assert report.versions[backend] and report.machine.cpu and report.seconds > 0
    with Networks.open(bundle, NetworkOptions(backend, precision)) as networks:  # type: ignore[arg-type]
        assert networks.report_sha256 == report.sha256


BROKEN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "a thousandth more": lambda weight: weight * 1.001,
    "another sign": lambda weight: -weight,
    "nothing": lambda weight: weight * 0,
    "NaN": lambda weight: weight * np.nan,
    "infinite": lambda weight: weight + np.inf,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_engines_that_do_not_agree_fail(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    swapped(bundle, tmp_path, changed_onnx(BROKEN[kind]))
    report = verify(bundle, Target("onnxruntime"))
    assert report.passed is False
    assert report.why.startswith("linear: low has cosine ") and "exact" not in report.why
    assert "wanted cosine 0.99999, max abs 0.0001 times the scale beyond 1" in report.why
    assert report.networks["exact"].passed and not report.networks["linear"].passed
    assert "MISSED" in table(report) and verdict(report).startswith("FAILED (linear: low")
    text = (
        set_folder(engines_folder(bundle), Target("onnxruntime", "fp32", "live"), BACKENDS["onnxruntime"].machine())
        / REPORT
    ).read_text()
    assert "NaN" not in text and "Infinity" not in text
    again = read_any_report(engines_folder(bundle) / "onnxruntime-fp32-live")
    assert again is not None and again.passed is False and not again.networks["linear"].passed
    with Networks.open(bundle) as networks:  # there are the ONNX files
        assert "failed verification: linear: low" in networks.reason and networks.engine_key == ""


def test_outputs_of_another_shape_are_an_error(bundle: Bundle) -> None:
    one, other = {"low": np.zeros((2, 3), np.float32)}, {"low": np.zeros((3, 2), np.float32)}
    with pytest.raises(BackendError, match=r"gives low as float32\[3, 2\], onnxruntime as float32\[2, 3\]"):
        compare_outputs([one], [other])


def test_figures_of_known_arrays() -> None:
    a = np.array([3.0, 4.0], np.float32)
    figures = compare_outputs([{"x": a}, {"x": a}], [{"x": a}, {"x": np.array([3.0, 4.5], np.float32)}])["x"]
    assert figures.max_abs == 0.5 and figures.mean_abs == 0.25 and figures.scale == 4
    assert figures.relative_l2 == pytest.approx(0.1)
    assert figures.cosine == pytest.approx((9 + 18) / (5 * np.hypot(3, 4.5)))
    zeros = np.zeros(3, np.float32)
    assert compare_outputs([{"x": zeros}], [{"x": zeros}])["x"] == Agreement(0, 0, 1, 0, 0)
    off = compare_outputs([{"x": zeros}], [{"x": zeros + 1}])["x"]
    assert off.cosine == 0 and off.relative_l2 == np.inf
    empty = np.zeros((4, 0), np.float32)
    assert compare_outputs([{"x": empty}], [{"x": empty}])["x"] == Agreement(0, 0, 1, 0, 0)
    integers = compare_outputs([{"x": np.array([1, 2])}], [{"x": np.array([1, 3])}])["x"]
    assert integers.max_abs == 1


@pytest.mark.parametrize("precision", GATES)
def test_gates(precision: str) -> None:
    gate = GATES[precision]  # type: ignore[index]
    good = Agreement(0, 0, 1, 0, 1)
    assert gate.passes(good)
    for name in ("cosine", "max_abs", "relative_l2"):
        bound = getattr(gate, name)
        if bound is None:
            continue
        at, beyond = bound, bound * (0.999 if name == "cosine" else 1.001)
        assert gate.passes(replace(good, **{name: at}))
        for bad in (beyond, np.nan):
            assert not gate.passes(replace(good, **{name: bad}))
    if gate.max_abs is not None:
        assert gate.passes(replace(good, max_abs=9e-4, scale=10)) and not gate.passes(replace(good, max_abs=9e-4))


def test_one_shape_gets_three_draws(bundle: Bundle) -> None:
    compiled(bundle, "onnxruntime", profile="one")
    report = verify(bundle, Target("onnxruntime", profile="one"))
    network = report.networks["linear"]
    assert network.trials == ({"batch": 1, "frames": 8},) * 3
    assert network.notes == ("one size only: three draws of inputs",)
    draws = [random_inputs(LINEAR, network.trials[0], seed) for seed in (0, 1, 0)]
    assert not np.array_equal(draws[0]["rows"], draws[1]["rows"])
    assert all(np.array_equal(draws[0][name], draws[2][name]) for name in draws[0])


def test_the_most_is_cut_where_it_would_take_minutes() -> None:
    spec = replace(LINEAR, profiles={})
    trials, notes = trial_sizes(spec, {"batch": (1, 1, 1), "frames": (2, 8, 1 << 30)})
    assert trials[:2] == [{"batch": 1, "frames": 2}, {"batch": 1, "frames": 8}]
    assert trials[2]["frames"] == 1 << 19
    assert notes == ["the largest trial is batch 1, frames 524288: more takes minutes"]
    pinned = {"batch": (1, 1, 1), "frames": (1 << 30,) * 3}
    assert trial_sizes(spec, pinned)[0][2]["frames"] == 1 << 30  # nothing else was compiled
    usual = {"batch": (1, 1, 1), "frames": (1, 1 << 28, 1 << 30)}
    assert trial_sizes(spec, usual)[0][2]["frames"] == 1 << 28


def test_inputs_are_of_their_kind() -> None:
    spec = GraphSpec(
        name="all",
        file="all.onnx",
        inputs=(
            TensorSpec("ids", "int64", ("batch", 300), below=7),
            TensorSpec("step", "int64", (), below=1000),
            TensorSpec("mask", "bool", (200,)),
            TensorSpec("wide", "float64", (4, "batch")),
        ),
        outputs=(TensorSpec("x", "float32", (1,)),),
        parity={},
    )
    inputs = random_inputs(spec, {"batch": 2}, 0)
    assert {name: (str(array.dtype), array.shape) for name, array in inputs.items()} == {
        "ids": ("int64", (2, 300)),
        "step": ("int64", ()),
        "mask": ("bool", (200,)),
        "wide": ("float64", (4, 2)),
    }
    assert set(np.unique(inputs["ids"])) == set(range(7)) and set(np.unique(inputs["mask"])) == {False, True}
    assert all(isinstance(array, np.ndarray) for array in inputs.values())


def test_latency_is_bounded_by_time() -> None:
    inputs = random_inputs(LINEAR, {"batch": 1, "frames": 2}, 0)
    session = FunctionSession(linear, LINEAR)
    assert measure_latency(session, inputs).n_runs == 200
    assert measure_latency(session, inputs, max_s=0.0).n_runs == 3


def test_what_cannot_be_run_here_neither_passes_nor_fails(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = compiled(bundle, "openvino")
    replace_answers(monkeypatch, "openvino", why_not_runnable=lambda: "openvino needs a GPU")
    report = verify(bundle, Target("openvino"))
    assert report.passed is None and report.why == "openvino needs a GPU"
    assert not report.networks and report.median_ms is None
    assert read_any_report(folder) == report
    assert verdict(report) == "not verified (openvino needs a GPU)" and "MISSED" not in table(report)
    found = read_set(bundle, folder.parent, Target("openvino", "fp32", "live"))
    assert found.state == "not verified: openvino needs a GPU"


def test_what_cannot_be_verified(bundle: Bundle) -> None:
    with pytest.raises(ArtifactError, match=r"cannot be verified \(not compiled yet\): run 'tango-export compile"):
        verify(bundle, Target("openvino"))
    folder = compiled(bundle, "openvino")
    with (folder / "linear.engine").open("r+b") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match=r"corrupt: linear\.engine was changed"):
        verify(bundle, Target("openvino"))
    with pytest.raises(InputError, match="no profile 'tall'"):
        verify(bundle, Target("openvino", profile="tall"))
    with pytest.raises(ArtifactError, match="network linear has no profile to verify"):
        trial_sizes(LINEAR, {})


def test_a_disk_that_is_full_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = compiled(bundle, "onnxruntime")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.inference.report.os.replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        verify(bundle, Target("onnxruntime"))
    assert sorted(path.name for path in folder.iterdir()) == [
        "exact.engine",
        "exact.json",
        "linear.engine",
        "linear.json",
    ]


@pytest.mark.usefixtures("every_precision")
def test_the_table_says_it_all(bundle: Bundle) -> None:
    compiled(bundle, "openvino", "bf16")
    report = verify(bundle, Target("openvino", "bf16"))
    lines = table(report).splitlines()
    assert lines[0] == f"fake openvino bf16 live on {report.machine.cpu}: passed"
    assert lines[1].split()[:4] == ["network", "in", "output", "max"]
    assert [line.split()[0] for line in lines[2:6]] == ["linear", "total", "exact", "total"]
    assert lines[2].split()[1:3] == ["bf16", "low"] and lines[4].split()[1:3] == ["fp32", "low"]
    assert "gate of bf16: cosine 0.999, relative L2 0.05" in lines
    assert any(line.startswith("onnxruntime against torch") for line in lines)
    assert lines[-1].startswith("tango-rt ") and lines[-1].endswith(" s")
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["passed"] is True


def test_the_fake_engine_is_run(bundle: Bundle, tmp_path: Path) -> None:
    """The tests above swap engines: what is swapped in is what is run."""
    (tmp_path / "double.onnx").write_bytes(changed_onnx(lambda weight: weight * 2))
    inputs = random_inputs(LINEAR, {"batch": 1, "frames": 2}, 0)
    inputs["offset"][:] = 0
    with open_graph(tmp_path / "double.onnx", LINEAR, "onnxruntime", RunOptions(compiled=True)) as session:
        np.testing.assert_allclose(session.run(inputs)["low"], 2 * linear(**inputs)[0], rtol=1e-5)


def test_of_many_outputs_the_worst_are_shown(bundle: Bundle) -> None:
    compiled(bundle, "onnxruntime")
    report = verify(bundle, Target("onnxruntime"))
    linear_report = report.networks["linear"]
    outputs = {f"keys_{n}": Agreement(1e-6, 1e-7, 1.0, n * 1e-7, 1.0) for n in range(9)}
    many = replace(report, networks={"linear": replace(linear_report, reached=outputs)})
    assert "keys_8, worst of 9" in table(many) and "keys_7" not in table(many)
    outputs["keys_3"] = replace(outputs["keys_3"], cosine=0.5)
    missed = replace(report, networks={"linear": replace(linear_report, reached=outputs)})
    assert "keys_3" in table(missed) and "MISSED" in table(missed) and "worst of" not in table(missed)
