"""Which back end runs the networks of a bundle, in which precision, and who vouches for it.

What may be run unasked: compiled engines of this very machine and bundle for which a report vouches
(engine.inference.report), both by this user (engine.inference.signing), and the ONNX files themselves in fp32 on a CPU,
for which the bundle's manifest does. All else has to be compiled and verified first, or asked for by name: `unverified`
for what nobody has compared, `trust_engines` for what others made. An engine that is stale, foreign or damaged is never
run.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.errors import ArtifactError, BackendError, InputError
from engine.inference.engine_sets import EngineSet, check_precision, profile_of, read_set
from engine.inference.engines import Engine, engines_folder
from engine.inference.machine import installed, missing_precision
from engine.inference.manifest import Bundle
from engine.inference.session import BACKENDS, PRECISIONS, Backend, Precision

__all__ = ["Choice", "NetworkOptions", "choose"]

_ON_CPU: tuple[Backend, ...] = ("onnxruntime", "openvino")  # these open ONNX files; the first is preferred


@dataclass(frozen=True)
class NetworkOptions:
    """How the networks of a bundle are run.

    backend: "auto" is the fastest that is installed and verified. precision: fp32 where None, any with "auto". profile:
    the bundle's first where None. engines: folder of the compiled networks, inside the bundle where None. unverified:
    run what nothing vouches for. trust_engines: believe engines and reports that other users or machines made, as one
    believes a program; they may run any code. n_threads: of a CPU, one a core where None. cuda_graphs: see RunOptions.
    """

    backend: Backend | Literal["auto"] = "onnxruntime"
    precision: Precision | None = None
    profile: str | None = None
    engines: Path | None = None
    unverified: bool = False
    trust_engines: bool = False
    n_threads: int | None = None
    cuda_graphs: bool = True

    def __post_init__(self) -> None:
        if self.backend not in ("auto", *BACKENDS):
            raise InputError(f"backend {self.backend!r} is unknown: choose from auto, {', '.join(BACKENDS)}")
        if self.precision not in (None, *PRECISIONS):
            raise InputError(f"precision {self.precision!r} is unknown: choose from {', '.join(PRECISIONS)}")


@dataclass(frozen=True)
class Choice:
    """What is run. engines: by network; none: the ONNX files. reason: which and why, in one line."""

    backend: Backend
    precision: Precision
    profile: str
    reason: str
    engines: Mapping[str, Engine] = field(default_factory=dict)
    report_sha256: str = ""


def choose(bundle: Bundle, options: NetworkOptions) -> Choice:
    """Raises InputError for options that make no sense here, ArtifactError where what is asked for has to be made,
    compiled or verified first, BackendError where a library or a device is missing.
    """
    profile = profile_of(bundle, options.profile)
    if options.backend != "auto":
        return _chosen(bundle, options.backend, options.precision or "fp32", profile, options)
    return _fastest(bundle, profile, options)


def _chosen(bundle: Bundle, backend: Backend, precision: Precision, profile: str, options: NetworkOptions) -> Choice:
    missing = installed(backend)
    if missing is not None:
        raise BackendError(missing)
    check_precision(bundle, backend, precision)
    folder, trusted = engines_folder(bundle, options.engines), options.trust_engines
    found = read_set(bundle, folder, backend, precision, profile, trusted=trusted)
    if found.verified:
        return _compiled(found, "compiled and verified for this machine")
    if options.unverified and not found.miss:
        return _compiled(found, f"{found.state}, run because unverified engines are asked for")
    if _may_open_onnx(bundle, backend, precision, options.unverified):
        because = "" if found.absent else f"; its engines are not run ({found.state})"
        return Choice(backend, precision, profile, f"{backend} {precision} from ONNX{because}")
    raise ArtifactError(_refusal(bundle, found, options))


def _compiled(found: EngineSet, why: str) -> Choice:
    sha256 = "" if found.report is None else found.report.sha256
    return Choice(found.backend, found.precision, found.profile, f"{found}: {why}", found.engines, sha256)


def _may_open_onnx(bundle: Bundle, backend: Backend, precision: Precision, unverified: bool) -> bool:
    if backend not in _ON_CPU:
        return False
    if unverified:
        return precision == "fp32" or (backend == "openvino" and precision == "bf16")
    return precision == "fp32" and all(backend in graph.parity for graph in bundle.graphs.values())


def _refusal(bundle: Bundle, found: EngineSet, options: NetworkOptions) -> str:
    """Why nothing is run, and the command that changes it."""
    if found.absent and found.precision == "fp32" and found.backend in _ON_CPU:
        return (
            f"{bundle.folder} does not say that it agrees with torch in {found.backend}: make it again with "
            "'tango-export bundle', or ask for unverified networks (--unverified)"
        )
    refused = f"{bundle.folder}: the engines for {found} cannot be run ({found.state})"
    if found.report is not None and found.report.passed is False:
        return f"{refused}: take another precision or back end, or ask for unverified networks (--unverified)"
    command, place = ("compile", "-o") if found.miss else ("verify", "--engines")
    parts = [f"tango-export {command} {bundle.folder} --backend {found.backend} --precision {found.precision}"]
    parts += [f"--profile {found.profile}"] if found.profile else []
    parts += [f"{place} {options.engines}"] if options.engines else []
    otherwise = "" if found.miss else ", or ask for unverified networks (--unverified)"
    return f"{refused}: run '{' '.join(parts)}'{otherwise}"


def _fastest(bundle: Bundle, profile: str, options: NetworkOptions) -> Choice:
    """The verified set with the least measured time, or ONNX Runtime from ONNX where its report says that is less."""
    folder = engines_folder(bundle, options.engines)
    passed_over: list[str] = []
    timed: list[tuple[float, EngineSet]] = []
    for found in _sets(bundle, folder, profile, options, passed_over):
        median_ms = found.report.median_ms if found.report else None
        if found.verified and median_ms is not None:
            timed.append((median_ms, found))
        elif not found.absent:
            passed_over.append(f"{found} ({found.state if not found.verified else 'not timed'})")
    timed.sort(key=lambda pair: pair[0])
    fp32 = options.precision in (None, "fp32")
    from_onnx = fp32 and installed("onnxruntime") is None and _may_open_onnx(bundle, "onnxruntime", "fp32", False)
    for median_ms, quick in timed:
        reference_ms = quick.report.reference_ms if quick.report else None
        if from_onnx and reference_ms is not None and reference_ms < median_ms:
            reason = f"onnxruntime fp32 from ONNX: {reference_ms:.3g} ms a pass, {quick} takes {median_ms:.3g}"
            return Choice("onnxruntime", "fp32", profile, reason + _listed(passed_over))
        found = read_set(bundle, folder, quick.backend, quick.precision, profile, trusted=options.trust_engines)
        if found.verified:
            rivals = f"the fastest of {len(timed)} verified" if len(timed) > 1 else "verified"
            beside = "" if reference_ms is None else f", onnxruntime fp32 {reference_ms:.3g}"
            return _compiled(found, f"{rivals}, {median_ms:.3g} ms a pass{beside}{_listed(passed_over)}")
        passed_over.append(f"{quick} ({found.state})")
    return _uncompiled(bundle, profile, options, passed_over)


def _uncompiled(bundle: Bundle, profile: str, options: NetworkOptions, passed_over: list[str]) -> Choice:
    """The ONNX files in fp32, where no verified engine is there."""
    if options.precision is not None and options.precision != "fp32":
        able = [
            backend
            for backend in BACKENDS
            if installed(backend) is None and missing_precision(backend, options.precision) is None
        ]
        if not able:
            raise BackendError(f"no back end that is installed here computes in {options.precision}: take fp32")
        raise ArtifactError(
            f"{bundle.folder} has no verified {options.precision} engines for this machine{_listed(passed_over)}: "
            f"compile some with 'tango-export compile {bundle.folder} --precision {options.precision} --backend "
            f"{' or '.join(able)}'"
        )
    usable = [backend for backend in _ON_CPU if installed(backend) is None]
    if not usable:
        raise BackendError(str(installed("onnxruntime")))
    for backend in usable:
        if _may_open_onnx(bundle, backend, "fp32", options.unverified):
            reason = f"{backend} fp32 from ONNX: no verified engines for this machine{_listed(passed_over)}"
            return Choice(backend, "fp32", profile, reason)
    raise ArtifactError(
        f"{bundle.folder} does not say that it agrees with torch in {' or '.join(usable)}: make it again with "
        "'tango-export bundle', or ask for unverified networks (--unverified)"
    )


def _sets(
    bundle: Bundle, folder: Path, profile: str, options: NetworkOptions, passed_over: list[str]
) -> Iterator[EngineSet]:
    """What is compiled, without a look at the engines themselves; nothing is asked of back ends that have none."""
    for backend in BACKENDS:
        there = [
            asked
            for asked in PRECISIONS
            if options.precision in (None, asked) and any(folder.glob(f"{backend}-{asked}*"))
        ]
        missing = installed(backend) if there else None
        if missing is not None:
            passed_over.append(f"{backend} ({missing})")
            continue
        for asked in there:
            try:
                check_precision(bundle, backend, asked)
            except BackendError as error:  # compiled elsewhere
                passed_over.append(f"{backend} {asked} ({error})")
                continue
            yield read_set(bundle, folder, backend, asked, profile, hashes=False, trusted=options.trust_engines)


def _listed(passed_over: list[str]) -> str:
    return f"; passed over: {', '.join(passed_over)}" if passed_over else ""
