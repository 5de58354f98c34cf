"""The live object: speech in, steps of 4 frames out, without an end. Pure state: no clock, no files, no threads.

Who has a clock asks every 4 frames for `next() or idle()`; who has a file asks for `next()` until there is none. What
comes out depends on the samples and on the order of these calls, never on how the samples were cut into chunks.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from engine.character.perform import Performance, PerformOptions
from engine.character.retrieval import Retrieval
from engine.errors import InputError
from engine.motion_graph.costs import resting
from engine.motion_graph.graph import Cut
from engine.motion_graph.online import Decision, OnlineSearch
from engine.motion_graph.online_graph import OnlineGraph
from engine.timebase import FRAMES_PER_NODE, frame_count, frame_start
from tango_rt.options import DEFAULT_LOOKAHEAD_NODES, MAX_LOOKAHEAD_NODES
from tango_rt.pipeline.utterance import (
    Planner,
    StreamedUtterance,
    Utterance,
    WholeUtterance,
    heard_samples,
)

__all__ = ["LiveOptions", "LivePerformer", "Step"]


@dataclass(frozen=True)
class LiveOptions:
    """Raises InputError for a look-ahead out of range, and where words or the official search lack whole utterances."""

    lookahead_nodes: int | None = DEFAULT_LOOKAHEAD_NODES  # in addition to the analysis; None: the whole utterance
    idle: bool = True  # whether steps without speech come in between
    perform: PerformOptions = field(default_factory=PerformOptions)

    def __post_init__(self) -> None:
        nodes = self.lookahead_nodes
        if nodes is not None and not 0 <= nodes <= MAX_LOOKAHEAD_NODES:
            raise InputError(f"a look-ahead of {nodes} nodes: wanted 0 to {MAX_LOOKAHEAD_NODES}")
        if nodes is not None and (self.perform.words is not None or self.perform.search == "official"):
            raise InputError("word timings and the official search need the whole utterance: leave the look-ahead out")


@dataclass(frozen=True)
class Step:
    """Four frames of video: those of `node`, or half a transition.

    cut_to: they are the first half of the transition node -> cut_to. cut_from: the second half of cut_from -> node.
    hard: entered by a cut without transition. utterance: None while nobody speaks; first_frame: number of the first
    frame within it; n_frames: how many of the four belong to it, fewer at its end; last: its last step. planned: cuts
    that will probably come. heard_samples: of the utterance, at 16 kHz, that had to be heard.
    """

    node: int
    cut_to: int | None = None
    cut_from: int | None = None
    hard: bool = False
    utterance: str | None = None
    first_frame: int = 0
    n_frames: int = 0
    last: bool = False
    planned: tuple[Cut, ...] = ()
    heard_samples: int = 0


class _Slot(NamedTuple):
    """The next step to come: what was shown before fixes its node, not what it is for."""

    node: int
    cut_from: int | None
    hard: bool


class _Undo(NamedTuple):
    slot: _Slot
    queue: tuple[Utterance, ...]
    taken: int
    advanced: bool
    voice: str | None


class LivePerformer:
    """One stream of one character; memory is constant for ever. One caller at a time."""

    def __init__(self, retrieval: Retrieval, graph: OnlineGraph, options: LiveOptions, planner: Planner) -> None:
        """retrieval: with the embedding already hurried; planner: for whole utterances."""
        self._retrieval = retrieval
        self._graph = graph
        self._options = options
        self._planner = planner
        self.reset()

    def reset(self) -> None:
        """As new: everything heard and shown is forgotten."""
        self._search = OnlineSearch(self._graph)
        self._queue: deque[Utterance] = deque()
        self._slot: _Slot | None = None
        self._undo: _Undo | None = None
        self._voice: str | None = None  # whose speech the last step was for
        self._shown = False
        self._flushed = False
        self._plan: Performance | None = None

    @property
    def lookahead_samples(self) -> int:
        """What a step waits for beyond its own sound, at 16 kHz; whole utterances wait for their end: 0."""
        if self._options.lookahead_nodes is None:
            return 0
        frames = self._retrieval.embedding.lookahead_frames
        return heard_samples(self._graph.options.lookahead_nodes, frames) - frame_start(FRAMES_PER_NODE)

    @property
    def retrieval(self) -> str:
        """The embedding in use."""
        return self._retrieval.embedding.name

    @property
    def plan(self) -> Performance | None:
        """How the last whole utterance is performed."""
        return self._plan

    @property
    def under_way(self) -> str | None:
        """The utterance that has begun and not ended."""
        return self._queue[0].name if self._queue and self._queue[0].taken else None

    @property
    def queued_steps(self) -> int:
        """Steps heard that wait to be performed."""
        return sum(utterance.waiting for utterance in self._queue)

    @property
    def done(self) -> bool:
        """Nothing more is to come: flushed, and all performed."""
        return self._flushed and not self._queue

    def push(self, samples: np.ndarray, utterance: str) -> None:
        """The next 16 kHz samples, float32 (n,), of an utterance; another name ends the one that is open.

        Raises InputError for NaN, and after flush.
        """
        if self._flushed:
            raise InputError("this stream is over (flush was called): reset it")
        if not self._queue or self._queue[-1].ended or self._queue[-1].name != utterance:
            self.end_of_utterance()
            self._queue.append(self._new_utterance(utterance))
        self._queue[-1].push(samples)

    def end_of_utterance(self) -> None:
        """No more sound of the utterance that is open."""
        if self._queue and not self._queue[-1].ended:
            self._queue[-1].end()
            if not self._queue[-1].n_samples:
                self._queue.pop()

    def flush(self) -> None:
        """No more sound at all."""
        self.end_of_utterance()
        self._flushed = True

    def interrupt(self, mode: Literal["rest", "cut"], utterance: str | None = None) -> tuple[str, ...]:
        """Drop speech: of one utterance, or all. Returns the names of what ended by it, in order.

        rest: the next steps lead from what is shown to rest, by edges of the graph. cut: the next step is at rest.
        """
        dropped = tuple(one.name for one in self._queue if utterance in (None, one.name))
        self._queue = deque(one for one in self._queue if one.name not in dropped)
        self._undo = None
        if mode == "cut" and self._voice is not None and utterance in (None, self._voice):
            node = self._search.rest_node()
            self._search.jump(node)
            self._slot = _Slot(node, None, hard=True)
        return dropped

    def next(self) -> Step | None:
        """The next step of the speech; None as long as not enough of it was heard."""
        if not self._queue or not self._queue[0].ready:
            return None
        utterance = self._queue[0]
        slot = self._slot or self._entered(lambda: utterance.begin(self._search))
        first_frame = utterance.taken * FRAMES_PER_NODE
        left = frame_count(utterance.n_samples) - first_frame
        last = utterance.ended and left <= FRAMES_PER_NODE
        advance = not last or self._options.idle  # else nobody knows yet what comes behind
        self._remember(slot, advance)
        heard = utterance.heard_samples
        cut_to, planned = self._take(slot, utterance.advance(self._search)) if advance else (None, ())
        utterance.taken += 1
        self._voice = utterance.name
        if not advance:
            self._slot = None
        if last:
            self._queue.popleft()
        return Step(
            node=slot.node,
            cut_to=cut_to,
            cut_from=slot.cut_from,
            hard=slot.hard,
            utterance=utterance.name,
            first_frame=first_frame,
            n_frames=min(left, FRAMES_PER_NODE),
            last=last,
            planned=planned,
            heard_samples=heard,
        )

    def idle(self, attention: float = 0.0) -> Step:
        """The next step without speech. attention: 0 asks for rest, more for less of it."""
        slot = self._slot or self._entered(self._search.begin_at_rest)
        self._remember(slot, advance=True)
        self._voice = None
        outlook = resting(self._graph.options.lookahead_nodes + 1, self._retrieval.motion, attention)
        cut_to, planned = self._take(slot, self._search.advance(outlook))
        return Step(node=slot.node, cut_to=cut_to, cut_from=slot.cut_from, hard=slot.hard, planned=planned)

    def take_back(self) -> None:
        """The last step was not shown: what follows it, and what it is for, will be decided anew. Once a step."""
        if self._undo is None:
            return
        self._slot, self._voice = self._undo.slot, self._undo.voice
        self._queue = deque(self._undo.queue)
        if self._queue:
            self._queue[0].taken = self._undo.taken
        if self._undo.advanced:
            self._search.take_back()
        self._undo = None

    def _remember(self, slot: _Slot, advance: bool) -> None:
        taken = self._queue[0].taken if self._queue else 0
        self._undo = _Undo(slot, tuple(self._queue), taken, advance, self._voice)

    def _new_utterance(self, name: str) -> Utterance:
        retrieval = self._retrieval
        if self._options.lookahead_nodes is None:
            return WholeUtterance(name, self._planned, retrieval.motion)
        return StreamedUtterance(name, retrieval.embedding, retrieval.motion, self._graph.options.lookahead_nodes)

    def _planned(self, samples: np.ndarray, start: tuple[int, int] | None) -> Performance:
        self._plan = self._planner(samples, start)
        return self._plan

    def _entered(self, begin: Callable[[], int]) -> _Slot:
        """Where nothing is fixed: on from what was shown last, else anywhere."""
        if self._shown:
            node = self._search.go_on()
            if node is not None:
                return _Slot(node, None, hard=False)
        slot = _Slot(begin(), None, hard=self._shown)
        self._shown = True
        return slot

    def _take(self, slot: _Slot, decision: Decision) -> tuple[int | None, tuple[Cut, ...]]:
        """Fix the next step -> where this one cuts to, and the cuts that are planned behind it."""
        goes_on = decision.node == slot.node + 1 and not decision.cut
        self._slot = _Slot(decision.node, slot.node if decision.cut else None, hard=not (decision.cut or goes_on))
        return decision.node if decision.cut else None, decision.planned
