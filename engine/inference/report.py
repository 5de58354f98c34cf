"""report.json of a set of engines: what verification asked and found, and for exactly which engines it vouches.

A bundle's engines are run unasked only where a report of this user on this machine says so (engine.inference.signing).
The figures of a report are those of the machine, the versions and the bytes that it names: an engine that is built anew
needs a new one.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from engine.files import read_plain
from engine.inference.backends import BACKENDS
from engine.inference.engines import REPORT, Engine, work_folder
from engine.inference.machine import Machine
from engine.inference.signing import is_own, signed
from engine.inference.target import PRECISIONS, Precision, Target
from engine.records import as_number, as_object, as_record, as_text, as_texts, expect

__all__ = [
    "Agreement",
    "Gate",
    "Latency",
    "NetworkReport",
    "PathAgreement",
    "Report",
    "TransitionAgreement",
    "read_report",
    "report_of",
    "write_report",
]

SCHEMA = 1
MAX_REPORT_BYTES = 4 << 20
_MAX_TEXT = 2_000  # characters of a part of a report


@dataclass(frozen=True)
class Agreement:
    """An output of a network against its reference, the worst over all trials; NaN where it was not finite."""

    max_abs: float
    mean_abs: float
    cosine: float  # of the flattened outputs
    relative_l2: float  # |engine - reference| / |reference|
    scale: float  # largest magnitude of the reference in the trial with the largest share of max_abs


@dataclass(frozen=True)
class Gate:
    """What is asked of every output: max_abs times max(1, scale) and relative_l2 at most, cosine at least."""

    cosine: float
    max_abs: float | None = None
    relative_l2: float | None = None

    def passes(self, output: Agreement) -> bool:
        """NaN passes nothing."""
        near = self.max_abs is None or output.max_abs <= self.max_abs * max(1.0, output.scale)
        alike = self.relative_l2 is None or output.relative_l2 <= self.relative_l2
        return near and alike and output.cosine >= self.cosine

    def __str__(self) -> str:
        bounds = [f"cosine {self.cosine:g}"]
        if self.max_abs is not None:
            bounds.append(f"max abs {self.max_abs:g} times the scale beyond 1")
        if self.relative_l2 is not None:
            bounds.append(f"relative L2 {self.relative_l2:g}")
        return ", ".join(bounds)


@dataclass(frozen=True)
class Latency:
    """Of one run with inputs and outputs in host memory."""

    median_ms: float
    p99_ms: float
    n_runs: int


@dataclass(frozen=True)
class NetworkReport:
    """One network. reached: by output. trials: sizes of the symbols. torch: ONNX Runtime's against torch, as the
    bundle's manifest has it. reference: ONNX Runtime's own latency, in fp32 on the same inputs."""

    precision: Precision
    asked: Gate
    reached: Mapping[str, Agreement]
    trials: tuple[Mapping[str, int], ...]
    torch: Mapping[str, float]
    latency: Latency | None
    reference: Latency | None
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return bool(self.reached) and all(self.asked.passes(output) for output in self.reached.values())


@dataclass(frozen=True)
class PathAgreement:
    """Which share of a speech's nodes is retrieved alike, by the engines and by the reference."""

    share: float
    asked: float
    n_nodes: int
    character: str
    speech: str

    @property
    def passed(self) -> bool:
        return self.share >= self.asked


@dataclass(frozen=True)
class TransitionAgreement:
    """Frames of a transition, by the engines against the reference, at equal noise."""

    psnr_db: float  # at most 120, which stands for equal frames
    asked_db: float
    n_steps: int
    width_px: int
    height_px: int

    @property
    def passed(self) -> bool:
        return self.psnr_db >= self.asked_db


@dataclass(frozen=True)
class Report:
    """engines: digest by network. passed: None where the engines could not be run here; `why` then says so, and what
    was breached where it is False. sha256: of report.json, "" before it is written. own: as it was written there by
    this user on this machine."""

    bundle: str
    bundle_sha256: str
    target: Target
    machine: Machine
    versions: Mapping[str, str]
    engines: Mapping[str, str]
    networks: Mapping[str, NetworkReport]
    paths: PathAgreement | None
    transition: TransitionAgreement | None
    not_measured: tuple[str, ...]
    passed: bool | None
    why: str
    seconds: float
    sha256: str = ""
    own: bool = False

    @property
    def median_ms(self) -> float | None:
        """All networks once; None where one was not timed."""
        return _total([network.latency for network in self.networks.values()])

    @property
    def reference_ms(self) -> float | None:
        """The same by ONNX Runtime in fp32."""
        return _total([network.reference for network in self.networks.values()])

    def to_dict(self) -> dict[str, Any]:
        """For JSON: figures that are not finite are null."""
        content: dict[str, Any] = {"schema": SCHEMA}
        for name, value in asdict(self).items():
            if name == "target":
                content |= value  # flat, as engines are recorded
            elif name not in ("sha256", "own"):
                content[name] = _finite(value)
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Report":
        """Raises ValueError, KeyError, TypeError or AttributeError for anything that is not a sane report."""
        expect(content["schema"] == SCHEMA, f"its schema is not {SCHEMA}")
        expect(content["backend"] in BACKENDS and content["precision"] in PRECISIONS, "it is of an unknown back end")
        passed = content["passed"]
        expect(passed is None or type(passed) is bool, "it says neither passed nor not")
        texts: dict[str, Any] = {name: _text(content[name]) for name in ("bundle", "bundle_sha256", "why")}
        paths, transition = content["paths"], content["transition"]
        return cls(
            **texts,
            target=Target(content["backend"], content["precision"], _text(content["profile"])),
            machine=_record(Machine, content["machine"]),
            versions=_texts(content["versions"]),
            engines=_texts(content["engines"]),
            networks={_text(name): _network(network) for name, network in content["networks"].items()},
            paths=None if paths is None else _record(PathAgreement, paths),
            transition=None if transition is None else _record(TransitionAgreement, transition),
            not_measured=tuple(map(_text, content["not_measured"])),
            passed=passed,
            seconds=_number(content["seconds"]),
        )


def read_report(folder: Path, engines: Mapping[str, Engine], trusted: bool = False) -> Report | None:
    """The report of a set, by network its engines as they are now; None unless it is about exactly these.

    And unless this user wrote it on this machine. trusted: whoever wrote it.
    """
    report = report_of(folder)
    if report is None or not (report.own or trusted):
        return None
    digests = {graph: engine.digest for graph, engine in engines.items()}
    return report if report.engines == digests else None


def report_of(folder: Path) -> Report | None:
    """The report in a set's folder, whoever wrote it and whatever became of the engines since; None without any."""
    try:
        text = read_plain(folder / REPORT, MAX_REPORT_BYTES, follow_links=False)
        content = as_object(text.decode("utf-8"), REPORT)
        report = Report.from_dict(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None
    return replace(report, sha256=hashlib.sha256(text).hexdigest(), own=is_own(content))


def write_report(folder: Path, report: Report) -> Report:
    """Put a report beside its engines, signed, whole or not at all. Raises InputError where it cannot be written."""
    text = json.dumps(signed(report.to_dict()), indent=1, allow_nan=False).encode()
    with work_folder(folder) as work:
        (work / REPORT).write_bytes(text)
        os.replace(work / REPORT, folder / REPORT)
    return replace(report, sha256=hashlib.sha256(text).hexdigest(), own=True)


Record = TypeVar("Record", Agreement, Gate, Latency, Machine, PathAgreement, TransitionAgreement)


def _record(kind: type[Record], content: Mapping[str, Any]) -> Record:
    """Of the fields that this version knows: text, whole numbers, and numbers that are null where not finite."""
    values = {field.name: content[field.name] for field in fields(kind)}
    for field in fields(kind):
        if isinstance(values[field.name], str):
            _text(values[field.name])
        elif field.type is float:
            values[field.name] = _number(values[field.name])
    return as_record(kind, values)


def _network(content: Mapping[str, Any]) -> NetworkReport:
    expect(content["precision"] in PRECISIONS, "a network's precision is unknown")
    latency, reference = (
        None if content[name] is None else _record(Latency, content[name]) for name in ("latency", "reference")
    )
    trials = tuple({_text(symbol): int(size) for symbol, size in trial.items()} for trial in content["trials"])
    return NetworkReport(
        precision=content["precision"],
        asked=_record(Gate, content["asked"]),
        reached={_text(name): _record(Agreement, output) for name, output in content["reached"].items()},
        trials=trials,
        torch={_text(name): _number(figure) for name, figure in content["torch"].items()},
        latency=latency,
        reference=reference,
        notes=tuple(map(_text, content["notes"])),
    )


def _total(latencies: Sequence[Latency | None]) -> float | None:
    parts = [latency.median_ms for latency in latencies if latency is not None]
    return sum(parts) if parts and len(parts) == len(latencies) else None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> float:
    """null stands for what was not finite."""
    return math.nan if value is None else as_number(value)


def _texts(content: Mapping[str, Any]) -> dict[str, str]:
    return as_texts(content, _MAX_TEXT)


def _text(value: Any) -> str:
    return as_text(value, _MAX_TEXT)
