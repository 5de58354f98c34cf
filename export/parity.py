"""Does the exported network compute what the torch module computes? Figures per output, over several shapes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.inference.report import Agreement, Gate
from engine.inference.session import Session
from export.comparison import compare_outputs
from export.onnx_export import Graph

__all__ = ["TOLERANCE", "Expected", "ParityReport", "compare", "torch_outputs"]

MIN_SHAPES = 3

Expected = list[dict[str, np.ndarray]]
"""Outputs of the module by name, for each trial."""

TOLERANCE = Gate(cosine=0.99999, max_abs=1e-4)
"""The tolerance for every output in every trial."""


@dataclass(frozen=True)
class ParityReport:
    """Figures for one network in one back end."""

    graph: str
    asked: Gate
    reached: dict[str, Agreement]
    shapes: list[dict[str, list[int]]]

    @property
    def passed(self) -> bool:
        return all(self.asked.passes(output) for output in self.reached.values())

    def to_dict(self) -> dict[str, Any]:
        """The form stored in a manifest."""
        reached = {
            name: {figure: getattr(output, figure) for figure in ("max_abs", "mean_abs", "cosine", "scale")}
            for name, output in self.reached.items()
        }
        asked = {"max_abs": self.asked.max_abs, "cosine": self.asked.cosine}
        return {"asked": asked, "reached": reached, "shapes": self.shapes}

    def __str__(self) -> str:
        figures = (
            f"{name}: max abs {output.max_abs:.2e} at scale {output.scale:.2g}, mean abs {output.mean_abs:.2e}, "
            f"cosine {output.cosine:.7f}"
            for name, output in self.reached.items()
        )
        return "; ".join(figures)


def torch_outputs(graph: Graph) -> Expected:
    """Outputs of the module itself for the trials of a graph; it is switched to evaluation."""
    graph.module.eval()
    with torch.no_grad():
        outputs = [graph.module(*(trial[name] for name in graph.inputs)) for trial in graph.trials]
    arrays = [[tensor.numpy() for tensor in tensors] for tensors in outputs]
    return [dict(zip(graph.outputs, trial, strict=True)) for trial in arrays]


def compare(session: Session, graph: Graph, asked: Gate = TOLERANCE, expected: Expected | None = None) -> ParityReport:
    """Run all trials of a graph through its module and through `session`.

    expected: from `torch_outputs`, if computed already. Raises BackendError if the session returns another shape or
    dtype, ValueError if the trials of a graph with dynamic axes have fewer than three shapes.
    """
    shapes = [{name: list(tensor.shape) for name, tensor in trial.items()} for trial in graph.trials]
    n_different = len({str(shape) for shape in shapes}) if any(graph.dynamic.values()) else len(shapes)
    if n_different < MIN_SHAPES:
        raise ValueError(f"graph {graph.name} has trials of {n_different} shapes, wanted {MIN_SHAPES}")
    got = [session.run({name: tensor.numpy() for name, tensor in trial.items()}) for trial in graph.trials]
    reached = compare_outputs(expected or torch_outputs(graph), got, "torch", f"graph {graph.name}")
    return ParityReport(graph.name, asked, reached, shapes)
