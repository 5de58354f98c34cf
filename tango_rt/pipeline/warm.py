"""Draws the transitions of live streams before anybody waits for them: makes, extends or redraws the drawn set."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.blending.blender import DEFAULT_BLENDER, Blender, open_blender
from engine.character.drawn import write_drawn
from engine.character.pack import CharacterPack
from engine.motion_graph.graph import Cut
from tango_rt.options import DEFAULT_LIVE_CUTS, DEFAULT_LOOKAHEAD_NODES
from tango_rt.pipeline.character import character_from_pack
from tango_rt.pipeline.drawers import draw_ahead
from tango_rt.pipeline.live_cuts import choose_cuts
from tango_rt.pipeline.transitions import TransitionStore
from tango_rt.progress import OnProgress, Stage, silent
from tango_rt.sound.audio import check_audible, read_audio

__all__ = ["WarmOptions", "WarmResult", "warm"]


@dataclass(frozen=True)
class WarmOptions:
    """Which transitions to draw, and how."""

    live_cuts: float = DEFAULT_LIVE_CUTS  # a node, chosen by how often sessions would use them
    blender: str | None = None  # None: what drew the present set, else the default
    lookahead_nodes: int = DEFAULT_LOOKAHEAD_NODES  # of the sessions that they are chosen for
    n_workers: int = 1  # processes


@dataclass(frozen=True)
class WarmResult:
    """What was drawn."""

    character: str  # path of the pack
    blender: str
    n_cuts: int  # in the drawn set now
    n_cached: int  # of these, how many were there already
    n_computed: int
    took_s: float
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def warm(pack: Path, speeches: Sequence[Path], options: WarmOptions, on_progress: OnProgress = silent) -> WarmResult:
    """Choose cuts for live streams, add them to those of the drawn set, and draw what is missing.

    speeches: speech like what the character will perform; its own voice always counts. Everything drawn is kept if
    this is interrupted. Raises InputError and ArtifactError as a render does.
    """
    started_s = time.perf_counter()
    opened = CharacterPack.open(pack)
    sounds, warnings = [], []
    for speech in speeches:
        heard: list[str] = []
        sounds.append(read_audio(speech, warn=heard.append))
        check_audible(sounds[-1], speech)
        warnings += [f"{speech.name}: {text}" for text in heard]
    name = options.blender or (DEFAULT_BLENDER if opened.drawn is None else opened.drawn.blender)
    blender = open_blender(name)
    cuts = _chosen(opened, sounds, options, on_progress)
    n_missing = _draw(opened, blender, cuts, options.n_workers, on_progress)
    return WarmResult(
        character=str(pack),
        blender=name,
        n_cuts=len(cuts),
        n_cached=len(cuts) - n_missing,
        n_computed=n_missing,
        took_s=round(time.perf_counter() - started_s, 3),
        warnings=warnings,
    )


def _chosen(
    pack: CharacterPack, sounds: Sequence[np.ndarray], options: WarmOptions, on_progress: OnProgress
) -> list[Cut]:
    n_cuts = round(options.live_cuts * pack.graph.n_kept)
    chosen = choose_cuts(character_from_pack(pack), sounds, n_cuts, options.lookahead_nodes, on_progress)
    return sorted({*chosen, *(pack.drawn.numbers if pack.drawn else ())})


def _draw(pack: CharacterPack, blender: Blender, cuts: list[Cut], n_workers: int, on_progress: OnProgress) -> int:
    """Draw what is missing and write the set. Returns how many were missing."""
    store = TransitionStore(pack, blender, only_this_version=True)
    n_missing = sum(not store.is_cached(cut) for cut in cuts)
    with (
        Stage(on_progress, "transitions", n_missing, "cuts") as stage,
        closing(draw_ahead(store, cuts, n_workers)) as done,
    ):
        for _ in done:
            stage.advance()
    write_drawn(pack.path, pack.sha256, (blender.name, blender.version, blender.settings), cuts, store.packets)
    store.discard(cuts)
    return n_missing
