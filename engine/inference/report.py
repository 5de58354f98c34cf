"""report.json of a set of engines: what verification required and measured, and for exactly which engines.

By default a bundle's engines are run only if a report by this user on this machine passed them
(engine.inference.signing). Its figures hold for the machine, versions and bytes that it names: an engine that is
compiled again needs a new report.
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
_MAX_TEXT = 2_000  # characters in one part of a report


@dataclass(frozen=True)
class Agreement:
    """An output of a network against its reference, the worst over all trials; NaN if it was not finite."""

    max_abs: float
    mean_abs: float
    cosine: float  # of the flattened outputs
    relative_l2: float  # |engine - reference| / |reference|
    scale: float  # largest magnitude of the reference in the trial with the largest share of max_abs


@dataclass(frozen=True)
class Gate:
    """The bounds that every output must meet."""

    cosine: float  # at least
    max_abs: float | None = None  # at most this times max(1, scale)
    relative_l2: float | None = None  # at most

    def passes(self, output: Agreement) -> bool:
        """Whether an output meets the bounds; NaN never does."""
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
    """Time of one run, with inputs and outputs in host memory."""

    median_ms: float
    p99_ms: float
    n_runs: int


@dataclass(frozen=True)
class NetworkReport:
    """Verification of one network."""

    precision: Precision
    asked: Gate
    reached: Mapping[str, Agreement]  # by output
    trials: tuple[Mapping[str, int], ...]  # sizes of the symbols
    torch: Mapping[str, float]  # ONNX Runtime against torch, from the bundle's manifest
    latency: Latency | None
    reference: Latency | None  # of ONNX Runtime, in fp32 on the same inputs
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return bool(self.reached) and all(self.asked.passes(output) for output in self.reached.values())


@dataclass(frozen=True)
class PathAgreement:
    """How far the engines and the reference retrieve the same nodes for a speech."""

    share: float  # of equal nodes, 0..1
    asked: float  # share required
    n_nodes: int
    character: str
    speech: str

    @property
    def passed(self) -> bool:
        return self.share >= self.asked


@dataclass(frozen=True)
class TransitionAgreement:
    """Frames of a transition by the engines against those by the reference, from the same noise."""

    psnr_db: float  # at most 120, which means equal frames
    asked_db: float  # PSNR required
    n_steps: int
    width_px: int
    height_px: int

    @property
    def passed(self) -> bool:
        return self.psnr_db >= self.asked_db


@dataclass(frozen=True)
class Report:
    """The result of verifying a set of engines."""

    bundle: str
    bundle_sha256: str
    target: Target
    machine: Machine
    versions: Mapping[str, str]
    engines: Mapping[str, str]  # digest by network
    networks: Mapping[str, NetworkReport]
    paths: PathAgreement | None
    transition: TransitionAgreement | None
    not_measured: tuple[str, ...]
    passed: bool | None  # None: the engines could not be run here
    why: str  # which bounds were missed, or why the engines could not be run
    seconds: float
    sha256: str = ""  # of report.json, "" before it is written
    own: bool = False  # written by this user on this machine, and unchanged

    @property
    def median_ms(self) -> float | None:
        """Sum over all networks; None if one was not timed."""
        return _total([network.latency for network in self.networks.values()])

    @property
    def reference_ms(self) -> float | None:
        """The same for ONNX Runtime in fp32."""
        return _total([network.reference for network in self.networks.values()])

    def to_dict(self) -> dict[str, Any]:
        """For JSON: figures that are not finite become null."""
        content: dict[str, Any] = {"schema": SCHEMA}
        for name, value in asdict(self).items():
            if name == "target":
                content |= value  # flat, as in the records of engines
            elif name not in ("sha256", "own"):
                content[name] = _finite(value)
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Report":
        """Raises ValueError, KeyError, TypeError or AttributeError for anything that is not a valid report."""
        expect(content["schema"] == SCHEMA, f"its schema is not {SCHEMA}")
        expect(
            content["backend"] in BACKENDS and content["precision"] in PRECISIONS,
            "unknown back end or precision",
        )
        passed = content["passed"]
        expect(passed is None or type(passed) is bool, "passed is not a boolean or null")
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
    """The report of a set; None unless it is about exactly these engines (by network) and this user wrote it here.

    trusted: accept it whoever wrote it.
    """
    report = report_of(folder)
    if report is None or not (report.own or trusted):
        return None
    digests = {graph: engine.digest for graph, engine in engines.items()}
    return report if report.engines == digests else None


def report_of(folder: Path) -> Report | None:
    """The report in a set's folder, whoever wrote it and even if the engines changed since; None if there is none."""
    try:
        text = read_plain(folder / REPORT, MAX_REPORT_BYTES, follow_links=False)
        content = as_object(text.decode("utf-8"), REPORT)
        report = Report.from_dict(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None
    return replace(report, sha256=hashlib.sha256(text).hexdigest(), own=is_own(content))


def write_report(folder: Path, report: Report) -> Report:
    """Sign a report and write it atomically next to its engines. Raises InputError if the folder is not writable."""
    text = json.dumps(signed(report.to_dict()), indent=1, allow_nan=False).encode()
    with work_folder(folder) as work:
        (work / REPORT).write_bytes(text)
        os.replace(work / REPORT, folder / REPORT)
    return replace(report, sha256=hashlib.sha256(text).hexdigest(), own=True)


Record = TypeVar("Record", Agreement, Gate, Latency, Machine, PathAgreement, TransitionAgreement)


def _record(kind: type[Record], content: Mapping[str, Any]) -> Record:
    """Only the fields that this version knows: text, whole numbers, and floats, null if not finite."""
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
    """null means that it was not finite."""
    return math.nan if value is None else as_number(value)


def _texts(content: Mapping[str, Any]) -> dict[str, str]:
    return as_texts(content, _MAX_TEXT)


def _text(value: Any) -> str:
    return as_text(value, _MAX_TEXT)
