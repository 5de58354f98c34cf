"""Sets of engines: all networks of a bundle for one back end, precision and profile, and whether they may be run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BackendError, InputError
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
from engine.inference.machine import machine_for, missing_precision
from engine.inference.manifest import Bundle
from engine.inference.report import Report, read_report
from engine.inference.session import Backend, Precision

__all__ = ["EngineSet", "check_precision", "profile_of", "read_set"]


@dataclass(frozen=True)
class EngineSet:
    """What is compiled. miss: why it must not be run, "" where nothing is amiss; then all engines are in `engines`."""

    folder: Path
    backend: Backend
    precision: Precision
    profile: str  # "" where the bundle has none
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

    def __str__(self) -> str:
        return " ".join(filter(None, (self.backend, self.precision, self.profile)))


def profile_of(bundle: Bundle, name: str | None) -> str:
    """The profile that is meant: the first where None, "" where the bundle has none.

    Raises InputError for a name that the bundle does not know.
    """
    known = bundle.profile_names
    if name is not None and name not in known:
        raise InputError(f"{bundle.folder} has no profile {name!r}: it has {', '.join(known) or 'none'}")
    return name or (known[0] if known else "")


def check_precision(bundle: Bundle, backend: Backend, precision: Precision) -> None:
    """Raises BackendError where this machine lacks a precision that a network of the bundle would be computed in."""
    for computed in {engine_precision(spec, precision) for spec in bundle.graphs.values()}:
        if (reason := missing_precision(backend, computed)) is not None:
            raise BackendError(reason)


def read_set(
    bundle: Bundle,
    engines: Path,
    backend: Backend,
    precision: Precision,
    profile: str,
    hashes: bool = True,
    trusted: bool = False,
) -> EngineSet:
    """The set as it is on disk.

    hashes: read the engines too, which takes a second or so a gigabyte. trusted: believe engines and report whoever
    made them; what another user or another machine made is a miss otherwise.

    Raises BackendError where the back end's library is missing. Before it is run here, ask check_precision.
    """
    folder = set_folder(engines, backend, precision, profile, machine_for(backend))
    found: dict[str, Engine] = {}
    misses: dict[str, str] = {}
    for graph in bundle.graphs:
        key = key_of(bundle, graph, backend, precision, profile)
        try:
            found[graph] = read_engine(folder, key, hashes, trusted)
        except EngineMiss as miss:
            misses[graph] = miss.reason
    report = None if misses else read_report(folder, found, trusted)
    if report is not None and report.bundle_sha256 != bundle.sha256:
        report = None
    return EngineSet(folder, backend, precision, profile, found, _miss(bundle, misses), report)


def _miss(bundle: Bundle, misses: Mapping[str, str]) -> str:
    """One reason where all networks have the same, else the first with the network's name."""
    if not misses:
        return ""
    graph, reason = next(iter(misses.items()))
    alone = len(set(misses.values())) > 1 or len(misses) < len(bundle.graphs)
    return f"{graph}: {reason}" if alone else reason
