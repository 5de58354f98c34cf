"""A motion graph prepared for the search of engine.motion_graph.online: everything that does not depend on speech."""

import copy
from dataclasses import dataclass, replace

import numpy as np

from engine.errors import InputError
from engine.motion_graph.costs import CostOptions, MotionVectors
from engine.motion_graph.graph import CONTINUE, MotionGraph
from engine.motion_graph.kernels.tables import Edges, Nodes, Noise, Tables
from engine.motion_graph.kernels.values import discounted_values, run_lengths
from engine.motion_graph.search import JITTER_PATCH, SearchOptions, cut_costs
from engine.motion_graph.variety import VarietyOptions
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["OnlineGraph", "OnlineOptions", "fixed"]

_FADE_POWER = 1.5  # a match fades as exp(-(k / persistence)^1.5), which fits the measured shares
_FADED = 3.0  # in persistences: after this, less than 1 % is left
_VALUE_TOLERANCE = 1e-4
_MEAN_LEVEL, _LEVEL_VARIANCE = 0.5, 1 / 12  # of speech: levels are ranks, 0..1


@dataclass(frozen=True)
class OnlineOptions:
    """How far the search looks ahead, and what it expects beyond that.

    Persistence and trust are measured (see engine.motion_graph.online), the others tuned on five people and seven other
    voices by regret against engine.motion_graph.variety with everything known. The optimum is flat: 0.83 to 0.89 per
    step for persistence 6 to 8, trust 0.6 to 1, hesitation 0 to 1.5 and plans of 2 to 5 nodes; the best values for four
    people give 0.85 on the fifth, these values 0.84. idle_cut and idle_repeat were tuned on a minute of silence.
    """

    lookahead_nodes: int = 2
    """Known rows after that of the current node, at most."""
    plan_nodes: int = 3
    """Minimum length of a plan: steps after the known rows are planned at their expected costs."""
    persistence_nodes: float = 7.0
    """How long a match continues; 0: not at all."""
    trust: float = 0.8
    """Share of a similarity, heard with little look-ahead, that remains once everything is heard."""
    hesitation: float = 0.75
    """Extra cost of a cut: it takes away the next nodes' freedom to cut, when more will be known. Without it there are
    0.63 cuts a second, with it 0.55 (0.44 with everything known), and regret is 0.03 to 0.04 lower."""
    repeat_keep: float = 0.92
    """Share of stretches that go on for another node: expected repetitions are weighted by it."""
    discount: float = 0.97
    """Of values, per node; 0: nothing after the plan counts."""
    most_states: int = 0
    """Of each step of a plan so many states are kept, and so many cuts tried (engine.motion_graph.kernels.pruning); 0:
    all, and a plan is exact. It is exact anyway while fewer are reached."""
    idle_cut: float = 2.0
    """Extra cost of a cut in silence, times how near to rest it begins: such cuts gain nothing."""
    idle_repeat: float = 0.05
    """Minimum distance from rest in the cost of a repetition, so that rest does not become a loop of half a second. At
    0.2 one person gestured a quarter of the time while nobody spoke, to avoid repetitions; at 0.05 never, and six
    others moved as before."""


class OnlineGraph:
    """A graph prepared for search. Read-only: all streams and threads of a character with equal options share one."""

    def __init__(
        self,
        graph: MotionGraph,
        motion: MotionVectors,
        rest: np.ndarray,
        search: SearchOptions,
        costs: CostOptions,
        variety: VarietyOptions,
        options: OnlineOptions,
    ) -> None:
        """rest float32 (N,): engine.features.rest.rest_distance. costs.similarity_weight: includes the embedding's.

        Raises ValueError if arrays and graph do not match, InputError if options are out of range.
        """
        _check(graph, motion, rest, search, options)
        self.options = options
        self.depth = search.min_dwell
        self.n_nodes = graph.n_nodes
        self.widths = (motion.low.shape[1], motion.high.shape[1])
        self.kept = fixed(np.flatnonzero(graph.kept), np.int32)
        away = fixed(rest, np.float32)
        edges = _edges(graph, search, options, away)
        nodes = _nodes(graph, edges, motion, costs, away)
        extra = np.repeat(edges.silent_cut, np.diff(edges.cut_start))
        silent_edges = edges._replace(cut_cost=fixed(edges.cut_cost + extra, np.float64))
        self.tables = Tables(
            edges=edges,
            nodes=nodes,
            value_speech=self._values(edges, nodes.usual_speech),
            value_silence=self._values(silent_edges, nodes.usual_silence),
            noise=Noise(np.uint64(search.seed % 2**64), search.variation, JITTER_PATCH),
        )
        self.keeps = _keeps(options)
        self.reach = max(1, round(variety.repeat_s * FPS / FRAMES_PER_NODE))
        shown_away = np.maximum(away, np.float32(options.idle_repeat)) * np.float32(variety.repeat_weight)
        self.repeated_cost = fixed(shown_away, np.float32)
        idling = nodes.usual_silence + self.tables.value_silence[-1]
        self.rest_node = int(self.kept[np.argmin(idling[self.kept])])

    def ahead(self, lookahead_nodes: int, most_states: int = 0) -> "OnlineGraph":
        """The same graph, searched with another look-ahead and bound. Raises InputError as OnlineOptions do."""
        other = copy.copy(self)
        other.options = replace(self.options, lookahead_nodes=lookahead_nodes, most_states=most_states)
        _check_options(other.options)
        return other

    def _values(self, edges: Edges, mean_costs: np.ndarray) -> np.ndarray:
        """float64 (min_dwell, N): what going on costs from each state."""
        if self.options.discount == 0:
            return fixed(np.zeros((self.depth, self.n_nodes)), np.float64)
        relative = fixed(mean_costs - mean_costs[self.kept].min(), np.float64)
        values = discounted_values(edges, relative, self.options.discount, _VALUE_TOLERANCE, self.depth)
        return fixed(values, np.float64)


def _edges(graph: MotionGraph, search: SearchOptions, options: OnlineOptions, away: np.ndarray) -> Edges:
    is_cut = graph.kind != CONTINUE
    goes_on = np.zeros(graph.n_nodes, bool)
    goes_on[graph.sources[~is_cut]] = True
    n_cuts = np.bincount(graph.sources[is_cut], minlength=graph.n_nodes)
    return Edges(
        goes_on=fixed(goes_on, np.bool_),
        cut_start=fixed(np.concatenate([[0], np.cumsum(n_cuts)]), np.int64),
        cut_target=fixed(graph.indices[is_cut], np.int32),
        cut_cost=fixed(cut_costs(graph, search)[is_cut] + options.hesitation, np.float64),
        silent_cut=fixed(options.idle_cut * (1.0 - away.astype(np.float64)), np.float64),
    )


def _nodes(graph: MotionGraph, edges: Edges, motion: MotionVectors, costs: CostOptions, away: np.ndarray) -> Nodes:
    """Averages assume that similarities are 0 in speech, and silence as in engine.motion_graph.costs.resting."""
    unlike = costs.similarity_weight * (2 if motion.high.shape[1] else 1)
    level = motion.level.astype(np.float64)
    apart = (level - _MEAN_LEVEL) ** 2 + _LEVEL_VARIANCE
    idle = np.float32(costs.idle_weight) * away
    listless = np.float32(costs.listless_weight) * (1 - away)
    return Nodes(
        position=fixed(np.arange(graph.n_nodes) - graph.clip_start[graph.clip], np.int32),
        run_length=fixed(run_lengths(edges.goes_on), np.int32),
        low=fixed(motion.low, np.float32),
        high=fixed(motion.high, np.float32),
        level=fixed(motion.level, np.float32),
        away=fixed(idle, np.float32),
        listless=fixed(listless, np.float32),
        usual_speech=fixed(unlike + costs.level_weight * apart + listless.astype(np.float64), np.float64),
        usual_silence=fixed(unlike + costs.level_weight * level**2 + idle.astype(np.float64), np.float64),
        similarity_weight=np.float32(costs.similarity_weight),
        level_weight=np.float32(costs.level_weight),
    )


def _keeps(options: OnlineOptions) -> np.ndarray:
    """float64 (K + 1,): the share of a node's excess cost that is left after k nodes."""
    ahead = np.arange(1, int(_FADED * options.persistence_nodes) + 1)
    fades = np.exp(-((ahead / max(options.persistence_nodes, 1e-9)) ** _FADE_POWER))
    return fixed(np.concatenate([[1.0], options.trust * fades]), np.float64)


def fixed(array: np.ndarray, dtype: type) -> np.ndarray:
    """Contiguous, read-only and of this type, so that kernels are compiled for one kind of array only."""
    fixed = np.ascontiguousarray(array, dtype).view(np.ndarray)
    fixed.setflags(write=False)
    return fixed


def _check(
    graph: MotionGraph, motion: MotionVectors, rest: np.ndarray, search: SearchOptions, options: OnlineOptions
) -> None:
    n = graph.n_nodes
    if not len(motion.low) == len(motion.high) == len(motion.level) == len(rest) == n:
        raise ValueError(f"motion and rest of {len(motion.low)} and {len(rest)} nodes; the graph has {n}")
    if not graph.kept.any():
        raise InputError("the graph keeps no node")
    if search.min_dwell < 2:
        raise InputError(f"min_dwell is {search.min_dwell}; two cuts need 2 nodes or more between them")
    _check_options(options)


def _check_options(options: OnlineOptions) -> None:
    if options.most_states < 0:
        raise InputError(f"{options.most_states} states of a plan; expected 1 or more, or 0 for all")
    if options.lookahead_nodes < 0 or options.plan_nodes < 1:
        raise InputError(
            f"a look-ahead of {options.lookahead_nodes} nodes, plans of {options.plan_nodes}; expected at least 0 and 1"
        )
    if not 0 <= options.discount < 1:
        raise InputError(f"a discount of {options.discount}; expected 0 or more, below 1")
