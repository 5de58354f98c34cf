"""The cues asked of one stream: which are pending, on the way, or being played. Pure state, like the live object.

A cue is planned when its time is near: the cheapest way to its first node is searched and followed step by step, then
its stretch is played whole. One cue at a time: one that would begin while another is played is late, or refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from engine.character.cues import Cue
from engine.motion_graph.online import Decision, OnlineSearch
from engine.motion_graph.ways import WayFinder
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["MAX_PENDING", "CueDesk", "PlayedCue", "RefusedCue", "steps_of"]

MAX_PENDING = 32
_AHEAD_STEPS = 23
"""How long before its time a way is planned: about 3 s."""


@dataclass(frozen=True)
class PlayedCue:
    """A cue that begins with a step."""

    name: str
    late_frames: int  # after the time that was asked for


@dataclass(frozen=True)
class RefusedCue:
    """A cue that is not played, or not to its end."""

    name: str
    reason: str


@dataclass(frozen=True)
class _Asked:
    cue: Cue
    utterance: str | None  # that `step` belongs to; None: `step` counts the steps of the stream
    step: int
    within: int  # steps


@dataclass(frozen=True)
class _State:
    """Immutable, so that a step can be taken back."""

    n_decided: int = 0  # steps of the stream
    pending: tuple[_Asked, ...] = ()
    target: _Asked | None = None  # what the way leads to
    way: tuple[tuple[int, bool], ...] = ()  # nodes still to come, and whether each is entered by a cut
    late: int = 0  # steps, of the arrival
    playing: _Asked | None = None
    n_left: int = 0  # nodes of its stretch that are not decided yet
    refused: tuple[RefusedCue, ...] = ()  # not told yet


class CueDesk:
    """Takes cues and decides the steps that belong to them. One caller at a time; memory is bounded."""

    def __init__(self, cues: Mapping[str, Cue], ways: WayFinder) -> None:
        self._cues = cues
        self._ways = ways
        self._state = self._before = _State()

    def ask(self, name: str, utterance: str | None, step: int | None, within: int) -> None:
        """Ask for a cue at a step of an utterance, or as soon as possible (both None), or `within` steps later."""
        state = self._state
        cue = self._cues.get(name)
        if cue is None:
            self._add(refused=RefusedCue(name, "the character has no cue of this name"))
        elif len(state.pending) >= MAX_PENDING:
            self._add(refused=RefusedCue(name, f"{MAX_PENDING} cues are pending already"))
        elif step is None:
            self._add(_Asked(cue, None, state.n_decided + 1, within))
        else:
            self._add(_Asked(cue, utterance, step, within))

    def refuse(self, name: str, reason: str) -> None:
        self._add(refused=RefusedCue(name, reason))

    def take_refused(self) -> tuple[RefusedCue, ...]:
        """The refusals since the last call, in order: each is told once, unless the step that it came with is taken
        back."""
        refused = self._state.refused
        self._state, self._before = replace(self._state, refused=()), replace(self._before, refused=())
        return refused

    def remember(self) -> None:
        """A step begins, which may be taken back."""
        self._before = self._state

    def take_back(self) -> None:
        self._state = self._before

    def decide(
        self, search: OnlineSearch, utterance: tuple[str, int] | None
    ) -> tuple[Decision, PlayedCue | None] | None:
        """The next node if a cue decides it, and the cue that begins with it; None: the search is free to decide.

        utterance: the name of the one under way and the number of its present step; None: nobody speaks.
        """
        state = self._state
        if state.target is not None and not self._on_time(state.target, utterance):
            self._state = state = replace(state, pending=(state.target, *state.pending), target=None, way=())
        if state.playing is None and state.target is None:
            self._plan(search, utterance)
        decided = self._step(search)
        self._state = replace(self._state, n_decided=self._state.n_decided + 1)
        return decided

    def went_on(self) -> None:
        """The stream goes on to the next node of the clip, without a decision."""
        state = self._state
        if state.target is not None:
            state = replace(state, pending=(state.target, *state.pending), target=None, way=())
        self._state = self._played_on(replace(state, n_decided=state.n_decided + 1))

    def over(self, utterance: str) -> None:
        """An utterance is over: what it asked for later is refused; a way already taken goes on."""
        state = self._state
        gone = [one for one in state.pending if one.utterance == utterance]
        target = state.target
        if target is not None and target.utterance == utterance:
            target = replace(target, utterance=None, step=state.n_decided + len(state.way) - state.late)
        self._state = replace(
            state,
            target=target,
            pending=tuple(one for one in state.pending if one.utterance != utterance),
            refused=(*state.refused, *(RefusedCue(one.cue.name, "its utterance was over before it") for one in gone)),
        )

    def drop(self, utterance: str | None, reason: str) -> bool:
        """Refuse all that is pending or on the way and end what is playing; of one utterance, where it is named.
        Returns whether a way or a stretch was ended."""
        state = self._state
        active = [one for one in (state.playing, state.target) if one and utterance in (None, one.utterance)]
        gone = [*active, *(one for one in state.pending if utterance in (None, one.utterance))]
        state = replace(
            state,
            pending=tuple(one for one in state.pending if one not in gone),
            refused=(*state.refused, *(RefusedCue(one.cue.name, reason) for one in gone)),
        )
        self._state = replace(state, target=None, way=(), playing=None, n_left=0) if active else state
        self._before = self._state
        return bool(active)

    def _add(self, asked: _Asked | None = None, refused: RefusedCue | None = None) -> None:
        """To the present state, and to the one before the last step: taking it back must not lose a cue."""
        self._state, self._before = (
            replace(
                state,
                pending=(*state.pending, asked) if asked else state.pending,
                refused=(*state.refused, refused) if refused else state.refused,
            )
            for state in (self._state, self._before)
        )

    def _on_time(self, asked: _Asked, utterance: tuple[str, int] | None) -> bool:
        """Whether the way still arrives when it was meant to: not if the utterance has stopped meanwhile."""
        return asked.utterance is None or (utterance is not None and utterance[0] == asked.utterance)

    def _plan(self, search: OnlineSearch, utterance: tuple[str, int] | None) -> None:
        """Find the way to the pending cue that is due first, or refuse it."""
        assert search.node is not None
        due = []
        for order, asked in enumerate(self._state.pending):
            if asked.utterance is None:
                due.append((asked.step - self._state.n_decided, order, asked))
            elif utterance is not None and utterance[0] == asked.utterance:
                due.append((asked.step - utterance[1], order, asked))
        for steps, _, asked in sorted(due, key=lambda one: one[:2]):
            if steps > _AHEAD_STEPS:
                return
            last = steps + asked.within
            way = None
            if last >= 1:
                start = search.node, search.dwell
                way = self._ways.find(start, asked.cue.first_node, (max(1, steps), last), utterance is not None)
            state, pending = self._state, list(self._state.pending)
            pending.remove(asked)
            self._state = state = replace(state, pending=tuple(pending))
            if way is not None:
                path = tuple(zip(way.nodes.tolist(), way.by_cut.tolist(), strict=True))
                self._state = replace(state, target=asked, way=path, late=len(path) - steps)
                return
            reason = "it came too late, or another cue was played" if last < 1 else "no way leads there in time"
            self._state = replace(state, refused=(*state.refused, RefusedCue(asked.cue.name, reason)))

    def _step(self, search: OnlineSearch) -> tuple[Decision, PlayedCue | None] | None:
        """Take the next step of the way or the stretch."""
        state = self._state
        if state.target is not None:
            (node, by_cut), *way = state.way
            begins = None
            planned = _cuts(node, way)
            if way:
                self._state = replace(state, way=tuple(way))
            else:
                begins = PlayedCue(state.target.cue.name, state.late * FRAMES_PER_NODE)
                playing, n_left = state.target, state.target.cue.n_nodes - 1
                self._state = replace(state, target=None, way=(), playing=playing, n_left=n_left)
            search.follow(node, by_cut)
            return Decision(node, by_cut, planned), begins
        if state.playing is not None:
            assert search.node is not None
            self._state = self._played_on(state)
            search.follow(search.node + 1, cut=False)
            return Decision(search.node, False, ()), None
        return None

    def _played_on(self, state: _State) -> _State:
        if state.playing is None:
            return state
        n_left = state.n_left - 1
        return replace(state, n_left=n_left, playing=state.playing if n_left else None)


def _cuts(node: int, way: list[tuple[int, bool]]) -> tuple[tuple[int, int], ...]:
    """The cuts of a way after `node`."""
    found = []
    for after, by_cut in way:
        if by_cut:
            found.append((node, after))
        node = after
    return tuple(found)


def steps_of(seconds: float) -> int:
    """Whole steps within a time."""
    return int(seconds * FPS / FRAMES_PER_NODE + 1e-9)
