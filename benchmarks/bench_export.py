"""From weights to verified engines on this machine: how long, how close, how fast.

    python -m benchmarks.bench_export [--full DIR] [--character PACK --speech WAV] [--work DIR] [--rounds 12] [--json]

mini and ACInterp at small width, with made-up weights, are compiled and verified for openvino and onnxruntime by the
command that a user runs; then once more, when everything is there; then opened. All times are whole processes, from
start to end. TensorRT-RTX, where it is installed, builds the same networks, which needs no GPU.

--full: a bundle of `tango-export bundle full --random 5`. It is compiled for openvino in bf16 and for onnxruntime in
fp32, and a window of speech is timed in both and in torch, in turns (benchmarks/bench_full.py). --character, --speech:
does bf16 choose the same path for it?
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import bench_full
from benchmarks.gpu_networks import SEED, bundle_at
from engine.inference.backends import find_backend

__all__ = ["markdown", "measure"]

BACKENDS = ("openvino", "onnxruntime")
OPEN = """
import sys
from pathlib import Path
from engine.inference.networks import NetworkOptions, Networks

options = NetworkOptions(sys.argv[2], sys.argv[3], engines=Path(sys.argv[4]))
with Networks.open(Path(sys.argv[1]), options) as networks:
    for graph in networks.bundle.graphs:
        networks.session(graph)
print(networks.reason)
"""


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Everything that `markdown` shows."""
    bundles = {"mini": work / "mini", "acinterp, small": work / "acinterp"}
    if not bundles["mini"].exists():
        bundle_at(bundles["mini"], "mini", small=True)
    if not (small := bundles["acinterp, small"]).exists():
        _export("bundle", "acinterp", "--random", str(SEED), "--width", "small", "-o", str(small))
    rows = [
        {"bundle": name, **_compiled(folder, backend, "fp32", work / "engines" / folder.name / backend)}
        for name, folder in bundles.items()
        for backend in BACKENDS
    ]
    result: dict[str, Any] = {"compiled": rows, "parity": {name: _parity(folder) for name, folder in bundles.items()}}
    if find_backend("tensorrt-rtx").why_not_buildable() is None:
        result["rtx"] = [
            {"bundle": name, **_built(folder, precision, work / "engines" / folder.name / "rtx")}
            for name, folder in bundles.items()
            for precision in ("fp32", "fp16", "bf16")
        ]
    if arguments.full:
        result["parity"]["full"] = _parity(arguments.full)
        result["full"] = _full(arguments)
    return result


def _compiled(folder: Path, backend: str, precision: str, engines: Path, *more: str) -> dict[str, Any]:
    """Compile, compile again, open; each in a separate process."""
    command = ("compile", str(folder), "--backend", backend, "--precision", precision, "-o", str(engines), *more)
    first_s, first = _export(*command)
    again = [_export(*command) for _ in range(3)]
    return {
        "backend": backend,
        "precision": precision,
        "first_s": first_s,
        "built": first["built"],
        "again_s": statistics.median(seconds for seconds, _ in again),
        "built_again": max(summary["built"] for _, summary in again),
        "open_s": statistics.median(_opened(folder, backend, precision, engines) for _ in range(3)),
        "mb": first["bytes"] / 1e6,
        "verified": _verdict(first["report"]),
    }


def _built(folder: Path, precision: str, engines: Path) -> dict[str, Any]:
    """TensorRT-RTX's builder; whether its engines are right, only a GPU can show."""
    command = ("compile", str(folder), "--backend", "tensorrt-rtx", "--precision", precision, "-o", str(engines))
    seconds, summary = _export(*command, "--no-verify")
    networks = summary["networks"].values()
    return {
        "precision": precision,
        "seconds": seconds,
        "networks": len(networks),
        "mb": summary["bytes"] / 1e6,
        "peak_mb": max(row["peak_memory_bytes"] for row in networks) / 1e6,
        "again_s": _export(*command, "--no-verify")[0],
    }


def _export(*arguments: str) -> tuple[float, dict[str, Any]]:
    """Wall seconds of a tango-export command and the JSON that it prints."""
    command = [str(Path(sys.executable).with_name("tango-export")), *arguments, "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return seconds, json.loads(done.stdout)


def _opened(folder: Path, backend: str, precision: str, engines: Path) -> float:
    """Wall seconds of a process that opens every network of a bundle."""
    started = time.perf_counter()
    command = [sys.executable, "-c", OPEN, str(folder), backend, precision, str(engines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    if "compiled and verified" not in done.stdout:
        raise SystemExit(f"the engines of {folder} were not run: {done.stdout.strip()}")
    return seconds


def _parity(folder: Path) -> dict[str, dict[str, float]]:
    """ONNX against torch, by back end: the worst of all outputs of all networks over all trials."""
    from engine.inference.manifest import Bundle

    worst: dict[str, dict[str, float]] = {}
    for graph in Bundle.open(folder).graphs.values():
        for backend, record in graph.parity.items():
            for output in record["reached"].values():
                found = worst.setdefault(backend, {"max_abs": 0.0, "share_of_bound": 0.0, "cosine": 1.0})
                share = output["max_abs"] / (record["asked"]["max_abs"] * max(1.0, output["scale"]))
                found["max_abs"] = max(found["max_abs"], output["max_abs"])
                found["share_of_bound"] = max(found["share_of_bound"], share)
                found["cosine"] = min(found["cosine"], output["cosine"])
    return worst


def _full(arguments: argparse.Namespace) -> dict[str, Any]:
    """The published network at full size: compiled, agreement of paths if it can be measured, a window timed."""
    told: tuple[str, ...] = ()
    if arguments.character and arguments.speech:
        told = ("--character", str(arguments.character), "--speech", str(arguments.speech))
    engines = arguments.full / "engines"  # where bench_full finds them
    low = "fp32" if find_backend("openvino").why_no_precision("bf16") else "bf16"
    compiled = [
        _compiled(arguments.full, "openvino", low, engines, *told),
        _compiled(arguments.full, "onnxruntime", "fp32", engines),
    ]
    timing = argparse.Namespace(wav=None, rounds=arguments.rounds, threads=2, bundle=arguments.full)
    return {"compiled": compiled, "window": bench_full.measure(arguments.full, timing)}


def markdown(result: Mapping[str, Any]) -> Iterator[str]:
    """Lines for RESULTS.md."""
    rows = result["compiled"]
    total_s, again_s = (sum(row[key] for row in rows) for key in ("first_s", "again_s"))
    yield "### Compiled and verified for this machine"
    yield ""
    yield from _table(rows, ("bundle", "backend", "precision", "built", *_COMPILED))
    yield ""
    yield f"All of it {total_s:.1f} s; a second time {again_s:.1f} s, {sum(row['built_again'] for row in rows)} built."
    yield ""
    yield "### ONNX against torch, the worst of all outputs"
    yield ""
    parity = [
        {"bundle": name, "backend": backend, **worst}
        for name, found in result["parity"].items()
        for backend, worst in found.items()
    ]
    yield from _table(parity, ("bundle", "backend", "max_abs", "share_of_bound", "cosine"))
    if "rtx" in result:
        yield ""
        yield "### TensorRT-RTX built without a GPU"
        yield ""
        yield from _table(result["rtx"], ("bundle", "precision", "networks", "seconds", "again_s", "mb", "peak_mb"))
    if "full" in result:
        yield from _full_lines(result["full"])


_COMPILED = ("first_s", "again_s", "open_s", "mb", "verified")


def _full_lines(full: Mapping[str, Any]) -> Iterator[str]:
    window = full["window"]
    yield ""
    yield "### AuMoCLIP at full size: a window of 4.27 s of speech"
    yield ""
    yield from _table(full["compiled"], ("backend", "precision", *_COMPILED))
    yield ""
    yield f"{window['threads']} threads, {window['rounds']} rounds in turns; faster: median of pairs, against torch."
    yield ""
    rows = [{"contender": name, **row} for name, row in window["rows"].items()]
    columns = ("best_s", "median_s", "faster", "real_time", "memory_mb", "cosine_low", "cosine_high")
    yield from _table(rows, ("contender", *columns))


def _verdict(report: Mapping[str, Any]) -> str:
    verdict = {True: "yes", False: "NO", None: "not run here"}[report["passed"]]
    return f"{verdict} ({report['why']})" if report["why"] else verdict


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[str]:
    yield f"| {' | '.join(column.replace('_', ' ') for column in columns)} |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        yield f"| {' | '.join(_cell(row[column], column) for column in columns)} |"


def _cell(value: Any, column: str) -> str:
    if isinstance(value, float):
        return f"{value:.7f}" if column.startswith("cosine") else f"{value:.4g}"
    return str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=Path, help="bundle of the published size")
    parser.add_argument("--character", type=Path, help="pack")
    parser.add_argument("--speech", type=Path, help="real speech")
    parser.add_argument("--work", type=Path, help="folder for bundles and engines (default: a temporary one)")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(arguments, arguments.work or Path(scratch))
    print(json.dumps(result) if arguments.json else "\n".join(markdown(result)))


if __name__ == "__main__":
    main()
