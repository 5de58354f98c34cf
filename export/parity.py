"""Does the exported network compute what the torch module computes? Figures per output, over several shapes."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from engine.errors import BackendError
from engine.inference.session import Session
from export.onnx_export import Graph

__all__ = ["Expected", "OutputParity", "ParityReport", "Tolerance", "compare", "torch_outputs"]

LEAST_SHAPES = 3

Expected = list[tuple[np.ndarray, ...]]
"""Outputs of the module, one tuple a trial."""


@dataclass(frozen=True)
class Tolerance:
    """What is asked of every output in every trial.

    `max_abs` is absolute for outputs within -1..1, and relative to the largest magnitude of the output beyond: the
    bound is max_abs * max(1, scale).
    """

    max_abs: float = 1e-4
    cosine: float = 0.99999


@dataclass(frozen=True)
class OutputParity:
    """The worst over the trials: largest and mean absolute difference, cosine of the flattened outputs."""

    max_abs: float
    mean_abs: float
    cosine: float
    scale: float  # largest magnitude of the output in torch


@dataclass(frozen=True)
class ParityReport:
    """Figures of one network in one back end."""

    graph: str
    asked: Tolerance
    reached: dict[str, OutputParity]
    shapes: list[dict[str, list[int]]]

    @property
    def passed(self) -> bool:
        # written so that NaN fails
        return all(
            output.max_abs <= self.asked.max_abs * max(1.0, output.scale) and output.cosine >= self.asked.cosine
            for output in self.reached.values()
        )

    def to_dict(self) -> dict[str, Any]:
        fields = asdict(self)
        del fields["graph"]
        return fields

    def __str__(self) -> str:
        figures = (
            f"{name}: max abs {output.max_abs:.2e} at scale {output.scale:.2g}, mean abs {output.mean_abs:.2e}, "
            f"cosine {output.cosine:.7f}"
            for name, output in self.reached.items()
        )
        return "; ".join(figures)


def torch_outputs(graph: Graph) -> Expected:
    """What the module itself gives for the trials of a graph; it is switched to evaluation."""
    graph.module.eval()
    with torch.no_grad():
        outputs = [graph.module(*(trial[name] for name in graph.inputs)) for trial in graph.trials]
    return [tuple(tensor.numpy() for tensor in tensors) for tensors in outputs]


def compare(session: Session, graph: Graph, asked: Tolerance, expected: Expected | None = None) -> ParityReport:
    """Run all trials of a graph through its module and through `session`.

    expected: of `torch_outputs`, where they were computed already. Raises BackendError where the session gives another
    shape or dtype, ValueError where the trials of a graph with axes that change have fewer than three shapes.
    """
    shapes = [{name: list(tensor.shape) for name, tensor in trial.items()} for trial in graph.trials]
    n_different = len({str(shape) for shape in shapes}) if any(graph.dynamic.values()) else len(shapes)
    if n_different < LEAST_SHAPES:
        raise ValueError(f"graph {graph.name} has trials of {n_different} shapes, want {LEAST_SHAPES}")
    parts: dict[str, list[OutputParity]] = {name: [] for name in graph.outputs}
    for trial, arrays in zip(graph.trials, expected or torch_outputs(graph), strict=True):
        got = session.run({name: tensor.numpy() for name, tensor in trial.items()})
        for name, array in zip(graph.outputs, arrays, strict=True):
            parts[name].append(_output_parity(graph, name, array, got[name]))
    return ParityReport(graph.name, asked, {name: _worst(outputs) for name, outputs in parts.items()}, shapes)


def _output_parity(graph: Graph, name: str, expected: np.ndarray, got: np.ndarray) -> OutputParity:
    if expected.shape != got.shape or expected.dtype != got.dtype:
        raise BackendError(
            f"graph {graph.name} gives {name} as {got.dtype}{list(got.shape)}, "
            f"in torch as {expected.dtype}{list(expected.shape)}"
        )
    a, b = expected.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    with np.errstate(invalid="ignore"):  # NaN and infinity fail by their figures
        lengths = np.linalg.norm(a) * np.linalg.norm(b)
        # zeros have no direction: they agree with zeros
        cosine = float(a @ b / lengths) if lengths != 0 else float(np.array_equal(a, b))
        off = np.abs(a - b)
    return OutputParity(float(off.max()), float(off.mean()), cosine, float(np.abs(a).max()))


def _worst(parts: list[OutputParity]) -> OutputParity:
    """One figure each; the scale is that of the trial with the largest share of the bound."""
    hardest = max(parts, key=lambda part: part.max_abs / max(1.0, part.scale))
    return OutputParity(
        max_abs=hardest.max_abs,
        mean_abs=float(np.max([part.mean_abs for part in parts])),
        cosine=float(np.min([part.cosine for part in parts])),
        scale=hardest.scale,
    )
