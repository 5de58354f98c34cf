"""The cheapest way from the present state of a stream to a node, with a time at which to arrive.

Exact, over the states (node, nodes since the last cut) of engine.motion_graph.kernels.paths. Nothing is known of the
speech on the way, so nodes cost what they cost on average, in speech or in silence, above the cheapest of them; cuts
cost what they cost the online search; and every step after the first step of the window costs LATE_PRICE.
"""

from dataclasses import dataclass

import numpy as np

from engine.motion_graph.kernels.paths import Choices, Incoming, advance, trace_back
from engine.motion_graph.online_graph import OnlineGraph

__all__ = ["LATE_PRICE", "Way", "WayFinder"]

LATE_PRICE = 2.0
"""A step, about as much as a cut: an arrival 133 ms earlier is worth one cut more, not one that loses the hands."""


@dataclass(frozen=True, eq=False)
class Way:
    """The steps after the present one, up to the arrival."""

    nodes: np.ndarray  # int32 (K,): the last is the target
    by_cut: np.ndarray  # bool (K,): whether each is entered by a cut
    cost: float


class WayFinder:
    """Finds ways in one graph. Read-only: all streams share it.

    A search takes the same time for any node and grows with the edges of the graph and the steps of the window: N nodes
    with C cuts are gone through once a step, in 2 1/8 bytes a node.
    """

    def __init__(self, graph: OnlineGraph) -> None:
        edges, nodes = graph.tables.edges, graph.tables.nodes
        self._depth, self._n_nodes = graph.depth, graph.n_nodes
        source = np.repeat(np.arange(graph.n_nodes, dtype=np.int32), np.diff(edges.cut_start))
        order = np.argsort(edges.cut_target, kind="stable")  # the sources of each target ascend
        counts = np.bincount(edges.cut_target, minlength=graph.n_nodes)
        arrives = np.zeros(graph.n_nodes, bool)
        arrives[1:] = edges.goes_on[:-1]
        self._incoming = Incoming(
            arrives=arrives,
            cut_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            cut_source=source[order],
            cut_cost=edges.cut_cost[order],
        )
        self._slot = np.uint16 if counts.max(initial=0) < 2**16 else np.uint32
        self._costs = {
            speaking: (usual - usual[graph.kept].min()).astype(np.float32)[None]
            for speaking, usual in ((True, nodes.usual_speech), (False, nodes.usual_silence))
        }
        self._jitter = np.zeros((1, graph.n_nodes), np.float32)

    def find(self, start: tuple[int, int], target: int, window: tuple[int, int], speaking: bool) -> Way | None:
        """The cheapest way to `target`; None if none arrives in time.

        start: present node, and nodes since the last cut. window: first and last step at which to arrive, counted from
        the present one, which is 0. Raises ValueError for a node that does not exist or a window that is over.
        """
        first, last = window
        node, dwell = start
        if not (0 <= node < self._n_nodes and 0 <= target < self._n_nodes and 1 <= dwell <= self._depth):
            raise ValueError(f"no way from state {start} to node {target} of {self._n_nodes}")
        if not 1 <= first <= last:
            raise ValueError(f"a window from step {first} to {last}; expected one that begins at 1 or later")
        state = np.full((self._depth, self._n_nodes), np.inf)
        state[dwell - 1, node] = 0.0
        row, costs = np.zeros(1, np.int64), self._costs[speaking]
        history: list[Choices] = []
        best, arrival, arrival_dwell = np.inf, 0, 0
        for step in range(1, last + 1):
            late = LATE_PRICE * max(0, step - first)
            if late >= best:  # all costs are positive: nothing that arrives later is cheaper
                break
            choices = self._empty()
            advance(costs, self._jitter, row, state, self._incoming, choices)
            history.append(choices)
            if step >= first and (cost := state[:, target].min() + late) < best:
                best, arrival, arrival_dwell = float(cost), step, int(np.argmin(state[:, target])) + 1
        return self._traced(target, arrival_dwell, history[:arrival], best) if arrival else None

    def _empty(self) -> Choices:
        bits = np.zeros((1, -(-self._n_nodes // 8)), np.uint8)
        return Choices(np.empty((1, self._n_nodes), self._slot), bits)

    def _traced(self, node: int, dwell: int, history: list[Choices], cost: float) -> Way:
        nodes, by_cut = np.empty(len(history), np.int32), np.empty(len(history), bool)
        for step in range(len(history) - 1, -1, -1):
            part = slice(step, step + 1)
            node, dwell = trace_back(node, dwell, self._depth, self._incoming, history[step], nodes[part], by_cut[part])
        return Way(nodes, by_cut, cost)
