"""The cues of one stream, in graphs where the right answer is known: when they begin, how late, and why not."""

import pytest

from engine.character.cues import Cue
from engine.motion_graph.costs import resting
from engine.motion_graph.online import OnlineSearch
from engine.motion_graph.online_graph import OnlineGraph
from engine.motion_graph.ways import WayFinder
from tango_rt.pipeline.cueing import MAX_PENDING, CueDesk, PlayedCue, RefusedCue, steps_of
from tests.helpers.random_graphs import make_motion, planted

WAVE = Cue("wave", 12, 3)


class Stream:
    """A path that nobody plans: it goes on, and from the end of a clip to its beginning."""

    def __init__(self, graph: OnlineGraph, *cues: Cue) -> None:
        self.desk = CueDesk({cue.name: cue for cue in cues}, WayFinder(graph))
        self.search = OnlineSearch(graph)
        self.search.jump(0)
        self.nodes = [0]
        self.begun: list[tuple[int, PlayedCue]] = []
        self._quiet = resting(1, make_motion(graph.n_nodes, 0)[0])

    def go(self, n_steps: int, utterance: str | None = "a") -> None:
        for _ in range(n_steps):
            now = None if utterance is None else (utterance, len(self.nodes) - 1)
            self.desk.remember()
            decided = self.desk.decide(self.search, now)
            if decided is None:
                self.search.advance(self._quiet)
            elif decided[1] is not None:
                self.begun.append((len(self.nodes), decided[1]))
            assert self.search.node is not None
            self.nodes.append(self.search.node)


@pytest.fixture
def graph() -> OnlineGraph:
    """Two clips of 20 nodes; the one way into the second leads from node 8 to node 30."""
    return planted([20, 20], {(19, 0): 0.1, (8, 30): 0.1, (39, 0): 0.1})


def test_the_only_way_is_taken_at_its_time(graph: OnlineGraph) -> None:
    stream = Stream(graph, Cue("wave", 32, 4))
    stream.desk.ask("wave", "a", 11, 0)
    stream.go(20)
    assert stream.nodes[:16] == [*range(9), 30, 31, 32, 33, 34, 35, 36]
    assert stream.begun == [(11, PlayedCue("wave", 0))]
    assert stream.desk.take_refused() == ()


def test_one_that_must_be_late_says_how_late(graph: OnlineGraph) -> None:
    stream = Stream(graph, Cue("wave", 32, 4))
    stream.desk.ask("wave", "a", 9, 3)
    stream.go(20)
    assert stream.begun == [(11, PlayedCue("wave", 8))]


def test_too_late_by_one_step_is_refused_once(graph: OnlineGraph) -> None:
    stream = Stream(graph, Cue("wave", 32, 4))
    stream.desk.ask("wave", "a", 9, 1)
    stream.go(20)
    assert not stream.begun
    assert stream.desk.take_refused() == (RefusedCue("wave", "no way leads there in time"),)
    assert stream.desk.take_refused() == ()


def test_soon_counts_from_the_next_step(graph: OnlineGraph) -> None:
    stream = Stream(graph, Cue("wave", 30, 4))
    stream.go(3, None)
    stream.desk.ask("wave", None, None, 20)
    stream.go(12, None)
    assert stream.begun == [(9, PlayedCue("wave", 20))]  # step 4 was the first that could be decided


def test_a_past_time_is_too_late(graph: OnlineGraph) -> None:
    stream = Stream(graph, WAVE)
    stream.go(6)
    stream.desk.ask("wave", "a", 3, 3)
    stream.go(1)
    assert [one.name for one in stream.desk.take_refused()] == ["wave"]
    stream.desk.ask("wave", "a", 3, 9)
    stream.go(8)
    assert stream.begun == [(12, PlayedCue("wave", 36))]


def test_several_in_a_row_and_the_later_of_two_that_overlap(graph: OnlineGraph) -> None:
    stream = Stream(graph, Cue("nod", 3, 2), Cue("wave", 5, 4), Cue("point", 7, 2), Cue("bow", 32, 2))
    for name, step in (("wave", 5), ("point", 7), ("nod", 3), ("bow", 11)):
        stream.desk.ask(name, "a", step, 0)
    stream.go(16)
    assert [(t, one.name) for t, one in stream.begun] == [(3, "nod"), (5, "wave"), (11, "bow")]
    assert [one.name for one in stream.desk.take_refused()] == ["point"]


def test_unknown_names_and_too_many(graph: OnlineGraph) -> None:
    stream = Stream(graph, WAVE)
    stream.desk.ask("bow", "a", 9, 0)
    assert [one.reason for one in stream.desk.take_refused()] == ["the character has no cue of this name"]
    for _ in range(MAX_PENDING + 1):
        stream.desk.ask("wave", "b", 9, 0)
    assert [one.reason for one in stream.desk.take_refused()] == [f"{MAX_PENDING} cues are pending already"]


def test_what_is_said_of_an_utterance_waits_for_it(graph: OnlineGraph) -> None:
    stream = Stream(graph, Cue("wave", 32, 2))
    stream.desk.ask("wave", "b", 11, 0)
    stream.go(5, "a")
    stream.desk.over("a")
    assert not stream.desk.take_refused()
    stream.go(8, "b")
    assert stream.begun == [(11, PlayedCue("wave", 0))]
    stream.desk.ask("wave", "b", 90, 0)
    stream.desk.over("b")
    assert [one.name for one in stream.desk.take_refused()] == ["wave"]


def test_a_pause_within_the_utterance_moves_the_cue_with_its_word() -> None:
    """The way is planned again: in the pause the path has gone on."""
    cuts = {(29, 0): 0.1, (39, 0): 0.1} | {(i, 32): 0.1 for i in range(3, 20)}
    stream = Stream(planted([30, 10], cuts), Cue("wave", 34, 2))
    stream.desk.ask("wave", "a", 9, 0)
    stream.go(4)
    for _ in range(2):  # nothing was heard: the utterance stays at its step
        stream.desk.remember()
        if stream.desk.decide(stream.search, None) is None:
            stream.search.go_on()
    for present in range(4, 12):
        stream.desk.remember()
        decided = stream.desk.decide(stream.search, ("a", present))
        if decided is None:
            stream.search.go_on()
        elif decided[1] is not None:
            assert (present + 1, decided[1]) == (9, PlayedCue("wave", 0))
            return
    raise AssertionError("it was not played")


def test_a_way_goes_on_when_its_utterance_is_over(graph: OnlineGraph) -> None:
    stream = Stream(graph, Cue("wave", 32, 2))
    stream.desk.ask("wave", "a", 10, 2)
    stream.go(6, "a")
    stream.desk.over("a")
    stream.go(8, None)
    assert stream.begun == [(11, PlayedCue("wave", 4))]


def test_an_interrupt_drops_what_is_pending_and_ends_what_is_played(graph: OnlineGraph) -> None:
    stream = Stream(graph, Cue("wave", 5, 6), Cue("bow", 32, 2))
    stream.desk.ask("wave", "a", 5, 0)
    stream.desk.ask("bow", "b", 3, 0)
    stream.go(7)
    assert stream.begun == [(5, PlayedCue("wave", 0))]
    assert not stream.desk.drop("c", "stop")
    assert stream.desk.drop(None, "stop")
    assert stream.desk.take_refused() == (RefusedCue("wave", "stop"), RefusedCue("bow", "stop"))
    assert stream.desk.decide(stream.search, ("a", 7)) is None


def test_a_step_that_is_taken_back_is_decided_again_and_loses_no_cue(graph: OnlineGraph) -> None:
    stream = Stream(graph, Cue("wave", 32, 2))
    stream.desk.ask("wave", "a", 9, 1)
    stream.desk.remember()
    stream.desk.decide(stream.search, ("a", 0))
    first = stream.desk.take_refused()
    stream.desk.ask("wave", "a", 11, 0)  # after the step was decided, before it is taken back
    stream.desk.take_back()
    stream.search.take_back()
    stream.go(12)
    assert stream.desk.take_refused() == first and len(first) == 1
    assert stream.begun == [(11, PlayedCue("wave", 0))]


def test_whole_steps() -> None:
    assert [steps_of(s) for s in (0.0, 0.13, 4 / 30, 1.0, 10.0)] == [0, 0, 1, 7, 75]
