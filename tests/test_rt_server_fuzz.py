"""Bytes of any kind as first and later messages: the answer is a status with a reason, or the message is taken; the
server lives on and the slot is free."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tango_rt.server.status import DOMAIN
from tango_rt.v1 import service_pb2, session_pb2
from tests.helpers.cues import with_cues
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
    live_server,
    speech,
)

REASONS = {
    "BAD_ENCODING",
    "BAD_FIELD",
    "BAD_MESSAGE",
    "BAD_SAMPLES",
    "BAD_SAMPLE_RATE",
    "BAD_STATE",
    "CHUNK_TOO_LONG",
    "CLIP_TOO_LONG",
    "CONFIG_MISSING",
    "CONFIG_REPEATED",
    "EMPTY_MESSAGE",
    "RETRIEVAL_UNAVAILABLE",
    "SAMPLE_GAP",
    "UNKNOWN_CHARACTER",
    "UNKNOWN_UTTERANCE",
    "UTTERANCE_ENDED",
}

CONFIG = config(**FAST).SerializeToString()
SEEDS = [
    CONFIG,
    config(
        lookahead_nodes=3, audio_echo=True, seed=-1, request_id="r", stats_period={"seconds": 1}
    ).SerializeToString(),
    audio(bytes(200), "u", 0).SerializeToString(),
    end("u").SerializeToString(),
    interrupt("MODE_CUT").SerializeToString(),
    Request(set_state=session_pb2.SetState(state="STATE_LISTENING")).SerializeToString(),
    Request(ping=session_pb2.Ping(number=-(2**63))).SerializeToString(),
    Request(cue=session_pb2.Cue(name="wave", soon=True, within={"seconds": 3})).SerializeToString(),
    Request(cue=session_pb2.Cue(name="nod", utterance_id="u", at_sample=50)).SerializeToString(),
]


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A message with some bytes changed, put in, taken out, or with another message behind it."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["set", "insert", "delete", "join"]))
        if how == "set" and place < len(data):
            data[place] = draw(st.integers(0, 255))
        elif how == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=4))
        elif how == "delete":
            del data[place : place + draw(st.integers(1, 8))]
        elif how == "join":
            data += draw(st.sampled_from(seeds))
    return bytes(data)


messages = st.one_of(st.binary(max_size=60), mutated(SEEDS), st.sampled_from(SEEDS))


class Loop:
    """A server that goes on from one example to the next."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._server = live_server(folder, config_timeout_s=2.0)
        self.live: Live = self._runner.run(self._server.__aenter__())

    def run(self, talk: Callable[[Live], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            answer = await talk(self.live)
            await self.live.empty()
            return answer

        return self._runner.run(whole())

    def close(self) -> None:
        self._runner.run(self._server.__aexit__(None, None, None))
        self._runner.close()


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder = tmp_path_factory.mktemp("packs")
    with_cues(make_pack(folder / "anna.tango"), wave=(5, 6))
    made = Loop(folder)
    yield made
    made.close()


async def pour(live: Live, first: list[bytes]) -> Heard:
    """Send bytes as they are, half-close, and hear how it ends; a session that idles on is cancelled."""
    call, heard = live.raw("StreamGestures")(), Heard()
    try:
        async with asyncio.timeout(10):
            for data in first:
                await call.write(data)
            await call.done_writing()
            while (answer := await call.read()) is not grpc.aio.EOF:
                heard.take(session_pb2.StreamGesturesResponse.FromString(answer))
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    await heard.close(call)
    return heard


def check(heard: Heard) -> None:
    assert heard.code is not grpc.StatusCode.UNKNOWN and heard.code is not grpc.StatusCode.INTERNAL, heard.text
    if heard.code is not grpc.StatusCode.OK:
        assert heard.info is not None and heard.info.domain == DOMAIN and heard.info.reason in REASONS, heard
        assert "Traceback" not in heard.text and "\n" not in heard.text


fuzzing = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzing
@given(first=messages)
def test_anything_first(loop: Loop, first: bytes) -> None:
    check(loop.run(lambda live: pour(live, [first])))


@fuzzing
@given(later=st.lists(messages, min_size=1, max_size=4))
def test_anything_later(loop: Loop, later: list[bytes]) -> None:
    check(loop.run(lambda live: pour(live, [CONFIG, *later])))


@settings(fuzzing, max_examples=40)
@given(
    method=st.sampled_from(["RenderClip", "ListCharacters", "GetCharacter", "GetServerInfo"]),
    data=st.one_of(
        st.binary(max_size=60),
        mutated([service_pb2.RenderClipRequest(config=config().config, audio=bytes(200)).SerializeToString()]),
    ),
)
def test_anything_to_the_other_methods(loop: Loop, method: str, data: bytes) -> None:
    async def talk(live: Live) -> Heard:
        call, heard = live.raw(method)(), Heard()
        await call.write(data)
        await call.done_writing()
        try:
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError:
            pass
        await heard.close(call)
        return heard

    check(loop.run(talk))


def test_the_server_still_works_after_all_that(loop: Loop) -> None:
    heard = loop.run(lambda live: converse(live, [config(**FAST), audio(speech(0.3))]))
    assert heard.code is grpc.StatusCode.OK and len(heard.frames) == 9
    assert 'reason="INTERNAL"' not in loop.live.metrics.text()
