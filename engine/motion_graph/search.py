"""Path search: the cheapest walk over the motion graph for given costs of nodes.

cost of a path = sum over steps of costs[t, n_t] + sum over cuts i -> j of
    cut_weight + distance_weight * D(i, j)^2 + hand_gap_weight * max(hand gap - free_hand_gap, 0) + relaxed_weight if
    the cut is relaxed + gap_weight if it does not have real frames on both sides + return penalty.
There are at least min_dwell nodes between two cuts. The return penalty keeps a path from cutting back to what it has
just shown: it is a Markov substitute for a memory of the path, so the search stays exact.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from engine.errors import InputError
from engine.motion_graph.connect import MIN_DWELL
from engine.motion_graph.graph import CONTINUE, RELAXED, MotionGraph
from engine.motion_graph.kernels.paths import Choices, Incoming, advance, trace_back
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["JITTER_PATCH", "Path", "SearchOptions", "cut_costs", "node_jitter", "viterbi", "viterbi_blocks"]

# Jitter is constant over patches of 8 steps x 8 nodes (a second of speech, a second of motion, about one gesture):
# drawn for each node and step, it would average out along a stretch of the path.
JITTER_PATCH = 8
_BLOCK_STEPS = 1024


@dataclass(frozen=True)
class SearchOptions:
    """Weights are in the unit of the costs of nodes (2 - cos - cos, in [0, 4] per step)."""

    min_dwell: int = MIN_DWELL
    # Of the squared distance: a morph hides small differences and shows large ones. For seven real people the largest
    # distance of a cut is 0.59 on average, instead of 0.69 with an equivalent cost linear in distance, and r of voice
    # energy and body speed is 0.53 instead of 0.55; at weight 12 they are 0.62 and 0.53, at 24 0.53 and 0.50.
    distance_weight: float = 16.0
    cut_weight: float = 0.5
    relaxed_weight: float = 2.0
    # Of the hand gap beyond what a morph carries over, in shoulder widths. It makes gaps over 0.3 rare: 15, 44, 16 and
    # 14 % of the cuts of four people became 0, 0, 9 and 0 %, for 0.6 to 1.5 % more cost of the path.
    hand_gap_weight: float = 100.0
    free_hand_gap: float = 0.2
    # A cut without real frames on both sides must bridge a gap, which looks worse than a morph at equal distance.
    gap_weight: float = 1.5
    # A cut back by b < R nodes of the same clip pays return_penalty * (1 - b / R); R is return_s in nodes.
    return_penalty: float = 2.0
    return_s: float = 8.0
    # Up to `variation` is added to the costs of nodes, in patches that depend on the seed: equal seeds give equal
    # performances.
    seed: int = 0
    variation: float = 0.0


@dataclass(frozen=True, eq=False)
class Path:
    """A path through a motion graph."""

    nodes: np.ndarray  # int32 (T,)
    cost: float
    cuts: np.ndarray  # int64: every t whose step from nodes[t] to nodes[t + 1] is a cut


def viterbi(
    costs: np.ndarray, graph: MotionGraph, options: SearchOptions | None = None, start: int | None = None
) -> Path:
    """The cheapest path, exact; ties go to the lowest source.

    costs float32 (T, N): the cost of showing node n at step t; inf forbids it. start: the first node; None: any kept
    node. A path starts with full dwell: it may cut at once. Raises InputError if T is 0, if costs are NaN or if no path
    of T steps exists, ValueError if shapes differ or start is not a kept node.
    """
    if costs.ndim != 2:
        raise ValueError(f"costs have shape {costs.shape}; wanted (steps, {graph.n_nodes})")
    blocks = (costs[step : step + _BLOCK_STEPS] for step in range(0, len(costs), _BLOCK_STEPS))
    return viterbi_blocks(blocks, graph, options, start)


def viterbi_blocks(
    blocks: Iterable[np.ndarray],
    graph: MotionGraph,
    options: SearchOptions | None = None,
    start: int | None = None,
    dwell: int | None = None,
) -> Path:
    """Like viterbi, for costs in blocks of rows, float32 (any number, N); the result equals viterbi of all rows.

    dwell: nodes since the last cut at `start`; None: enough to cut at once. Keeps 2 1/8 bytes per step and node: 130 MB
    for an hour of speech on 5 minutes of reference.
    """
    options = options or SearchOptions()
    _check(graph, options, start)
    incoming = _incoming(graph, options)
    slot = np.uint16 if np.diff(incoming.cut_start).max() < 2**16 else np.uint32
    state = np.full((options.min_dwell, graph.n_nodes), np.inf)
    # As if every start had been reached by a step at no cost before the first.
    dwelt_before = min(dwell or options.min_dwell, options.min_dwell)
    state[dwelt_before - 1, graph.kept if start is None else start] = 0.0
    history: list[Choices] = []
    n_steps = 0
    for block in _checked_blocks(blocks, graph.n_nodes):
        jitter, jitter_row = node_jitter(options, n_steps, len(block), graph.n_nodes)
        if not n_steps:
            state[dwelt_before - 1] += block[0] + jitter[0]
            block, jitter_row = block[1:], jitter_row[1:]
            n_steps = 1
        choices = Choices(np.empty(block.shape, slot), np.zeros((len(block), -(-graph.n_nodes // 8)), np.uint8))
        advance(block, jitter, jitter_row, state, incoming, choices)
        history.append(choices)
        n_steps += len(block)
    if not n_steps:
        raise InputError("there are no costs to search; expected one row or more")
    return _best_path(state, incoming, history)


def cut_costs(graph: MotionGraph, options: SearchOptions) -> np.ndarray:
    """float64 (n_edges,): what each edge adds to the cost of a path; 0 for a continue edge."""
    source = graph.sources
    back = source - graph.indices
    same_clip = graph.clip[source] == graph.clip[graph.indices]
    reach = options.return_s * FPS / FRAMES_PER_NODE
    returns = same_clip & (back >= 0) & (back < reach)
    costs = options.cut_weight + options.distance_weight * graph.distance.astype(np.float64) ** 2
    costs[graph.kind == RELAXED] += options.relaxed_weight
    starts = np.zeros(graph.n_nodes + 1, bool)
    starts[graph.clip_start] = True
    costs[starts[source + 1] | starts[graph.indices]] += options.gap_weight
    costs[returns] += options.return_penalty * (1 - back[returns] / reach)
    if graph.hand_gap is not None:
        costs += options.hand_gap_weight * np.maximum(graph.hand_gap.astype(np.float64) - options.free_hand_gap, 0.0)
    costs[graph.kind == CONTINUE] = 0.0
    return costs


def node_jitter(options: SearchOptions, first_step: int, n_steps: int, n_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Jitter of steps first_step .. first_step + n_steps - 1: rows float32 (P, N), and the row of each step, int64
    (n_steps,)."""
    patch = np.arange(first_step, first_step + n_steps) // JITTER_PATCH
    rows = np.arange(patch[0], patch[-1] + 1, dtype=np.uint64)
    seed = np.array([options.seed % 2**64], np.uint64)
    columns = np.arange(n_nodes, dtype=np.uint64) // np.uint64(JITTER_PATCH)
    noise = _mixed(_mixed(_mixed(seed) + rows)[:, None] + columns) >> np.uint64(40)
    return (noise * (options.variation / 2**24)).astype(np.float32), patch - patch[0]


def _mixed(words: np.ndarray) -> np.ndarray:
    """SplitMix64's output function: neighbouring words become unrelated ones."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = words ^ (words >> np.uint64(31))
    return mixed


def _incoming(graph: MotionGraph, options: SearchOptions) -> Incoming:
    goes_on = graph.kind == CONTINUE
    arrives = np.zeros(graph.n_nodes, bool)
    arrives[graph.indices[goes_on]] = True
    target = graph.indices[~goes_on]
    # A stable sort keeps the edges of each target in ascending order of source.
    order = np.argsort(target, kind="stable")
    counts = np.bincount(target, minlength=graph.n_nodes)
    return Incoming(
        arrives=arrives,
        cut_start=np.concatenate([[0], np.cumsum(counts)]),
        cut_source=graph.sources[~goes_on][order],
        cut_cost=cut_costs(graph, options)[~goes_on][order],
    )


def _best_path(state: np.ndarray, incoming: Incoming, history: list[Choices]) -> Path:
    depth = len(state)
    # By node, longest dwell first, so that ties go to the lowest node.
    best = int(np.argmin(state[::-1].T))
    node, dwell = best // depth, depth - best % depth
    cost = float(state[dwell - 1, node])
    if not np.isfinite(cost):
        raise InputError("no path of this length exists; is the graph connected for this dwell?")
    nodes: list[np.ndarray] = []
    by_cut: list[np.ndarray] = []
    for choices in reversed(history):
        nodes.append(np.empty(len(choices.cut), np.int32))
        by_cut.append(np.empty(len(choices.cut), bool))
        node, dwell = trace_back(node, dwell, depth, incoming, choices, nodes[-1], by_cut[-1])
    nodes.append(np.array([node], np.int32))
    return Path(np.concatenate(nodes[::-1]), cost, np.flatnonzero(np.concatenate(by_cut[::-1])))


def _checked_blocks(blocks: Iterable[np.ndarray], n_nodes: int) -> Iterator[np.ndarray]:
    for block in blocks:
        if block.ndim != 2 or block.shape[1] != n_nodes:
            raise ValueError(f"costs have shape {block.shape}; wanted (steps, {n_nodes})")
        if len(block) == 0:
            continue
        if not np.all(block > -np.inf):
            raise InputError("costs contain NaN or -inf")
        yield np.ascontiguousarray(block, dtype=np.float32)


def _check(graph: MotionGraph, options: SearchOptions, start: int | None) -> None:
    if options.min_dwell < 2:
        raise InputError(f"min_dwell is {options.min_dwell}; two cuts need 2 nodes or more between them")
    if not graph.kept.any():
        raise InputError("the graph keeps no node")
    if start is not None and not (0 <= start < graph.n_nodes and graph.kept[start]):
        raise ValueError(f"start {start} is not a kept node of this graph")
