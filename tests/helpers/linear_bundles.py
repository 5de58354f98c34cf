"""Bundles of two small networks: compiled, vouched for with made-up figures, opened, run."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.inference.backends import BACKENDS
from engine.inference.engine_sets import read_set
from engine.inference.engines import engines_folder
from engine.inference.manifest import Bundle
from engine.inference.networks import NetworkOptions, Networks
from engine.inference.report import Agreement, Gate, Latency, NetworkReport, Report, write_report
from engine.inference.target import Precision, Target
from export.compile import CompileOptions, compile_bundle
from tests.helpers.fakes_session import LINEAR, linear, linear_onnx, write_fake_bundle

PROFILES = {"live": {"batch": (1, 1, 2), "frames": (1, 8, 16)}, "wide": {"batch": (1, 4, 8), "frames": (1, 8, 64)}}
PARITY = {"reached": {"low": {"max_abs": 1e-7, "mean_abs": 1e-8, "cosine": 1.0}}}
INPUTS: dict[str, np.ndarray] = {
    "rows": np.arange(32, dtype=np.float32).reshape(1, 8, 4) / 32,
    "offset": np.ones((1, 2), np.float32),
}
REPORTED_MS, REFERENCE_MS = 1.0, 3.0


def make_bundle(place: Path, *backends: str, keep_fp32: bool = False) -> Bundle:
    """Two networks; `backends`: those of which the manifest says that they agree with torch."""
    spec = replace(LINEAR, profiles=PROFILES, parity=dict.fromkeys(backends, PARITY))
    graphs = {"linear": spec, "other": replace(spec, keep_fp32=keep_fp32)}
    return write_fake_bundle(place, {"linear.onnx": linear_onnx()}, graphs)


def compiled(bundle: Bundle, backend: str, precision: Precision = "fp32", profile: str = "live") -> Path:
    """Compile a bundle without verification; the set's folder."""
    options = CompileOptions(Target(backend, precision, profile), verify=False, progress=False)
    return Path(compile_bundle(bundle.folder, options)["engines"])


def vouch(
    bundle: Bundle,
    backend: str,
    precision: Precision = "fp32",
    profile: str = "live",
    passed: bool | None = True,
    ms: float = REPORTED_MS,
) -> Report:
    """Write the report that verification would write, with made-up figures."""
    found = read_set(bundle, engines_folder(bundle), Target(backend, precision, profile))
    assert not found.miss
    network = NetworkReport(
        precision=precision,
        asked=Gate(cosine=0.999, max_abs=1e-4),
        reached={"low": Agreement(1e-6, 1e-7, 1.0, 1e-6, 1.0)},
        trials=({"batch": 1, "frames": 8},),
        torch={},
        latency=Latency(ms / 2, ms, 100),
        reference=Latency(REFERENCE_MS / 2, REFERENCE_MS, 100),
        notes=(),
    )
    report = Report(
        bundle=bundle.name,
        bundle_sha256=bundle.sha256,
        target=found.target,
        machine=BACKENDS[backend].machine(),
        versions={"numpy": np.__version__},
        engines={graph: engine.digest for graph, engine in found.engines.items()},
        networks=dict.fromkeys(bundle.graphs, network),
        paths=None,
        transition=None,
        not_measured=("paths: no character was given",),
        passed=passed,
        why="" if passed else "linear: low is off",
        seconds=1.0,
    )
    return write_report(found.folder, report)


def opened(bundle: Bundle, backend: str, precision: Precision | None = None, **options: object) -> Networks:
    return Networks.open(bundle, NetworkOptions(backend, precision, **options))  # type: ignore[arg-type]


def check_runs(networks: Networks, rtol: float = 1e-5) -> None:
    outputs = networks.run("linear", INPUTS)
    for name, expected in zip(("low", "total"), linear(INPUTS["rows"], INPUTS["offset"]), strict=True):
        np.testing.assert_allclose(outputs[name], expected, rtol=rtol)
