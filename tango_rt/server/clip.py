"""A whole clip: one utterance in one message, its frames as fast as they are read."""

import asyncio
from concurrent.futures import Executor
from typing import Any

import grpc

from tango_rt.server.checks import SessionPlan
from tango_rt.server.config import ServerConfig
from tango_rt.server.messages import Response
from tango_rt.server.opening import Opened
from tango_rt.server.status import Refusal, bad_field
from tango_rt.v1 import service_pb2, session_pb2

__all__ = ["check_length", "render_clip"]


def check_length(plan: SessionPlan, audio: bytes, server: ServerConfig) -> None:
    """Raises Refusal for no sound, or for more than a session may last."""
    if not audio:
        raise bad_field("audio", "no sound: wanted one utterance", "BAD_SAMPLES")
    seconds = len(audio) / plan.sample_bytes / plan.rate_hz
    if seconds > server.max_session_s:
        message = f"{seconds:.1f} s of sound: at most {server.max_session_s:g} s are rendered at once"
        raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIP_TOO_LONG", message)


async def render_clip(opened: Opened, audio: bytes, context: Any, executor: Executor, server: ServerConfig) -> None:
    """Raises Refusal, also where the client does not read."""
    session = opened.session
    loop = asyncio.get_running_loop()
    session.queue.accept(session_pb2.AudioChunk(data=audio), loop.time())
    session.queue.end_open()
    session.queue.closed = True
    try:
        async with asyncio.timeout(None) as limit:
            await _write(context, service_pb2.RenderClipResponse(accepted=opened.accepted), limit, server)
            while not session.over:
                if not await loop.run_in_executor(executor, session.prepare):
                    continue
                while session.has_frame:
                    for message in session.show(loop.time()):
                        await _write(context, _answer(message), limit, server)
    except TimeoutError as error:
        if not limit.expired():
            raise
        text = f"nothing was read for {server.idle_timeout_s:g} s"
        raise Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "SLOW_READER", text) from error


async def _write(context: Any, answer: service_pb2.RenderClipResponse | None, limit: Any, server: ServerConfig) -> None:
    if answer is not None:
        limit.reschedule(asyncio.get_running_loop().time() + server.idle_timeout_s)
        await context.write(answer)
        limit.reschedule(None)


def _answer(message: Response) -> service_pb2.RenderClipResponse | None:
    kind = message.WhichOneof("message")
    if kind == "frame":
        return service_pb2.RenderClipResponse(frame=message.frame)
    if kind == "utterance_finished":
        return service_pb2.RenderClipResponse(finished=message.utterance_finished)
    return None
