"""The core of a session without clock and connection: whatever is said and shown in whatever order, nothing of the
speech is lost or doubled, and every utterance ends exactly once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tango_rt.pipeline.ahead import TransitionPool
from tango_rt.pipeline.store import CharacterStore
from tango_rt.server.checks import SessionPlan, plan_session
from tango_rt.server.config import ServerConfig
from tango_rt.server.metrics import Metrics
from tango_rt.server.opening import Opener
from tango_rt.server.session import ATTENTION, Session
from tango_rt.server.speech import SpeechQueue, span_start
from tango_rt.server.status import Refusal
from tango_rt.v1 import media_pb2, session_pb2
from tests.helpers.drawn_sets import with_drawn
from tests.helpers.fakes import make_pack
from tests.helpers.live_server import speech
from tests.helpers.spoken import SAID_FROM, make_worded_pack, said_from

RATES = (8000, 16_000, 22_050, 44_100, 48_000)


@pytest.fixture(scope="module")
def opener(tmp_path_factory: pytest.TempPathFactory) -> Opener:
    folder = tmp_path_factory.mktemp("packs")
    make_pack(folder / "anna.tango")
    # what is heard must not depend on the machine
    return Opener(ServerConfig(characters=folder), CharacterStore(folder), None, Metrics(), paced_budget_s=100.0)


def a_plan(server: ServerConfig, rate_hz: int = 16_000, **fields: Any) -> SessionPlan:
    config = session_pb2.SessionConfig(character="anna", audio_echo=True, blender=media_pb2.BLENDER_CUT, **fields)
    config.audio.sample_rate_hertz = rate_hz
    return plan_session(config, server)


def a_session(opener: Opener, **fields: Any) -> Session:
    return opener.open(a_plan(opener.server, **fields), "s", 10.0).session


def say(session: Session, data: bytes, name: str = "", first: int | None = None) -> None:
    session.queue.accept(session_pb2.AudioChunk(data=data, utterance_id=name, first_sample_index=first), 0.0)


def close(session: Session) -> None:
    session.queue.end_open()
    session.queue.closed = True


def play(session: Session) -> Iterator[Any]:
    """All that is left, as fast as it goes."""
    for _ in range(10_000):
        if session.over:
            return
        if not session.has_frame and not session.prepare():
            continue
        yield from session.show(0.0)
    raise AssertionError("the session does not end")


def of_kind(messages: list[Any], kind: str) -> list[Any]:
    return [getattr(message, kind) for message in messages if message.WhichOneof("message") == kind]


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("realtime", [True, False])
def test_sound_comes_back_whole(opener: Opener, rate_hz: int, realtime: bool) -> None:
    pacing = session_pb2.PACING_REALTIME if realtime else session_pb2.PACING_FAST
    session = a_session(opener, rate_hz=rate_hz, pacing=pacing)
    said = [speech(seconds, rate_hz, seed) for seed, seconds in enumerate((0.7, 1 / rate_hz, 1 / 30, 0.1333))]
    for number, data in enumerate(said):
        say(session, data, f"u{number}")
    close(session)
    messages = list(play(session))
    frames = of_kind(messages, "frame")
    for number, data in enumerate(said):
        own = [frame for frame in frames if frame.utterance_id == f"u{number}"]
        assert [frame.utterance_frame for frame in own] == list(range(len(own)))
        assert len(own) == -(-len(data) // 2 * 30 // rate_hz)
        starts = np.cumsum([0] + [len(frame.audio.data) // 2 for frame in own])
        for frame, start in zip(own, starts.tolist(), strict=False):
            assert not frame.audio.HasField("utterance_sample") or frame.audio.utterance_sample == start
        sound = b"".join(frame.audio.data for frame in own)
        assert sound[: len(data)] == data and not any(sound[len(data) :])
    assert [event.played_samples for event in of_kind(messages, "utterance_finished")] == [len(d) // 2 for d in said]


@pytest.mark.parametrize("n_samples", [span_start(n, 16_000) for n in (22, 23, 35, 50)])
def test_underruns_cost_no_sample(opener: Opener, n_samples: int) -> None:
    """Frames are not of equal length: what was put in may have made those of the utterance shorter than its sound."""
    data = speech(2.0)[: 2 * n_samples]
    for n_before in range(3):
        session = a_session(opener, lookahead_nodes=0, whole_utterance=False)
        messages: list[Any] = []
        for _ in range(4 * n_before):
            assert session.has_frame or session.prepare()
            messages += session.show(0.0)
        for start in range(0, len(data), 10_000):
            say(session, data[start : start + 10_000], "u")
            for _ in range(12):
                assert session.has_frame or session.prepare()
                messages += session.show(0.0)
        close(session)
        messages += play(session)
        check_story(messages, {"u": data}, 16_000, session.n_frames)
        assert of_kind(messages, "underrun")


@pytest.mark.parametrize("mode", [session_pb2.Interrupt.MODE_TRANSITION_TO_IDLE, session_pb2.Interrupt.MODE_CUT])
def test_a_step_that_was_decided_and_not_shown_leaves_no_trace(opener: Opener, mode: int) -> None:
    paths = []
    for decided in (False, True):
        session = a_session(opener)
        say(session, speech(3.0), "u")
        for _ in range(12):
            assert session.has_frame or session.prepare()
            session.show(0.0)
        if decided:
            assert session.prepare()
        session.interrupt(mode, "")
        after: list[Any] = []
        for _ in range(80):
            assert session.has_frame or session.prepare()
            after += session.show(0.0)
        paths.append([frame.source.frame for frame in of_kind(after, "frame")])
    assert paths[0] == paths[1]


def test_interrupts_change_the_next_frame(opener: Opener) -> None:
    session = a_session(opener)
    say(session, speech(3.0), "u")
    messages: list[Any] = []
    for _ in range(14):
        assert session.has_frame or session.prepare()
        messages += session.show(0.0)
    before = of_kind(messages, "frame")[-1]
    assert before.utterance_id == "u" and before.source.frame % 4 == 1
    (event,) = session.interrupt(session_pb2.Interrupt.MODE_TRANSITION_TO_IDLE, "u")
    assert event.utterance_finished.interrupted and event.utterance_finished.frame_index == 14
    (after,) = session.show(0.0)
    assert after.frame.source.frame == before.source.frame + 1  # the group of pictures goes on
    assert after.frame.kind == media_pb2.FRAME_KIND_IDLE and not after.frame.utterance_id
    assert not any(after.frame.audio.data) and not after.frame.audio.HasField("utterance_sample")


def test_a_cut_truncates_the_group_of_pictures(opener: Opener) -> None:
    session = a_session(opener)
    say(session, speech(3.0), "u")
    for _ in range(14):
        assert session.has_frame or session.prepare()
        session.show(0.0)
    session.interrupt(session_pb2.Interrupt.MODE_CUT, "")
    assert not session.has_frame and session.prepare()
    (after,) = of_kind(session.show(0.0), "frame")
    assert after.key_frame and after.source.frame % 4 == 0 and after.frame_index == 14
    assert after.source.node == opener.store.get("anna").performer().idle().node  # at rest


def test_interrupting_one_utterance_leaves_the_others(opener: Opener) -> None:
    session = a_session(opener, pacing=session_pb2.PACING_FAST)
    for name in ("a", "b", "c"):
        say(session, speech(0.5), name)
    session.prepare()
    messages = session.show(0.0)
    (event,) = session.interrupt(0, "b")
    assert (event.utterance_finished.utterance_id, event.utterance_finished.played_frames) == ("b", 0)
    close(session)
    messages += play(session)
    shown = dict.fromkeys(frame.utterance_id for frame in of_kind(messages, "frame"))
    assert list(shown) == ["a", "c"]
    assert session.interrupt(0, "a") == []  # over: no mistake, and nothing to do


@pytest.mark.parametrize("whole", [False, True])
def test_states_change_what_idling_looks_like(opener: Opener, whole: bool) -> None:
    """Attention is the only thing that differs, and it must not disturb speech or counters."""
    session = a_session(opener, whole_utterance=whole)
    assert list(ATTENTION.values()) == sorted(ATTENTION.values())
    for attention in ATTENTION.values():
        session.attention = attention
        for _ in range(8):
            assert session.has_frame or session.prepare()
            (message,) = session.show(0.0)
            assert message.frame.kind in (media_pb2.FRAME_KIND_IDLE, media_pb2.FRAME_KIND_TRANSITION)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunk_ms=st.sampled_from([10, 20, 40, 100]), phase=st.floats(0, 4 / 30))
def test_speech_sent_as_it_is_spoken_does_not_run_dry(opener: Opener, chunk_ms: int, phase: float) -> None:
    opened = opener.open(a_plan(opener.server, lookahead_nodes=1), "s", 10.0)
    session, size = opened.session, 16 * chunk_ms
    data, n_said, messages = speech(3.0), 0, []
    for step in range(20):
        now_s = phase + step * 4 / 30
        while (n_said + size) / 16_000 <= now_s:
            part = session_pb2.AudioChunk(data=data[2 * n_said : 2 * (n_said + size)])
            n_said += size
            session.queue.accept(part, n_said / 16_000)
        assert session.prepare(now_s)
        while session.has_frame:
            messages += session.show(now_s)
    assert not of_kind(messages, "underrun")
    (begun,) = of_kind(messages, "utterance_started")
    needed_s = (opened.accepted.lookahead_samples + span_start(4, 16_000)) / 16_000
    assert phase + begun.frame_index / 30 < needed_s + max(chunk_ms, 20) / 1000 + 0.03 + 4 / 30
    assert begun.latency.ToNanoseconds() < (4 / 30 + chunk_ms / 1000) * 1e9


def test_speech_that_came_in_advance_begins_at_once(opener: Opener) -> None:
    session = a_session(opener)
    say(session, speech(1.0), "u")
    assert session.prepare(0.0)
    assert of_kind(session.show(0.0), "utterance_started")


def test_frames_that_are_dropped_are_counted_and_keep_their_sound(opener: Opener) -> None:
    session = a_session(opener)
    say(session, speech(1.0), "u")
    session.prepare()
    messages = session.show(0.0)
    session.drop()
    for _ in range(3):
        assert not session.show(0.0)
    session.prepare()
    messages += session.show(0.0)
    frames = of_kind(messages, "frame")
    assert [frame.frame_index for frame in frames] == [0, 4] and frames[1].key_frame
    assert b"".join(frame.audio.data for frame in frames) == speech(1.0)[: 2 * span_start(5, 16_000)]
    stats = session.stats().stats
    assert (stats.frames_sent, stats.frames_dropped) == (2, 3)


def test_steps_are_skipped_in_one_go_and_their_sound_is_kept(opener: Opener) -> None:
    session = a_session(opener)
    say(session, speech(2.0), "u")
    session.prepare()
    messages = [message for _ in range(4) for message in session.show(0.0)]
    skipped = session.skip(0.0, 3)
    assert len(skipped) == 3 and not session.has_frame
    for step in skipped:
        session.pass_over(step)
        while session.has_frame:
            assert not session.show(0.0)
    session.prepare()
    messages += session.show(0.0)
    frames = of_kind(messages, "frame")
    assert [frame.frame_index for frame in frames] == [0, 1, 2, 3, 16]
    assert [frame.utterance_frame for frame in frames] == [0, 1, 2, 3, 16]
    assert b"".join(frame.audio.data for frame in frames) == speech(2.0)[: 2 * span_start(17, 16_000)]
    assert session.stats().stats.frames_dropped == 12


def test_queue_knows_what_is_open(opener: Opener) -> None:
    queue = SpeechQueue(a_plan(opener.server), 10.0)
    queue.accept(session_pb2.AudioChunk(data=b""), 0.0)
    assert len(queue) == 0
    queue.accept(session_pb2.AudioChunk(data=b"\1\0" * 10), 0.0)
    (named,) = queue.all()
    assert named.name == "utterance-1" and named.n_samples == 10
    queue.accept(session_pb2.AudioChunk(data=b"\1\0", utterance_id="mine", first_sample_index=0), 0.0)
    assert [(one.name, one.ended) for one in queue.all()] == [("utterance-1", True), ("mine", False)]
    queue.end("")
    with pytest.raises(Refusal, match="no utterance is open"):
        queue.end("")
    with pytest.raises(Refusal, match="is over"):
        queue.end("mine")
    assert queue.n_queued == 11


def test_remembering_what_is_over_is_bounded(opener: Opener) -> None:
    queue = SpeechQueue(a_plan(opener.server), 10.0)
    for number in range(3000):
        queue.accept(session_pb2.AudioChunk(data=b"\1\0", utterance_id=str(number)), float(number))
        queue.interrupt("")
    assert len(queue._over) == 1000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_happens_nothing_is_lost_or_said_twice(opener: Opener, data: st.DataObject) -> None:
    rate_hz = data.draw(st.sampled_from(RATES), "rate")
    realtime = data.draw(st.booleans(), "realtime")
    session = a_session(
        opener,
        rate_hz=rate_hz,
        pacing=session_pb2.PACING_REALTIME if realtime else session_pb2.PACING_FAST,
        whole_utterance=data.draw(st.booleans(), "whole"),
    )
    messages: list[Any] = []
    said: dict[str, bytes] = {}
    for number in range(data.draw(st.integers(1, 25), "moves")):
        move = data.draw(st.sampled_from(["say", "say", "show", "show", "end", "interrupt", "cut", "prepare"]), "move")
        if move == "say":
            opened = session.queue.all()[-1:]
            name = opened[0].name if opened and not opened[0].ended and data.draw(st.booleans()) else f"u{number}"
            part = speech(data.draw(st.floats(1 / rate_hz, 0.5)), rate_hz, number)
            say(session, part, name, len(said.get(name, b"")) // 2)
            said[name] = said.get(name, b"") + part
        elif move == "show":
            for _ in range(data.draw(st.integers(1, 30))):
                if session.has_frame or session.prepare(draw=data.draw(st.booleans())):
                    messages += session.show(0.0)
        elif move == "prepare" and not session.has_frame:
            session.prepare()
        elif move == "end":
            session.queue.end_open()
        elif move in ("interrupt", "cut"):
            mode = session_pb2.Interrupt.MODE_CUT if move == "cut" else 0
            known = [speech_.name for speech_ in session.queue.all()]
            messages += session.interrupt(mode, data.draw(st.sampled_from(["", *known])))
    close(session)
    messages += play(session)
    check_story(messages, said, rate_hz, session.n_frames)


def check_story(messages: list[Any], said: dict[str, bytes], rate_hz: int, n_frames: int) -> None:
    """What must hold of every session."""
    ended = of_kind(messages, "utterance_finished")
    begun = {event.utterance_id: event.frame_index for event in of_kind(messages, "utterance_started")}
    assert sorted(event.utterance_id for event in ended) == sorted(said)
    assert len(begun) == len(of_kind(messages, "utterance_started"))
    check_order(messages)
    samples = 0
    for frame in of_kind(messages, "frame"):
        assert frame.audio.pts == samples
        samples += len(frame.audio.data) // 2
        assert samples == span_start(frame.frame_index + 1, rate_hz)
        assert (frame.kind == media_pb2.FRAME_KIND_RETRIEVED) == bool(frame.utterance_id)
    performed = b""
    for event in ended:
        data = said[event.utterance_id]
        performed += data[: 2 * event.played_samples]
        if event.interrupted:
            shown = min(span_start(event.played_frames, rate_hz), len(data) // 2)
            assert abs(event.played_samples - shown) <= 1 + rate_hz // 30
        else:
            assert event.played_samples == len(data) // 2
        assert (event.played_frames > 0) == (event.utterance_id in begun)
    sound = np.frombuffer(b"".join(frame.audio.data for frame in of_kind(messages, "frame")), "<i2")
    heard = sound[sound != 0].tobytes()
    # what belongs to dropped frames goes with the next one that is sent, and behind the last there may be none
    assert performed.startswith(heard)
    if max((frame.frame_index + 1 for frame in of_kind(messages, "frame")), default=0) == n_frames:
        assert len(heard) == len(performed)


def check_order(messages: list[Any]) -> None:
    """Started right before the first frame, finished right behind the last."""
    speaking = ""
    frame_index = 0
    for message in messages:
        kind = message.WhichOneof("message")
        if kind == "utterance_started":
            assert not speaking and message.utterance_started.frame_index >= frame_index
            speaking = message.utterance_started.utterance_id
        elif kind == "utterance_finished":
            event = message.utterance_finished
            assert event.frame_index >= frame_index
            assert speaking in ("", event.utterance_id) or not event.played_frames
            speaking = "" if speaking == event.utterance_id else speaking
        elif kind == "frame":
            frame_index = message.frame.frame_index + 1
            assert message.frame.utterance_id in ("", speaking)


def test_a_session_shows_no_late_transition_and_uses_what_drew_the_set(tmp_path: Path) -> None:
    """With a pool that never has a transition ready, and none for which it waits."""
    pack = with_drawn(make_pack(tmp_path / "anna.tango"), "crossfade")
    pool = TransitionPool(1, 1 << 20)
    try:
        opener = Opener(
            ServerConfig(characters=tmp_path), CharacterStore(tmp_path), pool, Metrics(), paced_budget_s=100.0
        )
        config = session_pb2.SessionConfig(character="anna")
        opened = opener.open(plan_session(config, opener.server), "s", 10.0)
        assert opened.accepted.config.blender == media_pb2.BLENDER_CROSSFADE
        session = opened.session
        for _ in range(5):
            say(session, speech(9.0))
        close(session)
        shown = [message.frame for message in play(session) if message.WhichOneof("message") == "frame"]
        assert pool.counts().n_computed == 0
    finally:
        pool.close()
    cuts = {(frame.source.node, frame.source.cut_to) for frame in shown if frame.source.HasField("cut_to")}
    assert pack.drawn is not None and len(cuts) > 5 and cuts <= pack.drawn.numbers.keys()
    assert {frame.source.blender for frame in shown} == {0, media_pb2.BLENDER_CROSSFADE}
    assert session.stats().stats.transitions_late == session.stats().stats.transitions_computed == 0


RATE_HZ = 16_000


def words_of(step: int, name: str = "u") -> session_pb2.Words:
    """The sentence of the reference, from a step on."""
    at = [(word.text, round(word.start_s * RATE_HZ), round(word.end_s * RATE_HZ)) for word in said_from(step)]
    return session_pb2.Words(
        utterance_id=name, words=[session_pb2.Word(text=text, start_sample=a, end_sample=b) for text, a, b in at]
    )


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> Opener:
    folder = tmp_path_factory.mktemp("worded")
    make_worded_pack(folder / "anna.tango")
    return Opener(ServerConfig(characters=folder), CharacterStore(folder), None, Metrics(), paced_budget_s=100.0)


def nodes_spoken(messages: list[Any]) -> list[int]:
    return [f.source.node for f in of_kind(messages, "frame") if f.utterance_id and f.utterance_frame % 4 == 0]


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("named", ["u", ""])
@pytest.mark.parametrize("fields", [{"pacing": session_pb2.PACING_FAST}, {}, {"whole_utterance": True}])
def test_words_lead_to_the_gestures_that_went_with_them(
    worded: Opener, fields: dict[str, Any], named: str, early: bool
) -> None:
    session = a_session(worded, **fields)
    if early:
        session.take_words(words_of(20, named))
    say(session, speech(6.0), named)
    if not early:
        session.take_words(words_of(20, named))
    close(session)
    messages = list(play(session))
    assert nodes_spoken(messages)[22:36] == list(range(SAID_FROM + 2, SAID_FROM + 16))
    assert not of_kind(messages, "warning")


def test_late_words_are_said_once_and_change_nothing(worded: Opener) -> None:
    paths = []
    for late in (False, True):
        session = a_session(worded, lookahead=session_pb2.LOOKAHEAD_FIXED)
        say(session, speech(4.0), "u")
        messages: list[Any] = []
        for step in range(20):
            assert session.prepare()
            messages += [message for _ in range(4) for message in session.show(0.0)]
            if late:
                said = words_of(step - 17)
                del said.words[: max(17 - step, 0)]
                session.take_words(said)
        close(session)
        messages += play(session)
        if late:
            session.take_words(words_of(0))  # of an utterance that is over
        warnings = of_kind(messages, "warning")
        assert [warning.reason for warning in warnings] == ["LATE_WORDS"] * late
        paths.append(nodes_spoken(messages))
    assert paths[0] == paths[1]


def a_word(**fields: Any) -> session_pb2.Word:
    return session_pb2.Word(**{"text": "a", "start_sample": 0, "end_sample": 9, **fields})


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("BAD_FIELD", [a_word(text="w" * 101)]),
        ("BAD_FIELD", [a_word(start_sample=-1)]),
        ("BAD_FIELD", [a_word(start_sample=10)]),
        ("BAD_FIELD", [a_word(end_sample=2**63 - 1)]),
        ("BAD_FIELD", [a_word()] * 1001),
    ],
)
def test_words_that_cannot_be(worded: Opener, reason: str, words: list[session_pb2.Word]) -> None:
    session = a_session(worded)
    with pytest.raises(Refusal) as refused:
        session.take_words(session_pb2.Words(words=words))
    assert refused.value.reason == reason


@pytest.mark.parametrize("names", [["u"] * 9, ["later"] * 2, [""] * 2, [f"u{k}" for k in range(17)]])
def test_too_many_words(worded: Opener, names: list[str]) -> None:
    """A thousand of an utterance, twenty more a second of its sound, and of sixteen utterances without sound."""
    session = a_session(worded)
    if names[0] == "u":
        say(session, speech(4.0), "u")
    with pytest.raises(Refusal) as refused:
        for name in names:
            session.take_words(session_pb2.Words(utterance_id=name, words=[a_word()] * 1000))
    assert refused.value.reason == "TOO_MANY_WORDS"


def test_a_character_without_words_takes_none(opener: Opener) -> None:
    with pytest.raises(Refusal) as refused:
        a_session(opener).take_words(words_of(0))
    assert refused.value.reason == "WORDS_UNAVAILABLE"


def test_adaptive_is_the_default_in_real_time_only(opener: Opener) -> None:
    adaptive, fixed = session_pb2.LOOKAHEAD_ADAPTIVE, session_pb2.LOOKAHEAD_FIXED
    fast = {"pacing": session_pb2.PACING_FAST}
    asked = [({}, adaptive), ({"lookahead": fixed}, fixed), (fast, fixed), ({"whole_utterance": True}, fixed)]
    for fields, wanted in asked:
        assert a_plan(opener.server, **fields).to_config().lookahead == wanted
    clip = plan_session(session_pb2.SessionConfig(character="anna", lookahead_nodes=2), opener.server, clip=True)
    assert clip.to_config().lookahead == fixed


def test_an_old_client_sends_what_it_always_sent() -> None:
    """Field numbers of the protocol's first version, written by hand."""
    config = session_pb2.SessionConfig.FromString(b"\x12\x04anna\x28\x02\x38\x03")
    assert (config.character, config.pacing, config.lookahead_nodes) == ("anna", session_pb2.PACING_FAST, 3)
    assert config.lookahead == session_pb2.LOOKAHEAD_UNSPECIFIED
    request = session_pb2.StreamGesturesRequest.FromString(b"\x32\x02\x08\x07")
    assert request.ping.number == 7
