"""The client without asyncio: iterate over a session in one thread, send from any."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import grpc

from tango_rt.client.answers import Pages, checked_character, checked_info
from tango_rt.client.channel import ConnectOptions, channel_options, credentials, metadata
from tango_rt.client.checks import PROGRESS, Checks
from tango_rt.client.cues import cue_request
from tango_rt.client.errors import ServerError, late_acceptance, not_accepted, server_error, stalled
from tango_rt.client.measurements import Measurements
from tango_rt.client.options import STATES, InterruptMode, SessionOptions, State
from tango_rt.client.outbox import Outbox, Request
from tango_rt.client.patience import Patience, watched
from tango_rt.client.route import Route, route_to
from tango_rt.client.samples import Samples, audio_bytes
from tango_rt.client.spoken import SpokenWord, word_messages
from tango_rt.v1 import service_pb2, service_pb2_grpc, session_pb2

__all__ = ["Client", "Session"]


class Client:
    """One connection to a server; use it in a with. All methods raise ServerError if the server refuses."""

    def __init__(self, target: str, options: ConnectOptions | None = None) -> None:
        """Raises InputError for an address or credentials that cannot be used; connects with the first call."""
        options = options or ConnectOptions()
        self.target = target
        self._route = route_to(target)
        self._options = options
        self._metadata = metadata(options)
        secure = credentials(self._route, options)
        if secure is None:
            self._channel = grpc.insecure_channel(target, channel_options(self._route, options))
        else:
            self._channel = grpc.secure_channel(target, secure, channel_options(self._route, options))
        self._stub: Any = service_pb2_grpc.GestureServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def info(self) -> service_pb2.ServerInfo:
        return checked_info(self._ask(self._stub.GetServerInfo, service_pb2.GetServerInfoRequest()), self._route)

    def character(self, name: str) -> service_pb2.Character:
        found = self._ask(self._stub.GetCharacter, service_pb2.GetCharacterRequest(id=name))
        return checked_character(found, self._route)

    def characters(self) -> list[service_pb2.Character]:
        """All of them, ordered by id."""
        pages = Pages(self._route)
        request: service_pb2.ListCharactersRequest | None = pages.request()
        while request is not None:
            request = pages.take(self._ask(self._stub.ListCharacters, request))
        return pages.characters

    def stream(self, options: SessionOptions, timeout_s: float | None = None) -> "Session":
        """A live session; enter it by a with. timeout_s: limit for the whole session."""

        def start(requests: Iterator[Request]) -> Any:
            return self._stub.StreamGestures(requests, metadata=self._metadata, timeout=timeout_s)

        return Session(start, self._route, options, self._options)

    def render_clip(self, options: SessionOptions, samples: Samples, timeout_s: float | None = None) -> Iterator[Any]:
        """One utterance: Accepted, then every VideoFrame, then UtteranceFinished. Closing the iterator cancels it."""
        audio = audio_bytes(samples, options.audio_encoding)
        request = service_pb2.RenderClipRequest(config=options.to_config(), audio=audio)
        checks = Checks(self._route, options, self._options.patience_s)
        checks.sent_clip(audio)
        patience = Patience(self._options.patience_s, lambda: True)
        call = self._stub.RenderClip(request, metadata=self._metadata, timeout=timeout_s)
        try:
            with watched(call, patience):
                while (response := _read(call, patience, self._route)) is not None:
                    event = checks.take(response)
                    if event is not None:
                        patience.renew()
                        yield event
        finally:
            call.cancel()

    def _ask(self, method: Any, request: Any) -> Any:
        try:
            return method(request, metadata=self._metadata, timeout=self._options.timeout_s)
        except grpc.RpcError as error:
            raise server_error(error, self._route) from error


class Session:
    """A live session. Iterate over its events in one thread; send from the same or any other.

    `accepted` is the effective configuration. Leaving the with early cancels: the server drops the rest.
    """

    def __init__(
        self, start: Callable[[Iterator[Request]], Any], route: Route, options: SessionOptions, connect: ConnectOptions
    ) -> None:
        self.options = options
        self.accepted: session_pb2.Accepted
        self.measurements: Measurements
        self._start = start
        self.route = route
        self._timeout_s = connect.timeout_s
        self._patience = Patience(connect.patience_s, self._is_owed)
        self._checks = Checks(route, options, connect.patience_s)
        self._watch = ExitStack()
        self._outbox = Outbox(options.sample_rate_hz, options.audio_encoding)
        self._changed = threading.Condition()
        self._ended = False
        self._call: Any = None

    def __enter__(self) -> "Session":
        self._outbox.put(Request(config=self.options.to_config()))
        self.measurements = Measurements()
        self._call = self._start(self._requests())
        if not self._call.add_callback(self._end):
            self._end()
        try:
            self.accepted = self._acceptance()
        except BaseException:
            self.cancel()
            raise
        self._watch.enter_context(watched(self._call, self._patience))
        return self

    def _acceptance(self) -> session_pb2.Accepted:
        # not the deadline of the call, which limits the whole session
        impatience = threading.Timer(self._timeout_s, self._call.cancel)
        impatience.daemon = True
        impatience.start()
        try:
            first = self._next()
        except ServerError as error:
            if error.code == "CANCELLED":
                raise late_acceptance(self.route, self._timeout_s) from error
            raise
        finally:
            impatience.cancel()
        if first is None:
            raise not_accepted(self.route)
        return first

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.close()
        self.cancel()

    def send_audio(self, samples: Samples, utterance: str = "", first_sample: int | None = None) -> bool:
        """Any number of samples: floats in [-1, 1], integers of full range, or bytes in the session's encoding.

        Waits while the server does not read. Returns False if the utterance was interrupted, before or meanwhile: do
        not send the rest. first_sample: its number within the utterance, for the server to check.
        Raises ServerError if the session is over, InputError for samples that cannot be used (see audio_bytes).
        """
        data = audio_bytes(samples, self.options.audio_encoding)
        n_interrupts = self._outbox.n_interrupts
        for message in self._outbox.messages(data, utterance, first_sample):
            with self._changed:
                self._changed.wait_for(lambda: self._outbox.has_room or self._ended)
                if self._outbox.worthless(utterance, n_interrupts):
                    return False
                self._put(message)
            self.measurements.sent_audio()
        return True

    def words(self, words: Sequence[SpokenWord], utterance: str = "") -> None:
        """When words of an utterance are spoken; best before or with their sound. utterance: else the open one.

        Raises InputError for words that no server accepts, ServerError later if the character has no words.
        """
        for message in word_messages(words, utterance):
            self._send(message)

    def end_of_utterance(self, utterance: str = "") -> None:
        self._send(Request(end_of_utterance=session_pb2.EndOfUtterance(utterance_id=utterance)))

    def interrupt(self, mode: InterruptMode = "rest", utterance: str = "") -> None:
        """Stop speaking. Sound that was not sent yet is discarded; calls that wait to send it return."""
        with self._changed:
            self._check()
            self._outbox.interrupt(mode, utterance)
            self._changed.notify_all()

    def cue(self, name: str, at_sample: int | None = None, utterance: str = "", within_s: float | None = None) -> None:
        """Play a named stretch of the character at this sample of an utterance (empty: the open one), or as soon as
        possible. within_s: how much later it may begin, at most 10 s (None: 1 s). A CuePlayed or CueRefused answers it.

        Raises InputError for times out of range.
        """
        self._send(cue_request(name, at_sample, utterance, within_s))

    def set_state(self, state: State) -> None:
        self._send(Request(set_state=session_pb2.SetState(state=STATES[state])))

    def ping(self, number: int) -> None:
        self._send(Request(ping=session_pb2.Ping(number=number)))

    def finish(self) -> None:
        """Send no more: the server performs what it has and ends the session."""
        with self._changed:
            self._outbox.finished = True
            self._checks.finished()
            self._changed.notify_all()

    def cancel(self) -> None:
        """End the session now. May be called at any time, from any thread."""
        self.finish()
        if self._call is not None:
            self._call.cancel()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        event = self._next()
        if event is None:
            raise StopIteration
        return event

    def _next(self) -> Any:
        """The next event; None: the session is over."""
        event = None
        while event is None:  # skip events of newer servers that we do not know
            response = _read(self._call, self._patience, self.route)
            if response is None:
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

    def _send(self, request: Request) -> None:
        with self._changed:
            self._put(request)

    def _put(self, request: Request) -> None:
        self._check()
        self._outbox.put(request)
        self._changed.notify_all()

    def _check(self) -> None:
        if self._ended:
            raise server_error(self._call, self.route)
        if self._outbox.finished:
            raise ValueError("the session was finished: nothing more can be sent")

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _requests(self) -> Iterator[Request]:
        """The messages that gRPC's own thread sends."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._outbox.idle or self._outbox.finished or self._ended)
                request = None if self._ended else self._outbox.take()
                self._changed.notify_all()
            if request is None:
                return
            self._checks.sent(request)
            if not self._checks.idle:
                self._patience.renew()
            yield request


def _read(call: Any, patience: Patience, route: Route) -> Any:
    """The next response; None: the call is over."""
    try:
        with patience.waiting():
            return next(call, None)
    except grpc.RpcError as error:
        raise (stalled(route, patience.limit_s) if patience.gave_up else server_error(error, route)) from error
