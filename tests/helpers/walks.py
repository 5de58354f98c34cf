"""Whether a path through a character can be walked as its steps say."""

from itertools import pairwise

from engine.motion_graph.graph import CONTINUE
from tango_rt.pipeline.character import Character
from tango_rt.pipeline.live import Step


def assert_walkable(character: Character, steps: list[Step]) -> None:
    """Every step is reached as it says: by continuing, by a cut of the graph, or hard; transitions are whole."""
    graph = character.pack.graph
    for before, after in pairwise(steps):
        edges = slice(graph.indptr[before.node], graph.indptr[before.node + 1])
        kinds = dict(zip(graph.indices[edges].tolist(), graph.kind[edges].tolist(), strict=True))
        if after.hard:
            assert before.cut_to is None and after.cut_from is None
        elif before.cut_to is not None:
            assert before.cut_to == after.node and after.cut_from == before.node
            assert kinds[after.node] != CONTINUE
        else:
            assert after.cut_from is None
            assert kinds[after.node] == CONTINUE
