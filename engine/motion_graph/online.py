"""Path search while speech is still arriving: one node at a time, never revised by later speech.

Before every node the best plan is made over the known rows of speech, and its first step is taken: the exact best one,
unless the options of the graph bound the states that a plan over many rows may keep. The costs are
those of the exact search (engine.motion_graph.costs, engine.motion_graph.search, engine.motion_graph.variety). Beyond
the last known row, costs are estimated:

* A state (node, dwell) has a value: the discounted cost of going on from it for ever at mean costs, in speech and in
  silence, mixed by whether the last row is speech. It accounts for dead ends, ends of clips, and the way to rest.
* A match continues along its stretch. If node n fits row t, then n + k fits row t + k: a node's excess over its mean
  cost at the last known row is expected of the nodes after it too, fading with k. This sum is the gain that pays for a
  cut. Measured on four fitted people and seven other voices, with features of 4 frames look-ahead: the similarity of
  n + k and t + k, with everything heard, is 0.77, 0.71, 0.66, 0.53, 0.43, 0.31, 0.17 of that of n and t for k = 0, 1,
  2, 4, 6, 8, 12. The row itself has changed by then (its autocorrelation is 0.1 to 0.5 after two nodes), and knowing it
  in addition to the match adds nothing (R^2 0.978 instead of 0.977 at k = 1). Earlier rows of the stretch add little:
  with them 20 % of the variance of the next 12 similarities is explained instead of 18.

A step takes the same time for any length of the reference: only states within reach are priced.
"""

from dataclasses import dataclass

import numpy as np

from engine.errors import InputError
from engine.motion_graph.costs import SpeechSteps
from engine.motion_graph.kernels.online import beginnings, plan
from engine.motion_graph.kernels.tables import Bonus, History, Outlook, Scratch, Starts
from engine.motion_graph.online_graph import OnlineGraph, fixed
from engine.motion_graph.variety import NEAR_NODES, SAME_MOMENT_STEPS

__all__ = ["NO_BONUS", "Decision", "OnlineSearch"]

_BEGINNINGS = 64  # candidates for the first node
_WORD_STATES = 128  # most_states of a plan that is longer for words whose sound is not known yet
NO_BONUS = Bonus(fixed(np.zeros(1), np.int64), fixed(np.empty(0), np.int32), fixed(np.empty(0), np.float32))


@dataclass(frozen=True)
class Decision:
    """The next node, which follows by a cut of the graph, as the successor, or else by a hard cut out of a dead end."""

    node: int
    cut: bool  # by a cut of the graph
    planned: tuple[tuple[int, int], ...]  # cuts (i, j) further along the best plan; they may still change


class OnlineSearch:
    """One stream's path. Its state has constant size. One caller at a time.

    node: the last one decided; dwell: nodes since the last cut, at most min_dwell; n_steps: nodes so far.
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
            bonus=np.zeros(nodes, np.float32),
            counter=np.zeros(1, np.int64),
        )
        self._undo: tuple[int | None, int, int] | None = None
        self.node: int | None = None
        self.dwell = prepared.depth
        self.n_steps = 0

    def begin(self, outlook: SpeechSteps, bonus: Bonus = NO_BONUS, trust: np.ndarray | None = None) -> int:
        """The first node: the start of the best plan from the nodes that fit the first row best. outlook: the row of
        its step, and later ones. bonus: what nodes save, by step of the outlook; its nodes are of this graph.
        trust (R,): the share of the similarities of each row that remains once everything is heard; None: as in the
        options."""
        graph = self._graph
        heard = self._heard(outlook, bonus, trust)
        totals = beginnings(graph.tables, heard, self._scratch, graph.kept)
        likely = np.sort(graph.kept[np.argsort(totals, kind="stable")[:_BEGINNINGS]])
        starts = Starts(likely, np.full(len(likely), graph.depth, np.int32), to_pay=True)
        nodes, _ = self._plan(heard, starts, self.n_steps)
        self._commit(int(nodes[0]) if nodes[0] >= 0 else self.rest_node(), graph.depth)
        return self._decided

    def begin_at_rest(self) -> int:
        """The first node, if nobody speaks."""
        self._commit(self.rest_node(), self._graph.depth)
        return self._decided

    def rest_node(self) -> int:
        """The best node to be at and to go on from while nobody speaks."""
        return self._graph.rest_node

    def advance(self, outlook: SpeechSteps, bonus: Bonus = NO_BONUS, trust: np.ndarray | None = None) -> Decision:
        """Decide the next node. outlook: row 0 belongs to the current node's step, which is fixed; later rows follow,
        and those beyond lookahead_nodes are ignored. bonus, trust: as for begin."""
        starts = Starts(np.array([self._decided], np.int32), np.array([self.dwell], np.int32), to_pay=False)
        nodes, dwells = self._plan(self._heard(outlook, bonus, trust), starts, self.n_steps - 1)
        if nodes[0] < 0:
            self._commit(self.rest_node(), self._graph.depth)
            return Decision(self._decided, False, ())
        by_cut = dwells == 1
        cuts = ((int(nodes[k - 1]), int(nodes[k])) for k in range(2, len(nodes)) if by_cut[k])
        self._commit(int(nodes[1]), int(dwells[1]))
        return Decision(self._decided, bool(by_cut[1]), tuple(cuts))

    def go_on(self) -> int | None:
        """Go to the next node of the clip without a search; None if there is none."""
        if self.node is None or not self._graph.tables.edges.goes_on[self.node]:
            return None
        self.follow(self.node + 1, cut=False)
        return self.node

    def follow(self, node: int, cut: bool) -> None:
        """Take a next node that was decided elsewhere: by a cut of the graph, or as the next node of the clip."""
        self._commit(node, 1 if cut else min(self.dwell + 1, self._graph.depth))

    def jump(self, node: int) -> None:
        """Go to `node` by a hard cut. Raises ValueError if the graph does not keep it."""
        if not (0 <= node < self._graph.n_nodes and np.any(self._graph.kept == node)):
            raise ValueError(f"node {node} is not a kept node of this graph")
        self._commit(node, self._graph.depth)
        self._undo = None

    def take_back(self) -> None:
        """Undo the last advance, follow or go_on, once; does nothing if there is nothing to undo."""
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

    def _heard(self, outlook: SpeechSteps, bonus: Bonus, trust: np.ndarray | None) -> Outlook:
        """The rows used, and what is expected after them."""
        graph, options = self._graph, self._graph.options
        rows = outlook[: options.lookahead_nodes + 1]
        if not len(rows) or (rows.low.shape[1], rows.high.shape[1]) != graph.widths:
            raise InputError(
                f"speech of shape {rows.low.shape} and {rows.high.shape}; "
                f"expected one row or more of {graph.widths[0]} and {graph.widths[1]} numbers"
            )
        n_planned = max(options.plan_nodes, _last_step(bonus))
        longer = n_planned > max(options.plan_nodes, len(rows) - 1)
        return Outlook(
            low=fixed(rows.low, np.float32),
            high=fixed(rows.high, np.float32),
            level=fixed(rows.level, np.float32),
            speaking=fixed(rows.speaking, np.float32),
            n_guessed=max(n_planned - (len(rows) - 1), 0),
            trust=fixed(np.full(len(rows), options.trust) if trust is None else trust[: len(rows)], np.float64),
            keeps=graph.keeps,
            repeat_keep=options.repeat_keep,
            most_states=options.most_states or (_WORD_STATES if longer else 0),
            bonus=bonus,
        )

    def _plan(self, heard: Outlook, starts: Starts, step: int) -> tuple[np.ndarray, np.ndarray]:
        graph = self._graph
        history = History(self._shown, self.n_steps, graph.reach, graph.repeated_cost, SAME_MOMENT_STEPS, NEAR_NODES)
        nodes, dwells = plan(graph.tables, heard, history, self._scratch, step, starts)
        return nodes, dwells


def _last_step(bonus: Bonus) -> int:
    """The last step with a bonus: a gesture that went with a word must be reached in time."""
    return int(np.searchsorted(bonus.start, bonus.start[-1]) - 1) if len(bonus.node) else 0
