"""A whole clip: one utterance in one message, its frames as fast as the client reads."""

import asyncio
from concurrent.futures import Executor
from typing import Any

import grpc

from tango_rt.server.admission import UnpacedTurns
from tango_rt.server.checks import SessionPlan
from tango_rt.server.config import ServerConfig
from tango_rt.server.messages import Response
from tango_rt.server.opening import NewSession
from tango_rt.server.session import Session
from tango_rt.server.status import Refusal, bad_field, draining
from tango_rt.v1 import service_pb2, session_pb2

__all__ = ["ClipStream", "check_length"]


def check_length(plan: SessionPlan, audio: bytes, server: ServerConfig) -> None:
    """Raises Refusal for no sound, or for more than the longest session."""
    if not audio:
        raise bad_field("audio", "no sound: wanted one utterance", "BAD_SAMPLES")
    seconds = len(audio) / plan.sample_bytes / plan.rate_hz
    if seconds > server.max_session_s:
        message = f"{seconds:.1f} s of sound: at most {server.max_session_s:g} s are rendered at once"
        raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIP_TOO_LONG", message)


class ClipStream:
    """Renders one clip on one call."""

    def __init__(
        self, opened: NewSession, context: Any, executor: Executor, turns: UnpacedTurns, server: ServerConfig
    ) -> None:
        self._opened = opened
        self._context = context
        self._executor = executor
        self._turns = turns
        self._server = server
        self._limit = asyncio.timeout(None)
        self._cut_off = False

    def cut_off(self) -> None:
        """End now, whatever the call is waiting for."""
        self._reschedule(asyncio.get_running_loop().time())
        self._cut_off = True

    async def run(self, audio: bytes) -> None:
        """Raises Refusal, also if the client does not read. Do not call cut_off before it."""
        session = self._opened.session
        session.queue.accept(session_pb2.AudioChunk(data=audio), asyncio.get_running_loop().time())
        session.queue.end_open()
        session.queue.closed = True
        try:
            async with self._limit:
                await self._perform(session)
        except TimeoutError as error:
            if self._cut_off:
                raise draining() from error
            if not self._limit.expired():
                raise
            text = f"nothing was read for {self._server.idle_timeout_s:g} s"
            raise Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "SLOW_READER", text) from error

    async def _perform(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        accepted = self._opened.accepted
        await self._write(service_pb2.RenderClipResponse(accepted=accepted))
        while not session.over:
            if not await loop.run_in_executor(self._executor, session.prepare):
                continue
            while session.has_frame:
                await self._turns.turn(session.plan, accepted.width, accepted.height)
                for message in session.show(loop.time()):
                    await self._write(_answer(message))

    async def _write(self, answer: service_pb2.RenderClipResponse | None) -> None:
        if answer is None:
            return
        self._reschedule(asyncio.get_running_loop().time() + self._server.idle_timeout_s)
        await self._context.write(answer)
        self._reschedule(None)

    def _reschedule(self, end_s: float | None) -> None:
        if not self._cut_off and not self._limit.expired():  # otherwise it has already ended
            self._limit.reschedule(end_s)


def _answer(message: Response) -> service_pb2.RenderClipResponse | None:
    kind = message.WhichOneof("message")
    if kind == "frame":
        return service_pb2.RenderClipResponse(frame=message.frame)
    if kind == "utterance_finished":
        return service_pb2.RenderClipResponse(finished=message.utterance_finished)
    return None
