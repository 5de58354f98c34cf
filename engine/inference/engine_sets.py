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
    """What is compiled. miss: why it must not be run, "" where nothing is amiss; then all engines are in `engines`."""

    folder: Path
    target: Target
    engines: Mapping[str, Engine]
    miss: str
    report: Report | None  # about exactly these engines

    @property
    def absent(self) -> bool:
        """Nothing was ever compiled here."""
        return self.miss == NOT_COMPILED

    @property
    def verified(self) -> bool:
        return not self.miss and self.report is not None and self.report.passed is True

    @property
    def state(self) -> str:
        """One line: "verified", or why it may not be run unasked."""
        if self.miss:
            trust = "; compile it again, or --trust-engines" if UNTRUSTED in self.miss else ""
            return self.miss + trust
        if self.report is None:
            return "not verified"
        if self.report.passed is None:
            return f"not verified: {self.report.why}"
        return "verified" if self.report.passed else f"failed verification: {self.report.why}"


def profile_of(bundle: Bundle, name: str | None) -> str:
    """The profile that is meant: the first where None, "" where the bundle has none.

    Raises InputError for a name that the bundle does not know.
    """
    known = bundle.profile_names
    if name is not None and name not in known:
        raise InputError(f"{bundle.folder} has no profile {name!r}: it has {', '.join(known) or 'none'}")
    return name or (known[0] if known else "")


def resolved(bundle: Bundle, target: Target) -> Target:
    """The target with the profile that is meant; raises InputError for one that the bundle does not know."""
    return replace(target, profile=profile_of(bundle, target.profile or None))


def check_precision(bundle: Bundle, target: Target) -> None:
    """Raises BackendError where this machine lacks a precision that a network of the bundle would be computed in."""
    backend = find_backend(target.backend)
    for computed in {engine_precision(spec, target.precision) for spec in bundle.graphs.values()}:
        if (reason := backend.why_no_precision(computed)) is not None:
            raise BackendError(reason)


def read_set(bundle: Bundle, engines: Path, target: Target, hashes: bool = True, trusted: bool = False) -> EngineSet:
    """The set as it is on disk, for a target whose profile is one of the bundle's, "" where it has none.

    hashes: read the engines too, which takes a second or so a gigabyte. trusted: believe engines and report whoever
    made them; what another user or another machine made is a miss otherwise.

    Raises BackendError where the back end's library is missing. Before it is run here, ask check_precision.
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
    """One reason where all networks have the same, else the first with the network's name."""
    if not misses:
        return ""
    graph, reason = next(iter(misses.items()))
    alone = len(set(misses.values())) > 1 or len(misses) < len(bundle.graphs)
    return f"{graph}: {reason}" if alone else reason
