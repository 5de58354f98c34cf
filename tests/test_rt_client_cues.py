"""Cues by the clients: asked for, answered, and told by `tango-rt send`."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from engine.character.pack import CharacterPack
from tango_rt.client import AsyncClient, Client, InputError, ServerError, SessionOptions
from tango_rt.client.cues import cue_request
from tango_rt.client.outbox import Outbox, Request
from tango_rt.v1 import media_pb2, session_pb2
from tests.helpers.commands import refusal, run_json
from tests.helpers.cues import stretches, with_cues
from tests.helpers.fakes import make_pack
from tests.helpers.fakes_server import Response, accept, fake_server
from tests.helpers.real_server import real_server
from tests.helpers.speech import speech, write_speech

OPTIONS = SessionOptions("anna", pacing="fast", audio_encoding="float32")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> CharacterPack:
    made = make_pack(tmp_path_factory.mktemp("packs") / "anna.tango")
    starts = stretches(made, 6)
    return with_cues(made, wave=(starts[4], 6), nod=(starts[-2], 3))


@pytest.fixture(scope="module")
def server(pack: CharacterPack) -> Iterator[str]:
    with real_server(pack.path.parent) as target:
        yield target


def check(events: list[Any]) -> None:
    played = [event for event in events if isinstance(event, session_pb2.CuePlayed)]
    refused = [event for event in events if isinstance(event, session_pb2.CueRefused)]
    assert [(one.name, one.frame_index, one.late_frames) for one in played] == [("wave", 60, 0)]
    assert [one.name for one in refused] == ["bow"]
    assert events[events.index(played[0]) + 1].frame_index == 60


def test_the_plain_client(server: str) -> None:
    with Client(server) as client, client.stream(OPTIONS) as session:
        session.cue("wave", 32_000, "u", 0.0)
        session.cue("bow")
        session.send_audio(speech(4.0), "u")
        session.finish()
        check(list(session))
        assert list(client.character("anna").cues) == ["nod", "wave"]


def test_the_async_client(server: str) -> None:
    async def talk() -> list[Any]:
        async with AsyncClient(server) as client, client.stream(OPTIONS) as session:
            await session.cue("wave", 32_000, "u", 0.0)
            await session.cue("bow", within_s=2)
            await session.send_audio(speech(4.0), "u")
            await session.finish()
            return [event async for event in session]

    check(asyncio.run(talk()))


def test_what_cannot_be_asked() -> None:
    assert cue_request("wave", None, "", None).cue == session_pb2.Cue(name="wave", soon=True)
    asked = cue_request("wave", 0, "", 0.5).cue
    assert asked.HasField("at_sample") and asked.within.ToMilliseconds() == 500
    for fields in ((-1, "", None), (None, "u", None), (0, "", -1.0), (0, "", 11.0), (0, "", float("nan"))):
        with pytest.raises(InputError):
            cue_request("wave", *fields)
    with pytest.raises(InputError, match="UTF-8"):
        cue_request("\ud800", None, "", None)


def test_an_interrupt_discards_cues_of_the_sound_that_it_discards() -> None:
    outbox = Outbox(16_000, "s16")
    for request in (
        Request(audio=session_pb2.AudioChunk(data=b"12", utterance_id="u")),
        cue_request("wave", 5, "u", None),
        cue_request("nod", 5, "v", None),
        cue_request("bow", None, "", None),
    ):
        outbox.put(request)
    outbox.interrupt("rest", "u")
    left = []
    while not outbox.idle:
        left.append(outbox.take())
    assert [one.cue.name for one in left if one is not None and one.HasField("cue")] == ["nod", "bow"]


@pytest.mark.parametrize(
    "event",
    [
        session_pb2.CuePlayed(name="wave", frame_index=10**9),
        session_pb2.CuePlayed(name="wave", late_frames=-1),
        session_pb2.CuePlayed(name="wave", late_frames=10**6),
        session_pb2.CueRefused(name="w" * 100_000),
    ],
)
def test_answers_that_cannot_be_true(event: Any) -> None:
    field = "cue_played" if isinstance(event, session_pb2.CuePlayed) else "cue_refused"

    def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield accept(next(requests))
        yield Response(**{field: event})

    with fake_server(behaviour) as target, Client(target) as client:
        session = client.stream(SessionOptions("anna"))
        with session, pytest.raises(ServerError, match=r"a cue|an event of"):
            list(session)


def test_send_tells_what_became_of_each(
    server: str, pack: CharacterPack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cues = tmp_path / "cues.json"
    listed = [{"name": "wave", "at": 2.0, "within": 0}, {"name": "bow", "at": 3}, {"name": "nod", "at": 60}]
    cues.write_text(json.dumps(listed))
    sound = write_speech(tmp_path / "speech.wav", 5.0)
    for how in (["--fast"], ["--idle", 0.5]):
        out = tmp_path / "o.mp4"
        result = run_json(capsys, "send", server, "--character", "anna", sound, "-o", out, "--cues", cues, *how)
        assert [(one["name"], one["asked_s"]) for one in result["cues"]] == [("wave", 2), ("bow", 3), ("nod", 60)]
        assert [one["played_s"] for one in result["cues"]] == [2.0, None, None]
        assert len([text for text in result["warnings"] if "was not played: " in text]) == 2
    first = 60
    run = result["nodes"][(first + 4 * 4) // 4 :]  # half a second of rest comes before: 15 frames, a whole node more
    assert set(pack.cues.by_name["wave"].nodes) <= set(run)


def test_send_has_room_for_many(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cues = tmp_path / "cues.json"
    cues.write_text(json.dumps([{"name": "nod", "at": 0.1 * k, "within": 0.2} for k in range(80)]))
    sound = write_speech(tmp_path / "speech.wav", 7.0)
    out = tmp_path / "o.mp4"
    result = run_json(capsys, "send", server, "--character", "anna", sound, "-o", out, "--fast", "--cues", cues)
    assert len(result["cues"]) == 80
    began = [one["played_s"] for one in result["cues"] if one["played_s"] is not None]
    assert began and began == sorted(began)
    assert not any("pending already" in text for text in result["warnings"])
    assert len(result["warnings"]) == 80 - len(began)
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    line = refusal(capsys, "send", server, "--character", "anna", sound, "-o", out, "--cues", bad)
    assert "bad.json" in line


def test_frames_of_a_cue_are_those_of_its_stretch(server: str, pack: CharacterPack) -> None:
    with Client(server) as client, client.stream(OPTIONS) as session:
        session.cue("wave", 32_000, "u", 0.0)
        session.send_audio(np.asarray(speech(4.0)), "u")
        session.finish()
        frames = [event for event in session if isinstance(event, media_pb2.VideoFrame)]
    cue = pack.cues.by_name["wave"]
    assert [frame.source.node for frame in frames[60 : 60 + 4 * cue.n_nodes : 4]] == list(cue.nodes)
