"""Verification gates: do the engines of this machine compute what the bundle's networks do, and how fast?

Every network is run by its engine and, from ONNX in fp32, by ONNX Runtime, on the same seeded inputs at the smallest,
usual and largest sizes of the profile. ONNX Runtime was compared with torch when the bundle was made; those figures are
carried over. If a profile has one size only, three draws of inputs replace the three shapes.
"""

import importlib.metadata
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from engine.cores import usable_cores
from engine.errors import ArtifactError
from engine.inference.backends import REFERENCE, Backend, find_backend, open_graph
from engine.inference.choice import Choice
from engine.inference.engine_sets import EngineSet, check_precision, read_set, resolve_profile
from engine.inference.engines import Engine, adopt_engine, engines_folder
from engine.inference.manifest import Bundle, GraphSpec, Profile, TensorSpec
from engine.inference.networks import Networks
from engine.inference.report import (
    Gate,
    Latency,
    NetworkReport,
    PathAgreement,
    Report,
    TransitionAgreement,
    write_report,
)
from engine.inference.session import RunOptions, Session
from engine.inference.target import Precision, Target
from export.agreement import path_agreement, transition_agreement, transition_frames
from export.comparison import compare_outputs

__all__ = ["GATES", "measure_latency", "random_inputs", "trial_sizes", "verify"]

GATES: Mapping[Precision, Gate] = {
    # the same as the exporter's tolerance for ONNX against torch
    "fp32": Gate(cosine=0.99999, max_abs=1e-4),
    # 11 bits of mantissa: each rounding is off by at most 2.4e-4, and a network accumulates a few hundred of them
    "fp16": Gate(cosine=0.999, relative_l2=1e-2),
    # 8 bits: 2e-3 per rounding, 1.3 to 1.9 % measured over whole networks (SPEC of AnimateAnyone); more is a fault
    "bf16": Gate(cosine=0.999, relative_l2=5e-2),
}
"""The tolerance for every output of a network computed in a precision."""

_SEED = 5
_MAX_ELEMENTS = 1 << 22  # of all inputs of a trial with dynamic sizes; more takes minutes on a CPU
_WARM_UP_RUNS = 3
_MAX_RUNS = 200
_MIN_RUNS = 3


def verify(
    bundle: Bundle,
    target: Target,
    engines: Path | None = None,
    character: Path | None = None,
    speech: Path | None = None,
    trust_engines: bool = False,
) -> Report:
    """Measure a set of engines, write report.json next to them and return it; `passed`: whether all gates were met.

    engines: their folder, None: inside the bundle. character and speech: a pack and a .wav to retrieve a path for
    (bundles mini and full). trust_engines: also run engines made by other users or machines, and count them as this
    user's own from then on. If the engines cannot be run on this machine, the report says so and neither passes nor
    fails. Raises ArtifactError if there are no engines for this machine, BackendError if a library or the precision
    is missing, InputError if character or speech cannot be used or the report cannot be written.
    """
    started = time.perf_counter()
    check_precision(bundle, target)
    target, backend = resolve_profile(bundle, target), find_backend(target.backend)
    found = read_set(bundle, engines_folder(bundle, engines), target, trusted=trust_engines)
    if found.miss:
        raise ArtifactError(
            f"{bundle.folder}: the engines for {target} cannot be verified ({found.state}): run 'tango-export compile "
            f"{bundle.folder} --backend {target.backend} --precision {target.precision}'"
        )
    reason = backend.why_not_runnable()
    networks: dict[str, NetworkReport] = {}
    paths = transition = None
    not_measured: list[str] = []
    if reason is None:
        networks = {graph: _network(bundle, engine) for graph, engine in found.engines.items()}
        paths, transition, not_measured = _noticed(bundle, found, character, speech)
    breaches = _breaches(networks, paths, transition)
    report = Report(
        bundle=bundle.name,
        bundle_sha256=bundle.sha256,
        target=target,
        machine=backend.machine(),
        versions=_versions(backend),
        engines={graph: engine.digest for graph, engine in found.engines.items()},
        networks=networks,
        paths=paths,
        transition=transition,
        not_measured=tuple(not_measured),
        passed=None if reason else not breaches,
        why=reason or "; ".join(breaches),
        seconds=round(time.perf_counter() - started, 2),
    )
    for engine in found.engines.values():
        if not engine.own:
            adopt_engine(engine)
    return write_report(found.folder, report)


def trial_sizes(spec: GraphSpec, shapes: Profile) -> tuple[list[dict[str, int]], list[str]]:
    """Sizes of the symbols in each of three trials, and notes about them.

    Raises ArtifactError if the network has sizes that no profile covers.
    """
    free = sum(least != most for least, _, most in shapes.values())
    symbols = {size for tensor in spec.inputs for size in tensor.shape if isinstance(size, str)}
    if symbols - shapes.keys():
        raise ArtifactError(f"network {spec.name} has no profile to verify: make the bundle again")
    trials = [{symbol: bounds[place] for symbol, bounds in shapes.items()} for place in range(3)]
    if not free:
        return trials, ["one size only: three draws of inputs"]
    notes = []
    while _elements(spec, trials[2]) > _MAX_ELEMENTS:
        widest = max(shapes, key=lambda symbol: trials[2][symbol] - shapes[symbol][1])
        least_of_most = shapes[widest][1]
        if trials[2][widest] == least_of_most:
            break
        trials[2][widest] = max(least_of_most, trials[2][widest] // 2)
        notes = [f"the largest trial is {', '.join(f'{s} {n}' for s, n in trials[2].items())}: more takes minutes"]
    return trials, notes


def random_inputs(spec: GraphSpec, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Inputs of a network: standard normal numbers, or integers in the range that the manifest gives."""
    random = np.random.default_rng(seed)
    return {tensor.name: _draw(tensor, sizes, random) for tensor in spec.inputs}


def measure_latency(session: Session, inputs: Mapping[str, np.ndarray], max_s: float = 1.0) -> Latency:
    """A few warm-up runs, then up to 200 or max_s of them, at least three."""
    started = time.perf_counter()
    for _ in range(_WARM_UP_RUNS):
        session.run(inputs)
        if time.perf_counter() - started > max_s:
            break
    started = time.perf_counter()
    runs_ms: list[float] = []
    while len(runs_ms) < _MIN_RUNS or (len(runs_ms) < _MAX_RUNS and time.perf_counter() - started < max_s):
        before = time.perf_counter()
        session.run(inputs)
        runs_ms.append(1e3 * (time.perf_counter() - before))
    return Latency(float(np.median(runs_ms)), float(np.percentile(runs_ms, 99)), len(runs_ms))


def _network(bundle: Bundle, engine: Engine) -> NetworkReport:
    """Only one network is open at a time, in one of its forms: the largest have gigabytes of weights."""
    key, spec = engine.key, bundle.graph(engine.key.graph)
    trials, notes = trial_sizes(spec, key.shapes)
    inputs = [random_inputs(spec, sizes, _SEED + number) for number, sizes in enumerate(trials)]
    n_threads = usable_cores()
    with open_graph(bundle.model(key.graph), spec, REFERENCE, RunOptions(n_threads=n_threads)) as session:
        expected = [session.run(trial) for trial in inputs]
        reference = measure_latency(session, inputs[1])
    options = RunOptions(key.precision, n_threads, key.shapes or None, compiled=True)
    with open_graph(engine.file, spec, key.backend, options) as session:
        got = [session.run(trial) for trial in inputs]
        latency = measure_latency(session, inputs[1])
    return NetworkReport(
        precision=key.precision,
        asked=GATES[key.precision],
        reached=compare_outputs(expected, got),
        trials=tuple(trials),
        torch=_against_torch(spec),
        latency=latency,
        reference=reference,
        notes=tuple(notes),
    )


def _noticed(
    bundle: Bundle, found: EngineSet, character: Path | None, speech: Path | None
) -> tuple[PathAgreement | None, TransitionAgreement | None, list[str]]:
    """What a user would notice, and what of that was not measured."""
    profile = found.target.profile
    choice = Choice(found.target, "to be verified", found.engines)
    if bundle.name == "acinterp":
        if not profile:
            return None, None, ["frames of a transition: the bundle has no profiles"]
        with Networks.from_onnx(bundle) as reference:
            expected = transition_frames(reference, bundle, profile)
        with Networks(bundle, choice) as networks:
            got = transition_frames(networks, bundle, profile)
        return None, transition_agreement(expected, got), []
    if bundle.name not in ("mini", "full"):
        return None, None, []
    if character is None or speech is None:
        if found.report is not None and found.report.paths is not None:
            # about these same engines: omitting the options must not turn a failure into a pass
            return found.report.paths, None, []
        return None, None, ["the retrieved path: it needs a character and a speech (--character, --speech)"]
    with Networks.from_onnx(bundle) as reference, Networks(bundle, choice) as networks:
        return path_agreement(reference, networks, character, speech), None, []


def _breaches(
    networks: Mapping[str, NetworkReport], paths: PathAgreement | None, transition: TransitionAgreement | None
) -> list[str]:
    breaches = [
        f"{graph}: {name} has cosine {output.cosine:.6f}, relative L2 {output.relative_l2:.2g}, max abs "
        f"{output.max_abs:.2g} at scale {output.scale:.2g}, wanted {network.asked}"
        for graph, network in networks.items()
        for name, output in network.reached.items()
        if not network.asked.passes(output)
    ]
    if paths is not None and not paths.passed:
        breaches.append(f"{paths.share:.2%} of the retrieved path is alike, wanted {paths.asked:.0%}")
    if transition is not None and not transition.passed:
        breaches.append(f"a transition's frames reach {transition.psnr_db:.1f} dB, wanted {transition.asked_db:g}")
    return breaches[:4] + ([f"and {len(breaches) - 4} more"] if len(breaches) > 4 else [])


def _draw(tensor: TensorSpec, sizes: Mapping[str, int], random: np.random.Generator) -> np.ndarray:
    shape = tuple(size if isinstance(size, int) else sizes[size] for size in tensor.shape)
    if tensor.dtype.startswith("float"):
        return np.asarray(random.standard_normal(shape), tensor.dtype)
    below = 2 if tensor.dtype == "bool" else tensor.below or 2
    return np.asarray(random.integers(0, below, shape), tensor.dtype)


def _elements(spec: GraphSpec, sizes: Mapping[str, int]) -> int:
    shapes = [[size if isinstance(size, int) else sizes[size] for size in tensor.shape] for tensor in spec.inputs]
    return sum(int(np.prod(shape)) for shape in shapes)


def _against_torch(spec: GraphSpec) -> dict[str, float]:
    """ONNX Runtime's figures against torch, the worst over the outputs; empty if the manifest has none."""
    reached = spec.parity.get(REFERENCE, {}).get("reached", {}).values()
    if not reached:
        return {}
    return {
        "max_abs": float(np.max([output["max_abs"] for output in reached])),
        "cosine": float(np.min([output["cosine"] for output in reached])),
    }


def _versions(backend: Backend) -> dict[str, str]:
    versions = {"tango-rt": _own_version(), "numpy": np.__version__, REFERENCE: find_backend(REFERENCE).version()}
    return {**versions, backend.name: backend.version()}


def _own_version() -> str:
    try:
        return importlib.metadata.version("tango-rt")
    except importlib.metadata.PackageNotFoundError:  # run from its folder, without installation
        return "not installed"
