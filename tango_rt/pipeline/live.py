"""The live object: speech in, steps of 4 frames out, endlessly. Pure state: no clock, no files, no threads.

A caller with a clock asks for `next() or idle()` every 4 frames; a caller with a file for `next()` until it is None.
The output depends on the samples and the order of these calls, never on how the samples were cut into chunks; with an
adaptive look-ahead it also depends on how many samples had been pushed before each call.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from engine.character.cues import Cue
from engine.character.perform import Performance, PerformOptions
from engine.character.retrieval import Retrieval
from engine.errors import InputError
from engine.features.speech import Speaker
from engine.motion_graph.costs import resting
from engine.motion_graph.graph import Cut
from engine.motion_graph.online import Decision, OnlineSearch
from engine.motion_graph.online_graph import OnlineGraph
from engine.motion_graph.ways import WayFinder
from engine.motion_graph.words import Keywords, Word
from engine.names import canonical
from engine.timebase import FRAMES_PER_NODE, frame_at_sample, frame_count, frame_start
from tango_rt.options import DEFAULT_LOOKAHEAD_NODES, DEFAULT_WITHIN_S, MAX_LOOKAHEAD_NODES, MAX_WITHIN_S
from tango_rt.pipeline.cueing import CueDesk, PlayedCue, RefusedCue, steps_of
from tango_rt.pipeline.utterance import (
    Lookahead,
    Planner,
    StreamedUtterance,
    Utterance,
    WholeUtterance,
    heard_samples,
)

__all__ = ["LiveOptions", "LivePerformer", "Step"]


@dataclass(frozen=True)
class LiveOptions:
    """Raises InputError for a look-ahead out of range, or one given with words or the official search, or an adaptive
    one of whole utterances."""

    lookahead_nodes: int | None = DEFAULT_LOOKAHEAD_NODES  # on top of the audio analysis; None: the whole utterance
    idle: bool = True  # whether steps without speech come between utterances
    drawn_only: bool = False  # take only cuts of the pack's drawn set, if it has one
    perform: PerformOptions = field(default_factory=PerformOptions)
    adaptive: bool = False  # decide with all that was heard, up to MAX_HEARD_NODES; at least with lookahead_nodes

    def __post_init__(self) -> None:
        nodes = self.lookahead_nodes
        if nodes is not None and not 0 <= nodes <= MAX_LOOKAHEAD_NODES:
            raise InputError(f"a look-ahead of {nodes} nodes: wanted 0 to {MAX_LOOKAHEAD_NODES}")
        if nodes is None and self.adaptive:
            raise InputError("whole utterances are heard before they begin: they have no adaptive look-ahead")
        if nodes is not None and (self.perform.words is not None or self.perform.search == "official"):
            raise InputError("word timings and the official search need the whole utterance: do not set a look-ahead")


@dataclass(frozen=True)
class Step:
    """Four frames of video: those of `node`, or half a transition."""

    node: int
    cut_to: int | None = None  # the frames are the first half of the transition node -> cut_to
    cut_from: int | None = None  # the frames are the second half of the transition cut_from -> node
    hard: bool = False  # entered by a cut without a transition
    utterance: str | None = None  # None between utterances
    first_frame: int = 0  # number of the first frame within the utterance
    n_frames: int = 0  # how many of the four belong to the utterance, fewer at its end
    last: bool = False  # the last step of the utterance
    planned: tuple[Cut, ...] = ()  # cuts that will probably follow
    heard_samples: int = 0  # of the utterance, at 16 kHz, that were needed for this step
    cue: PlayedCue | None = None  # it begins with this step


class _Slot(NamedTuple):
    """The next step: its node is fixed by what was shown before, but not whether it is for speech or rest."""

    node: int
    cut_from: int | None
    hard: bool
    cue: PlayedCue | None = None  # that begins with it


class _Undo(NamedTuple):
    slot: _Slot
    queue: tuple[Utterance, ...]
    taken: int
    advanced: bool
    voice: str | None


class LivePerformer:
    """One stream of one character; memory does not grow. One caller at a time."""

    def __init__(
        self,
        retrieval: Retrieval,
        graph: OnlineGraph,
        lookahead: Lookahead,
        options: LiveOptions,
        planner: Planner,
        cues: Mapping[str, Cue],
        ways: WayFinder,
        keywords: Keywords | None = None,
    ) -> None:
        """graph: of the longest look-ahead; planner: for whole utterances; cues: by name; ways: in the same graph;
        keywords: None if the pack has no words."""
        self._retrieval = retrieval
        self._graph = graph
        self._lookahead = lookahead
        self._options = options
        self._planner = planner
        self._keywords = keywords
        self._cues = cues
        self._ways = ways
        self.reset()

    def reset(self) -> None:
        """Forget everything heard and shown."""
        self._search = OnlineSearch(self._graph)
        self._desk = CueDesk(self._cues, self._ways)
        self._queue: deque[Utterance] = deque()
        self._slot: _Slot | None = None
        self._undo: _Undo | None = None
        self._speaker: Speaker | None = None  # as learned from the utterances that have ended
        self._voice: str | None = None  # utterance of the last step
        self._shown = False
        self._flushed = False
        self._plan: Performance | None = None

    @property
    def lookahead_samples(self) -> int:
        """16 kHz samples that a step waits for beyond its own sound; 0 for whole utterances, known from the start."""
        if self._options.lookahead_nodes is None:
            return 0
        frames = self._lookahead.embeddings[0].lookahead_frames
        return heard_samples(self._lookahead.least, frames) - frame_start(FRAMES_PER_NODE)

    @property
    def rest_node(self) -> int:
        """The node that it rests at."""
        return self._search.rest_node()

    @property
    def retrieval(self) -> str:
        """The embedding in use."""
        return self._retrieval.embedding.name

    @property
    def plan(self) -> Performance | None:
        """The performance of the last whole utterance."""
        return self._plan

    @property
    def under_way(self) -> str | None:
        """The utterance that has begun but not ended."""
        return self._queue[0].name if self._queue and self._queue[0].taken else None

    @property
    def queued_steps(self) -> int:
        """Number of steps that can be performed now."""
        return sum(utterance.waiting for utterance in self._queue)

    @property
    def done(self) -> bool:
        """Whether everything was performed and flush was called."""
        return self._flushed and not self._queue

    def push(self, samples: np.ndarray, utterance: str) -> None:
        """Take the next 16 kHz samples, float32 (n,), of an utterance; another name ends the open one.

        Raises InputError for NaN, and after flush.
        """
        if self._flushed:
            raise InputError("this stream is over (flush was called): call reset first")
        if not self._queue or self._queue[-1].ended or self._queue[-1].name != utterance:
            self.end_of_utterance()
            self._queue.append(self._new_utterance(utterance))
        self._queue[-1].push(samples)

    @property
    def takes_words(self) -> bool:
        """Whether the pack was built with word timings."""
        return self._keywords is not None

    def words(self, words: Sequence[Word], utterance: str) -> int:
        """Words of an utterance that has begun to be pushed, by its time, in any order, before or after their sound.

        Gestures that went with these words in the reference become likelier. Words whose node is decided, or whose
        utterance is over, are ignored: returns how many. Raises InputError if the pack has no words.
        """
        if not self.takes_words:
            raise InputError("this character was built without --words: build it again with those of the reference")
        for place, one in enumerate(self._queue):
            if one.name == utterance:
                fixed = self._slot is not None and place == 0
                return one.take_words(words, one.taken + fixed)
        return len(words)

    def end_of_utterance(self) -> None:
        """No more sound of the utterance that is open."""
        if self._queue and not self._queue[-1].ended:
            self._queue[-1].end()
            if not self._queue[-1].n_samples:
                self._queue.pop()
            else:
                self._speaker = self._queue[-1].speaker

    def flush(self) -> None:
        """No more sound at all."""
        self.end_of_utterance()
        self._flushed = True

    def cue(
        self,
        name: str,
        at_sample: int | None = None,
        within_s: float = DEFAULT_WITHIN_S,
        utterance: str | None = None,
    ) -> None:
        """Ask for a named stretch of the character: with this 16 kHz sample of an utterance (None: the open one), or as
        soon as possible; at most `within_s` later. Step.cue tells when it begins, refused_cues what is not played.

        Raises InputError for times out of range.
        """
        if not 0 <= within_s <= MAX_WITHIN_S or (at_sample is not None and at_sample < 0):
            raise InputError(
                f"a cue at sample {at_sample}, within {within_s} s: wanted 0 or more, and 0 to {MAX_WITHIN_S:g} s"
            )
        name = canonical(name)
        if at_sample is not None and utterance is None and self._queue and not self._queue[-1].ended:
            utterance = self._queue[-1].name
        if self._options.lookahead_nodes is None:
            self._desk.refuse(name, "utterances that are performed as a whole take no cues: set a look-ahead")
        elif at_sample is None:
            self._desk.ask(name, None, None, steps_of(within_s))
        elif utterance is None:
            self._desk.refuse(name, "no utterance is open")
        else:
            step = frame_at_sample(at_sample) // FRAMES_PER_NODE
            self._desk.ask(name, utterance, step, steps_of(within_s))

    @property
    def has_cues(self) -> bool:
        """Whether any cue could be asked for."""
        return bool(self._cues)

    def has_cue(self, name: str) -> bool:
        return canonical(name) in self._cues

    def over(self, utterance: str) -> None:
        """Refuse the cues of an utterance that was performed to its end, if they were asked for only then."""
        self._desk.over(utterance)

    def refused_cues(self) -> tuple[RefusedCue, ...]:
        """The cues that are not played, or not to their end, since the last call. Those that a step refused, which is
        then taken back, come again."""
        return self._desk.take_refused()

    def drop_cues(self, reason: str) -> None:
        """Refuse all cues that are not over."""
        self._drop_cues(None, reason)

    def interrupt(self, mode: Literal["rest", "cut"], utterance: str | None = None) -> tuple[str, ...]:
        """Drop speech, of one utterance or all. Returns the names of the utterances that this ended, in order.

        rest: the next steps lead along edges of the graph from what is shown to rest. cut: the next step is at rest.
        """
        dropped = tuple(one.name for one in self._queue if utterance in (None, one.name))
        if dropped and self._queue[-1].name == dropped[-1]:
            self.end_of_utterance()  # the next utterance is of the same speaker
        self._queue = deque(one for one in self._queue if one.name not in dropped)
        self._undo = None
        self._drop_cues(utterance, "an interrupt ended it")
        if mode == "cut" and self._voice is not None and utterance in (None, self._voice):
            node = self._search.rest_node()
            self._search.jump(node)
            self._slot = _Slot(node, None, hard=True)
        return dropped

    def next(self) -> Step | None:
        """The next step of the speech; None if not enough of it was heard yet."""
        if not self._queue or not self._queue[0].ready:
            return None
        utterance, later = self._queue[0], tuple(self._queue)[1:]
        slot = self._slot or self._entered(lambda: utterance.begin(self._search, later))
        first_frame = utterance.taken * FRAMES_PER_NODE
        left = frame_count(utterance.n_samples) - first_frame
        last = utterance.ended and left <= FRAMES_PER_NODE
        advance = not last or self._options.idle  # else what follows is not known yet
        self._remember(slot, advance)
        heard = utterance.heard_samples
        cut_to: int | None = None
        planned: tuple[Cut, ...] = ()
        if advance:
            taken = self._desk.decide(self._search, (utterance.name, utterance.taken))
            cut_to, planned = self._take(slot, *taken or (utterance.advance(self._search, later), None))
        utterance.taken += 1
        self._voice = utterance.name
        if not advance:
            self._slot = None
        if last:
            self._queue.popleft()
            self._desk.over(utterance.name)
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
            cue=slot.cue,
        )

    def idle(self, attention: float = 0.0) -> Step:
        """The next step without speech. attention: 0 asks for rest, higher values for less of it."""
        slot = self._slot or self._entered(self._search.begin_at_rest)
        self._remember(slot, advance=True)
        self._voice = None
        outlook = resting(self._lookahead.least + 1, self._retrieval.motion, attention)
        cut_to, planned = self._take(
            slot, *self._desk.decide(self._search, None) or (self._search.advance(outlook), None)
        )
        return Step(slot.node, cut_to, slot.cut_from, slot.hard, planned=planned, cue=slot.cue)

    def take_back(self) -> None:
        """The last step was not shown: undo it, so that its use and what follows are decided again. Once per step."""
        if self._undo is None:
            return
        self._slot, self._voice = self._undo.slot, self._undo.voice
        self._queue = deque(self._undo.queue)
        if self._queue:
            self._queue[0].taken = self._undo.taken
        if self._undo.advanced:
            self._search.take_back()
        self._desk.take_back()
        self._undo = None

    def _remember(self, slot: _Slot, advance: bool) -> None:
        taken = self._queue[0].taken if self._queue else 0
        self._undo = _Undo(slot, tuple(self._queue), taken, advance, self._voice)
        self._desk.remember()

    def _drop_cues(self, utterance: str | None, reason: str) -> None:
        if self._desk.drop(utterance, reason) and self._slot is not None:
            self._slot = self._slot._replace(cue=None)  # it does not begin

    def _new_utterance(self, name: str) -> Utterance:
        retrieval = self._retrieval
        if self._options.lookahead_nodes is None:
            return WholeUtterance(name, self._planned, retrieval.motion)
        return StreamedUtterance(name, self._lookahead, retrieval.motion, self._speaker, self._keywords)

    def _planned(self, samples: np.ndarray, start: tuple[int, int] | None, words: tuple[Word, ...]) -> Performance:
        self._plan = self._planner(samples, start, words)
        return self._plan

    def _entered(self, begin: Callable[[], int]) -> _Slot:
        """A slot if none is fixed: on from what was shown last, else anywhere."""
        if self._shown:
            node = self._search.go_on()
            if node is not None:
                self._desk.went_on()
                return _Slot(node, None, hard=False)
        slot = _Slot(begin(), None, hard=self._shown)
        self._shown = True
        return slot

    def _take(self, slot: _Slot, decision: Decision, cue: PlayedCue | None) -> tuple[int | None, tuple[Cut, ...]]:
        """Fix the next step and its cue -> where this one cuts to, and the cuts planned after it."""
        goes_on = decision.node == slot.node + 1 and not decision.cut
        hard = not (decision.cut or goes_on)
        self._slot = _Slot(decision.node, slot.node if decision.cut else None, hard, cue)
        return decision.node if decision.cut else None, decision.planned
