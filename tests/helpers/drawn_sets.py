"""A pack with a drawn set, without hours of performing to choose it."""

import numpy as np

from engine.blending.blender import open_blender
from engine.character.drawn import write_drawn
from engine.character.pack import CharacterPack
from engine.motion_graph.graph import CONTINUE, Cut
from engine.motion_graph.live_graph import connecting_cuts
from engine.motion_graph.search import SearchOptions
from tango_rt.pipeline.transitions import TransitionMaker

__all__ = ["some_cuts", "with_drawn"]


def some_cuts(pack: CharacterPack, every: int = 7) -> list[Cut]:
    """Every seventh cut, and those that keep all nodes connected."""
    graph = pack.graph
    cut = graph.kind != CONTINUE
    chosen = np.column_stack([graph.sources[cut], graph.indices[cut]])[::every]
    hub = int(np.flatnonzero(graph.kept)[0])
    added = connecting_cuts(graph, chosen, hub, SearchOptions())
    return sorted((int(i), int(j)) for i, j in np.concatenate([chosen, added]))


def with_drawn(pack: CharacterPack, blender: str = "crossfade", cuts: list[Cut] | None = None) -> CharacterPack:
    """Draw them, and open the pack again."""
    drawn_by = open_blender(blender)
    maker = TransitionMaker(pack, drawn_by)
    chosen = some_cuts(pack) if cuts is None else cuts
    write_drawn(pack.path, pack.sha256, (blender, drawn_by.version, drawn_by.settings), chosen, maker.make)
    return CharacterPack.open(pack.path)
