"""Packs with cues, and what streams and renders do with them."""

from engine.character.cues import Cue, write_cues
from engine.character.pack import CharacterPack
from engine.motion_graph.graph import CONTINUE
from tango_rt.pipeline.live import Step

__all__ = ["beginnings", "played_whole", "stretches", "with_cues"]


def stretches(pack: CharacterPack, n_nodes: int) -> list[int]:
    """First nodes of all stretches of this length."""
    graph = pack.graph
    goes_on = {int(n) for n in graph.sources[graph.kind == CONTINUE]}
    return [n for n in range(graph.n_nodes - n_nodes) if all(n + k in goes_on for k in range(n_nodes - 1))]


def with_cues(pack: CharacterPack, **cues: tuple[int, int]) -> CharacterPack:
    """The pack with these cues: name -> first node, number of nodes. It is opened again."""
    write_cues(pack.path, pack.sha256, [Cue(name, *nodes) for name, nodes in cues.items()], pack.graph)
    return CharacterPack.open(pack.path)


def beginnings(steps: list[Step]) -> list[tuple[int, str, int]]:
    """Number of the step, name and lateness in frames of every cue that begins."""
    return [(t, step.cue.name, step.cue.late_frames) for t, step in enumerate(steps) if step.cue]


def played_whole(pack: CharacterPack, steps: list[Step]) -> None:
    """Every cue that begins is shown to its end."""
    for t, name, _ in beginnings(steps):
        cue = pack.cues.by_name[name]
        shown = [step.node for step in steps[t : t + cue.n_nodes]]
        assert shown == list(cue.nodes)[: len(shown)], name
