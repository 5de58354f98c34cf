"""Every way in which a call may fail, over a real socket: the code, the reason, and nothing of the server's insides."""

import asyncio
import struct
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.errors import ArtifactError, BackendError, InputError
from tango_rt.pipeline.store import UnknownCharacter
from tango_rt.server.session import Session
from tango_rt.server.status import DOMAIN, MAX_MESSAGE_CHARACTERS, Refusal, refusal_for
from tango_rt.v1 import media_pb2, service_pb2, session_pb2
from tests.helpers.fakes import make_pack
from tests.helpers.live_server import (
    FAST,
    Heard,
    Live,
    Request,
    audio,
    config,
    converse,
    end,
    interrupt,
    listen,
    live_server,
)

C = grpc.StatusCode
FLOAT = media_pb2.AudioFormat(encoding="AUDIO_ENCODING_FLOAT32")
SILENCE = bytes(3200)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    make_pack(folder / "anna.tango")
    (folder / "broken.tango").mkdir()
    (folder / "broken.tango" / "pack.json").write_text('{"schema": 2}')
    return folder


def run(packs: Path, talk: Callable[[Live], Any], **options: Any) -> Any:
    async def whole() -> Any:
        async with live_server(packs, **options) as live:
            heard = await talk(live)
            await live.empty()
            return heard

    return asyncio.run(whole())


def check(heard: Heard, code: grpc.StatusCode, reason: str, packs: Path) -> None:
    assert (heard.code, heard.info and heard.info.reason) == (code, reason), heard.text
    assert heard.info is not None and heard.info.domain == DOMAIN
    assert heard.text and "\n" not in heard.text and len(heard.text) <= MAX_MESSAGE_CHARACTERS
    for inside in ("Traceback", "Error(", "File ", str(packs), ".py"):
        assert inside not in heard.text + str(heard.info)


def period(seconds: int, nanos: int = 0) -> Request:
    request = config()
    request.config.stats_period.seconds, request.config.stats_period.nanos = seconds, nanos
    return request


def unknown_pacing(number: int) -> Request:
    return Request.FromString(config().SerializeToString() + Request(config={"pacing": number}).SerializeToString())


# what is said, the code, the reason, the field that BadRequest names
ROWS: list[tuple[str, list[Any], grpc.StatusCode, str, str]] = [
    ("audio first", [audio(SILENCE)], C.FAILED_PRECONDITION, "CONFIG_MISSING", ""),
    ("end first", [end()], C.FAILED_PRECONDITION, "CONFIG_MISSING", ""),
    ("interrupt first", [interrupt()], C.FAILED_PRECONDITION, "CONFIG_MISSING", ""),
    ("nothing at all", [], C.FAILED_PRECONDITION, "CONFIG_MISSING", ""),
    ("a second config", [config(), config()], C.FAILED_PRECONDITION, "CONFIG_REPEATED", ""),
    ("an empty message first", [Request()], C.INVALID_ARGUMENT, "EMPTY_MESSAGE", ""),
    ("an empty message", [config(), Request()], C.INVALID_ARGUMENT, "EMPTY_MESSAGE", ""),
    ("no character", [config(character="")], C.INVALID_ARGUMENT, "BAD_FIELD", "character"),
    ("unknown character", [config(character="otto")], C.NOT_FOUND, "UNKNOWN_CHARACTER", ""),
    ("a character elsewhere", [config(character="../anna")], C.NOT_FOUND, "UNKNOWN_CHARACTER", ""),
    ("a very long character", [config(character="x" * 100_000)], C.NOT_FOUND, "UNKNOWN_CHARACTER", ""),
    ("a broken pack", [config(character="broken")], C.FAILED_PRECONDITION, "CHARACTER_UNUSABLE", ""),
    (
        "too low a rate",
        [config(audio=media_pb2.AudioFormat(sample_rate_hertz=4000))],
        C.INVALID_ARGUMENT,
        "BAD_SAMPLE_RATE",
        "audio.sample_rate_hertz",
    ),
    (
        "a negative rate",
        [config(audio=media_pb2.AudioFormat(sample_rate_hertz=-1))],
        C.INVALID_ARGUMENT,
        "BAD_SAMPLE_RATE",
        "audio.sample_rate_hertz",
    ),
    (
        "an unknown encoding of sound",
        [config(audio=media_pb2.AudioFormat(encoding=77))],
        C.INVALID_ARGUMENT,
        "BAD_ENCODING",
        "audio.encoding",
    ),
    (
        "an unknown encoding of pictures",
        [config(video_encoding=77)],
        C.INVALID_ARGUMENT,
        "BAD_ENCODING",
        "video_encoding",
    ),
    ("too far a look", [config(lookahead_nodes=9)], C.INVALID_ARGUMENT, "BAD_FIELD", "lookahead_nodes"),
    ("a negative look", [config(lookahead_nodes=-1)], C.INVALID_ARGUMENT, "BAD_FIELD", "lookahead_nodes"),
    (
        "two kinds of look",
        [config(lookahead_nodes=1, whole_utterance=True)],
        C.INVALID_ARGUMENT,
        "BAD_FIELD",
        "lookahead_nodes",
    ),
    ("an unknown kind of look", [config(lookahead=9)], C.INVALID_ARGUMENT, "BAD_FIELD", "lookahead"),
    ("adaptive without a clock", [config(lookahead=2, **FAST)], C.INVALID_ARGUMENT, "BAD_FIELD", "lookahead"),
    ("adaptive and whole", [config(lookahead=2, whole_utterance=True)], C.INVALID_ARGUMENT, "BAD_FIELD", "lookahead"),
    ("a long request id", [config(request_id="r" * 65)], C.INVALID_ARGUMENT, "BAD_FIELD", "request_id"),
    ("a request id of two lines", [config(request_id="a\nb")], C.INVALID_ARGUMENT, "BAD_FIELD", "request_id"),
    ("an unknown pacing", [config(pacing=9)], C.INVALID_ARGUMENT, "BAD_FIELD", "pacing"),
    ("idling without a clock", [config(idle=True, **FAST)], C.INVALID_ARGUMENT, "BAD_FIELD", "idle"),
    ("an unknown blender", [config(blender=9)], C.INVALID_ARGUMENT, "BAD_FIELD", "blender"),
    ("an unknown late policy", [config(late_policy=9)], C.INVALID_ARGUMENT, "BAD_FIELD", "late_policy"),
    ("an unknown retrieval", [config(retrieval="best")], C.INVALID_ARGUMENT, "BAD_FIELD", "retrieval"),
    ("statistics too often", [period(0, 10**6)], C.INVALID_ARGUMENT, "BAD_FIELD", "stats_period"),
    ("no duration", [period(1, -5)], C.INVALID_ARGUMENT, "BAD_FIELD", "stats_period"),
    (
        "a retrieval without its networks",
        [config(retrieval="mini")],
        C.FAILED_PRECONDITION,
        "RETRIEVAL_UNAVAILABLE",
        "",
    ),
    ("a retrieval without a fit", [config(retrieval="fitted")], C.FAILED_PRECONDITION, "RETRIEVAL_UNAVAILABLE", ""),
    ("odd bytes", [config(), audio(b"123")], C.INVALID_ARGUMENT, "BAD_SAMPLES", "audio.data"),
    (
        "NaN",
        [config(audio=FLOAT), audio(struct.pack("<2f", 0.5, float("nan")))],
        C.INVALID_ARGUMENT,
        "BAD_SAMPLES",
        "audio.data",
    ),
    (
        "16-bit numbers as floats",
        [config(audio=FLOAT), audio(struct.pack("<2f", 0.5, -12000.0))],
        C.INVALID_ARGUMENT,
        "BAD_SAMPLES",
        "audio.data",
    ),
    (
        "infinite",
        [config(audio=FLOAT), audio(struct.pack("<2f", 0.5, float("-inf")))],
        C.INVALID_ARGUMENT,
        "BAD_SAMPLES",
        "audio.data",
    ),
    ("a long chunk", [config(), audio(bytes(320_002))], C.INVALID_ARGUMENT, "CHUNK_TOO_LONG", "audio.data"),
    ("a gap", [config(), audio(SILENCE, "u"), audio(SILENCE, "u", 1601)], C.OUT_OF_RANGE, "SAMPLE_GAP", ""),
    ("sent twice", [config(), audio(SILENCE, "u"), audio(SILENCE, "u", 0)], C.OUT_OF_RANGE, "SAMPLE_GAP", ""),
    ("a start amid", [config(), audio(SILENCE, "u", -3)], C.OUT_OF_RANGE, "SAMPLE_GAP", ""),
    (
        "a long utterance id",
        [config(), audio(SILENCE, "u" * 65)],
        C.INVALID_ARGUMENT,
        "BAD_FIELD",
        "audio.utterance_id",
    ),
    (
        "sound behind the end",
        [config(), audio(SILENCE, "u"), end(), audio(SILENCE, "u")],
        C.FAILED_PRECONDITION,
        "UTTERANCE_ENDED",
        "",
    ),
    ("an end twice", [config(), audio(SILENCE, "u"), end(), end("u")], C.FAILED_PRECONDITION, "UTTERANCE_ENDED", ""),
    (
        "sound behind an interrupt",
        [config(), audio(SILENCE, "u"), interrupt(), audio(SILENCE, "u")],
        C.FAILED_PRECONDITION,
        "UTTERANCE_ENDED",
        "",
    ),
    (
        "words of a character who has none",
        [config(), Request(words=session_pb2.Words(words=[session_pb2.Word(text="a")]))],
        C.FAILED_PRECONDITION,
        "WORDS_UNAVAILABLE",
        "",
    ),
    ("an end of nothing", [config(), end()], C.FAILED_PRECONDITION, "UNKNOWN_UTTERANCE", ""),
    ("an end of a stranger", [config(), end("who")], C.FAILED_PRECONDITION, "UNKNOWN_UTTERANCE", ""),
    (
        "an interrupt of a stranger",
        [config(), interrupt(utterance="who")],
        C.FAILED_PRECONDITION,
        "UNKNOWN_UTTERANCE",
        "",
    ),
    (
        "an unknown way to interrupt",
        [config(), Request(interrupt=session_pb2.Interrupt(mode=9))],
        C.INVALID_ARGUMENT,
        "BAD_FIELD",
        "interrupt.mode",
    ),
    (
        "no state",
        [config(), Request(set_state=session_pb2.SetState())],
        C.INVALID_ARGUMENT,
        "BAD_STATE",
        "set_state.state",
    ),
    (
        "an unknown state",
        [config(), Request(set_state=session_pb2.SetState(state=9))],
        C.INVALID_ARGUMENT,
        "BAD_STATE",
        "set_state.state",
    ),
]


def test_every_row_of_the_table(packs: Path) -> None:
    async def talk(live: Live) -> list[Heard]:
        return [await converse(live, row[1]) for row in ROWS]

    for (_, _, code, reason, field), heard in zip(ROWS, run(packs, talk), strict=True):
        check(heard, code, reason, packs)
        found = heard.bad.field_violations[0].field if heard.bad is not None else ""
        assert found == field


@pytest.mark.parametrize(
    ("reason", "requests", "options"),
    [
        ("CONFIG_TIMEOUT", [0.5], {"config_timeout_s": 0.1}),
        ("IDLE_TIMEOUT", [config(), 3.0], {"idle_timeout_s": 0.3}),
        ("IDLE_TIMEOUT", [config(), audio(SILENCE, "u"), 3.0], {"idle_timeout_s": 0.3}),  # for ever under way
        ("MAX_SESSION", [config(), *[Request(ping={}), 0.1] * 30], {"max_session_s": 0.5}),
    ],
)
def test_limits_of_time(packs: Path, reason: str, requests: list[Any], options: dict[str, float]) -> None:
    async def talk(live: Live) -> Heard:
        return await converse(live, requests, half_close=False)

    check(run(packs, talk, **options), C.DEADLINE_EXCEEDED, reason, packs)


def test_pings_and_speech_keep_a_session_open(packs: Path) -> None:
    async def talk(live: Live) -> list[Heard]:
        speaking = [config(), audio(bytes(32_000), "u"), end()]
        pinging = [config(), *[Request(ping={}), 0.1] * 10]
        return await asyncio.gather(converse(live, speaking, half_close=False), converse(live, pinging))

    speaking, pinging = run(packs, talk, idle_timeout_s=0.4)
    check(speaking, C.DEADLINE_EXCEEDED, "IDLE_TIMEOUT", packs)
    assert [event.interrupted for event in speaking.finished] == [False]  # a second of it, performed to the end
    assert pinging.code is C.OK


def test_who_comes_too_many_is_told_when_to_come_again(packs: Path) -> None:
    async def talk(live: Live) -> tuple[Heard, Heard, float]:
        first = live.stub.StreamGestures()
        await first.write(config())
        await first.read()
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        refused = await converse(live, [])
        took_s = loop.time() - start_s
        clip = Heard()
        await listen(live.stub.RenderClip(service_pb2.RenderClipRequest()), clip)
        first.cancel()
        return refused, clip, took_s

    refused, clip, took_s = run(packs, talk, max_sessions=1)
    for heard in (refused, clip):
        check(heard, C.RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS", packs)
        assert heard.retry is not None and heard.retry.retry_delay.ToNanoseconds() > 0
    assert took_s < 1.0


def clip_of(**fields: Any) -> service_pb2.RenderClipRequest:
    request = config(**fields)
    return service_pb2.RenderClipRequest(config=request.config, audio=bytes(64_000))


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (service_pb2.RenderClipRequest(), C.INVALID_ARGUMENT, "BAD_FIELD"),
        (clip_of(pacing="PACING_REALTIME"), C.INVALID_ARGUMENT, "BAD_FIELD"),
        (clip_of(idle=True), C.INVALID_ARGUMENT, "BAD_FIELD"),
        (clip_of(character="otto"), C.NOT_FOUND, "UNKNOWN_CHARACTER"),
        (service_pb2.RenderClipRequest(config=config().config), C.INVALID_ARGUMENT, "BAD_SAMPLES"),
        (service_pb2.RenderClipRequest(config=config().config, audio=b"123"), C.INVALID_ARGUMENT, "BAD_SAMPLES"),
        (clip_of(), C.RESOURCE_EXHAUSTED, "CLIP_TOO_LONG"),
    ],
)
def test_clips_that_cannot_be_rendered(packs: Path, request_: Any, code: grpc.StatusCode, reason: str) -> None:
    async def talk(live: Live) -> Heard:
        heard = Heard()
        await listen(live.stub.RenderClip(request_), heard)
        return heard

    check(run(packs, talk, max_session_s=1.0 if reason == "CLIP_TOO_LONG" else 10.0), code, reason, packs)


def test_an_utterance_heard_as_a_whole_has_a_limit(packs: Path) -> None:
    async def talk(live: Live) -> Heard:
        requests = [config(whole_utterance=True), *[audio(bytes(32_000), "u")] * 4]
        return await converse(live, requests, half_close=False)

    check(run(packs, talk, max_queued_audio_s=2.0), C.RESOURCE_EXHAUSTED, "CLIP_TOO_LONG", packs)


def test_lists_refuse_what_makes_no_sense(packs: Path) -> None:
    async def talk(live: Live) -> list[Heard]:
        calls = [
            live.stub.ListCharacters(service_pb2.ListCharactersRequest(page_size=-1)),
            live.stub.GetCharacter(service_pb2.GetCharacterRequest()),
            live.stub.GetCharacter(service_pb2.GetCharacterRequest(id="otto")),
            live.stub.GetCharacter(service_pb2.GetCharacterRequest(id="broken")),
        ]
        answers = [Heard() for _ in calls]
        for call, heard in zip(calls, answers, strict=True):
            await heard.close(call)
        return answers

    page, nameless, unknown, broken = run(packs, talk)
    check(page, C.INVALID_ARGUMENT, "BAD_FIELD", packs)
    check(nameless, C.INVALID_ARGUMENT, "BAD_FIELD", packs)
    check(unknown, C.NOT_FOUND, "UNKNOWN_CHARACTER", packs)
    check(broken, C.FAILED_PRECONDITION, "CHARACTER_UNUSABLE", packs)


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), MemoryError(), BackendError("secret path")])
def test_failures_of_the_server_tell_nothing(packs: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> bool:
        raise error

    async def talk(live: Live) -> list[Heard]:
        clip = Heard()
        await listen(live.stub.RenderClip(clip_of()), clip)
        return [clip, await converse(live, [config()], half_close=False), await converse(live, [config(**FAST)])]

    monkeypatch.setattr(Session, "prepare", fail)
    clip, paced, fast = run(packs, talk)
    for heard in (clip, paced):
        check(heard, C.INTERNAL, "INTERNAL", packs)
        assert "secret" not in heard.text
    assert fast.code in (C.INTERNAL, C.OK)  # nothing was asked for


def test_every_error_of_the_project_has_a_code() -> None:
    found = {type(error): refusal_for(error) for error in (InputError("a"), ArtifactError("b"), UnknownCharacter("c"))}
    assert [refusal.code for refusal in found.values()] == [C.INVALID_ARGUMENT, C.FAILED_PRECONDITION, C.NOT_FOUND]
    for other in (BackendError("d"), ValueError("e"), OSError("f"), KeyError("g"), Future(), None):
        if isinstance(other, Exception):
            assert refusal_for(other).code is C.INTERNAL and len(str(refusal_for(other))) > 10
    refusal = Refusal(C.ABORTED, "X", "two\nlines " + "x" * 1000)
    assert refusal_for(refusal) is refusal and len(str(refusal)) == MAX_MESSAGE_CHARACTERS and "\n" not in str(refusal)
