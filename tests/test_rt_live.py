"""The live object: the same for every chunking, joined to idle, interrupted, taken back; offline by the same path."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.character.perform import PerformOptions, perform
from engine.character.retrieval import open_retrieval
from engine.character.steps import speech_steps
from engine.errors import InputError
from engine.features.speech import LOOKAHEAD_SAMPLES
from engine.motion_graph.costs import SpeechSteps, resting
from engine.motion_graph.online import OnlineSearch
from engine.motion_graph.online_graph import OnlineOptions
from engine.timebase import FRAMES_PER_NODE, frame_count, frame_start, node_count
from tango_rt.options import MAX_HEARD_NODES
from tango_rt.pipeline.character import Character, open_character
from tango_rt.pipeline.live import LiveOptions, LivePerformer, Step
from tests.helpers.fakes import make_pack
from tests.helpers.speech import speech
from tests.helpers.spoken import NODE_S, SAID_FROM, SENTENCE, make_worded_pack, said_from
from tests.helpers.walks import assert_walkable

WHOLE = LiveOptions(lookahead_nodes=None, idle=False)


@pytest.fixture(scope="module")
def character(tmp_path_factory: pytest.TempPathFactory) -> Character:
    return open_character(make_pack(tmp_path_factory.mktemp("live") / "anna.tango").path)


def chunks_of(samples: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    ends = np.cumsum(sizes)
    return [part for part in np.split(samples, ends[ends < len(samples)])]


def drain(live: LivePerformer) -> list[Step]:
    steps = []
    while (step := live.next()) is not None:
        steps.append(step)
    return steps


def performed(live: LivePerformer, chunks: list[np.ndarray], name: str = "a") -> list[Step]:
    steps = []
    for chunk in chunks:
        live.push(chunk, name)
        steps += drain(live)
    live.end_of_utterance()
    return steps + drain(live)


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.sampled_from([1, 7, 160, 320, 1600, 5000, 16_000]), min_size=1, max_size=40))
def test_chunks_do_not_matter(character: Character, sizes: list[int]) -> None:
    samples = speech(2.5)
    at_once = performed(character.performer(LiveOptions(idle=False)), [samples])
    assert performed(character.performer(LiveOptions(idle=False)), chunks_of(samples, sizes)) == at_once
    assert_walkable(character, at_once)


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.sampled_from([1, 160, 1600, 5000, 16_000]), min_size=1, max_size=30), stops=st.booleans())
def test_chunks_do_not_matter_to_the_next_utterance(character: Character, sizes: list[int], stops: bool) -> None:
    """Nor where the analysis was when an utterance was interrupted."""

    def both(sizes: list[int]) -> list[Step]:
        live = character.performer(LiveOptions(idle=False))
        for chunk in chunks_of(speech(2.5)[:33_333], sizes):
            live.push(chunk, "a")
        if stops:
            live.interrupt("rest")
        else:
            live.end_of_utterance()
        steps = drain(live)
        return steps + performed(live, chunks_of(speech(1.5, seed=4), sizes), "b")

    assert both(sizes) == both([33_333])


def rows_of(live: LivePerformer, samples: np.ndarray, name: str) -> SpeechSteps:
    live.push(samples, name)
    live.end_of_utterance()
    rows, _ = live._queue[-1].known(10**6)
    live.interrupt("rest")
    return rows


def test_the_second_sentence_is_heard_as_in_one_recording(character: Character) -> None:
    """A speaker so quiet that little is known of the voice at first; the same sentences on their own, and in one."""
    said = [0.02 * speech(4.0, seed=seed) for seed in range(3)]
    pause = np.zeros(12_800, np.float32)
    live = character.performer()
    whole = rows_of(live, np.concatenate([said[0], pause, said[1], pause, said[2]]), "all")
    live.reset()
    carried = [rows_of(live, samples, str(number)) for number, samples in enumerate(said)]
    alone = []
    for samples in said:
        live.reset()
        alone.append(rows_of(live, samples, "a"))
    np.testing.assert_array_equal(carried[0].low, alone[0].low)
    for number in (1, 2):
        wanted = whole[36 * number : 36 * number + 8]
        near, far = (np.abs(rows[number][:8].low - wanted.low).mean() for rows in (carried, alone))
        assert near < 0.5 * far
        assert abs(carried[number].level[0] - wanted.level[0]) < abs(alone[number].level[0] - wanted.level[0])


@pytest.mark.parametrize("lookahead", [0, 1, 2, 4, 8, None])
def test_every_frame_of_the_speech_is_performed_once(character: Character, lookahead: int | None) -> None:
    samples = speech(3.01)
    steps = performed(character.performer(LiveOptions(lookahead, idle=False)), chunks_of(samples, [3000] * 20))
    assert len(steps) == node_count(frame_count(len(samples)))
    assert [step.first_frame for step in steps] == list(range(0, 4 * len(steps), 4))
    assert sum(step.n_frames for step in steps) == frame_count(len(samples))
    assert [step.last for step in steps] == [False] * (len(steps) - 1) + [True]
    assert {step.utterance for step in steps} == {"a"}
    assert_walkable(character, steps)


@pytest.mark.parametrize("lookahead", [0, 2, 5])
def test_a_step_comes_with_its_last_sample_and_not_before(character: Character, lookahead: int) -> None:
    samples = speech(3.0)
    live = character.performer(LiveOptions(lookahead, idle=False))
    reference = performed(character.performer(LiveOptions(lookahead, idle=False)), [samples])
    pushed = 0
    for step in reference[:12]:
        if step.heard_samples - 1 > pushed:
            live.push(samples[pushed : step.heard_samples - 1], "a")
            assert live.next() is None
            pushed = step.heard_samples - 1
        live.push(samples[pushed : step.heard_samples], "a")
        pushed = step.heard_samples
        assert live.next() == step
    declared = live.lookahead_samples
    assert declared == reference[0].heard_samples - frame_start(FRAMES_PER_NODE)
    assert 0 < declared <= LOOKAHEAD_SAMPLES + frame_start(FRAMES_PER_NODE * lookahead)


def test_offline_is_the_whole_utterance(character: Character) -> None:
    samples = speech(4.0)
    steps = performed(character.performer(WHOLE), chunks_of(samples, [777] * 100))
    path = perform(character.pack, samples, PerformOptions())
    assert [step.node for step in steps] == path.nodes.tolist()
    assert [t for t, step in enumerate(steps) if step.cut_to is not None] == path.cuts.tolist()
    assert_walkable(character, steps)


def test_a_whole_utterance_begins_where_idling_left_off(character: Character) -> None:
    live = character.performer(LiveOptions(lookahead_nodes=None))
    steps = [live.idle() for _ in range(9)]
    steps += performed(live, [speech(2.0)])
    steps += [live.idle() for _ in range(9)]
    steps += performed(live, [speech(1.5, seed=3)], "b")
    assert_walkable(character, steps)
    assert not any(step.hard for step in steps)


def test_idle_speech_idle(character: Character) -> None:
    live = character.performer()
    steps = [live.idle() for _ in range(30)]
    assert {step.utterance for step in steps} == {None}
    spoken = performed(live, [speech(2.0)])
    after = [live.idle() for _ in range(60)]
    assert_walkable(character, steps + spoken + after)
    rest = np.asarray(character.pack["rest"])
    assert rest[[step.node for step in after[-30:]]].mean() < rest[character.pack.graph.kept].mean()


def test_two_utterances_in_a_row_without_idling(character: Character) -> None:
    live = character.performer(LiveOptions(idle=False))
    live.push(speech(1.03), "a")
    live.push(speech(1.5, seed=1), "b")  # ends the first one
    live.flush()
    steps = drain(live)
    assert [step.utterance for step in steps] == ["a"] * 8 + ["b"] * 12
    assert [step.last for step in steps].count(True) == 2
    assert_walkable(character, steps)
    assert live.done


def test_late_speech_goes_on_where_it_was(character: Character) -> None:
    samples = speech(3.0)
    live = character.performer()
    live.push(samples[:16_000], "a")
    steps = drain(live)
    assert live.under_way == "a"
    steps += [live.idle(), live.idle()]
    live.push(samples[16_000:], "a")
    live.end_of_utterance()
    steps += drain(live)
    spoken = [step for step in steps if step.utterance]
    assert [step.first_frame for step in spoken] == list(range(0, 4 * len(spoken), 4))
    assert sum(step.n_frames for step in spoken) == frame_count(len(samples))
    assert_walkable(character, steps)


@pytest.mark.parametrize("mode", ["rest", "cut"])
def test_an_interrupt_drops_the_speech(character: Character, mode: str) -> None:
    live = character.performer()
    live.push(speech(2.0), "a")
    live.push(speech(2.0), "b")
    steps = [live.next() for _ in range(6)]
    assert live.interrupt(mode) == ("a", "b")  # type: ignore[arg-type]
    assert live.next() is None and live.under_way is None and live.queued_steps == 0
    after = [live.idle() for _ in range(40)]
    assert after[0].hard == (mode == "cut")
    assert_walkable(character, [step for step in steps if step] + after)
    rest = np.asarray(character.pack["rest"])
    if mode == "cut":
        assert rest[after[0].node] <= np.median(rest[character.pack.graph.kept])
    live.push(speech(1.0), "c")
    assert live.next() is not None


def test_an_interrupt_of_one_utterance_leaves_the_others(character: Character) -> None:
    live = character.performer()
    live.push(speech(1.0), "a")
    live.push(speech(1.0), "b")
    live.end_of_utterance()
    assert live.next() is not None
    assert live.interrupt("rest", "nobody") == ()
    assert live.interrupt("rest", "b") == ("b",)
    assert live.under_way == "a"
    assert {step.utterance for step in drain(live)} == {"a"}


@pytest.mark.parametrize("options", [LiveOptions(), WHOLE])
def test_a_step_that_was_not_shown_is_taken_back(character: Character, options: LiveOptions) -> None:
    samples = speech(2.0)
    plain = performed(character.performer(options), [samples])
    live = character.performer(options)
    live.push(samples, "a")
    live.end_of_utterance()
    steps = []
    while live.queued_steps:
        taken = live.next()
        live.take_back()
        live.take_back()  # once is all there is
        steps.append(live.next())
        assert steps[-1] == taken
    assert steps == plain


def test_taken_back_before_an_interrupt(character: Character) -> None:
    live = character.performer()
    live.push(speech(2.0), "a")
    shown = [live.next() for _ in range(4)]
    not_shown = live.next()
    live.take_back()
    live.interrupt("rest")
    following = live.idle()
    assert following.node == not_shown.node and following.utterance is None  # type: ignore[union-attr]
    assert_walkable(character, [step for step in shown if step] + [following])


def test_equal_in_another_stream_and_after_a_reset(character: Character) -> None:
    live = character.performer(LiveOptions(perform=PerformOptions(seed=5)))

    def play() -> list[Step]:
        steps = [live.idle() for _ in range(5)]
        return steps + performed(live, [speech(2.0)])

    first = play()
    live.reset()
    assert play() == first


@pytest.mark.parametrize("adaptive", [False, True])
def test_memory_is_constant(character: Character, adaptive: bool) -> None:
    live = character.performer(LiveOptions(adaptive=adaptive))
    rows = []
    for k in range(60):
        live.push(speech(2.0, seed=k), "a")
        drain(live)
        rows.append(sum(len(heard._rows) for heard in live._queue[0]._heard))  # type: ignore[attr-defined]
    assert max(rows[20:]) <= max(rows[:20])


def test_what_cannot_be_performed(character: Character) -> None:
    live = character.performer()
    with pytest.raises(InputError, match="NaN"):
        live.push(np.full(100, np.nan, np.float32), "a")
    live.flush()
    with pytest.raises(InputError, match="flush"):
        live.push(speech(0.1), "a")
    with pytest.raises(InputError, match="0 to 8"):
        LiveOptions(lookahead_nodes=9)
    with pytest.raises(InputError, match="adaptive"):
        LiveOptions(lookahead_nodes=None, adaptive=True)
    with pytest.raises(InputError, match="whole utterance"):
        LiveOptions(perform=PerformOptions(words="[]"))


def test_adaptive_with_all_pushed_is_a_search_that_knows_all(character: Character) -> None:
    said = {"a": speech(2.03), "b": speech(1.5, seed=1)}
    live = character.performer(LiveOptions(adaptive=True))
    rows = [rows_of(live, samples, name) for name, samples in said.items()]
    n_rows, n_rest = len(rows[0]) + len(rows[1]), MAX_HEARD_NODES + 1
    outlook = rows[0] + rows[1] + resting(n_rest, open_retrieval(character.pack).motion)
    trust = np.concatenate([np.ones(n_rows), np.full(n_rest, OnlineOptions().trust)])  # rest is guessed
    live.reset()
    for name, samples in said.items():
        live.push(samples, name)
    live.flush()
    steps = drain(live)
    search = OnlineSearch(live._graph)
    nodes = [search.begin(outlook, trust=trust)]
    nodes += [search.advance(outlook[t:], trust=trust[t:]).node for t in range(len(steps) - 1)]
    assert [step.node for step in steps] == nodes
    assert_walkable(character, steps)
    whole = speech_steps(open_retrieval(character.pack).embedding, said["a"])
    np.testing.assert_array_equal(rows[0].low, whole.low)  # with all of it heard


def test_adaptive_without_more_is_the_fixed_lookahead(character: Character) -> None:
    samples = speech(4.0)
    live = character.performer(LiveOptions(adaptive=True))
    pushed, fixed = 0, performed(character.performer(), [samples])
    for step in fixed[:20]:
        live.push(samples[pushed : step.heard_samples - 1], "a")
        assert live.next() is None  # it waits for no less
        live.push(samples[step.heard_samples - 1 : step.heard_samples], "a")
        pushed = step.heard_samples
        assert live.next() == step


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.sampled_from([160, 1600, 5000, 30_000]), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_adaptive_performs_every_frame_once(character: Character, sizes: list[int], seed: int) -> None:
    samples = speech(3.01, seed)
    live = character.performer(LiveOptions(adaptive=True))
    steps = []
    for chunk in chunks_of(samples, sizes):
        live.push(chunk, "a")
        steps.append(live.next() or live.idle())
        live.take_back()
        steps[-1] = live.next() or live.idle()
    live.end_of_utterance()
    steps += drain(live)
    spoken = [step for step in steps if step.utterance]
    assert [step.first_frame for step in spoken] == list(range(0, 4 * len(spoken), 4))
    assert sum(step.n_frames for step in spoken) == frame_count(len(samples))
    assert_walkable(character, steps)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Character:
    return open_character(make_worded_pack(tmp_path_factory.mktemp("words") / "anna.tango").path)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_a_sentence_of_the_reference_is_performed_as_it_was(spoken: Character, adaptive: bool, whole: bool) -> None:
    if adaptive and whole:
        return
    options = LiveOptions(None if whole else 2, False, adaptive=adaptive)
    shares = []
    for words in ([], said_from(20)):
        live = spoken.performer(options)
        steps = []
        for number, chunk in enumerate(chunks_of(speech(6.0), [8000] * 12)):
            live.push(chunk, "a")
            if not number:
                assert live.words(words, "a") == 0
            steps += drain(live)
        live.end_of_utterance()
        steps += drain(live)
        assert_walkable(spoken, steps)
        shares.append(np.mean([step.node for step in steps[20:36]] == np.arange(SAID_FROM, SAID_FROM + 16)))
    assert shares[1] > 0.7 > 0.4 > shares[0]


def test_late_words_are_counted_and_change_nothing(spoken: Character) -> None:
    live, plain = (spoken.performer(LiveOptions(idle=False)) for _ in range(2))
    steps = []
    for chunk in chunks_of(speech(6.0), [8000] * 12):
        live.push(chunk, "a")
        steps += drain(live)
        late = [word for word in said_from(2) if int(word.start_s / NODE_S + 0.01) <= len(steps)]
        assert live.words(late, "a") == len(late)
    live.end_of_utterance()
    assert steps + drain(live) == performed(plain, [speech(6.0)])
    assert live.words(said_from(0), "a") == len(SENTENCE)  # it is over
    assert live.words(said_from(0), "nobody") == len(SENTENCE)


def test_a_pack_without_words_takes_none(character: Character) -> None:
    live = character.performer()
    live.push(speech(1.0), "a")
    assert not live.takes_words
    with pytest.raises(InputError, match="--words"):
        live.words(said_from(0), "a")


def test_nothing_said_is_nothing(character: Character) -> None:
    live = character.performer(LiveOptions(idle=False))
    live.push(np.empty(0, np.float32), "a")
    live.end_of_utterance()
    assert live.next() is None and live.queued_steps == 0
    live.flush()
    assert live.done
