"""The core of a session with cues, without clock and connection: whatever happens, each cue is answered."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st

from tango_rt.pipeline.store import CharacterStore
from tango_rt.server.checks import plan_session
from tango_rt.server.config import ServerConfig
from tango_rt.server.metrics import Metrics
from tango_rt.server.opening import Opener
from tango_rt.server.session import Session
from tango_rt.v1 import media_pb2, session_pb2
from tests.helpers.cues import stretches, with_cues
from tests.helpers.fakes import make_pack
from tests.helpers.live_server import speech


@pytest.fixture(scope="module")
def opener(tmp_path_factory: pytest.TempPathFactory) -> Opener:
    folder: Path = tmp_path_factory.mktemp("packs")
    pack = make_pack(folder / "anna.tango")
    starts = stretches(pack, 6)
    with_cues(pack, wave=(starts[4], 6), nod=(starts[-2], 3))
    return Opener(ServerConfig(characters=folder), CharacterStore(folder), None, Metrics(), paced_budget_s=100.0)


def a_session(opener: Opener, **fields: Any) -> Session:
    config = session_pb2.SessionConfig(character="anna", blender=media_pb2.BLENDER_CUT, **fields)
    return opener.open(plan_session(config, opener.server), "s", 10.0).session


ACTIONS = st.one_of(
    st.tuples(st.just("say"), st.sampled_from(["a", "b", "c"]), st.sampled_from([0.2, 1.0, 2.5])),
    st.tuples(st.just("end"), st.just(""), st.just(0.0)),
    st.tuples(st.just("interrupt"), st.sampled_from(["", "a", "b"]), st.sampled_from([0, 2])),
    st.tuples(st.just("soon"), st.sampled_from(["wave", "nod", "bow"]), st.sampled_from([0.0, 1.0, 9.0])),
    st.tuples(st.just("at"), st.sampled_from(["wave", "nod"]), st.sampled_from(["a", "b", "", "never"])),
    st.tuples(st.just("show"), st.just(""), st.integers(1, 40)),
    st.tuples(st.just("skip"), st.just(""), st.integers(1, 4)),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(ACTIONS, st.integers(0, 60_000)), max_size=16), st.booleans())
def test_every_cue_is_answered(opener: Opener, actions: list[tuple[Any, int]], realtime: bool) -> None:
    pacing = session_pb2.PACING_REALTIME if realtime else session_pb2.PACING_FAST
    session = a_session(opener, pacing=pacing)
    asked: Counter[str] = Counter()
    told: list[Any] = []

    def show(n: int) -> None:
        for _ in range(n):
            if not session.has_frame and not session.prepare():
                break
            told.extend([*session.told(), *session.show(0.0)])

    for (what, name, value), sample in actions:
        if what == "say":
            if session.queue.find(name) is None and not session.queue.is_over(name):
                session.queue.accept(session_pb2.AudioChunk(data=speech(value), utterance_id=name), 0.0)
        elif what == "end":
            session.queue.end_open()
        elif what == "interrupt":
            if not name or session.queue.find(name) or session.queue.is_over(name):
                told += session.interrupt(value, name)
        elif what == "show":
            show(value)
        elif what == "skip":
            for step in session.skip(0.0, value):
                session.pass_over(step)
                while session.has_frame:
                    told += session.show(0.0)
        else:
            cue = session_pb2.Cue(name=name, within=Duration(seconds=int(value) if what == "soon" else 1))
            if what == "soon":
                cue.soon = True
            else:
                cue.at_sample, cue.utterance_id = sample, value
            asked[name] += 1
            answer = session.cues.accept(cue)
            told += [] if answer is None else [answer]
    session.queue.end_open()
    session.queue.closed = True
    for _ in range(10_000):
        if session.over:
            break
        show(1)
    assert session.over
    told += session.leftover()
    played = Counter(one.cue_played.name for one in told if one.HasField("cue_played"))
    refused = Counter(one.cue_refused.name for one in told if one.HasField("cue_refused"))
    for name in asked:  # one that was begun may be ended, too
        assert asked[name] <= played[name] + refused[name] <= asked[name] + played[name]
    assert set(played) | set(refused) <= set(asked)
