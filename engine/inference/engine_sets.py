"""Sets of engines: all networks of a bundle for one back end, precision and profile, and whether they may be run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import BackendError, InputError
from engine.inference.backends import find_backend
from engine.inference.engines import (
    NOT_COMPILED,
    UNTRUSTED,
    Engine,
    EngineMiss,
    engine_precision,
    key_of,
    read_engine,
    set_folder,
)
from engine.inference.manifest import Bundle
from engine.inference.report import Report, read_report
from engine.inference.target import Target

__all__ = ["EngineSet", "check_precision", "profile_of", "read_set", "resolved"]


@dataclass(frozen=True)
class EngineSet:
    """The compiled networks of a bundle for one target."""

    folder: Path
    target: Target
    engines: Mapping[str, Engine]  # by network; complete if `miss` is ""
    miss: str  # why the set must not be run; "" if it may
    report: Report | None  # about exactly these engines

    @property
    def absent(self) -> bool:
        """Whether nothing was ever compiled here."""
        return self.miss == NOT_COMPILED

    @property
    def verified(self) -> bool:
        return not self.miss and self.report is not None and self.report.passed is True

    @property
    def state(self) -> str:
        """One line: "verified", or why it is not run by default."""
        if self.miss:
            trust = "; compile it again, or use --trust-engines" if UNTRUSTED in self.miss else ""
            return self.miss + trust
        if self.report is None:
            return "not verified"
        if self.report.passed is None:
            return f"not verified: {self.report.why}"
        return "verified" if self.report.passed else f"failed verification: {self.report.why}"


def profile_of(bundle: Bundle, name: str | None) -> str:
    """The profile of this name; the bundle's first if None, "" if the bundle has none.

    Raises InputError for an unknown name.
    """
    known = bundle.profile_names
    if name is not None and name not in known:
        raise InputError(f"{bundle.folder} has no profile {name!r}: it has {', '.join(known) or 'none'}")
    return name or (known[0] if known else "")


def resolved(bundle: Bundle, target: Target) -> Target:
    """The target with its profile filled in by find_profile; raises InputError for an unknown one."""
    return replace(target, profile=profile_of(bundle, target.profile or None))


def check_precision(bundle: Bundle, target: Target) -> None:
    """Raises BackendError if this machine lacks a precision that a network of the bundle needs."""
    backend = find_backend(target.backend)
    for computed in {engine_precision(spec, target.precision) for spec in bundle.graphs.values()}:
        if (reason := backend.why_no_precision(computed)) is not None:
            raise BackendError(reason)


def read_set(bundle: Bundle, engines: Path, target: Target, hashes: bool = True, trusted: bool = False) -> EngineSet:
    """The set on disk for a target, whose profile must be one of the bundle's, "" if it has none.

    hashes: read the engines too, which takes about a second per gigabyte. trusted: accept engines and a report whoever
    made them; otherwise those of another user or machine are a miss.

    Raises BackendError if the back end's library is missing. Call check_precision before running it.
    """
    folder = set_folder(engines, target, find_backend(target.backend).machine())
    found: dict[str, Engine] = {}
    misses: dict[str, str] = {}
    for graph in bundle.graphs:
        key = key_of(bundle, graph, target)
        try:
            found[graph] = read_engine(folder, key, hashes, trusted)
        except EngineMiss as miss:
            misses[graph] = miss.reason
    report = None if misses else read_report(folder, found, trusted)
    if report is not None and report.bundle_sha256 != bundle.sha256:
        report = None
    return EngineSet(folder, target, found, _miss(bundle, misses), report)


def _miss(bundle: Bundle, misses: Mapping[str, str]) -> str:
    """The reason if all networks have the same one, else the first with its network's name."""
    if not misses:
        return ""
    graph, reason = next(iter(misses.items()))
    alone = len(set(misses.values())) > 1 or len(misses) < len(bundle.graphs)
    return f"{graph}: {reason}" if alone else reason
