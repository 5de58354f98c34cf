"""The sections of gpu_check, each run in a process of its own: torch, the making of a bundle, engines of a back end.

A section tells its rows one by one, so that what was found before a crash or at the end of the time is kept. Reference
outputs (torch, fp32, without TF32) go from process to process in files; inputs are equal everywhere.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_networks import CASES, Case, Runner, TorchRunner, bundle_at, case_inputs, modules
from benchmarks.gpu_timing import Pace, after_pauses, differences, first_then_steady_ms, latency, used_mb
from engine.errors import TangoError

__all__ = ["Settings", "run_section"]

Tell = Callable[[dict[str, Any]], None]
GPU_BACKENDS = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class Settings:
    """device: "cuda" or "cpu". quick: small networks and few calls. work: folder of bundles, engines and references."""

    device: str
    quick: bool
    work: Path
    section_s: float  # how long a section may take

    def pace(self, case: Case) -> Pace:
        if self.quick:
            return Pace(min(20, case.most_calls), 1.0, 2, 0.2)
        return Pace(case.most_calls, 20.0, case.n_pauses, 10.0)


def run_section(name: str, settings: Settings, tell: Tell) -> None:
    """`name`: KIND:CASE[:BACKEND:PRECISION], kinds as below, or bundle:NAME."""
    kind, subject, *options = name.split(":")
    if kind == "bundle":
        _bundle(subject, settings, tell)
    elif kind == "torch":
        precisions = ("fp32", "bf16", "fp16") if settings.device == "cuda" else ("fp32", "bf16")
        _torch(CASES[subject], settings, tell, tuple((precision, "") for precision in precisions))
    elif kind == "compile":
        low = "fp32" if settings.device == "cpu" else "bf16"
        modes = ((low, "default"),) if settings.quick else ((low, "default"), (low, "reduce-overhead"))
        _torch(CASES[subject], settings, tell, modes)
    elif kind in ("engine", "build"):
        _engine(CASES[subject], settings, tell, *options, runs=kind == "engine")
    elif kind == "verify":
        _verify(CASES[subject], settings, tell, *options)
    else:
        raise ValueError(f"no section is called {name}")


def _torch(case: Case, settings: Settings, tell: Tell, modes: tuple[tuple[str, str], ...]) -> None:
    import torch

    started = time.perf_counter()
    networks = modules(case, settings.quick)
    tell({"contender": "torch", "note": f"weights made in {time.perf_counter() - started:.1f} s"})
    inputs = {name: case_inputs(case, graph) for name, (_, graph) in networks.items()}
    if not _reference_file(case, settings).exists():
        with _isolated(tell, "torch fp32", "reference"):
            _write_reference(case, settings, networks, inputs)
    states = {name: module.state_dict() for name, (module, _) in networks.items()}  # of float32, on the CPU
    for precision, mode in modes:
        contender = f"torch{'.compile' if mode else ''} {precision}"
        with _isolated(tell, contender, mode or "eager"):
            for name, (module, _) in networks.items():
                module.to(torch.float32).to("cpu").load_state_dict(states[name])
            if settings.device == "cuda":
                torch.cuda.empty_cache()  # of the one before
            before = used_mb(settings.device)
            opened = time.perf_counter()
            runner = TorchRunner(networks, settings.device, precision, mode)
            row = _measured(case, settings, runner, inputs)
            row |= {"contender": contender, "mode": mode or "eager", "precision": precision}
            row |= {"opened_s": round(time.perf_counter() - opened - row.pop("timed_s"), 2)}
            tell(row | _memory(before, settings))
            runner.close()
            torch.compiler.reset()


def _write_reference(case: Case, settings: Settings, networks: Any, inputs: dict[str, dict[str, np.ndarray]]) -> None:
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    runner = TorchRunner(networks, settings.device, "fp32")
    outputs = _outputs(case, runner, inputs)
    runner.close()
    torch.backends.cudnn.allow_tf32 = True  # torch's default, which is what is timed
    np.savez(_reference_file(case, settings), **outputs)


def _reference_file(case: Case, settings: Settings) -> Path:
    return settings.work / f"reference-{case.name}.npz"


def _bundle(name: str, settings: Settings, tell: Tell) -> None:
    summary = bundle_at(settings.work / name, name, settings.quick)
    worst = {
        f"{graph} {backend}": max(output["max_abs"] for output in record["reached"].values())
        for graph, found in summary["graphs"].items()
        for backend, record in found["parity"].items()
    }
    tell({"contender": "export", "seconds": summary["took_s"], "bytes": summary["bytes"], "onnx_max_abs": worst})


def _engine(case: Case, settings: Settings, tell: Tell, backend: Any, precision: Any, runs: bool) -> None:
    """Compile, then measure what a user would run, where it can be run."""
    from engine.inference.choice import NetworkOptions
    from engine.inference.target import Target
    from export.compile import CompileOptions, compile_bundle

    folder, contender = settings.work / case.bundle, f"{backend} {precision}"
    profile = list(_profiles(folder))[case.profile]
    asked = CompileOptions(Target(backend, precision, profile), verify=False, progress=False)
    compiled = compile_bundle(folder, asked)
    row = {"contender": contender, "precision": precision}
    networks = _seconds_by_network(compiled)
    tell({**row, "step": "compile", "build_s": compiled["took_s"], "bytes": compiled["bytes"], "networks": networks})
    if backend in GPU_BACKENDS and case.changing is None:  # the denoiser takes minutes
        with _isolated(tell, contender, "rebuild with the timing cache"):
            shutil.rmtree(compiled["engines"])
            again = compile_bundle(folder, asked)
            tell({**row, "step": "rebuild with the timing cache", "rebuild_s": again["took_s"]})
    hit = compile_bundle(folder, asked)
    tell({**row, "step": "cache hit", "built": hit["built"], "hit_s": hit["took_s"]})
    if not runs:
        return
    graphs_on: dict[str, np.ndarray] | None = None
    for cuda_graphs in (True, False) if settings.device == "cuda" else (True,):
        step = "-" if settings.device == "cpu" else f"CUDA graphs {'on' if cuda_graphs else 'off'}"
        with _isolated(tell, contender, step):
            named = {**row, "step": step, "mode": step}
            options = NetworkOptions(backend, precision, profile, unverified=True, cuda_graphs=cuda_graphs)
            outputs = _run(case, settings, partial(_tell_more, tell, named), options)
            if graphs_on is not None:
                equal = all(np.array_equal(graphs_on[name], array) for name, array in outputs.items())
                tell({**row, "step": "CUDA graphs on and off", "equal_to_graphs_on": equal})
            graphs_on = outputs


def _verify(case: Case, settings: Settings, tell: Tell, backend: Any, precision: Any) -> None:
    """The gates that a user's compile ends with."""
    from engine.inference.target import Target
    from export.compile import CompileOptions, compile_bundle

    folder = settings.work / case.bundle
    profile = list(_profiles(folder))[case.profile]
    summary = compile_bundle(folder, CompileOptions(Target(backend, precision, profile), progress=False))
    report = {name: summary["report"][name] for name in ("passed", "why")}
    tell({"contender": f"{backend} {precision}", "precision": precision, "step": "verify", "report": report})


def _tell_more(tell: Tell, named: dict[str, Any], found: dict[str, Any]) -> None:
    tell(named | found)


def _run(case: Case, settings: Settings, tell: Tell, options: Any) -> dict[str, np.ndarray]:
    """Open, compare, time; gives the outputs at the usual sizes."""
    from engine.inference.networks import Networks

    before, opened = used_mb(settings.device), time.perf_counter()
    with Networks.open(settings.work / case.bundle, options) as networks:
        specs = {graph: networks.bundle.graph(graph) for graph in case.graphs}
        inputs = {graph: case_inputs(case, spec) for graph, spec in specs.items()}
        outputs = _outputs(case, networks, inputs)
        found = {"reason": networks.reason, "opened_s": round(time.perf_counter() - opened, 2)}
        found |= _measured(case, settings, networks, inputs) | _memory(before, settings)
        del found["timed_s"]
        if options.cuda_graphs:
            found |= after_pauses(lambda: _once(case, networks, inputs), settings.pace(case))
        tell(found)
        if options.cuda_graphs and not case.changing:
            tell({"step": "other sizes", "shape_change": _other_sizes(case, networks, specs, inputs)})
    return outputs


def _measured(case: Case, settings: Settings, runner: Runner, inputs: Any) -> dict[str, Any]:
    """Agreement with the reference, latency of all networks in a row and of each, at the usual sizes."""
    outputs = _outputs(case, runner, inputs)
    reference = _reference_file(case, settings)
    row: dict[str, Any] = {"shapes": {g: {n: list(a.shape) for n, a in inputs[g].items()} for g in case.graphs}}
    if case.changing:
        row["shapes"] = {g: {n: shapes[n] for n in case.changing} for g, shapes in row["shapes"].items()}
    if reference.exists():
        with np.load(reference) as wanted:
            row["against_torch"] = differences(dict(wanted), outputs)
    started = time.perf_counter()
    row |= latency(lambda: _once(case, runner, inputs), settings.pace(case))
    if len(case.graphs) > 1:
        few = Pace(100, 2.0, 0, 0.0)
        row["p50_ms_by_network"] = {
            graph: latency(partial(runner.run, graph, inputs[graph]), few)["p50_ms"] for graph in case.graphs
        }
    if case.roofline_ms and not settings.quick:
        row["roofline_share"] = round(case.roofline_ms / row["p50_ms"], 3)
    return row | {"timed_s": time.perf_counter() - started}


def _outputs(case: Case, runner: Runner, inputs: Any) -> dict[str, np.ndarray]:
    """Of all networks, by "network/output"."""
    found = {graph: runner.run(graph, inputs[graph]) for graph in case.graphs}
    return {f"{graph}/{name}": array for graph, outputs in found.items() for name, array in outputs.items()}


def _once(case: Case, runner: Runner, inputs: Any) -> None:
    for graph in case.graphs:
        runner.run(graph, inputs[graph])


def _other_sizes(case: Case, networks: Any, specs: Any, inputs: Any) -> dict[str, Any]:
    """What it costs to change the shape, network by network."""
    costs = {}
    for graph in case.graphs:
        other = case_inputs(case, specs[graph], other_sizes=True)
        usual = inputs[graph]
        calls = [partial(networks.run, graph, usual), partial(networks.run, graph, other)]
        costs[graph] = dict(zip(("usual", "other"), first_then_steady_ms(calls), strict=True))
    return costs


def _profiles(folder: Path) -> tuple[str, ...]:
    from engine.inference.manifest import Bundle

    return Bundle.open(folder).profile_names


def _seconds_by_network(compiled: dict[str, Any]) -> dict[str, Any]:
    wanted = ("build_s", "bytes", "precision", "peak_memory_bytes")
    return {graph: {key: row[key] for key in wanted} for graph, row in compiled["networks"].items()}


def _memory(before: float | None, settings: Settings) -> dict[str, Any]:
    after = used_mb(settings.device)
    if before is None or after is None:
        return {"memory_mb": None}
    return {"memory_mb": round(after - before, 1), "memory_before_mb": round(before, 1)}


@contextmanager
def _isolated(tell: Tell, contender: str, step: str) -> Iterator[None]:
    """A failure is reported with its reason; the rest goes on."""
    try:
        yield
    except (TangoError, ImportError) as error:  # what a user would read
        tell({"contender": contender, "step": step, "left_out": str(error)})
    except Exception as error:  # torch and the compilers raise anything
        reason = " ".join(str(error).split())[:400]
        tell({"contender": contender, "step": step, "failed": f"{type(error).__name__}: {reason}"})
