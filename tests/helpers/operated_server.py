"""A server in the process of a test, from the first moment on, and what calls to it say."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from engine.timebase import SAMPLE_RATE
from tango_rt.server.config import ServerConfig
from tango_rt.server.gate import DEFAULT_LIMITS, GateLimits
from tango_rt.server.listening import GestureServer
from tango_rt.v1 import media_pb2, service_pb2_grpc, session_pb2

PATIENCE_S = 30
NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING


@contextlib.asynccontextmanager
async def listening(
    characters: Path, limits: GateLimits = DEFAULT_LIMITS, look_s: float = 2.0, **options: Any
) -> AsyncIterator[GestureServer]:
    """A server in this process that is not warm yet."""
    options.setdefault("listen", ("127.0.0.1:0",))
    async with GestureServer(ServerConfig(characters, **options), limits, look_s) as server:
        yield server


def within(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), PATIENCE_S))


def health_of(channel: Any, service: str = "", token: str | None = None) -> Any:
    metadata = None if token is None else (("authorization", f"Bearer {token}"),)
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), metadata=metadata, timeout=PATIENCE_S)


async def refusal(answer: Any, call: Any = None) -> tuple[grpc.StatusCode, str]:
    """Code and reason of a call that must fail. answer: what to wait for, if not the call itself."""
    call = answer if call is None else call
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await answer
    details = [detail for detail in (await rpc_status.aio.from_call(call)).details]
    info = error_details_pb2.ErrorInfo()
    assert details[0].Unpack(info) and info.domain == "tango-rt"
    return failed.value.code(), info.reason


def speaking(seconds: float) -> Iterator[session_pb2.StreamGesturesRequest]:
    """A live session that says one utterance and stays open."""
    Request = session_pb2.StreamGesturesRequest
    yield Request(config=session_pb2.SessionConfig(character="anna", blender=media_pb2.BLENDER_CUT))
    samples = np.random.default_rng(0).normal(0, 3000, SAMPLE_RATE).astype("<i2").tobytes()
    for _ in range(round(seconds)):
        yield Request(audio=session_pb2.AudioChunk(data=samples, utterance_id="hello"))
    yield Request(end_of_utterance=session_pb2.EndOfUtterance())


async def begun(channel: Any, seconds: float) -> Any:
    """A session whose utterance is under way."""
    call = service_pb2_grpc.GestureServiceStub(channel).StreamGestures()
    for request in speaking(seconds):
        await call.write(request)
    while (answer := await call.read()).WhichOneof("message") != "utterance_started":
        assert answer is not grpc.aio.EOF
    return call
