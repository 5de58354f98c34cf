"""The contents of a pack, as figures and as a few lines of text."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from engine.character.embeddings import read_embedding, stored_names
from engine.character.pack import CharacterPack, folder_bytes
from engine.features.validation import MIN_SPEECH_S
from engine.files import reading
from engine.motion_graph.graph import CONTINUE
from engine.timebase import FPS

__all__ = ["describe", "fit_warnings", "summarize"]

MAX_SPANS_LISTED = 6
MAX_CUES_LISTED = 12
WARM = "run 'tango-rt character warm'"
LARGE_HAND_GAP = 0.3
"""In shoulder widths: from here on a morph loses the hand."""


def describe(pack: CharacterPack) -> dict[str, Any]:
    """Figures of a pack, ready for JSON."""
    info, graph = pack.info, pack.graph
    retrieval = _retrieval(pack)
    warnings = [*info.report.get("warnings", []), *fit_warnings(retrieval, pack.path)]
    return {
        "name": info.name,
        "character": str(pack.path),
        "schema": info.schema,
        "n_frames": info.n_frames,
        "n_nodes": info.n_nodes,
        "n_nodes_kept": graph.n_kept,
        "n_edges": graph.n_edges,
        "n_cut_edges": graph.n_cut_edges,
        "n_relaxed_edges": graph.n_relaxed_edges,
        "n_clips": len(info.clips),
        "pose_coverage": round(float(np.mean(pack["valid"])), 4),
        "hand_coverage": [round(float(share), 4) for share in np.mean(pack["hands_found"], axis=0)],
        "fps": FPS,
        "width": info.width,
        "height": info.height,
        "duration_s": round(info.n_frames / FPS, 3),
        "bytes": folder_bytes(pack.path),
        "n_live_cuts": 0 if pack.drawn is None else len(pack.drawn.cuts),
        "live_blender": None if pack.drawn is None else pack.drawn.blender,
        "hand_gaps": _hand_gaps(pack),
        "cues": list(pack.cues.by_name),
        "n_transitions_stored": sum(1 for _ in (pack.path / "transitions").glob("*/*.gops")),
        "retrieval": retrieval,
        "sources": [source.name for source in info.sources],
        "build": {**info.report, "warnings": warnings},
    }


def _retrieval(pack: CharacterPack) -> dict[str, Any]:
    """Embeddings of the pack by name: the hash of what made them, and the quality of the fit."""
    stored = (read_embedding(pack, name) for name in stored_names(pack.path))
    return {one.name: {"sha256": one.sha256, **one.about} for one in stored}


def _hand_gaps(pack: CharacterPack) -> dict[str, float] | None:
    """How far apart the hands are at cuts, in shoulder widths: of all cuts, and of those of live streams; None if the
    pack was built without them."""
    live = pack.graph if pack.drawn is None else pack.drawn.graph
    if pack.graph.hand_gap is None or live.hand_gap is None:
        return None
    gaps, live_gaps = pack.graph.hand_gap[pack.graph.kind != CONTINUE], live.hand_gap[live.kind != CONTINUE]
    return {
        "median": round(float(np.median(gaps)), 4),
        "share_large": round(float(np.mean(gaps > LARGE_HAND_GAP)), 4),
        "live_median": round(float(np.median(live_gaps)), 4),
        "live_share_large": round(float(np.mean(live_gaps > LARGE_HAND_GAP)), 4),
    }


def fit_warnings(retrieval: dict[str, Any], pack: Path) -> list[str]:
    """What a user should know before trusting the fit; retrieval: the embeddings of `pack` as `describe` gives them."""
    if "fitted" not in retrieval:
        return []
    with _checked(pack, "fit", "run 'tango-rt character refresh'"):
        fit, warnings = retrieval["fitted"], []
        if fit["speech_s"] < MIN_SPEECH_S:
            warnings.append(
                f"only {fit['speech_s']:.0f} s of speech: a fit to the person needs {MIN_SPEECH_S:.0f} s "
                "and still improves at 40"
            )
        if fit["choice"] == "onset":
            warnings.append(f"retrieval uses onsets, not a fit to the person: {fit['why']}")
    return warnings


def _fit_lines(retrieval: dict[str, Any], pack: str) -> list[str]:
    if "fitted" not in retrieval:
        return [f"  retrieval: {', '.join(retrieval) or 'none'}"]
    fit = retrieval["fitted"]
    with _checked(pack, "fit", "run 'tango-rt character refresh'"):
        return [
            f"  retrieval: {fit['choice']}, for {fit['why']}",
            f"  motion trails the voice by {fit['lag_frames']} frames; {fit['speech_s']:.0f} s of speech; "
            f"embeddings: {', '.join(retrieval)}",
        ]


def _live_lines(figures: dict[str, Any]) -> list[str]:
    gaps, n_cuts = figures["hand_gaps"], figures["n_live_cuts"]
    if not n_cuts:
        return [f"  live: no transitions are drawn yet, streams may show late ones: {WARM}"]
    line = f"  live: {n_cuts} cuts drawn by {figures['live_blender']}"
    if gaps is None:
        return [line]
    apart = f"{gaps['live_share_large']:.0%} of them, {gaps['share_large']:.0%} of all cuts"
    return [f"{line}; hands are over {LARGE_HAND_GAP} shoulder widths apart in {apart}"]


def _checked(pack: Path | str, part: str, remedy: str) -> AbstractContextManager[None]:
    """Guards the reading of what a pack says about itself, which is untrusted."""
    return reading(f"what {pack} says about its {part}", "is damaged", remedy)


def _group_lines(groups: list[dict[str, Any]], pack: str) -> list[str]:
    """People, outfits or places of the videos, if there is more than one."""
    lines = []
    with _checked(pack, "groups", "build the character again"):
        for number, group in enumerate(groups if len(groups) > 1 else [], 1):
            spans = [f"{s['source']} {s['first_s']:.1f} to {s['last_s']:.1f} s" for s in group["spans"]]
            if len(spans) > MAX_SPANS_LISTED:
                spans[MAX_SPANS_LISTED:] = [f"and {len(spans) - MAX_SPANS_LISTED} more places"]
            fate = "kept" if group["kept"] else "left out"
            lines.append(f"  look {number}: {group['seconds']:.1f} s, {fate}: {', '.join(spans)}")
    return lines


def summarize(figures: dict[str, Any]) -> str:
    """The same as text."""
    left, right = figures["hand_coverage"]
    lines = [
        f"{figures['character']}: {figures['width']} x {figures['height']}, {figures['duration_s']:.1f} s in "
        f"{figures['n_clips']} clips, {figures['bytes'] / 1e6:.1f} MB",
        f"  person found in {figures['pose_coverage']:.1%} of frames, left hand {left:.1%}, right hand {right:.1%}",
        f"  graph: {figures['n_nodes_kept']} of {figures['n_nodes']} nodes, {figures['n_cut_edges']} cuts, "
        f"{figures['n_relaxed_edges']} of them relaxed",
    ]
    lines += _live_lines(figures)
    if figures["cues"]:
        named = ", ".join(figures["cues"][:MAX_CUES_LISTED])
        n_more = len(figures["cues"]) - MAX_CUES_LISTED
        lines.append(f"  cues: {named}" + (f" and {n_more} more" if n_more > 0 else ""))
    lines += _group_lines(figures["build"].get("groups", []), figures["character"])
    lines += _fit_lines(figures["retrieval"], figures["character"])
    if "report" in figures:
        lines.append(f"  report: {figures['report']}")
    return "\n".join(lines)
