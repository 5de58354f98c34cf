"""A page about a character: what was tracked, how the graph is connected, what its best and worst cuts look like."""

import html
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from engine.character.embeddings import read_embedding, stored_names
from engine.character.pack import CharacterPack
from engine.features.speech import speech_features
from engine.features.validation import MAX_LAG_FRAMES, lag_profile
from engine.motion_graph.graph import CONTINUE, CUT, RELAXED
from engine.programs import without_programs
from engine.timebase import FPS, FRAMES_PER_NODE
from tango_rt.characters.inspect import LARGE_HAND_GAP, describe, summarize
from tango_rt.video.gop import GopDecoder

__all__ = ["write_report"]

N_PAIRS = 6
N_ARCS = 600
PAIR_HEIGHT_PX = 240

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}}
img{{max-width:100%;border:1px solid #ddd}}pre{{background:#f6f6f6;padding:1em;overflow:auto}}</style>
<h1>{title}</h1><pre>{summary}</pre>{sections}</html>
"""


def write_report(pack: CharacterPack, folder: Path) -> Path:
    """Write index.html and its pictures into a folder; returns the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings: list[tuple[str, str, Callable[[CharacterPack, Path], None]]] = [
        ("coverage", "What was found, over time", _draw_coverage),
        (
            "fit",
            "How well speech finds its place (bars: 95 %, dashes: time-shifted speech), and the lag",
            _draw_fit,
        ),
        ("graph", "Cuts of the graph (arcs above: forward, below: backward; red: relaxed)", _draw_graph),
        ("distances", "Distances of the cuts", _draw_distances),
        ("hands", "How far apart the hands are at cuts, in shoulder widths (over 0.3 a morph loses them)", _draw_hands),
        ("best", "Best cuts: the two pictures joined by a cut, side by side", _draw_best),
        ("worst", "Worst cuts, including relaxed ones", _draw_worst),
    ]
    sections = []
    for name, title, draw in drawings:
        draw(pack, folder / f"{name}.png")
        sections.append(f'<h2>{title}</h2><img src="{name}.png" alt="{title}">')
    page = folder / "index.html"
    page.write_text(
        _PAGE.format(
            title=html.escape(f"Character {pack.info.name}"),
            summary=html.escape(summarize(describe(pack))),
            sections="\n".join(sections),
        ),
        "utf-8",
        errors="backslashreplace",
    )
    return page


def _draw_coverage(pack: CharacterPack, file: Path) -> None:
    rows = np.column_stack([pack["valid"], pack["hands_found"]]).T.astype(float)
    second = rows[:, : rows.shape[1] // FPS * FPS].reshape(3, -1, FPS).mean(axis=2)
    figure, axis = _figure(10, 2)
    image = axis.imshow(second, aspect="auto", vmin=0, vmax=1, cmap="RdYlGn", interpolation="nearest")
    axis.set_yticks(range(3), ["person", "left hand", "right hand"])
    axis.set_xlabel("seconds of the pack; lines are clip boundaries")
    for node in pack["clip_start"][1:-1]:
        axis.axvline(node * FRAMES_PER_NODE / FPS - 0.5, color="black", linewidth=0.5)
    figure.colorbar(image, label="share of frames")
    figure.savefig(file, dpi=110)


def _draw_fit(pack: CharacterPack, file: Path) -> None:
    figure, (scores, lags) = _figure(10, 3, columns=2)
    about = read_embedding(pack, "fitted").about if "fitted" in stored_names(pack.path) else {}
    used = "fitted+mouth" if about.get("choice") == "fitted" and about.get("mouth") else about.get("choice")
    for row, (name, score) in enumerate(about.get("scores", {}).items()):
        mean, low, high = (np.nan if score[key] is None else 100 * score[key] for key in ("mean", "low", "high"))
        scores.barh(row, mean, color="seagreen" if name == used else "lightsteelblue")
        scores.plot([low, high], [row, row], color="black", linewidth=1)
        floor = 100 * (about["control"][name] or 0)
        scores.plot([floor, floor], [row - 0.4, row + 0.4], color="crimson", linestyle="--")
        scores.text(1, row, name, va="center")
    scores.set(xlim=(0, 100), yticks=[], xlabel="% within 4 frames of the truth, out of 32; green: in use")
    recording = pack.recording
    profile = lag_profile(recording, speech_features(recording.samples))
    lags.plot(np.arange(-MAX_LAG_FRAMES, MAX_LAG_FRAMES + 1) * 1000 / FPS, profile, color="seagreen")
    lags.set(xlabel="ms by which motion trails the voice", ylabel="shared variance", ylim=(0, None))
    figure.savefig(file, dpi=110)


def _draw_graph(pack: CharacterPack, file: Path) -> None:
    graph = pack.graph
    source = graph.sources
    order = np.argsort(graph.distance, kind="stable")
    cuts = order[graph.kind[order] == CUT]
    shown = np.concatenate([cuts[:: max(1, len(cuts) // N_ARCS)], order[graph.kind[order] == RELAXED]])
    figure, axis = _figure(10, 4)
    angle = np.linspace(0, np.pi, 40)
    for edge in shown:
        a, b = source[edge], graph.indices[edge]
        relaxed = graph.kind[edge] == RELAXED
        axis.plot(
            (a + b) / 2 + (b - a) / 2 * np.cos(angle),
            (b - a) / 2 * np.sin(angle),
            color="crimson" if relaxed else "steelblue",
            alpha=0.9 if relaxed else 0.25,
            linewidth=1.2 if relaxed else 0.6,
        )
    axis.scatter(np.flatnonzero(~graph.kept), np.zeros(graph.n_nodes - graph.n_kept), s=8, color="black")
    axis.set_xlabel("node (black dots: dropped)")
    axis.set_yticks([])
    figure.savefig(file, dpi=110)


def _draw_distances(pack: CharacterPack, file: Path) -> None:
    graph = pack.graph
    figure, axis = _figure(10, 3)
    for kind, name, color in ((CUT, "cut", "steelblue"), (RELAXED, "relaxed", "crimson")):
        values = graph.distance[graph.kind == kind]
        if values.size:
            axis.hist(values, bins=60, label=f"{name} ({values.size})", color=color, alpha=0.8)
    axis.set_xlabel("distance of the blended frames")
    axis.set_yscale("log")
    axis.legend()
    figure.savefig(file, dpi=110)


def _draw_hands(pack: CharacterPack, file: Path) -> None:
    figure, axis = _figure(10, 3)
    graphs = [("all cuts", pack.graph, "lightsteelblue")]
    if pack.drawn is not None:
        graphs.append(("cuts of live streams", pack.drawn.graph, "seagreen"))
    for name, graph, color in graphs:
        if graph.hand_gap is not None:
            gaps = graph.hand_gap[graph.kind != CONTINUE]
            axis.hist(gaps, bins=60, density=True, label=f"{name} ({gaps.size})", color=color, alpha=0.7)
            axis.legend()
    axis.axvline(LARGE_HAND_GAP, color="crimson", linestyle="--")
    axis.set_xlabel("hand gap")
    axis.set_yticks([])
    figure.savefig(file, dpi=110)


def _draw_best(pack: CharacterPack, file: Path) -> None:
    _draw_pairs(pack, file, best=True)


def _draw_worst(pack: CharacterPack, file: Path) -> None:
    _draw_pairs(pack, file, best=False)


def _draw_pairs(pack: CharacterPack, file: Path, best: bool) -> None:
    """The last picture before and the first after each of a few cuts that are well apart."""
    graph = pack.graph
    source = graph.sources
    cuts = np.flatnonzero(graph.kind != 0)
    cuts = cuts[np.argsort(graph.distance[cuts] if best else -graph.distance[cuts], kind="stable")]
    chosen: list[int] = []
    for edge in cuts.tolist():
        apart = all(abs(source[edge] - source[other]) > FPS // FRAMES_PER_NODE for other in chosen)
        if apart and len(chosen) < N_PAIRS:
            chosen.append(edge)
    decoder = GopDecoder(pack.info.extradata, pack.info.width, pack.info.height, f"the video of {pack.path}")
    pairs = []
    for edge in chosen:
        i, j = int(source[edge]), int(graph.indices[edge])
        pair = np.hstack([decoder.decode(pack.packets(i))[-1], decoder.decode(pack.packets(j))[0]])
        pairs.append(_label(pair, f"{i} -> {j}   {graph.distance[edge]:.3f}"))
    rows = [np.hstack(pairs[k : k + 2]) for k in range(0, len(pairs) - len(pairs) % 2, 2)] or pairs[:1]
    if rows:
        # not imwrite, which fails silently and crashes on names that are not UTF-8
        file.write_bytes(cv2.imencode(".png", cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))[1].tobytes())


def _label(picture: np.ndarray, text: str) -> np.ndarray:
    width = round(picture.shape[1] * PAIR_HEIGHT_PX / picture.shape[0])
    small = cv2.resize(picture, (width, PAIR_HEIGHT_PX), interpolation=cv2.INTER_AREA)
    small = cv2.copyMakeBorder(small, 20, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    return cv2.putText(small, text, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (20, 20, 20), 1, cv2.LINE_AA)


def _figure(width_in: float, height_in: float, columns: int = 1):  # type: ignore[no-untyped-def]
    with without_programs():
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    return figure, figure.subplots(1, columns)
