"""How far a network's outputs are from the expected ones: the same figures for every comparison."""

from collections.abc import Mapping, Sequence

import numpy as np

from engine.errors import BackendError
from engine.inference.backends import REFERENCE
from engine.inference.report import Agreement

__all__ = ["compare_outputs"]


def compare_outputs(
    expected: Sequence[Mapping[str, np.ndarray]],
    got: Sequence[Mapping[str, np.ndarray]],
    reference: str = REFERENCE,
    compared: str = "the engine",
) -> dict[str, Agreement]:
    """The worst of each figure over the trials, by output; reference and compared: their sources, in words.

    Raises BackendError if a shape or dtype differs.
    """
    for one, other in zip(expected, got, strict=True):
        for name, array in one.items():
            if array.shape != other[name].shape or array.dtype != other[name].dtype:
                raise BackendError(f"{compared} gives {name} as {_kind(other[name])}, {reference} as {_kind(array)}")
    return {
        name: _worst([_agreement(one[name], other[name]) for one, other in zip(expected, got, strict=True)])
        for name in expected[0]
    }


def _agreement(expected: np.ndarray, got: np.ndarray) -> Agreement:
    if not expected.size:
        return Agreement(0.0, 0.0, 1.0, 0.0, 0.0)
    a, b = expected.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity fail in the figures
        length, off = float(np.linalg.norm(a)), np.abs(a - b)
        lengths, distance = length * float(np.linalg.norm(b)), float(np.linalg.norm(off))
        # zeros have no direction: they agree with zeros
        cosine = float(a @ b / lengths) if lengths != 0 else float(np.array_equal(a, b))
        relative_l2 = distance / length if length != 0 else (0.0 if distance == 0 else float("inf"))
    return Agreement(float(off.max()), float(off.mean()), cosine, relative_l2, float(np.abs(a).max()))


def _worst(parts: Sequence[Agreement]) -> Agreement:
    """The worst of each figure; the scale is that of the trial closest to the bound. NaN is worst of all."""
    hardest = max(parts, key=lambda part: _nan_last(part.max_abs / max(1.0, part.scale)))
    return Agreement(
        max_abs=hardest.max_abs,
        mean_abs=float(np.max([part.mean_abs for part in parts])),
        cosine=float(np.min([part.cosine for part in parts])),
        relative_l2=float(np.max([part.relative_l2 for part in parts])),
        scale=hardest.scale,
    )


def _nan_last(figure: float) -> float:
    return float("inf") if np.isnan(figure) else figure


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"
