"""Plots the curves of a run."""

from collections.abc import Sequence
from pathlib import Path

from engine.programs import without_programs

__all__ = ["draw_curves"]


def draw_curves(history: Sequence[dict[str, float]], path: Path) -> None:
    """Losses above, accuracies below, over the steps, as PNG; nothing without a history."""
    if not history:
        return
    with without_programs():
        from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    losses, shares = figure.subplots(2, 1, sharex=True)
    for axes, names in (
        (losses, {"local_loss": "local loss", "global_loss": "global loss"}),
        (shares, {"train_low": "low, training", "low": "low, held out", "control": "control: sound shifted"}),
    ):
        for name, label in names.items():
            points = [(record["step"], record[name]) for record in history if name in record]
            if points:
                axes.plot(*zip(*points, strict=True), label=label, marker=".")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    losses.set_ylim(bottom=0)
    shares.axhline(0.25, color="0.7", linewidth=0.8)
    shares.set(xlabel="step", ylabel="share correct", ylim=(0, 1))
    figure.savefig(path, dpi=110)
