"""The client for asyncio: iterate over a session in one task, send from any."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import grpc

from tango_rt.client.answers import Pages, checked_character, checked_info
from tango_rt.client.channel import ConnectOptions, channel_options, credentials, metadata
from tango_rt.client.checks import PROGRESS, Checks
from tango_rt.client.cues import cue_request
from tango_rt.client.errors import ServerError, broken, late_acceptance, not_accepted, server_error, stalled
from tango_rt.client.measurements import Measurements
from tango_rt.client.options import STATES, InterruptMode, SessionOptions, State
from tango_rt.client.outbox import Outbox, Request
from tango_rt.client.patience import Patience
from tango_rt.client.route import Route, route_to
from tango_rt.client.samples import Samples, audio_bytes
from tango_rt.client.spoken import SpokenWord, word_messages
from tango_rt.v1 import service_pb2, service_pb2_grpc, session_pb2

__all__ = ["AsyncClient", "AsyncSession"]


class AsyncClient:
    """One connection to a server; use it in an async with. All methods raise ServerError if the server refuses."""

    def __init__(self, target: str, options: ConnectOptions | None = None) -> None:
        """Raises InputError for an address or credentials that cannot be used; connects with the first call."""
        options = options or ConnectOptions()
        self.target = target
        self._route = route_to(target)
        self._options = options
        self._metadata = metadata(options)
        secure = credentials(self._route, options)
        if secure is None:
            self._channel = grpc.aio.insecure_channel(target, channel_options(self._route, options))
        else:
            self._channel = grpc.aio.secure_channel(target, secure, channel_options(self._route, options))
        self._stub: Any = service_pb2_grpc.GestureServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def info(self) -> service_pb2.ServerInfo:
        return checked_info(await self._ask(self._stub.GetServerInfo, service_pb2.GetServerInfoRequest()), self._route)

    async def character(self, name: str) -> service_pb2.Character:
        found = await self._ask(self._stub.GetCharacter, service_pb2.GetCharacterRequest(id=name))
        return checked_character(found, self._route)

    async def characters(self) -> list[service_pb2.Character]:
        """All of them, ordered by id."""
        pages = Pages(self._route)
        request: service_pb2.ListCharactersRequest | None = pages.request()
        while request is not None:
            request = pages.take(await self._ask(self._stub.ListCharacters, request))
        return pages.characters

    def stream(self, options: SessionOptions, timeout_s: float | None = None) -> "AsyncSession":
        """A live session; enter it by an async with. timeout_s: limit for the whole session."""

        def start() -> Any:
            return self._stub.StreamGestures(metadata=self._metadata, timeout=timeout_s)

        return AsyncSession(start, self._route, options, self._options)

    async def render_clip(
        self, options: SessionOptions, samples: Samples, timeout_s: float | None = None
    ) -> AsyncIterator[Any]:
        """One utterance: Accepted, then every VideoFrame, then UtteranceFinished. Closing the iterator cancels it."""
        audio = audio_bytes(samples, options.audio_encoding)
        request = service_pb2.RenderClipRequest(config=options.to_config(), audio=audio)
        checks = Checks(self._route, options, self._options.patience_s)
        checks.sent_clip(audio)
        patience = Patience(self._options.patience_s, lambda: True)
        call = self._stub.RenderClip(request, metadata=self._metadata, timeout=timeout_s)
        try:
            while (response := (await _answer(call, patience, self._route)).result()) is not grpc.aio.EOF:
                event = checks.take(response)
                if event is not None:
                    patience.renew()
                    yield event
        except grpc.aio.AioRpcError as error:
            raise server_error(error, self._route) from error
        finally:
            call.cancel()

    async def _ask(self, method: Any, request: Any) -> Any:
        try:
            answer = await method(request, metadata=self._metadata, timeout=self._options.timeout_s)
        except grpc.aio.AioRpcError as error:
            raise server_error(error, self._route) from error
        if answer is None:  # how gRPC reports it
            raise broken(self._route, "an unreadable answer")
        return answer


class AsyncSession:
    """A live session. Iterate over its events in one task; send from the same or any other.

    `accepted` is the effective configuration. Leaving the async with early cancels: the server drops the rest.
    """

    def __init__(
        self, start: Callable[[], Any], route: Route, options: SessionOptions, connect: ConnectOptions
    ) -> None:
        self.options = options
        self.accepted: session_pb2.Accepted
        self.measurements: Measurements
        self._start = start
        self._route = route
        self._timeout_s = connect.timeout_s
        self._patience = Patience(connect.patience_s, self._is_owed)
        self._checks = Checks(route, options, connect.patience_s)
        self._outbox = Outbox(options.sample_rate_hz, options.audio_encoding)
        self._changed = asyncio.Event()
        self._ended = False
        self._call: Any = None
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "AsyncSession":
        self._outbox.put(Request(config=self.options.to_config()))
        self.measurements = Measurements()
        self._call = self._start()
        self._call.add_done_callback(self._end)
        self._writer = asyncio.create_task(self._write())
        try:
            self.accepted = await self._acceptance()
        except BaseException:
            await self._leave()
            raise
        return self

    async def _acceptance(self) -> session_pb2.Accepted:
        reading = await _finished(self._next(), self._timeout_s)
        if reading is None:
            raise late_acceptance(self._route, self._timeout_s)
        first = reading.result()
        if first is None:
            raise not_accepted(self._route)
        return first

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def send_audio(self, samples: Samples, utterance: str = "", first_sample: int | None = None) -> bool:
        """Any number of samples: floats in [-1, 1], integers of full range, or bytes in the session's encoding.

        Waits while the server does not read. Returns False if the utterance was interrupted, before or meanwhile: do
        not send the rest. first_sample: its number within the utterance, for the server to check.
        Raises ServerError if the session is over, InputError for samples that cannot be used (see audio_bytes).
        """
        data = audio_bytes(samples, self.options.audio_encoding)
        n_interrupts = self._outbox.n_interrupts
        for message in self._outbox.messages(data, utterance, first_sample):
            await self._until(lambda: self._outbox.has_room or self._ended)
            if self._outbox.worthless(utterance, n_interrupts):
                return False
            await self._send(message)
            self.measurements.sent_audio()
        return True

    async def words(self, words: Sequence[SpokenWord], utterance: str = "") -> None:
        """When words of an utterance are spoken; best before or with their sound. utterance: else the open one.

        Raises InputError for words that no server accepts, ServerError later if the character has no words.
        """
        for message in word_messages(words, utterance):
            await self._send(message)

    async def end_of_utterance(self, utterance: str = "") -> None:
        await self._send(Request(end_of_utterance=session_pb2.EndOfUtterance(utterance_id=utterance)))

    async def interrupt(self, mode: InterruptMode = "rest", utterance: str = "") -> None:
        """Stop speaking. Sound that was not sent yet is discarded; calls that wait to send it return."""
        await self._check()
        self._outbox.interrupt(mode, utterance)
        self._changed.set()

    async def cue(
        self, name: str, at_sample: int | None = None, utterance: str = "", within_s: float | None = None
    ) -> None:
        """Play a named stretch of the character at this sample of an utterance (empty: the open one), or as soon as
        possible. within_s: how much later it may begin, at most 10 s (None: 1 s). A CuePlayed or CueRefused answers it.

        Raises InputError for times out of range.
        """
        await self._send(cue_request(name, at_sample, utterance, within_s))

    async def set_state(self, state: State) -> None:
        await self._send(Request(set_state=session_pb2.SetState(state=STATES[state])))

    async def ping(self, number: int) -> None:
        await self._send(Request(ping=session_pb2.Ping(number=number)))

    async def finish(self) -> None:
        """Send no more: the server performs what it has and ends the session."""
        self._outbox.finished = True
        self._checks.finished()
        self._changed.set()

    def cancel(self) -> None:
        """End the session now."""
        if self._call is not None:
            self._call.cancel()

    def __aiter__(self) -> "AsyncSession":
        return self

    async def __anext__(self) -> Any:
        event = await self._next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def _next(self) -> Any:
        """The next event; None: the session is over."""
        event = None
        while event is None:  # skip events of newer servers that we do not know
            response = await self._read()
            if response is grpc.aio.EOF:
                return None
            try:
                event = self._checks.take(response)
            except ServerError:
                self.cancel()
                raise
        if isinstance(event, PROGRESS):
            self._patience.renew()
        self.measurements.arrived(event)
        return event

    def _is_owed(self) -> bool:
        return self._checks.owed or not self._outbox.idle

    async def _read(self) -> Any:
        reading = await _answer(self._call, self._patience, self._route)
        if reading.cancelled():  # the session was cancelled, not the reading task
            raise await self._failure()
        try:
            return reading.result()
        except grpc.aio.AioRpcError as error:
            raise server_error(error, self._route) from error

    async def _send(self, request: Request) -> None:
        await self._check()
        self._outbox.put(request)
        self._changed.set()

    async def _check(self) -> None:
        if self._ended:
            raise await self._failure()
        if self._outbox.finished:
            raise ValueError("the session was finished: nothing more can be sent")

    async def _failure(self) -> ServerError:
        call = self._call
        code, details, trailing = await call.code(), await call.details(), await call.trailing_metadata()
        return server_error(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details), self._route)

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            self._changed.clear()
            await self._changed.wait()

    async def _write(self) -> None:
        """A separate task, so that an interrupt can overtake a send that waits for the server."""
        # the call ends with its own error, which the next read or send raises
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await self._until(lambda: not self._outbox.idle or self._outbox.finished)
                request = self._outbox.take()
                self._changed.set()
                if request is None:
                    await self._call.done_writing()
                    return
                self._checks.sent(request)
                if not self._checks.idle:
                    self._patience.renew()
                await self._call.write(request)

    def _end(self, _: Any) -> None:
        self._ended = True
        self._changed.set()

    async def _leave(self) -> None:
        self.cancel()
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)


async def _answer(call: Any, patience: Patience, route: Route) -> "asyncio.Future[Any]":
    """The next response of a call, or how it ended. Cancels the call and raises ServerError when patience runs out."""
    reading = asyncio.ensure_future(call.read())
    try:
        with patience.waiting():
            while not (await asyncio.wait({reading}, timeout=patience.tick_s))[0]:
                if patience.over:
                    call.cancel()
                    raise stalled(route, patience.limit_s)
    finally:
        reading.cancel()  # if it is not done
    return reading


async def _finished(work: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> "asyncio.Future[Any] | None":
    """The task of the work once it is done; None: it took longer than timeout_s and was cancelled."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    finally:
        task.cancel()  # if it is not done
    return task if done else None
