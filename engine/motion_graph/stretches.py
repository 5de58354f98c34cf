"""When stretches that a path must play can begin: exact, from the states that a path can have reached.

Whatever is placed can be played by one path, so that a search that forbids all other nodes at their steps finds one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.motion_graph.graph import CONTINUE, MotionGraph

__all__ = ["Stretch", "place_stretches"]


@dataclass(frozen=True)
class Stretch:
    """Nodes that follow each other in a clip, and when to play them."""

    first_node: int
    n_nodes: int
    step: int
    within: int  # steps that it may begin later


def place_stretches(
    graph: MotionGraph,
    stretches: Sequence[Stretch],
    n_steps: int,
    min_dwell: int,
    start: tuple[int, int] | None = None,
) -> list[int | str]:
    """For each stretch the first step at which a path of n_steps can begin it, or why there is none.

    stretches: in order of their steps; of two that overlap the first wins. start: first node of the path and nodes
    since the last cut there; None: any kept node, free to cut. Takes the time of one step of a search a step.
    """
    reach = _Reach(graph, min_dwell, start)
    placed: list[int | str] = []
    for one in stretches:
        last = min(one.step + one.within, n_steps - one.n_nodes)
        if last < one.step:
            placed.append("the speech is over before it ends")
        elif last < reach.step:
            placed.append("another cue is played then")
        else:
            reach.go_to(max(one.step, reach.step))
            before = reach.state, reach.step
            while not reach.state[:, one.first_node].any() and reach.step < last:
                reach.go_to(reach.step + 1)
            if reach.state[:, one.first_node].any():
                placed.append(reach.step)
                reach.play(one)
            else:
                placed.append("no way leads there in time")
                reach.state, reach.step = before
    return placed


class _Reach:
    """The states (nodes since the last cut, node) in which a path can be at a step: bool (min_dwell, N)."""

    def __init__(self, graph: MotionGraph, min_dwell: int, start: tuple[int, int] | None) -> None:
        cut = graph.kind != CONTINUE
        self._source, self._target = graph.sources[cut], graph.indices[cut]
        self._goes_on = graph.sources[~cut]
        self.step = 0
        self.state = np.zeros((min_dwell, graph.n_nodes), bool)
        if start is None:
            self.state[-1] = graph.kept
        else:
            self.state[min(start[1], min_dwell) - 1, start[0]] = True

    def go_to(self, step: int) -> None:
        while self.step < step:
            after = self._continued()
            after[0, self._target[self.state[-1, self._source]]] = True
            self.state, self.step = after, self.step + 1

    def play(self, stretch: Stretch) -> None:
        """Be at the step after the stretch, if it begins now."""
        only = np.zeros_like(self.state)
        only[:, stretch.first_node] = self.state[:, stretch.first_node]
        self.state = only
        for _ in range(stretch.n_nodes - 1):
            self.state, self.step = self._continued(), self.step + 1
        self.go_to(self.step + 1)

    def _continued(self) -> np.ndarray:
        after = np.zeros_like(self.state)
        after[1:, self._goes_on + 1] = self.state[:-1, self._goes_on]
        after[-1, self._goes_on + 1] |= self.state[-1, self._goes_on]
        return after
