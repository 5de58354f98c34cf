"""The script for GPU machines, on this one: it runs to its end, whatever is missing, hangs or crashes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "transformers"):
    pytest.importorskip(package)

from benchmarks import gpu_check, gpu_machine, gpu_sections  # noqa: E402
from benchmarks.gpu_networks import CASES, TorchRunner, case_inputs, modules  # noqa: E402
from benchmarks.gpu_sections import Settings  # noqa: E402
from benchmarks.gpu_tables import markdown  # noqa: E402
from benchmarks.gpu_timing import Pace, after_pauses, differences, first_then_steady_ms, latency  # noqa: E402
from engine.inference.target import Precision  # noqa: E402
from tests.helpers.machine import cannot_build  # noqa: E402

ROOT = Path(gpu_check.__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings("cpu", True, tmp_path_factory.mktemp("gpu"), 100.0)


def rows_of(name: str, settings: Settings) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    gpu_sections.run_section(name, settings, rows.append)
    json.dumps(rows)
    return rows


@pytest.mark.slow
def test_engines_end_to_end(quick: Settings) -> None:
    """Exported, compared with torch, compiled, found again, opened, timed."""
    (exported,) = rows_of("bundle:mini", quick)
    assert max(exported["onnx_max_abs"].values()) < 1e-4
    eager = next(row for row in rows_of("torch:mini", quick) if row.get("mode") == "eager")
    assert eager["against_torch"]["max_abs"] < 1e-5 and eager["n_calls"] >= 3
    low: Precision = "fp32" if cannot_build("openvino", "bf16") else "bf16"
    for backend, precision, cosine in (("onnxruntime", "fp32", 0.99999), ("openvino", low, 0.999)):
        rows = {row["step"]: row for row in rows_of(f"engine:mini:{backend}:{precision}", quick)}
        assert not any("failed" in row for row in rows.values())
        assert rows["compile"]["bytes"] > 0 and rows["cache hit"]["built"] == 0
        assert rows["-"]["against_torch"]["cosine"] > cosine
        assert set(rows["-"]["p50_ms_by_network"]) == {"audio", "motion"}
        assert len(rows["-"]["after_pause_ms"]) == 2
        assert set(rows["other sizes"]["shape_change"]) == {"audio", "motion"}


@pytest.mark.slow
def test_whole_script(tmp_path: Path) -> None:
    """As a user starts it, on a section that needs no library but torch; what is not here is said."""
    output = tmp_path / "found" / "gpu_check.json"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--quick", "--only", "torch:mini"]
    command += ["--budget-s", "120", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(output.read_text())
    assert list(result["sections"]) == ["torch:mini"]
    assert any("p50_ms" in row for row in result["sections"]["torch:mini"]["rows"])
    assert result["machine"]["left_out"]["torch"] is None and result["machine"]["left_out"]["tensorrt"]
    assert "| torch fp32 | eager |" in done.stdout and "- tensorrt: " in done.stdout
    assert [path.name for path in output.parent.iterdir()] == ["gpu_check.json"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("pass", ""),
        ("raise SystemExit('no room')", "exit code 1: no room"),
        ("import os; os.abort()", "exit code -6"),
        ("import time; time.sleep(60)", "not done after 1 s"),
    ],
)
def test_a_section_that_goes_wrong_is_told(code: str, told: str) -> None:
    found = gpu_check.supervise([sys.executable, "-c", code], 1.0 if "sleep" in code else 30.0)
    assert found.startswith(told) and bool(found) == bool(told)


def test_rows_before_a_crash_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(name: str, settings: Settings, tell: Any) -> None:
        tell({"contender": "torch fp32", "p50_ms": 1.0})
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(gpu_check, "run_section", crash)
    with pytest.raises(RuntimeError):
        gpu_check.work_on("torch:mini", Settings("cpu", True, tmp_path, 1.0), tmp_path / "rows")
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert rows[0]["p50_ms"] == 1.0 and "illegal memory access" in rows[1]["failed"]


def test_time_that_runs_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "result.json"
    gpu_check.main(["--device", "cpu", "--quick", "--budget-s", "1", "--output", str(output)])
    sections = json.loads(output.read_text())["sections"]
    assert {"torch:window", "torch:denoiser-512", "bundle:full", "engine:window:openvino:bf16"} <= sections.keys()
    assert all("s of the time were left" in section["left_out"] for section in sections.values())
    assert "left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("usable", "first", "absent"),
    [
        ((), ["torch:window", "torch:denoiser-512", "torch:denoiser-768"], ("bundle", "engine")),
        (("tensorrt",), ["torch:window", "torch:denoiser-512", "bundle:mini"], ("engine:window:openvino",)),
    ],
)
def test_the_most_valuable_first(usable: tuple[str, ...], first: list[str], absent: tuple[str, ...]) -> None:
    reasons: dict[str, str | None] = dict.fromkeys(gpu_check.PRECISIONS, "not installed")
    machine = {"left_out": {**reasons, **dict.fromkeys(usable), "torch": None}, "only_built": []}
    names = gpu_check.sections(machine, Settings("cuda", False, Path(), 1500.0))
    assert names[: len(first)] == first and len(set(names)) == len(names)
    assert not any(name.startswith(absent) for name in names)
    if usable:
        assert names.index("engine:window:tensorrt:bf16") < names.index("engine:window:tensorrt:fp32")
    without_torch = gpu_check.sections({**machine, "left_out": machine["left_out"] | {"torch": "no"}}, Settings(*_CUDA))
    assert not any(name.startswith(("torch", "compile")) for name in without_torch)


_CUDA = ("cuda", False, Path(), 1500.0)


def test_a_machine_without_a_gpu_says_so() -> None:
    machine = gpu_machine.describe_machine("cuda")
    if machine["gpu"] is None:
        assert machine["left_out"]["torch"] and machine["left_out"]["tensorrt"] and machine["left_out"]["tensorrt-rtx"]
    assert machine["left_out"]["openvino"] == "it runs on a CPU"


def test_percentiles() -> None:
    found = latency(lambda: None, Pace(50, 5.0, 0, 0.0))
    assert found["n_calls"] == 50 and found["p50_ms"] <= found["p90_ms"] <= found["p99_ms"] <= found["most_ms"]
    assert latency(lambda: None, Pace(50, 0.0, 0, 0.0))["n_calls"] == 3
    assert len(after_pauses(lambda: None, Pace(1, 1.0, 2, 0.01))["after_pause_ms"]) == 2
    assert len(first_then_steady_ms([lambda: None, lambda: None])) == 2


def test_differences() -> None:
    a = {"low": np.array([1.0, 2.0, 2.0], np.float32), "high": np.zeros(2, np.float32)}
    same = differences(a, a)
    assert (same["max_abs"], same["relative_l2"]) == (0, 0)
    worse = differences(a, {**a, "low": np.array([1.0, 2.0, 2.3], np.float32)})
    assert worse["max_abs"] == pytest.approx(0.3, rel=1e-5) and worse["relative_l2"] == pytest.approx(0.1, rel=1e-5)
    assert np.isnan(differences(a, {**a, "low": np.array([1.0, np.nan, 2.0], np.float32)})["cosine"])


def test_torch_keeps_what_stays_on_the_device() -> None:
    case = CASES["mini"]
    networks = modules(case, small=True)
    runner = TorchRunner(networks, "cpu", "fp32")
    inputs = case_inputs(case, networks["audio"][1])
    first = runner.run("audio", inputs)["low"]
    inputs["rows"] += 1
    assert not np.array_equal(first, runner.run("audio", inputs)["low"])  # one that may change is read again
    frozen = {"rows": inputs["rows"].copy()}
    frozen["rows"].setflags(write=False)
    again = [runner.run("audio", frozen)["low"] for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_tables_of_a_result_with_holes() -> None:
    timed = {"n_calls": 9, "p50_ms": 2.0, "p90_ms": 2.1, "p99_ms": 2.5, "p99_over_p50": 1.25}
    eager = {**timed, "contender": "torch fp32", "mode": "eager", "precision": "fp32", "p50_ms": 6.0}
    engine = {**timed, "contender": "tensorrt fp16", "mode": "CUDA graphs on", "precision": "fp16"}
    result = {
        "machine": {**gpu_machine.describe_machine("cpu"), "left_out": {"openvino": "not installed"}},
        "options": {"device": "cuda", "quick": False},
        "started": "now",
        "sections": {
            "torch:window": {"seconds": 1, "rows": [eager]},
            "engine:window:tensorrt:fp16": {"seconds": 1, "rows": [engine], "failed": "exit code -11"},
            "torch:denoiser-768": {"left_out": "3 s of the time were left"},
        },
    }
    text = "\n".join(markdown(result))
    assert "| tensorrt fp16 | CUDA graphs on | 9 | 2 | 2.1 | 2.5 | 1.25 | 3.00 | - |" in text
    assert "- engine:window:tensorrt:fp16, failed: exit code -11" in text
    assert "- torch:denoiser-768, left out: 3 s of the time were left" in text
    assert "- openvino: not installed" in text
