"""Everything that only a GPU can show, in one go: python -m benchmarks.gpu_check [--output gpu_check.json]

    python -m benchmarks.gpu_check --budget-s 1500          on a machine with an NVIDIA GPU, most valuable first
    python -m benchmarks.gpu_check --device cpu --quick     the same script with small networks on a CPU

Random networks: AuMoCLIP's window of speech (speech, text, audio), ACInterp's denoiser at 512 and 768 pixels, mini.
They are exported, compiled for every back end that is usable here in fp32, fp16 and bf16, compared with torch in fp32,
and timed: percentiles, after pauses, CUDA graphs on and off, after another shape, memory, seconds to build, to build
again with the timing cache, to open. Next to them torch as it is, in half precision and compiled, in the same run.

Runs from the repository's root, installed or not. Needs numpy, torch, onnx, onnxscript and tqdm; transformers, numba
and scipy for AuMoCLIP and mini, diffusers and transformers for ACInterp. To make and run engines also onnxruntime (its
GPU package for CUDA), polygraphy, cuda-bindings and tensorrt or tensorrt-rtx. What is missing is left out and the
result says so. Nothing of media, servers or OpenCV is needed.

Every section is a process of its own: one that crashes, hangs or runs out of memory is recorded with its reason. The
JSON file is rewritten after each.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_machine import describe_machine
from benchmarks.gpu_sections import Settings, run_section
from benchmarks.gpu_tables import markdown
from engine.errors import TangoError

MIN_SECTION_S = 20.0  # less is no time to load torch in
PRECISIONS = {
    "tensorrt": ("bf16", "fp16", "fp32"),
    "tensorrt-rtx": ("bf16", "fp16", "fp32"),
    "onnxruntime": ("fp32", "fp16"),
    "openvino": ("bf16", "fp32"),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"), help="where the result is written")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small networks, few calls")
    parser.add_argument("--budget-s", type=float, default=1500, help="for everything (default: %(default)s)")
    parser.add_argument("--only", metavar="TEXT", help="sections with this in their name, as in window")
    parser.add_argument("--work", type=Path, help="folder for bundles and engines (default: a temporary one)")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.section:
        settings = Settings(arguments.device, arguments.quick, arguments.work, arguments.budget_s)
        work_on(arguments.section, settings, arguments.rows)
        return
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        work = arguments.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        result = check(Settings(arguments.device, arguments.quick, work, arguments.budget_s), arguments)
    print("\n".join(markdown(result)))
    print(f"\nwritten: {arguments.output}")


def check(settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the sections one after another; the result is also written to the output file."""
    started = time.perf_counter()
    result: dict[str, Any] = {
        "machine": describe_machine(settings.device),
        "options": {"device": settings.device, "quick": settings.quick, "budget_s": settings.section_s},
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "sections": {},
    }
    for name in sections(result["machine"], settings):
        if arguments.only and arguments.only not in name:
            continue
        left_s = settings.section_s - (time.perf_counter() - started)
        result["sections"][name] = _section(name, settings, left_s, result["sections"])
        result["seconds"] = round(time.perf_counter() - started, 1)
        _write(arguments.output, result)
        _say(name, result["sections"][name])
    _write(arguments.output, result)
    return result


def sections(machine: dict[str, Any], settings: Settings) -> list[str]:
    """Names in order of importance, without those that no library here can run."""
    left_out, only_built = machine["left_out"], machine["only_built"]
    usable = {backend: precisions for backend, precisions in PRECISIONS.items() if left_out.get(backend) is None}
    if settings.device == "cpu" and "onnxruntime" in usable:
        usable["onnxruntime"] = ("fp32",)
    best = [f"{backend}:{precisions[0]}" for backend, precisions in usable.items()]
    rest = [f"{backend}:{precision}" for backend, precisions in usable.items() for precision in precisions[1:]]
    names = ["torch:window", "torch:denoiser-512"]
    if usable or only_built:
        names += ["bundle:mini", "torch:mini", *(f"engine:mini:{engine}" for engine in best)]
        for bundle, case in (("full", "window"), ("acinterp", "denoiser-512")):
            names += [f"bundle:{bundle}", *(f"engine:{case}:{engine}" for engine in best)]
    names += ["torch:denoiser-768", *(f"engine:denoiser-768:{engine}" for engine in best)]
    names += ["compile:window", "compile:denoiser-512"]
    names += [f"engine:{case}:{engine}" for case in ("window", "denoiser-512", "mini") for engine in rest]
    names += [f"verify:mini:{engine}" for engine in best + rest]
    names += [f"build:{case}:{backend}:bf16" for backend in only_built for case in ("mini", "window", "denoiser-512")]
    return [name for name in names if left_out.get("torch") is None or not name.startswith(("torch", "compile"))]


def work_on(name: str, settings: Settings, rows: Path) -> None:
    """The side of a section's process: a line of JSON for every row, at once."""
    with rows.open("a", encoding="utf-8") as file:

        def tell(row: dict[str, Any]) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        try:
            run_section(name, settings, tell)
        except (TangoError, ImportError) as error:
            tell({"left_out": str(error)})
        except Exception as error:
            reason = " ".join(str(error).split())[:400]
            tell({"failed": f"{type(error).__name__}: {reason}"})
            raise


def _section(name: str, settings: Settings, left_s: float, done: dict[str, Any]) -> dict[str, Any]:
    """Rows of a section, or why there are none."""
    if left_s < MIN_SECTION_S:
        return {"left_out": f"{max(0, left_s):.0f} s of the time were left"}
    kind, subject, *_ = name.split(":")
    if kind in ("engine", "build", "verify"):
        from benchmarks.gpu_networks import CASES

        if not (settings.work / CASES[subject].bundle / "manifest.json").is_file():
            return {"left_out": f"there is no bundle {CASES[subject].bundle}"}
    rows = settings.work / f"{name.replace(':', '-')}.jsonl"
    rows.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--section", name, "--rows", str(rows)]
    command += ["--device", settings.device, "--work", str(settings.work), "--budget-s", str(left_s)]
    started = time.perf_counter()
    failed = supervise([*command, *(["--quick"] if settings.quick else [])], left_s)
    found = [json.loads(line) for line in rows.read_text("utf-8").splitlines()] if rows.is_file() else []
    section = {"seconds": round(time.perf_counter() - started, 1), "rows": found}
    if failed and not any("failed" in row for row in found):
        section["failed"] = failed
    return section


def supervise(command: Sequence[str], limit_s: float) -> str:
    """Run to the end or the limit; "" where all went well, else what went wrong with the end of what it wrote."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"not done after {limit_s:.0f} s"
        finally:
            if process.poll() is None:  # also where we are interrupted: nothing of it must stay on the GPU
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        errors.seek(0)
        told = " ".join(errors.read()[-1500:].split())
    return "" if code == 0 else f"exit code {code}: {told[-400:]}"


def _write(output: Path, result: dict[str, Any]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    adjacent = output.with_name(f".{output.name}.new")
    adjacent.write_text(json.dumps(result, indent=1), "utf-8")
    adjacent.replace(output)


def _say(name: str, section: dict[str, Any]) -> None:
    rows = section.get("rows", [])
    figures = [f"{row['contender']} {row['p50_ms']} ms" for row in rows if "p50_ms" in row]
    wrong = [row[key] for row in (section, *rows) for key in ("left_out", "failed") if key in row]
    print(f"{name} ({section.get('seconds', 0)} s): {'; '.join(figures + wrong)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
