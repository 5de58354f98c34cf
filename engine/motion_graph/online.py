"""Path search while the speech is still being heard: one node at a time, never taken back by what comes later.

Before every node the exact best plan is made over the rows of speech that are known, and its first step is taken. The
costs are those of the exact search (engine.motion_graph.costs, engine.motion_graph.search,
engine.motion_graph.variety). What lies behind the last known row is not known, but something can be expected of it:

* A state (node, dwell) has a value: the discounted cost of going on from it for ever at mean costs, in speech and in
  silence, mixed by whether the last row speaks. It knows dead ends, ends of clips, and the way to rest.
* A match goes on along its stretch. If node n fits row t, then n + k fits row t + k: what a node costs more or less
  than its mean at the last known row is expected of the nodes behind it, too, fading with k. This sum is what a cut is
  paid for. Measured on four fitted people and seven voices not theirs, features of 4 frames look-ahead: the similarity
  of n + k and t + k, as heard to the end, is 0.77, 0.71, 0.66, 0.53, 0.43, 0.31, 0.17 of that of n and t for k = 0, 1,
  2, 4, 6, 8, 12. The row itself has changed by then (its autocorrelation is 0.1 to 0.5 after two nodes), and to know it
  beside the match tells nothing more (R^2 0.978 instead of 0.977 at k = 1). Nor do earlier rows of the stretch tell
  much: they explain 20 % of the variance of the next 12 similarities instead of 18.

A step costs the same at any length of the reference: only states within reach are priced.
"""

from dataclasses import dataclass

import numpy as np

from engine.errors import InputError
from engine.motion_graph.costs import CostOptions, MotionVectors, SpeechSteps
from engine.motion_graph.graph import CONTINUE, MotionGraph
from engine.motion_graph.kernels.online import beginnings, plan
from engine.motion_graph.kernels.tables import (
    BySpeech,
    Edges,
    History,
    NodeCosts,
    Noise,
    Outlook,
    Planning,
    Scratch,
    Starts,
    Tables,
)
from engine.motion_graph.kernels.values import discounted_values, run_lengths
from engine.motion_graph.search import JITTER_PATCH, SearchOptions, cut_costs
from engine.motion_graph.variety import NEAR_NODES, SAME_MOMENT_STEPS, VarietyOptions
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["Decision", "OnlineGraph", "OnlineOptions", "OnlineSearch"]

_FADE_POWER = 1.5  # of the fading of a match, exp(-(k / persistence)^1.5): what the measured shares follow
_FADED = 3.0  # in persistences: less than 1 % is left
_VALUE_TOLERANCE = 1e-4
_BEGINNINGS = 64  # first nodes that are weighed
_MEAN_LEVEL, _LEVEL_VARIANCE = 0.5, 1 / 12  # of speech: levels are ranks, 0..1


@dataclass(frozen=True)
class OnlineOptions:
    """What is known, and what is expected of the rest.

    Persistence and trust are measured (above), the others tuned on five people and seven voices not theirs by regret
    against engine.motion_graph.variety with everything known. It is flat: 0.83 to 0.89 a step for persistence 6 to 8,
    trust 0.6 to 1, hesitation 0 to 1.5 and plans of 2 to 5 nodes; what is best on four people gives 0.85 on the fifth,
    these values 0.84. idle_cut and idle_repeat were tuned on a minute of silence.
    """

    lookahead_nodes: int = 2
    """Rows known beside that of the current node, at most."""
    plan_nodes: int = 3
    """Plans are at least so long: steps behind the known rows are planned at what they are expected to cost."""
    persistence_nodes: float = 7.0
    """How long a match goes on; 0: not at all."""
    trust: float = 0.8
    """Share of a similarity, heard with little look-ahead, that remains when everything was heard."""
    hesitation: float = 0.75
    """What a cut costs more here: it gives away the next nodes' freedom to cut, when more will be known. Without it
    there are 0.63 cuts a second, with it 0.55 (0.44 with everything known), and regret is 0.03 to 0.04 less."""
    repeat_keep: float = 0.92
    """Share of stretches that go on for another node: expected repetitions count by it."""
    discount: float = 0.97
    """Of values, a node; 0: nothing behind the plan counts."""
    idle_cut: float = 2.0
    """What a cut costs more in silence, times how near to rest it begins: nothing is gained by it."""
    idle_repeat: float = 0.05
    """Distance from rest that a repetition is priced by at least: rest is no loop of half a second. At 0.2 one person
    gestured a quarter of the time when nobody spoke, because what came next was no repetition; at 0.05 never, and six
    others moved as before."""


@dataclass(frozen=True)
class Decision:
    """The next node. cut: by a cut of the graph. If neither that nor the successor: by a hard cut, out of a dead end.

    planned: cuts (i, j) further along the best plan; they may still change.
    """

    node: int
    cut: bool
    planned: tuple[tuple[int, int], ...]


class OnlineGraph:
    """A graph, prepared to be searched. Read-only: one for all streams and threads of a character and its options."""

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
        """rest float32 (N,): engine.features.rest.rest_distance. costs.similarity_weight: times that of the embedding.

        Raises ValueError where arrays and graph do not belong together, InputError where options are out of range.
        """
        _check(graph, motion, rest, search, options)
        self.options = options
        self.depth = search.min_dwell
        self.n_nodes = graph.n_nodes
        self.widths = (motion.low.shape[1], motion.high.shape[1])
        self.kept = _fixed(np.flatnonzero(graph.kept), np.int32)
        away = _fixed(rest, np.float32)
        edges = _edges(graph, search, options, away)
        node_costs = _node_costs(motion, costs, away)
        means = _mean_costs(node_costs, costs)
        self.tables = Tables(
            edges=edges,
            costs=node_costs,
            means=means,
            values=self._values(edges, means),
            noise=Noise(np.uint64(search.seed % 2**64), search.variation, JITTER_PATCH),
        )
        self.keeps = _keeps(options)
        self.reach = max(1, round(variety.repeat_s * FPS / FRAMES_PER_NODE))
        shown_away = np.maximum(away, np.float32(options.idle_repeat)) * np.float32(variety.repeat_weight)
        self.repeated_cost = _fixed(shown_away, np.float32)
        idling = means.silence + self.tables.values.silence[-1]
        self.rest_node = int(self.kept[np.argmin(idling[self.kept])])

    def _values(self, edges: Edges, means: BySpeech) -> BySpeech:
        """float64 (min_dwell, N): what going on costs from each state."""
        dearer = np.repeat(edges.silent_cut, np.diff(edges.cut_start))
        silent = edges._replace(cut_cost=_fixed(edges.cut_cost + dearer, np.float64))
        return BySpeech(self._value(edges, means.speech), self._value(silent, means.silence))

    def _value(self, edges: Edges, mean_costs: np.ndarray) -> np.ndarray:
        if self.options.discount == 0:
            return _fixed(np.zeros((self.depth, self.n_nodes)), np.float64)
        relative = _fixed(mean_costs - mean_costs[self.kept].min(), np.float64)
        return _fixed(
            discounted_values(edges, relative, self.options.discount, _VALUE_TOLERANCE, self.depth), np.float64
        )


class OnlineSearch:
    """One stream's path. Its state has the same size for ever. One caller at a time.

    node: the last one that is decided; dwell: nodes since the last cut, at most min_dwell; n_steps: nodes so far.
    """

    def __init__(self, prepared: OnlineGraph) -> None:
        self._graph = prepared
        self._shown = np.full(prepared.reach + 1, -1, np.int32)
        states, nodes = prepared.depth * prepared.n_nodes, prepared.n_nodes
        self._scratch = Scratch(
            slot=np.zeros(states, np.int32),
            slot_mark=np.zeros(states, np.int64),
            price=np.zeros(nodes),
            price_mark=np.zeros(nodes, np.int64),
            shown_at=np.full(nodes, -1, np.int64),
            counter=np.zeros(1, np.int64),
        )
        self._undo: tuple[int | None, int, int] | None = None
        self.node: int | None = None
        self.dwell = prepared.depth
        self.n_steps = 0

    def begin(self, outlook: SpeechSteps) -> int:
        """The first node: of those that look best by the first row, the start of the best plan. outlook: row of its
        step, and of those behind it."""
        graph = self._graph
        heard = self._heard(outlook)
        totals = beginnings(graph.tables, heard, graph.kept)
        likely = np.sort(graph.kept[np.argsort(totals, kind="stable")[:_BEGINNINGS]])
        starts = Starts(likely, np.full(len(likely), graph.depth, np.int32), to_pay=True)
        nodes, _ = plan(self._planning(heard, self.n_steps), starts)
        self._commit(int(nodes[0]) if nodes[0] >= 0 else self.rest_node(), graph.depth)
        return self._decided

    def begin_at_rest(self) -> int:
        """The first node, where nobody speaks."""
        self._commit(self.rest_node(), self._graph.depth)
        return self._decided

    def rest_node(self) -> int:
        """The best node to be at, and to go on from, while nobody speaks."""
        return self._graph.rest_node

    def advance(self, outlook: SpeechSteps) -> Decision:
        """Decide the successor. outlook: row 0 of the current node's step, which is fixed already, then those behind
        it; rows beyond lookahead_nodes are not looked at."""
        starts = Starts(np.array([self._decided], np.int32), np.array([self.dwell], np.int32), to_pay=False)
        nodes, dwells = plan(self._planning(self._heard(outlook), self.n_steps - 1), starts)
        if nodes[0] < 0:
            self._commit(self.rest_node(), self._graph.depth)
            return Decision(self._decided, False, ())
        by_cut = dwells == 1
        cuts = ((int(nodes[k - 1]), int(nodes[k])) for k in range(2, len(nodes)) if by_cut[k])
        self._commit(int(nodes[1]), int(dwells[1]))
        return Decision(self._decided, bool(by_cut[1]), tuple(cuts))

    def go_on(self) -> int | None:
        """The continue successor, without choice; None where there is none."""
        if self.node is None or not self._graph.tables.edges.goes_on[self.node]:
            return None
        self.follow(self.node + 1, cut=False)
        return self.node

    def follow(self, node: int, cut: bool) -> None:
        """The next node was decided elsewhere: by a cut of the graph, or as the continue successor."""
        self._commit(node, 1 if cut else min(self.dwell + 1, self._graph.depth))

    def jump(self, node: int) -> None:
        """The next node is `node`, by a hard cut. Raises ValueError where the graph does not keep it."""
        if not (0 <= node < self._graph.n_nodes and np.any(self._graph.kept == node)):
            raise ValueError(f"node {node} is not a kept node of this graph")
        self._commit(node, self._graph.depth)
        self._undo = None

    def take_back(self) -> None:
        """Undo the last advance, follow or go_on, once; nothing to undo: nothing happens."""
        if self._undo is None:
            return
        self.n_steps -= 1
        self.node, self.dwell, self._shown[self.n_steps % len(self._shown)] = self._undo
        self._undo = None

    @property
    def _decided(self) -> int:
        if self.node is None:
            raise RuntimeError("the path has not begun: call begin, begin_at_rest or jump first")
        return self.node

    def _commit(self, node: int, dwell: int) -> None:
        place = self.n_steps % len(self._shown)
        begins = self.node is None
        self._undo = None if begins else (self.node, self.dwell, int(self._shown[place]))
        self._shown[place] = node
        self.node, self.dwell = node, dwell
        self.n_steps += 1

    def _heard(self, outlook: SpeechSteps) -> Outlook:
        """The rows that count, and what is expected behind them."""
        graph, options = self._graph, self._graph.options
        rows = outlook[: options.lookahead_nodes + 1]
        if not len(rows) or (rows.low.shape[1], rows.high.shape[1]) != graph.widths:
            raise InputError(
                f"speech of shape {rows.low.shape} and {rows.high.shape}; "
                f"wanted one row or more of {graph.widths[0]} and {graph.widths[1]} numbers"
            )
        return Outlook(
            low=_fixed(rows.low, np.float32),
            high=_fixed(rows.high, np.float32),
            level=_fixed(rows.level, np.float32),
            speaking=_fixed(rows.speaking, np.float32),
            n_guessed=max(options.plan_nodes - (len(rows) - 1), 0),
            trust=options.trust,
            keeps=graph.keeps,
            repeat_keep=options.repeat_keep,
        )

    def _planning(self, heard: Outlook, step: int) -> Planning:
        graph = self._graph
        history = History(self._shown, self.n_steps, graph.reach, graph.repeated_cost, SAME_MOMENT_STEPS, NEAR_NODES)
        return Planning(graph.tables, heard, history, step, self._scratch)


def _edges(graph: MotionGraph, search: SearchOptions, options: OnlineOptions, away: np.ndarray) -> Edges:
    is_cut = graph.kind != CONTINUE
    goes_on = np.zeros(graph.n_nodes, bool)
    goes_on[graph.sources[~is_cut]] = True
    n_cuts = np.bincount(graph.sources[is_cut], minlength=graph.n_nodes)
    return Edges(
        goes_on=_fixed(goes_on, np.bool_),
        position=_fixed(np.arange(graph.n_nodes) - graph.clip_start[graph.clip], np.int32),
        run_length=_fixed(run_lengths(goes_on), np.int32),
        cut_start=_fixed(np.concatenate([[0], np.cumsum(n_cuts)]), np.int64),
        cut_target=_fixed(graph.indices[is_cut], np.int32),
        cut_cost=_fixed(cut_costs(graph, search)[is_cut] + options.hesitation, np.float64),
        silent_cut=_fixed(options.idle_cut * (1.0 - away.astype(np.float64)), np.float64),
    )


def _node_costs(motion: MotionVectors, costs: CostOptions, away: np.ndarray) -> NodeCosts:
    return NodeCosts(
        low=_fixed(motion.low, np.float32),
        high=_fixed(motion.high, np.float32),
        level=_fixed(motion.level, np.float32),
        away=_fixed(np.float32(costs.idle_weight) * away, np.float32),
        listless=_fixed(np.float32(costs.listless_weight) * (1 - away), np.float32),
        similarity_weight=np.float32(costs.similarity_weight),
        level_weight=np.float32(costs.level_weight),
    )


def _mean_costs(nodes: NodeCosts, costs: CostOptions) -> BySpeech:
    """float64 (N,) in speech, where similarities are 0 on average, and in silence, which engine.motion_graph.costs.
    resting stands for."""
    unlike = costs.similarity_weight * (2 if nodes.high.shape[1] else 1)
    level = nodes.level.astype(np.float64)
    apart = (level - _MEAN_LEVEL) ** 2 + _LEVEL_VARIANCE
    speech = unlike + costs.level_weight * apart + nodes.listless.astype(np.float64)
    silence = unlike + costs.level_weight * level**2 + nodes.away.astype(np.float64)
    return BySpeech(_fixed(speech, np.float64), _fixed(silence, np.float64))


def _keeps(options: OnlineOptions) -> np.ndarray:
    """float64 (K + 1,): the share of an unusual cost that is left k nodes on."""
    ahead = np.arange(1, int(_FADED * options.persistence_nodes) + 1)
    fades = np.exp(-((ahead / max(options.persistence_nodes, 1e-9)) ** _FADE_POWER))
    return _fixed(np.concatenate([[1.0], options.trust * fades]), np.float64)


def _fixed(array: np.ndarray, dtype: type) -> np.ndarray:
    """Contiguous, of this type, and read-only: one kind for the kernels, whatever the arrays came from."""
    fixed = np.ascontiguousarray(array, dtype).view(np.ndarray)
    fixed.flags.writeable = False
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
    if options.lookahead_nodes < 0 or options.plan_nodes < 1:
        raise InputError(
            f"a look-ahead of {options.lookahead_nodes} nodes, plans of {options.plan_nodes}: wanted 0 and 1, or more"
        )
    if not 0 <= options.discount < 1:
        raise InputError(f"a discount of {options.discount}; wanted 0 or more, below 1")
