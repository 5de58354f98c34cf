"""The client against servers that misbehave, and what it promises about sending, interrupting and ending."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BackendError, InputError
from tango_rt.client import AsyncClient, Client, ConnectOptions, ServerError, SessionOptions
from tango_rt.client.measurements import percentiles
from tango_rt.client.options import AudioCoding
from tango_rt.client.outbox import Outbox, Request
from tango_rt.client.samples import BYTES_PER_SAMPLE, audio_bytes
from tango_rt.client.spoken import SpokenWord, word_messages
from tango_rt.v1 import media_pb2, session_pb2
from tests.helpers.fakes_server import PICTURE, Behaviour, Response, accept, fake_server, frame, refuse

ANNA = SessionOptions("anna")
PATIENCE_S = 10.0
SECOND = np.zeros(16_000, np.float32)


def events_of(behaviour: Behaviour, asynchronous: bool, options: ConnectOptions | None = None) -> list[Any]:
    """All events of a session in which nothing is said, by either client."""
    with fake_server(behaviour) as target:
        if not asynchronous:
            with Client(target, options) as client, client.stream(ANNA) as session:
                session.finish()
                return [session.accepted, *session]

        async def collect() -> list[Any]:
            async with AsyncClient(target, options) as client, client.stream(ANNA) as session:
                await session.finish()
                return [session.accepted, *[event async for event in session]]

        return asyncio.run(collect())


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "async"])


@both
def test_events_come_as_they_are_sent(asynchronous: bool) -> None:
    def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield accept(next(requests))
        assert list(requests) == []
        yield Response(utterance_started=session_pb2.UtteranceStarted(utterance_id="u", frame_index=0))
        yield frame(0, "u", data=PICTURE)
        yield Response()  # of a newer server: nothing that we know
        yield Response(stats=session_pb2.Stats(frames_sent=1))

    accepted, started, picture, stats = events_of(behaviour, asynchronous)
    assert accepted.config.character == "anna" and accepted.config.request_id == ANNA.request_id
    assert isinstance(started, session_pb2.UtteranceStarted) and started.utterance_id == "u"
    assert isinstance(picture, media_pb2.VideoFrame) and picture.data == PICTURE
    assert isinstance(stats, session_pb2.Stats) and stats.frames_sent == 1


@both
def test_a_refusal_is_one_line_with_the_reason(asynchronous: bool) -> None:
    def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        next(requests)
        refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS", "all 4 sessions\nare taken", 3)
        yield Response()

    with pytest.raises(ServerError) as refused:
        events_of(behaviour, asynchronous)
    error = refused.value
    assert isinstance(error, BackendError)
    assert (error.reason, error.code, error.retry_s) == ("TOO_MANY_SESSIONS", "RESOURCE_EXHAUSTED", 3.0)
    assert error.metadata == {"limit": "1"}
    assert str(error).endswith("all 4 sessions are taken (TOO_MANY_SESSIONS)") and "\n" not in str(error)


@both
def test_a_refusal_in_the_middle_reaches_who_reads_and_who_sends(asynchronous: bool) -> None:
    def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield accept(next(requests))
        refuse(context, grpc.StatusCode.OUT_OF_RANGE, "SAMPLE_GAP", "sample 5 came, wanted 3")

    with fake_server(behaviour) as target:
        if asynchronous:
            asyncio.run(_refused_in_the_middle(target))
            return
        with Client(target) as client, client.stream(ANNA) as session:
            with pytest.raises(ServerError, match=r"sample 5 came, wanted 3 \(SAMPLE_GAP\)$"):
                list(session)
            with pytest.raises(ServerError, match="SAMPLE_GAP"):
                session.send_audio(SECOND)
            with pytest.raises(ServerError, match="SAMPLE_GAP"):
                session.interrupt()


async def _refused_in_the_middle(target: str) -> None:
    async with AsyncClient(target) as client, client.stream(ANNA) as session:
        with pytest.raises(ServerError, match=r"sample 5 came, wanted 3 \(SAMPLE_GAP\)$"):
            async for _ in session:
                pass
        with pytest.raises(ServerError, match="SAMPLE_GAP"):
            await session.send_audio(SECOND)
        with pytest.raises(ServerError, match="SAMPLE_GAP"):
            await session.interrupt()


@both
def test_a_server_that_does_not_accept_is_given_up(asynchronous: bool) -> None:
    released = threading.Event()

    def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        context.add_callback(released.set)
        released.wait(PATIENCE_S)
        yield from ()

    with pytest.raises(ServerError, match=r"not accepted within 0\.2 s"):
        events_of(behaviour, asynchronous, ConnectOptions(timeout_s=0.2))
    assert released.is_set()


@both
def test_a_server_that_begins_with_a_frame_is_refused(asynchronous: bool) -> None:
    def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield frame(0)

    with pytest.raises(ServerError, match="NOT_ACCEPTED"):
        events_of(behaviour, asynchronous)


@both
def test_no_server_and_a_strange_server(asynchronous: bool) -> None:
    def ask(target: str) -> None:
        async def asked() -> None:
            async with AsyncClient(target) as client:
                await client.info()

        if asynchronous:
            asyncio.run(asked())
        else:
            with Client(target) as client:
                client.info()

    with fake_server(None) as target, pytest.raises(ServerError, match=r"does not speak tango_rt\.v1") as strange:
        ask(target)
    assert strange.value.code == "UNIMPLEMENTED"
    with pytest.raises(ServerError, match="no server answers there") as absent:
        ask(target)
    assert absent.value.code == "UNAVAILABLE" and "\n" not in str(absent.value) and len(str(absent.value)) < 200


def test_a_reader_that_is_cancelled_is_cancelled() -> None:
    """And told nothing else: not that the session was."""

    def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield accept(next(requests))
        list(requests)

    async def run(target: str) -> None:
        async with AsyncClient(target) as client, client.stream(ANNA) as session:
            reading = asyncio.create_task(anext(session))
            await asyncio.sleep(0.05)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        async with AsyncClient(target) as client, client.stream(ANNA) as session:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(session), 0.05)

    with fake_server(behaviour) as target:
        asyncio.run(run(target))


def test_the_deadline_of_a_session() -> None:
    def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield accept(next(requests))
        list(requests)

    with (
        fake_server(behaviour) as target,
        Client(target) as client,
        client.stream(ANNA, timeout_s=0.5) as session,
        pytest.raises(ServerError, match="DEADLINE_EXCEEDED"),
    ):
        list(session)


@both
def test_leaving_early_cancels(asynchronous: bool) -> None:
    ended = threading.Event()

    def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        context.add_callback(ended.set)
        yield accept(next(requests))
        ended.wait(PATIENCE_S)

    async def leave(target: str) -> None:
        async with AsyncClient(target) as client, client.stream(ANNA):
            pass

    with fake_server(behaviour) as target:
        if asynchronous:
            asyncio.run(leave(target))
        else:
            with Client(target) as client, client.stream(ANNA):
                pass
        assert ended.wait(PATIENCE_S)


def test_reading_from_a_cancelled_session_says_so() -> None:
    def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield accept(next(requests))
        list(requests)

    async def cancelled(target: str) -> None:
        async with AsyncClient(target) as client, client.stream(ANNA) as session:
            asyncio.get_running_loop().call_later(0.05, session.cancel)
            with pytest.raises(ServerError, match="CANCELLED"):
                await anext(session)

    with fake_server(behaviour) as target:
        asyncio.run(cancelled(target))
        with Client(target) as client, client.stream(ANNA) as session:
            session.cancel()
            with pytest.raises(ServerError, match="CANCELLED"):
                next(session)


class _Hoarder:
    """A server that sends pictures that nobody reads, and reads what it gets once it may."""

    def __init__(self) -> None:
        self.may_read = threading.Event()
        self.heard_s = 0.0
        self.interrupted_after_s: float | None = None
        self.interrupted = threading.Event()
        self.all_read = threading.Event()

    def __call__(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield accept(next(requests))
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        for index in range(2000):
            if self.all_read.is_set() or not context.is_active():
                return
            yield frame(index, data=PICTURE + bytes(50_000))
            time.sleep(0.002)

    def _read(self, requests: Iterator[Any]) -> None:
        self.may_read.wait(PATIENCE_S)
        try:
            for request in requests:
                self.heard_s += len(request.audio.data) / 32_000
                if request.HasField("interrupt"):
                    self.interrupted_after_s = self.heard_s
                    self.interrupted.set()
        except grpc.RpcError:
            pass
        self.all_read.set()


def test_an_interrupt_overtakes_unsent_speech_and_needs_no_reader() -> None:
    server = _Hoarder()
    taken: list[bool] = []
    with fake_server(server) as target, Client(target) as client, client.stream(ANNA) as session:
        speech = np.zeros(16_000 * 600, np.float32)
        speaker = threading.Thread(target=lambda: taken.append(session.send_audio(speech, "long")))
        speaker.start()
        while session.measurements.first_audio_sent_s is None:
            time.sleep(0.01)
        time.sleep(0.2)
        session.interrupt("cut")  # returns at once, though nothing was read on either side
        speaker.join(PATIENCE_S)
        assert taken == [False]
        assert session.send_audio(SECOND, "long") is False
        assert session.send_audio(SECOND, "next") is True
        server.may_read.set()
        assert server.interrupted.wait(PATIENCE_S)
        assert server.interrupted_after_s is not None and server.interrupted_after_s < 300


def test_an_interrupt_overtakes_unsent_speech_async() -> None:
    server = _Hoarder()

    async def run(target: str) -> None:
        async with AsyncClient(target) as client, client.stream(ANNA) as session:
            speaking = asyncio.create_task(session.send_audio(np.zeros(16_000 * 600, np.float32), "long"))
            await asyncio.sleep(0.2)
            assert not speaking.done()
            await session.interrupt("rest", "long")
            async with asyncio.timeout(PATIENCE_S):
                assert await speaking is False
            server.may_read.set()
            assert await asyncio.to_thread(server.interrupted.wait, PATIENCE_S)

    with fake_server(server) as target:
        asyncio.run(run(target))
    assert server.interrupted_after_s is not None and server.interrupted_after_s < 300


def test_what_is_measured() -> None:
    def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield accept(next(requests))
        for index in (0, 1, 2, 3, 8, 9):
            yield frame(index, "u" if index > 2 else "", max(0, index - 3))
        yield Response(underrun=session_pb2.Underrun(utterance_id="u", frame_index=10, n_frames=4))

    with fake_server(behaviour) as target, Client(target) as client, client.stream(ANNA) as session:
        session.send_audio(SECOND)
        session.finish()
        list(session)
        measured = session.measurements
    assert (measured.n_frames, measured.n_dropped) == (6, 4)
    assert (measured.n_underruns, measured.n_underrun_frames) == (1, 4)
    assert measured.first_frame_ms is not None and measured.first_speech_frame_ms is not None
    assert measured.interval_ms["max"] >= measured.interval_ms["p50"] >= 0


@given(values=st.lists(st.floats(-1e6, 1e6)))
def test_percentiles_are_those_of_numpy(values: list[float]) -> None:
    found = percentiles(values)
    if not values:
        assert found == {}
    for name, percent in zip(found, (50, 95, 99, 100), strict=bool(values)):
        assert found[name] == pytest.approx(np.percentile(values, percent), abs=1e-3)


def test_nothing_can_be_sent_behind_the_end() -> None:
    def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield accept(next(requests))
        list(requests)
        time.sleep(0.2)

    with fake_server(behaviour) as target, Client(target) as client, client.stream(ANNA) as session:
        session.finish()
        with pytest.raises(ValueError, match="finished"):
            session.send_audio(SECOND)


@pytest.mark.parametrize("target", ["", "localhost", "http://localhost:1", "host:port", "a b:1", "[:1"])
def test_no_addresses(target: str) -> None:
    with pytest.raises(InputError, match="HOST:PORT"):
        Client(target)


def test_contradicting_credentials(tmp_path: Any) -> None:
    wrong: list[tuple[ConnectOptions, str]] = [
        (ConnectOptions(tls=True, insecure=True), "leave one out"),
        (ConnectOptions(cert=tmp_path / "cert.pem"), "belong together"),
        (ConnectOptions(ca=tmp_path / "ca.pem"), "cannot be read"),
        (ConnectOptions(token="two\nlines"), "not allowed in a header"),
        (ConnectOptions(token=""), "not allowed in a header"),
    ]
    for options, said in wrong:
        with pytest.raises(InputError, match=said):
            Client("localhost:1", options)


chunks = st.lists(st.integers(0, 40_000), max_size=5)


@given(chunks=chunks, encoding=st.sampled_from(["s16", "float32"]))
def test_sound_is_cut_into_messages_without_loss(chunks: list[int], encoding: AudioCoding) -> None:
    outbox = Outbox(16_000, encoding)
    rng = np.random.default_rng(0)
    first, sent = 0, []
    for n in chunks:
        data = audio_bytes(rng.uniform(-1, 1, n).astype(np.float32), encoding)
        for message in outbox.messages(data, "u", first):
            outbox.put(message)
        sent.append(data)
        first += n
    received = b""
    while (request := outbox.take()) is not None:
        assert request.audio.first_sample_index * BYTES_PER_SAMPLE[encoding] == len(received)
        received += request.audio.data
    assert received == b"".join(sent) and outbox.idle and outbox.has_room


def test_an_interrupt_takes_the_words_with_the_sound() -> None:
    outbox = Outbox(16_000, "s16")
    for utterance in "ab":
        for message in word_messages([SpokenWord("w", 0, 9)] * 1001, utterance):
            outbox.put(message)
    outbox.interrupt("rest", "a")
    kept = []
    while (request := outbox.take()) is not None:
        kept.append(request)
    assert [request.WhichOneof("message") for request in kept] == ["words", "words"]
    assert {request.words.utterance_id for request in kept} == {"b"}


def _put(outbox: Outbox, utterance: str, seconds: int) -> None:
    for message in outbox.messages(bytes(32_000 * seconds), utterance, None):
        outbox.put(message)
    outbox.put(Request(end_of_utterance=session_pb2.EndOfUtterance(utterance_id=utterance)))


def _taken(outbox: Outbox) -> list[str]:
    taken = []
    while (request := outbox.take()) is not None:
        kind = request.WhichOneof("message")
        taken.append(f"{kind} {getattr(request, kind).utterance_id}".strip())
    return taken


def test_an_interrupt_drops_what_waits_of_its_utterance_only() -> None:
    outbox = Outbox(16_000, "s16")
    _put(outbox, "a", 2)
    outbox.take()
    _put(outbox, "b", 2)
    outbox.interrupt("rest", "a")
    assert _taken(outbox) == ["interrupt a", "audio b", "audio b", "end_of_utterance b"]
    assert outbox.worthless("a", outbox.n_interrupts) and not outbox.worthless("b", outbox.n_interrupts)


def test_an_utterance_that_the_server_never_heard_of_is_dropped_in_silence() -> None:
    outbox = Outbox(16_000, "s16")
    _put(outbox, "a", 1)
    outbox.take()
    _put(outbox, "b", 1)
    outbox.interrupt("rest", "b")
    assert _taken(outbox) == ["end_of_utterance a"]


def test_an_interrupt_of_everything() -> None:
    outbox = Outbox(16_000, "s16")
    _put(outbox, "a", 1)
    _put(outbox, "b", 1)
    before = outbox.n_interrupts
    outbox.interrupt("cut", "")
    assert _taken(outbox) == ["interrupt"]
    assert outbox.worthless("c", before) and not outbox.worthless("c", outbox.n_interrupts)


def test_the_parts_of_the_package_come_on_demand() -> None:
    code = (
        "import sys; import tango_rt.client, tango_rt.client.command; "
        "assert not {'grpc', 'numpy', 'google.protobuf'} & set(sys.modules); "
        "from tango_rt.client import *; assert Client and AsyncClient and Measurements"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import tango_rt.client

    absent: Callable[[], Any] = lambda: tango_rt.client.nothing  # noqa: E731
    with pytest.raises(AttributeError, match="nothing"):
        absent()
