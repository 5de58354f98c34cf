"""A live server on a real socket and a client that says exactly what a test wants, in one event loop."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tango_rt.pipeline.store import CharacterStore
from tango_rt.server.config import ServerConfig
from tango_rt.server.metrics import Metrics
from tango_rt.server.service import SERVICE, GestureService
from tango_rt.v1 import media_pb2, service_pb2_grpc, session_pb2

Request = session_pb2.StreamGesturesRequest
FAST: dict[str, Any] = {"pacing": session_pb2.PACING_FAST}


@dataclass
class Live:
    service: GestureService
    metrics: Metrics
    channel: grpc.aio.Channel
    executor: ThreadPoolExecutor
    target: str

    @property
    def stub(self) -> Any:
        return service_pb2_grpc.GestureServiceStub(self.channel)

    def raw(self, method: str, streaming: bool = True) -> Any:
        """Bytes in, bytes out."""
        make = self.channel.stream_stream if streaming else self.channel.unary_unary
        return make(f"/{SERVICE}/{method}")

    async def empty(self) -> None:
        """Until every slot is free."""
        async with asyncio.timeout(5):
            await self.service.drained()


@asynccontextmanager
async def live_server(folder: Path, pool: Any = None, **options: Any) -> AsyncIterator[Live]:
    executor = ThreadPoolExecutor(2)
    metrics = Metrics()
    service = GestureService(
        ServerConfig(characters=folder, **options), CharacterStore(folder), pool, executor, metrics
    )
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    service.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        target = f"127.0.0.1:{port}"
        async with grpc.aio.insecure_channel(target) as channel:
            yield Live(service, metrics, channel, executor, target)
    finally:
        await server.stop(0)
        service.close()
        executor.shutdown()


def config(**fields: Any) -> Request:
    return Request(config=session_pb2.SessionConfig(**{"character": "anna", "blender": media_pb2.BLENDER_CUT} | fields))


def audio(data: bytes, utterance: str = "", first: int | None = None) -> Request:
    return Request(audio=session_pb2.AudioChunk(data=data, utterance_id=utterance, first_sample_index=first))


def interrupt(mode: str = "MODE_TRANSITION_TO_IDLE", utterance: str = "") -> Request:
    return Request(interrupt=session_pb2.Interrupt(mode=mode, utterance_id=utterance))


def end(utterance: str = "") -> Request:
    return Request(end_of_utterance=session_pb2.EndOfUtterance(utterance_id=utterance))


def speech(seconds: float, rate_hz: int = 16_000, seed: int = 0) -> bytes:
    """Noise that comes and goes, 16 bits; no sample is 0, so that silence can be told apart."""
    n = round(seconds * rate_hz)
    loud = 0.3 + 0.3 * np.sin(np.arange(n) / rate_hz * 9)
    noise = np.random.default_rng(seed).normal(0, 0.2, n) * loud
    samples = (np.clip(noise, -1, 1) * 32000).astype("<i2")
    samples[samples == 0] = 1
    return samples.tobytes()


@dataclass
class Heard:
    """All that a session answered, in order."""

    messages: list[tuple[str, Any]] = field(default_factory=list)
    code: grpc.StatusCode | None = None
    text: str = ""
    info: error_details_pb2.ErrorInfo | None = None
    bad: error_details_pb2.BadRequest | None = None
    retry: error_details_pb2.RetryInfo | None = None

    def all(self, kind: str) -> list[Any]:
        return [message for name, message in self.messages if name == kind]

    @property
    def accepted(self) -> session_pb2.Accepted:
        return self.all("accepted")[0]

    @property
    def frames(self) -> list[media_pb2.VideoFrame]:
        return self.all("frame")

    @property
    def finished(self) -> list[session_pb2.UtteranceFinished]:
        return self.all("utterance_finished") or self.all("finished")

    @property
    def nodes(self) -> list[int]:
        return [frame.source.node for frame in self.frames if frame.source.frame % 4 == 0]

    @property
    def sound(self) -> bytes:
        return b"".join(frame.audio.data for frame in self.frames)

    def take(self, response: Any) -> Any:
        kind = response.WhichOneof("message")
        self.messages.append((kind, getattr(response, kind)))
        return self.messages[-1]

    async def close(self, call: Any) -> None:
        """The status, with its details."""
        self.code, self.text = await call.code(), await call.details() or ""
        status = rpc_status.from_call(_Ended(self.code, self.text, await call.trailing_metadata()))
        for detail in [] if status is None else status.details:
            for name, message in (
                ("info", error_details_pb2.ErrorInfo()),
                ("bad", error_details_pb2.BadRequest()),
                ("retry", error_details_pb2.RetryInfo()),
            ):
                if detail.Is(message.DESCRIPTOR):
                    detail.Unpack(message)
                    setattr(self, name, message)


@dataclass
class _Ended:
    """As rpc_status wants a call that is over."""

    _code: Any
    _details: str
    _trailing: Any

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return [(key, value) for key, value in self._trailing]


def run(packs: Path, talk: Any, **options: Any) -> Any:
    """What `talk` returns, on a server that is left without a session."""

    async def whole() -> Any:
        async with live_server(packs, **options) as live:
            answer = await talk(live)
            await live.empty()
            assert live.service.active_sessions == 0
            return answer

    return asyncio.run(whole())


async def converse(live: Live, requests: list[Request | float], half_close: bool = True) -> Heard:
    """Say all of it (numbers are pauses in seconds) and hear everything until the session ends."""
    call = live.stub.StreamGestures()
    heard = Heard()
    saying = asyncio.create_task(_say(call, requests, half_close))
    async with asyncio.timeout(90):  # the first session of all may compile kernels
        await listen(call, heard)
    saying.cancel()
    await asyncio.gather(saying, return_exceptions=True)
    return heard


async def listen(call: Any, heard: Heard) -> None:
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            heard.take(response)
    except grpc.aio.AioRpcError:
        pass
    await heard.close(call)


async def _say(call: Any, requests: list[Request | float], half_close: bool) -> None:
    for request in requests:
        if isinstance(request, float):
            await asyncio.sleep(request)
        else:
            await call.write(request)
    if half_close:
        await call.done_writing()
