"""Plots of the evaluation."""

from pathlib import Path
from typing import Any

from engine.features.validation import MIN_SPEECH_S
from engine.programs import without_programs

__all__ = ["draw"]

_INK, _FLOOR, _QUIET = "#2a5d8f", "#b03a2e", "0.75"


def draw(result: dict[str, Any], path: Path) -> None:
    """Low level and windows by row, with intervals and control; look-ahead and learning curves. PNG."""
    with without_programs():
        from matplotlib.figure import Figure

    rows = [row for row in result["rows"] if row["pooled"]["frames"]]
    key = "pooled_15s" if rows[0]["pooled_15s"] else "pooled"
    whom = f"people with {MIN_SPEECH_S:.0f} s of speech" if key == "pooled_15s" else "all people"
    curves = "lookahead" in result
    figure = Figure(figsize=(12, 2.2 + 0.28 * len(rows) + (3.4 if curves else 0)), layout="constrained")
    axes = figure.subplots(
        2 if curves else 1, 2, squeeze=False, height_ratios=[0.28 * len(rows), 3.2][: 2 if curves else 1]
    )
    _bars(axes[0, 0], rows, key, "low")
    axes[0, 0].set_title(f"low level, {whom}: % correct; red: time-shifted speech", loc="left", fontsize=10)
    _bars(axes[0, 1], rows[1:], key, "far_beaten")
    axes[0, 1].axvline(50, color=_FLOOR, linewidth=1)
    axes[0, 1].set_title("windows: % of distant ones beaten by the true one", loc="left", fontsize=10)
    if curves:
        _lookahead(axes[1, 0], result["lookahead"], key)
        _learning(axes[1, 1], result["learning"])
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _bars(axes: Any, rows: list[dict[str, Any]], key: str, figure: str) -> None:
    found = [(row["row"], row[key]) for row in rows if row[key] and row[key][figure]["mean"] is not None]
    places = range(len(found), 0, -1)
    for place, (_, figures) in zip(places, found, strict=True):
        mean, low, high = (100 * figures[figure][name] for name in ("mean", "low", "high"))
        axes.plot([low, high], [place, place], color=_INK, linewidth=2)
        axes.plot([mean], [place], "o", color=_INK, markersize=5)
        if figure == "low" and figures["control"]["mean"] is not None:
            floor = 100 * figures["control"]["mean"]
            axes.plot([floor, floor], [place - 0.3, place + 0.3], color=_FLOOR, linewidth=2)
    axes.set_yticks(list(places), [name for name, _ in found])
    axes.set_xlim(0, 100)
    axes.grid(axis="x", color="0.92")


def _lookahead(axes: Any, found: dict[str, Any], key: str) -> None:
    names = list(found["pooled"])
    for curve in found["people"].values():
        axes.plot(range(len(names)), [_percent(curve[name]["mean"]) for name in names], color=_QUIET, linewidth=1)
    pooled = found[key]
    middle, low, high = ([_percent(pooled[name][side]) for name in names] for side in ("mean", "low", "high"))
    axes.fill_between(range(len(names)), low, high, color=_INK, alpha=0.15, linewidth=0)
    axes.plot(range(len(names)), middle, "o-", color=_INK)
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="frames of look-ahead", ylim=(0, 100))
    axes.set_title("fitted, low level %: pooled, and each person", loc="left", fontsize=10)


def _learning(axes: Any, curves: dict[str, Any]) -> None:
    for number, (name, curve) in enumerate(curves.items()):
        color = f"C{number % 10}"
        for key, style in (("fitted", "o-"), ("prior", ":")):
            points = [(int(seconds), _percent(figures["mean"])) for seconds, figures in curve[key].items()]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=color, label=name if key == "fitted" else None)
    if curves:
        axes.legend(frameon=False, fontsize=8)
    axes.set(xlabel="seconds fitted to", ylim=(0, 100))
    axes.set_title("last fifth, low level %; dotted: with the others' prior", loc="left", fontsize=10)


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value
