"""Cues in the live object: walkable and whole whatever is asked, the same for every chunking, drawn cuts only."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.motion_graph.connect import MIN_DWELL
from engine.timebase import frame_start
from tango_rt.pipeline.character import Character, open_character
from tango_rt.pipeline.cueing import MAX_PENDING
from tango_rt.pipeline.live import LiveOptions, LivePerformer, Step
from tests.helpers.cues import beginnings, played_whole, stretches, with_cues
from tests.helpers.drawn_sets import with_drawn
from tests.helpers.fakes import make_pack
from tests.helpers.speech import speech
from tests.helpers.walks import assert_walkable

SAMPLES = speech(6.0)


@pytest.fixture(scope="module")
def character(tmp_path_factory: pytest.TempPathFactory) -> Character:
    pack = make_pack(tmp_path_factory.mktemp("cues") / "anna.tango")
    starts = stretches(pack, 12)
    marked = with_cues(with_drawn(pack), wave=(starts[5], 12), nod=(starts[-2], 5), point=(starts[12], 8))
    return open_character(marked.path)


def at_step(step: int) -> int:
    return frame_start(4 * step)


def drain(live: LivePerformer) -> list[Step]:
    steps = []
    while (step := live.next()) is not None:
        steps.append(step)
    return steps


def keeps_its_distance(steps: list[Step]) -> None:
    entered = [t for t, step in enumerate(steps) if step.cut_from is not None]
    assert all(after - before >= MIN_DWELL for before, after in pairwise(entered))


@pytest.mark.parametrize("sample", [at_step(25), at_step(25) + 100, at_step(26) - 1])
@pytest.mark.parametrize("drawn_only", [False, True])
def test_a_cue_begins_on_its_frame(character: Character, drawn_only: bool, sample: int) -> None:
    live = character.performer(LiveOptions(2, drawn_only=drawn_only))
    live.push(SAMPLES, "a")
    live.cue("wave", sample, 0.0)
    steps = drain(live)
    assert beginnings(steps) == [(25, "wave", 0)]
    assert steps[25].first_frame == 100
    played_whole(character.pack, steps)
    assert_walkable(character, steps)
    keeps_its_distance(steps)
    if drawn_only:
        assert character.pack.drawn is not None
        assert all((step.node, step.cut_to) in character.pack.drawn for step in steps if step.cut_to is not None)


def test_without_cues_nothing_changes(character: Character) -> None:
    plain = character.performer()
    plain.push(SAMPLES, "a")
    asked = character.performer()
    asked.push(SAMPLES, "a")
    asked.cue("wave", at_step(30), 0.0)
    before, after = drain(plain), drain(asked)
    assert before[:6] == after[:6] and before != after  # planned three seconds before


@settings(deadline=None, max_examples=25)
@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from(["wave", "nod", "point", "bow"]),
            st.one_of(st.none(), st.integers(0, 60)),
            st.sampled_from([0.0, 0.3, 1.0, 4.0]),
            st.integers(0, 40),
        ),
        max_size=8,
    ),
    sizes=st.lists(st.sampled_from([160, 1600, 5000, 16_000]), min_size=1, max_size=30),
    idles=st.sets(st.integers(0, 60), max_size=4),
    drawn_only=st.booleans(),
)
def test_any_path_can_be_walked(
    character: Character,
    asked: list[tuple[str, int | None, float, int]],
    sizes: list[int],
    idles: set[int],
    drawn_only: bool,
) -> None:
    """Asked in any order, at any time, with pauses, and steps that are taken back: the same whatever the chunks."""

    def play(chunks: list[np.ndarray]) -> tuple[list[Step], list[str]]:
        live = character.performer(LiveOptions(2, drawn_only=drawn_only))
        waiting = sorted(asked, key=lambda one: one[3])
        steps: list[Step] = []
        refused: list[str] = []
        chunks = list(chunks)
        paused = set(idles)
        live.push(chunks.pop(0), "a")
        while True:
            while waiting and waiting[0][3] <= len(steps):
                name, step, within_s, _ = waiting.pop(0)
                live.cue(name, None if step is None else at_step(step), within_s, None if step is None else "a")
            pause = len(steps) in paused
            paused.discard(len(steps))
            step_now = live.idle() if pause else live.next()
            if step_now is None:
                if chunks:
                    live.push(chunks.pop(0), "a")
                elif live.under_way:
                    live.end_of_utterance()
                else:
                    break
                continue
            if len(steps) % 5 == 2:
                live.take_back()
                assert (live.idle() if pause else live.next()) == step_now
            steps.append(step_now)
            refused += [one.name for one in live.refused_cues()]
        steps += [live.idle() for _ in range(70)]  # until all are over
        live.drop_cues("over")
        return steps, refused + [one.name for one in live.refused_cues()]

    ends = np.cumsum(sizes)
    steps, refused = play([SAMPLES])
    assert_walkable(character, steps)
    keeps_its_distance(steps)
    played_whole(character.pack, steps)
    told = sorted([name for _, name, _ in beginnings(steps)] + refused)
    assert told == sorted(name for name, _, _, when in asked if when <= len(steps))
    assert play([part for part in np.split(SAMPLES, ends[ends < len(SAMPLES)])]) == (steps, refused)


def test_soon_while_nobody_speaks(character: Character) -> None:
    live = character.performer()
    steps = [live.idle() for _ in range(10)]
    live.cue("wave", within_s=5.0)
    steps += [live.idle() for _ in range(90)]
    ((t, name, late),) = beginnings(steps)
    assert name == "wave" and 11 <= t <= 11 + 37 and late == 4 * (t - 11)
    played_whole(character.pack, steps)
    assert_walkable(character, steps)
    rest = np.asarray(character.pack["rest"])
    assert rest[[step.node for step in steps[-30:]]].mean() < rest[character.pack.graph.kept].mean()


@pytest.mark.parametrize("mode", ["rest", "cut"])
def test_an_interrupt_ends_it(character: Character, mode: str) -> None:
    live = character.performer()
    live.push(SAMPLES, "a")
    live.cue("wave", at_step(8), 2.0)
    live.cue("nod", at_step(40), 2.0)
    steps = []
    while not beginnings(steps):
        steps.append(live.next())
    assert not live.refused_cues()
    live.interrupt(mode)  # type: ignore[arg-type]
    assert [one.name for one in live.refused_cues()] == ["wave", "nod"]
    after = [live.idle() for _ in range(30)]
    assert not beginnings(after)
    if mode == "rest":
        assert_walkable(character, steps + after)


def test_an_interrupt_before_its_first_step_is_shown(character: Character) -> None:
    live = character.performer()
    live.push(SAMPLES, "a")
    live.cue("wave", at_step(20), 0.0)
    for _ in range(20):
        live.next()  # the next step would be the first of the cue
    live.interrupt("rest", "a")
    assert [one.name for one in live.refused_cues()] == ["wave"]
    assert not beginnings([live.idle() for _ in range(20)])


def test_an_interrupt_of_another_utterance_leaves_it(character: Character) -> None:
    live = character.performer()
    live.push(SAMPLES, "a")
    live.push(SAMPLES, "b")
    live.cue("wave", at_step(9), 1.0, "a")
    live.cue("nod", at_step(9), 1.0, "b")
    live.interrupt("rest", "b")
    assert [one.name for one in live.refused_cues()] == ["nod"]
    assert [name for _, name, _ in beginnings(drain(live))] == ["wave"]


def test_what_cannot_be_asked(character: Character) -> None:
    live = character.performer()
    live.cue("wave", 100)
    live.cue("bow")
    assert [one.reason for one in live.refused_cues()] == [
        "no utterance is open",
        "the character has no cue of this name",
    ]
    for bad in (-1.0, 10.1, float("nan")):
        with pytest.raises(InputError, match="within"):
            live.cue("wave", within_s=bad)
    with pytest.raises(InputError, match="sample -1"):
        live.cue("wave", -1)
    whole = character.performer(LiveOptions(None))
    whole.cue("wave")
    assert "look-ahead" in whole.refused_cues()[0].reason


def test_memory_is_bounded_and_reset_forgets(character: Character) -> None:
    live = character.performer()
    for _ in range(3 * MAX_PENDING):
        live.cue("wave", at_step(20), 1.0, "nobody")
    assert len(live.refused_cues()) == 2 * MAX_PENDING
    live.reset()
    live.cue("wave", within_s=5.0)
    assert not live.refused_cues()
    assert [name for _, name, _ in beginnings([live.idle() for _ in range(50)])] == ["wave"]


def test_utterances_without_pauses_between_them(character: Character) -> None:
    """Without idle steps the stream goes on to the next node after an utterance, also within a stretch."""
    live = character.performer(LiveOptions(2, idle=False))
    for number in range(4):
        live.push(SAMPLES[: 16_000 * 2], f"u{number}")
        live.end_of_utterance()
        live.cue("wave", at_step(9), 1.0, f"u{number}")
    live.flush()
    steps = drain(live)
    assert beginnings(steps)
    played_whole(character.pack, steps)


def test_marks_are_part_of_what_identifies_a_character(character: Character, tmp_path: Path) -> None:
    plain = open_character(make_pack(tmp_path / "anna.tango").path)
    marked = open_character(with_cues(plain.pack, wave=(4, 3)).path)
    assert plain.sha256 != marked.sha256 and plain.pack.sha256 == marked.pack.sha256
