"""The service: admission, handling of failures, and which thread does what.

A slot is taken when the configuration has arrived, and released as soon as the work is over, before the client is told
why.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import grpc

from engine.inference.networks import Networks
from tango_rt.pipeline.ahead import TransitionPool
from tango_rt.pipeline.captions import text_stages
from tango_rt.pipeline.store import CharacterStore
from tango_rt.server.admission import Admission, UnpacedTurns
from tango_rt.server.checks import plan_session
from tango_rt.server.clients import identify_client
from tango_rt.server.clip import ClipStream, check_length
from tango_rt.server.config import ServerConfig
from tango_rt.server.listing import get_character, list_characters, server_info
from tango_rt.server.messages import Response
from tango_rt.server.metrics import Metrics
from tango_rt.server.opening import Opener
from tango_rt.server.prices import Prices
from tango_rt.server.refusals import RefusalLog
from tango_rt.server.requests import check_readable, reader, receive_config
from tango_rt.server.rooms import SilentCalls
from tango_rt.server.status import abort, refusal_for
from tango_rt.server.stream import LiveStream
from tango_rt.server.threads import Threads
from tango_rt.v1 import service_pb2, session_pb2
from tango_rt.video.shared_pictures import SharedPictures

__all__ = ["SERVICE", "GestureService"]

_log = logging.getLogger(__name__)

SERVICE = service_pb2.DESCRIPTOR.services_by_name["GestureService"].full_name

_MAX_SILENT = 128

T = TypeVar("T")


class GestureService:
    """Created and called in the event loop of the server. pool: None: transitions are drawn on the spot."""

    def __init__(
        self,
        config: ServerConfig,
        store: CharacterStore,
        pool: TransitionPool | None,
        executor: ThreadPoolExecutor,
        metrics: Metrics,
        networks: Networks | None = None,
    ) -> None:
        self.silent = SilentCalls(_MAX_SILENT)
        self.refusals = RefusalLog()
        self._config = config
        self._networks = networks
        self._store = store
        self._metrics = metrics
        pictures = SharedPictures(config.picture_cache_mb << 20)
        self._opener = Opener(
            config, store, pool, metrics, networks, pictures, partial(text_stages, label=config.label)
        )
        self._threads = Threads(executor, config.threads)
        self._admission = Admission(config, Prices({}))
        self._turns = UnpacedTurns(self._admission)
        self._streams: set[LiveStream] = set()
        self._clips: set[ClipStream] = set()
        self._draining = False

    @property
    def active_sessions(self) -> int:
        """Number of sessions and clips in progress."""
        return self._admission.n_active

    def charge(self, prices: Prices) -> None:
        """Charge for pictures from now on; before, they are free."""
        self._admission.prices = prices

    def begin_drain(self) -> None:
        """Accept no more sessions; running ones end as soon as the speech received so far is performed."""
        self._draining = True
        self._admission.drain()
        for stream in self._streams:
            stream.drain()

    async def drained(self) -> None:
        """Wait until no session is left."""
        await self._admission.drained()

    def cut_off(self) -> None:
        """End all sessions and clips, with a reason."""
        for stream in self._streams:
            stream.cut_off()
        for clip in self._clips:
            clip.cut_off()

    def close(self) -> None:
        """Drop the work that waits for a thread."""
        self._threads.close()

    def register(self, server: "grpc.aio.Server") -> None:
        """Unlike the generated code, where an unreadable message ends the call without a reason."""
        messages, sessions = service_pb2, session_pb2
        most = self._config.max_message_bytes
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        handlers = {
            "StreamGestures": grpc.stream_stream_rpc_method_handler(
                self.StreamGestures,
                reader(sessions.StreamGesturesRequest, most),
                sessions.StreamGesturesResponse.SerializeToString,
            ),
            "RenderClip": stream(
                self.RenderClip, reader(messages.RenderClipRequest, most), messages.RenderClipResponse.SerializeToString
            ),
            "ListCharacters": unary(
                self.ListCharacters,
                reader(messages.ListCharactersRequest, most),
                messages.ListCharactersResponse.SerializeToString,
            ),
            "GetCharacter": unary(
                self.GetCharacter, reader(messages.GetCharacterRequest, most), messages.Character.SerializeToString
            ),
            "GetServerInfo": unary(
                self.GetServerInfo, reader(messages.GetServerInfoRequest, most), messages.ServerInfo.SerializeToString
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
        answer = self._in_thread(request, server_info, self._config, self.active_sessions, self._networks)
        return await self._answered(context, answer)

    async def _stream(self, context: Any) -> None:
        loop = asyncio.get_running_loop()
        self._admission.check_open()
        config = await receive_config(context, self.silent, self._config.config_timeout_s)
        configured_s = loop.time()
        with self._slot(context) as about:
            plan = plan_session(config, self._config)
            about.update(character=plan.character, request_id=plan.request_id)
            open_, session_id = self._opener.open, about["session_id"]
            opened = await loop.run_in_executor(
                self._threads.opening, open_, plan, session_id, self._config.max_chunk_s
            )
            executor = self._threads.of(plan)
            with self._admission.reservation(plan, opened.accepted.width, opened.accepted.height):
                stream = LiveStream(opened, context, executor, self._turns, self._config, self._metrics, configured_s)
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
        check_readable(request)
        with self._slot(context) as about:
            plan = plan_session(request.config, self._config, clip=True)
            about.update(character=plan.character, request_id=plan.request_id)
            check_length(plan, request.audio, self._config)
            opened = await asyncio.get_running_loop().run_in_executor(
                self._threads.opening, self._opener.open, plan, about["session_id"], self._config.max_session_s
            )
            clip = ClipStream(opened, context, self._threads.of(plan), self._turns, self._config)
            self._clips.add(clip)
            try:
                await clip.run(request.audio)
            finally:
                self._clips.discard(clip)
                about["frames"] = opened.session.n_frames

    async def _in_thread(self, request: Any, function: Callable[..., T], *arguments: Any) -> T:
        check_readable(request)
        return await asyncio.get_running_loop().run_in_executor(self._threads.telling, function, *arguments)

    @contextmanager
    def _slot(self, context: Any) -> Iterator[dict[str, Any]]:
        """A slot for one session, and its record for the log. Raises Refusal if none is free."""
        with self._admission.slot(identify_client(context, self._config)):
            self._metrics.session_opened()
            start_s = time.monotonic()
            about: dict[str, Any] = {"session_id": uuid.uuid4().hex, "peer": context.peer()}
            reason, told = "OK", False
            try:
                yield about
            except (asyncio.CancelledError, grpc.aio.InternalError):
                reason = "CANCELLED"
                raise
            except BaseException as error:
                reason, told = refusal_for(error).reason, _hidden(error) is not None
                raise
            finally:
                duration_s = time.monotonic() - start_s
                self._metrics.session_closed(reason, duration_s)
                if "frames" in about:  # it was accepted
                    _log.info("session ended", extra={**about, "reason": reason, "duration_s": duration_s})
                elif reason != "CANCELLED" and not told:
                    self.refusals.refused(reason, **about)

    async def _answered(self, context: Any, answer: Awaitable[T]) -> T | None:
        """Turn every failure into a status with a reason; the log has the details that the client must not see."""
        try:
            return await answer
        except grpc.aio.InternalError:  # a write failed because the client has gone
            return None
        except Exception as error:
            if context.cancelled() or context.done():  # there is nobody left to tell
                return None
            refusal, hidden = refusal_for(error), _hidden(error)
            if refusal.reason == "INTERNAL":
                _log.error("call failed", exc_info=error)
            elif hidden is not None:
                self.refusals.refused(refusal.reason, cause=str(hidden))
            self._metrics.refused(refusal.reason)
            await abort(context, refusal)
            return None


def _hidden(error: BaseException) -> BaseException | None:
    """The cause of a refusal, for the log only."""
    hidden = error if refusal_for(error) is not error else error.__cause__
    return None if isinstance(hidden, TimeoutError) else hidden
