"""Strong connectivity: every node of the graph can always be reached from every other, under the dwell rule.

Two cuts have at least MIN_DWELL nodes between them, so what must be connected are states (node, nodes since the last
cut, saturating), not nodes: continue (n, d) -> (n + 1, min(d + 1, MIN_DWELL)), cut (n, MIN_DWELL) -> (j, 1). A clip is
a line, so the part of it that can be kept is the stretch from its first way in to its last way out. Missing cuts are
added, cheapest first, marked as relaxed, with their real distance (in place of the paper's merging, Algorithm 1):
    1. a way out near the end of every clip,
    2. a way in near the start of every clip,
    3. while several strongly connected parts are left, a cut from one without a way out to one without a way in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import networkx as nx
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from engine.errors import InputError
from engine.motion_graph.kernels.cuts import cheapest_cuts
from engine.motion_graph.kernels.distances import NodeFeatures
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["MIN_DWELL", "ConnectReport", "Cuts", "connect"]

MIN_DWELL = 3
"""Nodes between two cuts: each cut uses one for its transition, and one must stay real."""

# The ends of a clip that may be given up for a better cut: a tenth of it in all, and at most two seconds each.
_ENDS_SHARE = 10
_MAX_END_NODES = 2 * FPS // FRAMES_PER_NODE

_CheapestCuts = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""kernels.cuts.cheapest_cuts of groups of sources and groups of targets, with all other arguments bound."""


@dataclass(frozen=True)
class Cuts:
    """Cuts between nodes."""

    source: np.ndarray  # int32 (E,)
    target: np.ndarray  # int32 (E,)
    distance: np.ndarray  # float32 (E,)
    n_relaxed: int  # the last of them, which are relaxed

    def only(self, which: np.ndarray) -> "Cuts":
        """The cuts selected by `which`, bool (E,)."""
        n_relaxed = int(np.count_nonzero(which[len(which) - self.n_relaxed :]))
        return Cuts(self.source[which], self.target[which], self.distance[which], n_relaxed)

    def with_relaxed(self, source: np.ndarray, target: np.ndarray, distance: np.ndarray) -> "Cuts":
        return Cuts(
            np.concatenate([self.source, source]).astype(np.int32),
            np.concatenate([self.target, target]).astype(np.int32),
            np.concatenate([self.distance, distance]).astype(np.float32),
            self.n_relaxed + len(source),
        )


@dataclass(frozen=True)
class ConnectReport:
    """The result of connecting a graph."""

    n_nodes: int
    n_kept: int
    n_components_before: int  # strongly connected parts with at least one loop
    largest_before: int  # nodes of the largest of them
    n_cuts: int
    n_relaxed: int
    relaxed_mean: float  # distance, 0 without relaxed cuts
    relaxed_max: float  # distance, 0 without relaxed cuts
    n_short_clips: int  # shorter than MIN_DWELL nodes
    n_dropped_short_clips: int  # nodes in short clips
    n_dropped_clip_starts: int  # nodes before the first way into their clip
    n_dropped_clip_ends: int  # nodes after the last way out of their clip

    @property
    def n_dropped(self) -> int:
        return self.n_nodes - self.n_kept


@dataclass(frozen=True)
class _Line:
    """The place of every node in its clip."""

    from_start: np.ndarray  # nodes since the start of the clip
    to_end: np.ndarray  # nodes to its end
    head: np.ndarray  # nodes that its start may lose
    tail: np.ndarray  # nodes that its end may lose
    usable: np.ndarray  # bool: the clip is long enough
    clip: np.ndarray

    @property
    def in_head(self) -> np.ndarray:
        return self.usable & (self.from_start <= self.head)

    @property
    def in_tail(self) -> np.ndarray:
        return self.usable & (self.to_end <= self.tail)

    @property
    def can_receive(self) -> np.ndarray:
        """Whether a path that cuts here reaches a way out, wherever in the tail that is."""
        return self.usable & (self.to_end >= self.tail + MIN_DWELL - 1)

    @property
    def has_dwelt(self) -> np.ndarray:
        """Whether a path arrives here with full dwell, wherever in the head it came in."""
        return self.usable & (self.from_start >= self.head + MIN_DWELL - 1)


def connect(
    features: NodeFeatures, clip_start: np.ndarray, cuts: Cuts, min_skip: int, windowed: bool
) -> tuple[Cuts, np.ndarray, ConnectReport]:
    """Cuts of a strongly connected graph, kept bool (N,), and the report.

    clip_start int64 (n_clips + 1); `cuts` are the admissible ones. At least 90 % of the nodes of every clip with
    MIN_DWELL nodes or more are kept. Raises InputError if there is no such clip.
    """
    line = _line(clip_start)
    if not line.usable.any():
        longest = int(np.diff(clip_start).max())
        raise InputError(f"the longest clip has {longest} nodes; expected {MIN_DWELL} or more in one shot")
    n_parts, largest = _loops(cuts, line)
    n_admissible = len(cuts.source)

    def cheapest(source_group: np.ndarray, target_group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return cheapest_cuts(features, source_group, target_group, min_skip, windowed)

    def relax(cuts: Cuts, source_group: np.ndarray, target_group: np.ndarray) -> Cuts:
        if source_group.max() < 0 or target_group.max() < 0:
            return cuts
        source, target, distance = (found.ravel() for found in cheapest(source_group, target_group))
        return cuts.with_relaxed(source, target, distance)

    leaves = line.in_tail[cuts.source] & line.can_receive[cuts.target]
    without = line.usable & ~np.isin(line.clip, line.clip[cuts.source[leaves]])
    cuts = relax(cuts, _numbered(line.clip, without & line.in_tail), np.where(line.can_receive, 0, -1))
    leaves = line.in_tail[cuts.source] & line.can_receive[cuts.target]
    last = np.full(len(clip_start) - 1, -1)
    np.maximum.at(last, line.clip[cuts.source[leaves]], cuts.source[leaves])

    stays = line.has_dwelt & (np.arange(len(line.clip)) <= last[line.clip])
    enters = line.in_head[cuts.target] & stays[cuts.source]
    without = line.usable & ~np.isin(line.clip, line.clip[cuts.target[enters]])
    cuts = relax(cuts, np.where(stays, 0, -1), _numbered(line.clip, without & line.in_head))
    enters = line.in_head[cuts.target] & stays[cuts.source]
    first = clip_start[1:].copy()
    np.minimum.at(first, line.clip[cuts.target[enters]], cuts.target[enters])

    node = np.arange(len(line.clip))
    kept = line.usable & (node >= first[line.clip]) & (node <= last[line.clip])
    lasting = kept & (node <= last[line.clip] - (MIN_DWELL - 1))
    cuts = cuts.only(kept[cuts.source] & lasting[cuts.target])
    cuts = _join_parts(cuts, kept, first[line.clip], line.clip, cheapest)
    relaxed = cuts.distance[len(cuts.distance) - cuts.n_relaxed :]
    return (
        cuts,
        kept,
        ConnectReport(
            n_nodes=len(kept),
            n_kept=int(kept.sum()),
            n_components_before=n_parts,
            largest_before=largest,
            n_cuts=n_admissible,
            n_relaxed=cuts.n_relaxed,
            relaxed_mean=float(relaxed.mean()) if len(relaxed) else 0.0,
            relaxed_max=float(relaxed.max()) if len(relaxed) else 0.0,
            n_short_clips=int(np.count_nonzero(np.diff(clip_start) < MIN_DWELL)),
            n_dropped_short_clips=int(np.count_nonzero(~line.usable)),
            n_dropped_clip_starts=int(np.count_nonzero(line.usable & (node < first[line.clip]))),
            n_dropped_clip_ends=int(np.count_nonzero(line.usable & (node > last[line.clip]))),
        ),
    )


def _line(clip_start: np.ndarray) -> _Line:
    length = np.diff(clip_start)
    given_up = length // _ENDS_SHARE
    clip = np.repeat(np.arange(len(length)), length)
    node = np.arange(clip_start[-1])
    return _Line(
        from_start=node - clip_start[clip],
        to_end=clip_start[clip + 1] - 1 - node,
        head=np.minimum(given_up // 2, _MAX_END_NODES)[clip],
        # The larger half: a cut has a window of real frames only before the very last node.
        tail=np.minimum(given_up - given_up // 2, _MAX_END_NODES)[clip],
        usable=(length >= MIN_DWELL)[clip],
        clip=clip,
    )


def _numbered(label: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Labels of the selected nodes renumbered 0, 1, ...; -1 elsewhere."""
    groups = np.full(len(label), -1)
    groups[which] = np.unique(label[which], return_inverse=True)[1]
    return groups


def _state_graph(cuts: Cuts, exists: np.ndarray, clip: np.ndarray) -> csr_array:
    """Adjacency of the states n * MIN_DWELL + d - 1; exists, bool (N * MIN_DWELL,): the states to use."""
    node, dwell = np.divmod(np.arange(len(exists)), MIN_DWELL)
    ahead = (node + 1) * MIN_DWELL + np.minimum(dwell + 1, MIN_DWELL - 1)
    goes_on = np.concatenate([clip[1:] == clip[:-1], [False]])[node]
    here = np.concatenate([np.flatnonzero(goes_on), cuts.source.astype(np.int64) * MIN_DWELL + MIN_DWELL - 1])
    there = np.concatenate([ahead[goes_on], cuts.target.astype(np.int64) * MIN_DWELL])
    real = exists[here] & exists[there]
    here, there = here[real], there[real]
    return csr_array((np.ones(len(here), np.int8), (here, there)), shape=(len(exists), len(exists)))


def _loops(cuts: Cuts, line: _Line) -> tuple[int, int]:
    """Strongly connected parts with a loop, and the number of nodes of the largest."""
    states = _state_graph(cuts, np.repeat(line.usable, MIN_DWELL), line.clip)
    label = connected_components(states, connection="strong")[1]
    # A loop has at least MIN_DWELL states; a node counts once for each part that contains one of its states.
    pairs = np.unique(np.stack([label, np.arange(len(label)) // MIN_DWELL]), axis=1)
    looping = np.bincount(label) > 1
    sizes = np.bincount(pairs[0])[looping]
    return int(looping.sum()), int(sizes.max(initial=0))


def _join_parts(cuts: Cuts, kept: np.ndarray, first: np.ndarray, clip: np.ndarray, cheapest: _CheapestCuts) -> Cuts:
    """Add cuts until the states that a path can be in are one strongly connected part.

    kept bool (N,), first int (N,) the first kept node of each node's clip. Parts without a way in and parts without a
    way out are linked one to one, cheapest link first: by Eswaran and Tarjan (1976) that is nearly the smallest number
    of links.
    """
    dwelt = kept & (np.arange(len(kept)) >= first + MIN_DWELL - 1)
    states = _state_graph(cuts, _reachable_states(cuts, kept, dwelt), clip)
    label = connected_components(states, connection="strong")[1]
    here, there = states.nonzero()
    across = label[here] != label[there]
    alive = np.unique(label[here])
    unentered = np.setdiff1d(alive, label[there[across]])
    unleft = np.setdiff1d(alive, label[here[across]])
    if len(alive) == 1:
        return cuts
    of_node = np.where(dwelt, label[MIN_DWELL - 1 :: MIN_DWELL], -1)
    # A cut into j leads to the part with the node that ends the dwell.
    after_dwell = np.concatenate([of_node[MIN_DWELL - 1 :], np.full(MIN_DWELL - 1, -1)])
    settles = np.concatenate([clip[MIN_DWELL - 1 :] == clip[: 1 - MIN_DWELL], np.zeros(MIN_DWELL - 1, bool)])
    sources, targets, costs = cheapest(
        _numbered(of_node, np.isin(of_node, unleft)),
        _numbered(after_dwell, np.isin(after_dwell, unentered) & kept & settles),
    )
    shape = (label.max() + 1, label.max() + 1)
    links = label[here[across]], label[there[across]]
    parts = csr_array((np.ones(len(links[0]), np.int8), links), shape=shape)
    flows = nx.DiGraph()
    for part in unentered:
        reached = breadth_first_order(parts, part, return_predecessors=False)
        flows.add_edges_from((int(part), int(sink)) for sink in np.intersect1d(reached, unleft))
    picked = _cheapest_links(flows, unleft, unentered, costs)
    return cuts.with_relaxed(sources[picked], targets[picked], costs[picked])


def _reachable_states(cuts: Cuts, kept: np.ndarray, dwelt: np.ndarray) -> np.ndarray:
    """bool (N * MIN_DWELL,): the states that a path can reach later, not only at its start."""
    exists = np.zeros((len(kept), MIN_DWELL), bool)
    entered = np.zeros(len(kept), bool)
    entered[cuts.target[dwelt[cuts.source]]] = True
    for d in range(MIN_DWELL - 1):
        exists[d:, d] = entered[: len(kept) - d]
    exists[:, -1] = dwelt
    return exists.ravel()


def _cheapest_links(
    flows: nx.DiGraph, unleft: np.ndarray, unentered: np.ndarray, costs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of costs (len(unleft), len(unentered)) whose links make `flows` strongly connected."""
    picked: list[tuple[int, int]] = []
    while not nx.is_strongly_connected(flows):
        whole = nx.condensation(flows)
        member = whole.graph["mapping"]
        row_part = np.array([member[int(part)] for part in unleft])
        column_part = np.array([member[int(part)] for part in unentered])
        ends = np.array([whole.out_degree(part) == 0 for part in row_part])
        begins = np.array([whole.in_degree(part) == 0 for part in column_part])
        allowed = ends[:, None] & begins & (row_part[:, None] != column_part)
        row, column = np.unravel_index(np.argmin(np.where(allowed, costs, np.inf)), costs.shape)
        picked.append((int(row), int(column)))
        flows.add_edge(int(unleft[row]), int(unentered[column]))
    rows, columns = np.array(picked).T
    return rows, columns
