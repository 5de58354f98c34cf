"""Bundle -> engines for this machine, network by network; engines that are up to date are not rebuilt."""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.errors import ArtifactError, BackendError
from engine.folders import cache_folder, private_folder
from engine.inference.backends import find_backend
from engine.inference.engine_key import content_digest
from engine.inference.engine_sets import check_precision, resolve_profile
from engine.inference.engines import (
    NOT_COMPILED,
    Engine,
    EngineKey,
    EngineMiss,
    current_key,
    engines_folder,
    read_engine,
    set_folder,
    work_folder,
    write_engine,
)
from engine.inference.manifest import Bundle
from engine.inference.precision import describe
from engine.inference.report import Report, read_report
from engine.inference.target import Target
from export.compilers import CompileJob, compile_network
from export.report import table as report_table
from tango_rt.console import aligned

__all__ = ["CompileOptions", "compile_bundle", "summarize"]


@dataclass(frozen=True)
class CompileOptions:
    """What is compiled and how it is verified."""

    target: Target
    output: Path | None = None  # folder of the engines; None: inside the bundle
    verify: bool = True
    character: Path | None = None  # a pack, to compare retrieved paths
    speech: Path | None = None  # a recording, likewise
    timing_cache: bool = True
    progress: bool = True  # on a terminal


def compile_bundle(folder: Path, options: CompileOptions) -> dict[str, Any]:
    """Compile what is missing or unusable; finished networks are kept, however this ends.

    Returns a summary for JSON. Raises InputError if the folder cannot be written or the profile is unknown,
    ArtifactError for a damaged bundle, BackendError if the library is not installed, cannot build a network or does
    not support the precision on this machine.
    """
    started = time.perf_counter()
    bundle = Bundle.open(folder)
    bundle.check()  # even if there is nothing to build: an edited network must not seem to be compiled
    target = resolve_profile(bundle, options.target)
    if not target.profile:
        raise ArtifactError(f"{folder} has no shape profiles to compile for: make it again with 'tango-export bundle'")
    check_precision(bundle, target)
    place = set_folder(engines_folder(bundle, options.output), target, find_backend(target.backend).machine())
    rows: dict[str, dict[str, Any]] = {}
    engines: dict[str, Engine] = {}
    with _progress(options) as tell:
        for graph in bundle.graphs:
            key = current_key(bundle, graph, target)
            try:
                engines[graph], reason = read_engine(place, key), ""
            except EngineMiss as miss:
                cache = _timing_cache(key) if options.timing_cache else None
                engines[graph], reason = _build(bundle, key, place, cache, tell), miss.reason
            rows[graph] = _row(bundle, engines[graph], reason)
        report = _report(bundle, target, options, place, engines, tell) if options.verify else None
    return {
        "bundle": str(folder),
        "name": bundle.name,
        "backend": target.backend,
        "backend_version": next(iter(engines.values())).key.backend_version,
        "precision": target.precision,
        "profile": target.profile,
        "engines": str(place),
        "built": sum(bool(row["reason"]) for row in rows.values()),
        "bytes": sum(row["bytes"] for row in rows.values()),
        "took_s": round(time.perf_counter() - started, 2),
        "networks": rows,
        "report": {**report.to_dict(), "sha256": report.sha256} if report else None,
    }


def summarize(result: dict[str, Any]) -> str:
    """The result of compile_bundle as a table: a line per network, what was done and why, time and size."""
    rows = [
        (graph, row["precision"], _done(row), f"{row['build_s']:.1f}", f"{row['bytes'] / 1e6:.1f}")
        for graph, row in result["networks"].items()
    ]
    table = aligned(rows, ("network", "in", "done", "seconds", "MB"))
    total = f"{result['built']} of {len(result['networks'])} built, {result['bytes'] / 1e6:.1f} MB, "
    table.append(f"{total}{result['took_s']:.1f} s: {result['engines']}")
    if result["report"] is not None:
        table.append(report_table(Report.from_dict(result["report"])))
    return "\n".join(table)


def _build(
    bundle: Bundle, key: EngineKey, place: Path, timing_cache: Path | None, tell: Callable[[str], None]
) -> Engine:
    if (reason := find_backend(key.backend).why_not_buildable()) is not None:
        raise BackendError(reason)
    tell(f"{key.graph}: read")
    source, spec = bundle.model(key.graph), bundle.graph(key.graph)
    started, watched = time.perf_counter(), _watch_memory()
    try:
        with work_folder(place) as work:
            files = compile_network(CompileJob(source, spec, key, work, timing_cache, tell))
            build = {
                "seconds": round(time.perf_counter() - started, 2),
                "peak_memory_bytes": _peak_memory_bytes(),
                "peak_memory_of": "this build" if watched else "the process so far",
                "policy": describe(spec, key.precision),
            }
            return write_engine(place, key, files, build)
    except BaseException:
        for empty in (place, place.parent):
            with suppress(OSError):
                empty.rmdir()
        raise


def _timing_cache(key: EngineKey) -> Path | None:
    """The builder's cache of kernel timings on this machine; None if it cannot be stored.

    The library trusts its content, so it is kept in a private folder of this user, and never with a bundle.
    """
    kept = cache_folder()
    folder = None if kept is None else kept / f"timings-{os.geteuid()}"
    if folder is None or not private_folder(folder):
        return None
    return folder / f"{key.backend}-{content_digest(asdict(key.machine))[:16]}.cache"


def _report(
    bundle: Bundle,
    target: Target,
    options: CompileOptions,
    place: Path,
    engines: dict[str, Engine],
    tell: Callable[[str], None],
) -> Report:
    """The report about exactly these engines; made if none covers what is asked."""
    report = read_report(place, engines)
    if report is not None and report.bundle_sha256 == bundle.sha256:
        compared = options.character is None or report.paths is not None
        could_not_run = report.passed is None and find_backend(target.backend).why_not_runnable() is None
        if compared and not could_not_run:
            return report
    from export.verify import verify

    tell("verify")
    return verify(bundle, target, options.output, options.character, options.speech)


def _row(bundle: Bundle, engine: Engine, reason: str) -> dict[str, Any]:
    """The result for a network; reason: why it was built, "" if it was up to date."""
    return {
        "hit": not reason,
        "reason": reason,
        "precision": engine.key.precision,
        "build_s": engine.build.get("seconds", 0.0),
        "peak_memory_bytes": engine.build.get("peak_memory_bytes", 0),
        "bytes": engine.bytes,
        "onnx_bytes": sum(bundle.files[name].bytes for name in _files(bundle, engine.key.graph)),
        "digest": engine.digest,
    }


def _files(bundle: Bundle, graph: str) -> tuple[str, ...]:
    return (bundle.graph(graph).file, *bundle.graph(graph).weights)


def _done(row: dict[str, Any]) -> str:
    if row["hit"]:
        return "up to date"
    return "built" if row["reason"] == NOT_COMPILED else f"rebuilt, {row['reason']}"


def _watch_memory() -> bool:
    """Reset the peak memory of this process, if the system supports it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def _peak_memory_bytes() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def _progress(options: CompileOptions) -> Iterator[Callable[[str], None]]:
    """A progress line on a terminal; nothing elsewhere."""
    with tqdm(unit=" steps", leave=False, disable=None if options.progress else True) as bar:

        def tell(step: str) -> None:
            bar.set_description(step)
            bar.update()

        yield tell
