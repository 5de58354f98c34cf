"""The service: who may come, what becomes of failures, and which thread does what.

A slot is taken before anything else is done and given back as soon as the work is over, before the client is told why.
Real-time sessions have the given executor for themselves; clips and unpaced sessions, whose steps wait for transitions,
have threads of their own, and characters are opened beside both.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc

from engine.networks import Networks
from tango_rt.characters.store import CharacterStore
from tango_rt.pipeline.ahead import TransitionPool
from tango_rt.server.checks import checked_plan
from tango_rt.server.clip import check_length, render_clip
from tango_rt.server.config import ServerConfig
from tango_rt.server.listing import get_character, list_characters, server_info
from tango_rt.server.messages import Response
from tango_rt.server.metrics import Metrics
from tango_rt.server.opening import Opener
from tango_rt.server.requests import check_readable, opening, reader
from tango_rt.server.status import RETRY_S, Refusal, abort, refusal_of
from tango_rt.server.stream import LiveStream
from tango_rt.v1 import service_pb2, session_pb2

__all__ = ["SERVICE", "GestureService"]

_log = logging.getLogger(__name__)

SERVICE = service_pb2.DESCRIPTOR.services_by_name["GestureService"].full_name

T = TypeVar("T")


class GestureService:
    """Made and called in the event loop of the server. pool: None, transitions are made here and now."""

    def __init__(
        self,
        config: ServerConfig,
        store: CharacterStore,
        pool: TransitionPool | None,
        executor: ThreadPoolExecutor,
        metrics: Metrics,
        networks: Networks | None = None,
    ) -> None:
        self._config = config
        self._networks = networks
        self._store = store
        self._executor = executor
        self._metrics = metrics
        self._opener = Opener(config, store, pool, metrics, networks)
        self._unpaced = ThreadPoolExecutor(config.threads, thread_name_prefix="tango-unpaced")
        self._opening = ThreadPoolExecutor(config.threads, thread_name_prefix="tango-opening")
        self._streams: set[LiveStream] = set()
        self._n_active = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def active_sessions(self) -> int:
        """Sessions and clips under way."""
        return self._n_active

    def begin_drain(self) -> None:
        """Take no more sessions; those there are end as soon as what they were told so far is performed."""
        self._draining = True
        for stream in self._streams:
            stream.drain()

    async def drained(self) -> None:
        """Until there is no session."""
        await self._empty.wait()

    def cut_off(self) -> None:
        """End all sessions, with a reason."""
        for stream in self._streams:
            stream.cut_off()

    def close(self) -> None:
        """Drop what waits for a thread."""
        for executor in (self._unpaced, self._opening):
            executor.shutdown(wait=False, cancel_futures=True)

    def register(self, server: "grpc.aio.Server") -> None:
        """Not as generated code would: there, a message that cannot be read ends a call without a reason."""
        messages, sessions = service_pb2, session_pb2
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        handlers = {
            "StreamGestures": grpc.stream_stream_rpc_method_handler(
                self.StreamGestures,
                reader(sessions.StreamGesturesRequest),
                sessions.StreamGesturesResponse.SerializeToString,
            ),
            "RenderClip": stream(
                self.RenderClip, reader(messages.RenderClipRequest), messages.RenderClipResponse.SerializeToString
            ),
            "ListCharacters": unary(
                self.ListCharacters,
                reader(messages.ListCharactersRequest),
                messages.ListCharactersResponse.SerializeToString,
            ),
            "GetCharacter": unary(
                self.GetCharacter, reader(messages.GetCharacterRequest), messages.Character.SerializeToString
            ),
            "GetServerInfo": unary(
                self.GetServerInfo, reader(messages.GetServerInfoRequest), messages.ServerInfo.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def StreamGestures(self, _: Any, context: Any) -> None:
        await self._answered(context, self._stream(context))

    async def RenderClip(self, request: Any, context: Any) -> None:
        await self._answered(context, self._clip(request, context))

    async def ListCharacters(self, request: Any, context: Any) -> Any:
        return await self._answered(context, self._in_thread(request, list_characters, self._store, request))

    async def GetCharacter(self, request: Any, context: Any) -> Any:
        return await self._answered(context, self._in_thread(request, get_character, self._store, request))

    async def GetServerInfo(self, request: Any, context: Any) -> Any:
        answer = self._in_thread(request, server_info, self._config, self._n_active, self._networks)
        return await self._answered(context, answer)

    async def _stream(self, context: Any) -> None:
        session_id = uuid.uuid4().hex
        loop = asyncio.get_running_loop()
        with self._slot(session_id, context.peer()) as about:
            config = await opening(context, self._config.config_timeout_s)
            configured_s = loop.time()
            plan = checked_plan(config, self._config)
            about.update(character=plan.character, request_id=plan.request_id)
            open_ = self._opener.open
            opened = await loop.run_in_executor(self._opening, open_, plan, session_id, self._config.max_chunk_s)
            executor = self._executor if plan.realtime else self._unpaced
            stream = LiveStream(opened, context, executor, self._config, self._metrics, configured_s)
            await context.write(Response(accepted=opened.accepted))
            self._streams.add(stream)
            try:
                if self._draining:
                    stream.drain()
                await stream.run()
            finally:
                self._streams.discard(stream)
                about["frames"] = opened.session.n_frames

    async def _clip(self, request: Any, context: Any) -> None:
        session_id = uuid.uuid4().hex
        with self._slot(session_id, context.peer()) as about:
            check_readable(request)
            plan = checked_plan(request.config, self._config, clip=True)
            about.update(character=plan.character, request_id=plan.request_id)
            check_length(plan, request.audio, self._config)
            opened = await asyncio.get_running_loop().run_in_executor(
                self._opening, self._opener.open, plan, session_id, self._config.max_session_s
            )
            await render_clip(opened, request.audio, context, self._unpaced, self._config)

    async def _in_thread(self, request: Any, function: Callable[..., T], *arguments: Any) -> T:
        check_readable(request)
        return await asyncio.get_running_loop().run_in_executor(self._opening, function, *arguments)

    @contextmanager
    def _slot(self, session_id: str, peer: str) -> Iterator[dict[str, Any]]:
        """Room for one session, and a record of it. Raises Refusal where there is none."""
        self._admit()
        self._n_active += 1
        self._empty.clear()
        self._metrics.session_opened()
        start_s = time.monotonic()
        about: dict[str, Any] = {"session_id": session_id, "peer": peer}
        reason = "OK"
        try:
            yield about
        except asyncio.CancelledError:
            reason = "CANCELLED"
            raise
        except BaseException as error:
            reason = refusal_of(error).reason
            raise
        finally:
            self._n_active -= 1
            if not self._n_active:
                self._empty.set()
            duration_s = time.monotonic() - start_s
            self._metrics.session_closed(reason, duration_s)
            _log.info("session ended", extra={**about, "reason": reason, "duration_s": duration_s})

    def _admit(self) -> None:
        most = self._config.max_sessions
        if self._draining:
            message = "the server is going down: connect anew"
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING", message, retry_s=RETRY_S)
        if self._n_active >= most:
            message = f"all {most} sessions of this server are taken: try again later"
            metadata = {"max_sessions": str(most)}
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            raise Refusal(code, "TOO_MANY_SESSIONS", message, retry_s=RETRY_S, metadata=metadata)

    async def _answered(self, context: Any, answer: Awaitable[T]) -> T | None:
        """Every failure becomes a status with a reason; the log keeps what the client is not told."""
        try:
            return await answer
        except Exception as error:
            if context.cancelled() or context.done():  # nobody is there to be told
                return None
            refusal = refusal_of(error)
            hidden = error if refusal is not error else error.__cause__
            if refusal.reason == "INTERNAL":
                _log.error("call failed", exc_info=error)
            elif hidden is not None and not isinstance(hidden, TimeoutError):
                _log.warning("call refused", extra={"reason": refusal.reason, "cause": str(hidden)})
            self._metrics.refused(refusal.reason)
            await abort(context, refusal)
            return None
