"""Which back end runs the networks of a bundle, in which precision, and whether that was verified.

By default only these are run: engines that this user compiled for this machine and bundle and that passed verification
(engine.inference.report, engine.inference.signing), and the ONNX files themselves in fp32 on a CPU, if the bundle's
manifest vouches for them. Everything else must be compiled and verified first, or requested: `unverified` for networks
that were never compared, `trust_engines` for engines that others made. An engine that is stale, foreign or damaged is
never run.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import ArtifactError, BackendError, InputError
from engine.inference.backends import BACKENDS, REFERENCE, find_backend
from engine.inference.engine_sets import EngineSet, check_precision, profile_of, read_set
from engine.inference.engines import Engine, engines_folder
from engine.inference.manifest import Bundle
from engine.inference.target import PRECISIONS, Precision, Target

__all__ = ["Choice", "NetworkOptions", "choose"]


@dataclass(frozen=True)
class NetworkOptions:
    """How the networks of a bundle are run."""

    backend: str = "auto"  # "auto": the fastest that is installed and verified
    precision: Precision | None = None  # None: fp32, or any with "auto"
    profile: str | None = None  # None: the bundle's first
    engines: Path | None = None  # folder of the compiled networks; None: inside the bundle
    unverified: bool = False  # run networks that were not verified
    trust_engines: bool = False  # accept engines and reports of other users or machines; they may run any code
    n_threads: int | None = None  # CPU threads; None: one per core
    cuda_graphs: bool = True  # see RunOptions

    def __post_init__(self) -> None:
        if self.backend not in ("auto", *BACKENDS):
            raise InputError(f"backend {self.backend!r} is unknown: choose from auto, {', '.join(BACKENDS)}")
        if self.precision not in (None, *PRECISIONS):
            raise InputError(f"precision {self.precision!r} is unknown: choose from {', '.join(PRECISIONS)}")


@dataclass(frozen=True)
class Choice:
    """What is run."""

    target: Target
    reason: str  # what was chosen and why, in one line
    engines: Mapping[str, Engine] = field(default_factory=dict)  # by network; empty: the ONNX files are run
    report_sha256: str = ""  # of the report about these engines; "" if there is none


def choose(bundle: Bundle, options: NetworkOptions) -> Choice:
    """Choose what runs the networks of a bundle.

    Raises InputError for options that do not fit the bundle, ArtifactError if the requested engines must be compiled or
    verified first, BackendError if a library or device is missing.
    """
    profile = profile_of(bundle, options.profile)
    if options.backend != "auto":
        return _chosen(bundle, Target(options.backend, options.precision or "fp32", profile), options)
    return _fastest(bundle, profile, options)


def _chosen(bundle: Bundle, target: Target, options: NetworkOptions) -> Choice:
    missing = find_backend(target.backend).why_not_runnable()
    if missing is not None:
        raise BackendError(missing)
    check_precision(bundle, target)
    found = read_set(bundle, engines_folder(bundle, options.engines), target, trusted=options.trust_engines)
    if found.verified:
        return _compiled(found, "compiled and verified for this machine")
    if options.unverified and not found.miss:
        return _compiled(found, f"{found.state}, run because unverified engines were requested")
    if _may_open_onnx(bundle, target, options.unverified):
        because = "" if found.absent else f"; its engines are not run ({found.state})"
        return _from_onnx(target, because)
    raise ArtifactError(_refusal(bundle, found, options))


def _compiled(found: EngineSet, why: str) -> Choice:
    sha256 = "" if found.report is None else found.report.sha256
    return Choice(found.target, f"{found.target}: {why}", found.engines, sha256)


def _from_onnx(target: Target, why: str) -> Choice:
    return Choice(target, f"{target.backend} {target.precision} from ONNX{why}")


def _may_open_onnx(bundle: Bundle, target: Target, unverified: bool) -> bool:
    if unverified:
        return target.precision in find_backend(target.backend).onnx_precisions
    return _agrees_with_torch(bundle, target)


def _agrees_with_torch(bundle: Bundle, target: Target) -> bool:
    """Whether the manifest says that the ONNX files agree with torch in this back end; only fp32 is compared."""
    runs_them = "fp32" in find_backend(target.backend).onnx_precisions and target.precision == "fp32"
    return runs_them and all(target.backend in graph.parity for graph in bundle.graphs.values())


def _refusal(bundle: Bundle, found: EngineSet, options: NetworkOptions) -> str:
    """Why nothing is run, and the command that fixes it."""
    target = found.target
    if found.absent and target.precision == "fp32" and find_backend(target.backend).onnx_precisions:
        return _no_agreement(bundle, target.backend)
    refused = f"{bundle.folder}: the engines for {target} cannot be run ({found.state})"
    if found.report is not None and found.report.passed is False:
        return f"{refused}: use another precision or back end, or ask for unverified networks (--unverified)"
    command, place = ("compile", "-o") if found.miss else ("verify", "--engines")
    parts = [f"tango-export {command} {bundle.folder} --backend {target.backend} --precision {target.precision}"]
    parts += [f"--profile {target.profile}"] if target.profile else []
    parts += [f"{place} {options.engines}"] if options.engines else []
    otherwise = "" if found.miss else ", or ask for unverified networks (--unverified)"
    return f"{refused}: run '{' '.join(parts)}'{otherwise}"


def _no_agreement(bundle: Bundle, backends: str) -> str:
    return (
        f"{bundle.folder} records no comparison with torch in {backends}: make it again with "
        "'tango-export bundle', or ask for unverified networks (--unverified)"
    )


def _fastest(bundle: Bundle, profile: str, options: NetworkOptions) -> Choice:
    """The verified set with the lowest measured time, or the reference from ONNX if its report says that is faster."""
    folder = engines_folder(bundle, options.engines)
    passed_over: list[str] = []
    timed: list[tuple[float, EngineSet]] = []
    for found in _sets(bundle, folder, profile, options, passed_over):
        median_ms = found.report.median_ms if found.report else None
        if found.verified and median_ms is not None:
            timed.append((median_ms, found))
        elif not found.absent:
            passed_over.append(f"{found.target} ({found.state if not found.verified else 'not timed'})")
    timed.sort(key=lambda pair: pair[0])
    reference = Target(REFERENCE, "fp32", profile)
    reference_runs = options.precision in (None, "fp32") and _runs_from_onnx(bundle, reference)
    for median_ms, quick in timed:
        reference_ms = quick.report.reference_ms if quick.report else None
        if reference_runs and reference_ms is not None and reference_ms < median_ms:
            why = f": {reference_ms:.3g} ms a pass, {quick.target} takes {median_ms:.3g}{_listed(passed_over)}"
            return _from_onnx(reference, why)
        found = read_set(bundle, folder, quick.target, trusted=options.trust_engines)
        if found.verified:
            rivals = f"the fastest of {len(timed)} verified" if len(timed) > 1 else "verified"
            than = "" if reference_ms is None else f", {REFERENCE} fp32 {reference_ms:.3g}"
            return _compiled(found, f"{rivals}, {median_ms:.3g} ms a pass{than}{_listed(passed_over)}")
        passed_over.append(f"{quick.target} ({found.state})")
    return _uncompiled(bundle, profile, options, passed_over)


def _runs_from_onnx(bundle: Bundle, target: Target) -> bool:
    return find_backend(target.backend).why_not_runnable() is None and _agrees_with_torch(bundle, target)


def _uncompiled(bundle: Bundle, profile: str, options: NetworkOptions, passed_over: list[str]) -> Choice:
    """The ONNX files in fp32, if there are no verified engines."""
    if options.precision is not None and options.precision != "fp32":
        raise _nothing_in(options.precision, bundle, passed_over)
    opening = [backend for backend in BACKENDS.values() if "fp32" in backend.onnx_precisions]
    usable = [backend.name for backend in opening if backend.why_not_runnable() is None]
    if not usable:
        raise BackendError(str(opening[0].why_not_runnable()))
    for target in (Target(name, "fp32", profile) for name in usable):
        if _may_open_onnx(bundle, target, options.unverified):
            return _from_onnx(target, f": no verified engines for this machine{_listed(passed_over)}")
    raise ArtifactError(_no_agreement(bundle, " or ".join(usable)))


def _nothing_in(precision: Precision, bundle: Bundle, passed_over: list[str]) -> BackendError | ArtifactError:
    """The error to raise if no engine of a low precision may be run."""
    able = [
        name
        for name, backend in BACKENDS.items()
        if backend.why_not_runnable() is None and backend.why_no_precision(precision) is None
    ]
    if not able:
        return BackendError(f"no installed back end computes in {precision} on this machine: use fp32")
    return ArtifactError(
        f"{bundle.folder} has no verified {precision} engines for this machine{_listed(passed_over)}: "
        f"compile them with 'tango-export compile {bundle.folder} --precision {precision} --backend "
        f"{' or '.join(able)}'"
    )


def _sets(
    bundle: Bundle, folder: Path, profile: str, options: NetworkOptions, passed_over: list[str]
) -> Iterator[EngineSet]:
    """The compiled sets, without reading the engines themselves; back ends without any are not queried."""
    for name, backend in BACKENDS.items():
        there = [
            asked for asked in PRECISIONS if options.precision in (None, asked) and any(folder.glob(f"{name}-{asked}*"))
        ]
        missing = backend.why_not_runnable() if there else None
        if missing is not None:
            passed_over.append(f"{name} ({missing})")
            continue
        for target in (Target(name, asked, profile) for asked in there):
            try:
                check_precision(bundle, target)
            except BackendError as error:  # compiled on another machine
                passed_over.append(f"{name} {target.precision} ({error})")
                continue
            yield read_set(bundle, folder, target, hashes=False, trusted=options.trust_engines)


def _listed(passed_over: list[str]) -> str:
    return f"; passed over: {', '.join(passed_over)}" if passed_over else ""
