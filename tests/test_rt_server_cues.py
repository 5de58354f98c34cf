"""Cues asked of a server: played on their frames or refused with a reason, and nothing hostile is believed."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from engine.character.pack import CharacterPack
from tango_rt.v1 import service_pb2, session_pb2
from tests.helpers.cues import stretches, with_cues
from tests.helpers.fakes import make_pack
from tests.helpers.live_server import FAST, Live, Request, audio, config, converse, end, interrupt, run, speech


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pack = make_pack(tmp_path_factory.mktemp("packs") / "anna.tango")
    starts = stretches(pack, 8)
    with_cues(pack, wave=(starts[4], 8), nod=(starts[-3], 4))
    return pack.path.parent


def cue(name: str = "wave", **fields: Any) -> Request:
    return Request(cue=session_pb2.Cue(name=name, **fields))


def is_whole(packs: Path, frames: list[Any], first: int, name: str) -> bool:
    """Whether the frames from `first` on are the stretch."""
    asked = CharacterPack.open(packs / "anna.tango").cues.by_name[name]
    shown = [frame.source.node for frame in frames[first : first + 4 * asked.n_nodes]]
    return shown == [node for node in asked.nodes for _ in range(4)]


def test_a_fast_session_plays_them_on_their_frames(packs: Path) -> None:
    async def talk(live: Live) -> None:
        rate_hz = 24_000
        settings = config(**FAST)
        settings.config.audio.sample_rate_hertz = rate_hz
        # frame 60 is shown at 2 s
        asked = [cue(utterance_id="u", at_sample=2 * rate_hz, within=Duration()), cue("bow", soon=True)]
        heard = await converse(live, [settings, *asked, audio(speech(5.0, rate_hz), "u"), end()])
        assert heard.code == grpc.StatusCode.OK
        (played,) = heard.all("cue_played")
        assert (played.name, played.frame_index, played.late_frames) == ("wave", 60, 0)
        assert is_whole(packs, heard.frames, 60, "wave")
        assert [(one.name, one.reason) for one in heard.all("cue_refused")] == [
            ("bow", "the character has no cue of this name")
        ]
        order = [kind for kind, _ in heard.messages]
        assert order[order.index("cue_played") + 1] == "frame"
        assert heard.frames[60].utterance_frame == 60

    run(packs, talk)


def test_a_paced_session_plays_one_while_nobody_speaks(packs: Path) -> None:
    async def talk(live: Live) -> None:
        call = live.stub.StreamGestures()
        await call.write(config())
        frames, played = [], None
        await call.write(cue("nod", soon=True, within=Duration(seconds=8)))
        while played is None or len(frames) < played.frame_index + 16:
            message = await call.read()
            kind = message.WhichOneof("message")
            frames += [message.frame] if kind == "frame" else []
            played = message.cue_played if kind == "cue_played" else played
            assert len(frames) < 400
        call.cancel()
        assert played.late_frames <= 8 * 30 and played.frame_index % 4 == 0
        assert is_whole(packs, frames, played.frame_index, "nod")

    run(packs, talk)


def test_an_interrupt_refuses_what_is_pending(packs: Path) -> None:
    async def talk(live: Live) -> None:
        call = live.stub.StreamGestures()
        await call.write(config())
        await call.write(audio(speech(3.0), "u"))
        await call.write(cue(utterance_id="u", at_sample=16_000 * 9))
        await call.write(cue("nod", utterance_id="later", at_sample=0))
        told: list[Any] = []
        started = False
        while len(told) < 2:
            message = await call.read()
            kind = message.WhichOneof("message")
            if kind == "utterance_started" and not started:
                started = True
                await call.write(interrupt())
            told += [message.cue_refused] if kind == "cue_refused" else []
        call.cancel()
        assert {(one.name, one.reason) for one in told} == {(name, "an interrupt ended it") for name in ("wave", "nod")}

    run(packs, talk)


def test_the_end_answers_all_that_is_left(packs: Path) -> None:
    async def talk(live: Live) -> None:
        messages = [config(**FAST), audio(speech(1.0), "u"), cue(utterance_id="u", at_sample=80_000)]
        messages += [cue("nod", utterance_id="never", at_sample=5), cue(soon=True, within=Duration(seconds=10))]
        heard = await converse(live, messages)
        reasons = {one.name: one.reason for one in heard.all("cue_refused")}
        assert reasons["nod"] == "the session ended"
        n_waves = len(heard.all("cue_played")) + sum(one.name == "wave" for one in heard.all("cue_refused"))
        assert n_waves >= 2
        assert heard.code == grpc.StatusCode.OK

    run(packs, talk)


def test_refused_at_once(packs: Path) -> None:
    async def talk(live: Live) -> None:
        first = [config(**FAST), cue(at_sample=10), audio(speech(0.5), "u"), end()]
        heard = await converse(live, first)
        assert [one.reason for one in heard.all("cue_refused")] == ["no utterance is open: name the one that will come"]
        many = [cue(utterance_id="never", at_sample=1)] * 40
        heard = await converse(live, [config(**FAST), *many, audio(speech(0.5), "u"), end()])
        reasons = [one.reason for one in heard.all("cue_refused")]
        assert len(reasons) == 40 and set(reasons) == {"32 cues are pending already", "the session ended"}
        heard = await converse(
            live, [config(whole_utterance=True, **FAST), cue(soon=True), audio(speech(0.5), "u"), end()]
        )
        assert "look-ahead" in heard.all("cue_refused")[0].reason

    run(packs, talk)


def test_an_utterance_that_is_over_takes_no_cue(packs: Path) -> None:
    async def talk(live: Live) -> None:
        call = live.stub.StreamGestures()
        await call.write(config(**FAST))
        await call.write(audio(speech(0.5), "u"))
        await call.write(end("u"))
        while (message := await call.read()).WhichOneof("message") != "utterance_finished":
            pass
        await call.write(cue(utterance_id="u", at_sample=3))
        message = await call.read()
        assert message.cue_refused.reason == "its utterance is over"
        call.cancel()

    run(packs, talk)


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": "", "soon": True}, "cue.name"),
    "a long name": ({"name": "w" * 65, "soon": True}, "cue.name"),
    "a name for a terminal": ({"name": "\x1b]0;x\x07", "soon": True}, "cue.name"),
    "no time": ({}, "cue.when"),
    "never soon": ({"soon": False}, "cue.when"),
    "a sample below 0": ({"at_sample": -1}, "cue.at_sample"),
    "a sample in a year": ({"at_sample": 2**62}, "cue.at_sample"),
    "within less than nothing": ({"soon": True, "within": Duration(seconds=-1)}, "cue.within"),
    "within a year": ({"soon": True, "within": Duration(seconds=2**40)}, "cue.within"),
    "within no duration": ({"soon": True, "within": Duration(seconds=1, nanos=-5)}, "cue.within"),
    "an id for a terminal": ({"at_sample": 3, "utterance_id": "\x1b"}, "cue.utterance_id"),
    "soon in an utterance": ({"soon": True, "utterance_id": "u"}, "cue.utterance_id"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_cue_can_be_ends_the_session(packs: Path, name: str) -> None:
    async def talk(live: Live) -> None:
        fields, field = HOSTILE[name]
        heard = await converse(live, [config(**FAST), cue(**fields)])
        assert heard.code == grpc.StatusCode.INVALID_ARGUMENT and heard.bad is not None
        assert heard.bad.field_violations[0].field == field

    run(packs, talk)


def test_listings_name_them(packs: Path) -> None:
    async def talk(live: Live) -> None:
        found = await live.stub.GetCharacter(service_pb2.GetCharacterRequest(id="anna"))
        assert list(found.cues) == ["nod", "wave"]
        page = await live.stub.ListCharacters(service_pb2.ListCharactersRequest())
        assert [list(one.cues) for one in page.characters] == [["nod", "wave"]]

    run(packs, talk)
