"""Live sessions over a real socket: what comes, in which order, when, and what remains when they end."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import grpc
import numpy as np
import pytest

from tango_rt.pipeline.ahead import TransitionPool
from tango_rt.pipeline.store import CharacterStore
from tango_rt.server.admission import Admission, UnpacedTurns
from tango_rt.server.checks import plan_session
from tango_rt.server.config import ServerConfig
from tango_rt.server.metrics import Metrics
from tango_rt.server.opening import Opener
from tango_rt.server.prices import Prices
from tango_rt.server.session import Session
from tango_rt.server.speech import span_start
from tango_rt.server.stream import LiveStream
from tango_rt.v1 import media_pb2, service_pb2, session_pb2
from tests.helpers.fakes import HEIGHT, WIDTH
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
    listen,
    run,
    speech,
)

LATE_S = 0.2
NARROW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)]


def said(characters: Path, *requests: Request | float, half_close: bool = True, **options: Any) -> Heard:
    """One session, to its end."""

    async def talk(live: Live) -> Heard:
        return await converse(live, list(requests), half_close)

    return run(characters, talk, **options)


def chunks(data: bytes, how: str, rate_hz: int = 16_000) -> Iterator[bytes]:
    """1: one sample; 20, 100, 1000: milliseconds; random."""
    rng = np.random.default_rng(3)
    place = 0
    while place < len(data):
        n = 1 if how == "1" else int(rng.integers(1, 5000)) if how == "random" else int(how) * rate_hz // 1000
        yield data[place : place + 2 * n]
        place += 2 * n


def check_tiles(heard: Heard, rate_hz: int = 16_000) -> None:
    """The spans of sound follow each other without hole or overlap, up to the end of each frame."""
    pts = 0
    for frame in heard.frames:
        assert frame.audio.pts == pts
        pts += len(frame.audio.data) // 2
        assert pts == span_start(frame.frame_index + 1, rate_hz)


def spoken(heard: Heard) -> bytes:
    samples = np.frombuffer(heard.sound, "<i2")
    return samples[samples != 0].tobytes()


@pytest.mark.parametrize(
    ("fields", "hows"),
    [
        (FAST, ("1", "20", "100", "1000", "random")),
        ({**FAST, "whole_utterance": True}, ("1", "20", "random")),
        ({"idle": False}, ("20", "1000", "random")),
    ],
    ids=["fast", "whole", "paced"],
)
def test_chunks_never_matter(characters: Path, fields: dict[str, Any], hows: tuple[str, ...]) -> None:
    data = speech(0.6)

    async def talk(live: Live) -> list[Heard]:
        return [
            await converse(live, [config(audio_echo=True, **fields), *(audio(part) for part in chunks(data, how))])
            for how in hows
        ]

    answers = run(characters, talk)
    for heard in answers:
        assert heard.code is grpc.StatusCode.OK
        assert heard.nodes == answers[0].nodes and len(heard.frames) == 18
        assert spoken(heard) == data and heard.sound == answers[0].sound
        check_tiles(heard)
        (event,) = heard.finished
        assert (event.played_samples, event.played_frames, event.interrupted) == (len(data) // 2, 18, False)


@pytest.mark.parametrize("rate_hz", [8000, 44_100, 48_000])
def test_chunks_never_matter_at_other_rates(characters: Path, rate_hz: int) -> None:
    data = speech(1.5, rate_hz)
    setup = config(audio_echo=True, audio=media_pb2.AudioFormat(sample_rate_hertz=rate_hz), **FAST)

    async def talk(live: Live) -> list[Heard]:
        hows = ("20", "1000", "random")
        return [await converse(live, [setup, *(audio(part) for part in chunks(data, how, rate_hz))]) for how in hows]

    answers = run(characters, talk)
    assert len({tuple(heard.nodes) for heard in answers}) == len({heard.sound for heard in answers}) == 1
    assert spoken(answers[0]) == data
    check_tiles(answers[0], rate_hz)


def test_a_paced_session_idles_speaks_and_ends_after_its_speech(characters: Path) -> None:
    data = speech(0.8)
    heard = said(characters, config(audio_echo=True, timings=True), 0.3, audio(data, "one"), end())
    assert heard.code is grpc.StatusCode.OK
    frames = heard.frames
    assert [frame.frame_index for frame in frames] == [frame.pts for frame in frames] == list(range(len(frames)))
    own = [frame for frame in frames if frame.utterance_id == "one"]
    assert frames[0].kind == media_pb2.FRAME_KIND_IDLE and frames[-1] is own[-1]
    assert [frame.utterance_frame for frame in own] == list(range(24))
    check_tiles(heard)
    assert spoken(heard) == data
    kinds = [kind for kind, _ in heard.messages]
    assert kinds[0] == "accepted" and kinds[-1] == "utterance_finished"
    assert kinds.count("utterance_started") == kinds.count("utterance_finished") == 1
    (started,) = heard.all("utterance_started")
    assert heard.messages[kinds.index("utterance_started") + 1][1] is own[0]
    assert started.frame_index == own[0].frame_index and heard.finished[0].frame_index == own[-1].frame_index + 1
    assert 0 < started.latency.ToNanoseconds() < 5e9 and own[0].timings.latency.ToNanoseconds() > 0


def test_frames_come_at_their_time(characters: Path) -> None:
    """Frame k is due at t0 + k / 30: whatever the machine does, no frame comes early, and nothing adds up."""

    async def talk(live: Live) -> list[float]:
        call = live.stub.StreamGestures()
        await call.write(config())
        times = []
        while len(times) < 40:
            if (await call.read()).WhichOneof("message") == "frame":
                times.append(asyncio.get_running_loop().time())
        call.cancel()
        return times

    times = run(characters, talk)
    ahead = [times[0] + k / 30 - time for k, time in enumerate(times)]
    assert max(ahead) < 0.1  # the first one may have been late itself
    assert times[-1] - times[0] > 39 / 30 - 0.1


def test_new_ids_end_the_utterance_that_is_open(characters: Path) -> None:
    heard = said(
        characters, config(**FAST), audio(speech(0.3)), audio(speech(0.2), "b"), audio(speech(0.1), "c"), end("c")
    )
    assert [event.utterance_id for event in heard.finished] == ["utterance-1", "b", "c"]
    assert [frame.utterance_id for frame in heard.frames] == ["utterance-1"] * 9 + ["b"] * 6 + ["c"] * 3


@pytest.mark.parametrize("mode", ["MODE_TRANSITION_TO_IDLE", "MODE_CUT"])
def test_interrupts_end_all_speech_with_the_next_frame(characters: Path, mode: str) -> None:
    async def talk(live: Live) -> tuple[Heard, int]:
        call, heard = live.stub.StreamGestures(), Heard()
        for request in (config(audio_echo=True), audio(speech(5.0), "a"), end(), audio(speech(1.0), "b")):
            await call.write(request)
        while len(heard.frames) < 20:
            heard.take(await call.read())
        await call.write(interrupt(mode))
        while len(heard.finished) < 2:
            heard.take(await call.read())
        n_before = len(heard.frames)
        await call.write(audio(speech(0.2), "c"))
        await call.done_writing()
        await listen(call, heard)
        return heard, n_before

    heard, n_before = run(characters, talk)
    assert heard.code is grpc.StatusCode.OK
    first, second, third = heard.finished
    assert (first.utterance_id, first.interrupted, second.utterance_id, second.interrupted) == ("a", True, "b", True)
    assert (second.played_frames, second.played_samples, third.interrupted) == (0, 0, False)
    assert first.frame_index <= n_before and abs(first.played_samples - span_start(first.played_frames, 16_000)) <= 1
    after = heard.frames[first.frame_index]
    assert after.utterance_id in ("", "c")
    if mode == "MODE_CUT":
        assert after.key_frame
    own = {name: [frame.frame_index for frame in heard.frames if frame.utterance_id == name] for name in "abc"}
    assert own["a"][-1] + 1 == first.frame_index and not own["b"] and len(own["c"]) == 6
    assert spoken(heard) == speech(5.0)[: 2 * first.played_samples] + speech(0.2)
    check_tiles(heard)


def test_what_was_decided_before_an_interrupt_came_is_not_shown(
    characters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = Session.prepare

    def slowly(self: Session, *arguments: Any) -> bool:
        if self.n_frames:
            time.sleep(0.3)
        return prepare(self, *arguments)

    async def talk(live: Live) -> Heard:
        call, heard = live.stub.StreamGestures(), Heard()
        for request in (config(**FAST), audio(speech(2.0), "u"), end()):
            await call.write(request)
        while len(heard.frames) < 4:
            heard.take(await call.read())
        await call.write(interrupt())
        await call.done_writing()
        await listen(call, heard)
        return heard

    monkeypatch.setattr(Session, "prepare", slowly)
    heard = run(characters, talk)
    assert len(heard.frames) == heard.finished[0].played_frames == 4 and heard.finished[0].interrupted


class Talk:
    """A call without a network: requests are heard in the turn of the loop in which they are put."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.read = self.requests.get
        self.heard = Heard()

    async def write(self, response: Any) -> None:
        self.heard.take(response)


@pytest.mark.parametrize("at", [4, 6])
def test_an_interrupt_in_the_moment_in_which_a_frame_is_due(
    characters: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before the first frame of a step is shown, or in its middle: what was ready is not there any more."""
    server, metrics = ServerConfig(characters=characters), Metrics()
    talk, ready_when_due = Talk(), []

    async def perform() -> None:
        loop = asyncio.get_running_loop()
        call_at = loop.call_at
        opener = Opener(server, CharacterStore(characters), None, metrics)
        plan = plan_session(config(late_policy="LATE_POLICY_BLOCK").config, server)
        opened = opener.open(plan, "s", server.max_chunk_s)
        session = opened.session

        def timed(when_s: float, callback: Any, *arguments: Any, **context: Any) -> Any:
            def due() -> None:
                if (
                    session.has_frame
                    and session.under_way is not None
                    and session.n_frames >= at
                    and not ready_when_due
                ):
                    for request in (interrupt("MODE_CUT"), grpc.aio.EOF):
                        talk.requests.put_nowait(request)
                    loop.call_soon(lambda: ready_when_due.append(session.has_frame))
                callback(*arguments)  # after what was put

            is_frame = callback.__module__ == LiveStream.__module__  # and not the sleep of a limit
            return call_at(when_s, due if is_frame else callback, *(() if is_frame else arguments), **context)

        monkeypatch.setattr(loop, "call_at", timed)
        for request in (audio(speech(2.0), "u"), end()):
            talk.requests.put_nowait(request)
        with ThreadPoolExecutor(1) as executor:
            turns = UnpacedTurns(Admission(server, Prices({})))
            await LiveStream(opened, talk, executor, turns, server, metrics, loop.time()).run()

    asyncio.run(perform())  # ended by its idle limit at the latest
    assert ready_when_due == [False], "it was there first"
    assert len(talk.heard.finished) == 1 and talk.heard.finished[0].interrupted


def test_any_cut_leaves_a_stream_that_decodes(characters: Path) -> None:
    """Groups of pictures are cut short by interrupts; what follows begins with a key frame."""
    talk: list[Request | float] = [config()]
    for number in range(4):
        talk += [audio(speech(2.0), str(number)), 0.27, interrupt("MODE_CUT")]
    heard = said(characters, *talk)
    decoder = av.CodecContext.create("h264", "r")
    decoder.options = {"err_detect": "explode"}
    pictures = [p for frame in heard.frames for p in decoder.decode(av.Packet(frame.data))] + decoder.decode(None)
    assert len(pictures) == len(heard.frames) and (pictures[0].width, pictures[0].height) == (WIDTH, HEIGHT)
    sets = heard.accepted.h264_parameter_sets
    assert all(frame.data.startswith(sets) == frame.key_frame for frame in heard.frames)
    assert len(heard.finished) == 4 and all(event.interrupted for event in heard.finished)


def test_late_speech_is_waited_for_with_idle_frames(characters: Path) -> None:
    data = speech(1.6)
    heard = said(
        characters, config(audio_echo=True), audio(data[:32_000], "u"), 1.6, audio(data[32_000:], "u", 16_000), end()
    )
    events = heard.all("underrun")
    assert events and all(event.utterance_id == "u" and event.n_frames == 4 for event in events)
    put_in = heard.frames[events[0].frame_index]
    assert not put_in.utterance_id and not put_in.audio.HasField("utterance_sample")
    own = [frame.utterance_frame for frame in heard.frames if frame.utterance_id == "u"]
    assert own == list(range(len(own)))
    assert spoken(heard) == data and not heard.finished[0].interrupted
    check_tiles(heard)


def test_without_idle_frames_the_clock_waits_for_speech(characters: Path) -> None:
    data = speech(1.0)
    first, second = audio(data[:25_600], "u"), audio(data[25_600:], "u")
    heard = said(characters, config(audio_echo=True, idle=False), 0.1, first, 0.9, second, end(), 0.1, audio(data, "v"))
    assert [frame.utterance_id for frame in heard.frames] == ["u"] * 30 + ["v"] * 30
    assert heard.sound == data * 2
    assert [(event.utterance_id, event.n_frames) for event in heard.all("underrun")] == [("u", 0)]


def test_pings_states_and_statistics(characters: Path) -> None:
    setup = config()
    setup.config.stats_period.FromMilliseconds(100)
    state = Request(set_state=session_pb2.SetState(state="STATE_LISTENING"))
    ping = Request(ping=session_pb2.Ping(number=7))
    heard = said(characters, setup, state, ping, audio(speech(0.3)), end(), 0.8)
    assert [pong.number for pong in heard.all("pong")] == [7]
    stats = heard.all("stats")
    assert 3 <= len(stats) <= 12 and stats[-1].frames_sent <= len(heard.frames)
    assert [one.frames_sent for one in stats] == sorted(one.frames_sent for one in stats)
    assert stats[-1].utterances_finished == 1 and stats[-1].frames_dropped == 0


@pytest.mark.parametrize("policy", ["LATE_POLICY_DROP", "LATE_POLICY_BLOCK"])
def test_slow_readers_lose_pictures_or_time_but_no_sound(characters: Path, policy: str) -> None:
    data = speech(2.0)
    setup = config(
        audio_echo=True,
        video_encoding="VIDEO_ENCODING_RGB24",
        late_policy=policy,
        stats_period={"seconds": 60},
    )

    async def talk(live: Live) -> tuple[Heard, float]:
        async with grpc.aio.insecure_channel(live.target, NARROW) as channel:
            call, heard = Live(live.service, live.metrics, channel, live.executor, "").stub.StreamGestures(), Heard()
            start_s = asyncio.get_running_loop().time()
            for request in (setup, audio(data, "u"), end()):
                await call.write(request)
            await call.done_writing()
            while len(heard.frames) < 5:
                heard.take(await call.read())
            await asyncio.sleep(1.5)
            await listen(call, heard)
            return heard, asyncio.get_running_loop().time() - start_s

    heard, took_s = run(characters, talk, max_late_s=LATE_S)
    assert heard.code is grpc.StatusCode.OK
    places = [frame.frame_index for frame in heard.frames]
    holes = [k for k in range(1, len(places)) if places[k] != places[k - 1] + 1]
    if policy == "LATE_POLICY_DROP":
        assert holes and all(heard.frames[k].source.frame % 4 == 0 for k in holes)
    else:
        assert not holes and took_s > 2.8  # a pause of 1.5 s behind 2 s of speech
    assert places == sorted(places)
    assert spoken(heard) == data and heard.finished[0].played_samples == len(data) // 2
    check_tiles(heard)


def test_who_never_reads_loses_the_slot(characters: Path) -> None:
    async def talk(live: Live) -> Heard:
        async with grpc.aio.insecure_channel(live.target, NARROW) as channel:
            call, heard = Live(live.service, live.metrics, channel, live.executor, "").stub.StreamGestures(), Heard()
            await call.write(config(video_encoding="VIDEO_ENCODING_RGB24"))
            while live.service.active_sessions == 0:
                await asyncio.sleep(0.01)
            async with asyncio.timeout(10):
                while live.service.active_sessions:
                    await call.write(Request(ping=session_pb2.Ping()))
                    await asyncio.sleep(0.05)
            await listen(call, heard)
            return heard

    heard = run(characters, talk, idle_timeout_s=0.5)
    assert heard.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert heard.info is not None and heard.info.reason == "SLOW_READER"


def test_cancelled_sessions_leave_nothing_behind(characters: Path) -> None:
    async def talk(live: Live) -> None:
        stub = live.stub
        await converse(live, [config(**FAST), audio(speech(0.2))])
        n_tasks, n_threads = len(asyncio.all_tasks()), threading.active_count()
        for number in range(60):
            call = stub.StreamGestures()
            await call.write(config(**(FAST if number % 2 else {})))
            for _ in range(number % 4):
                await call.write(audio(speech(0.5)))
            if number % 3:
                await call.read()
            call.cancel()
        async with asyncio.timeout(5):
            while live.service.active_sessions or len(asyncio.all_tasks()) > n_tasks:
                await asyncio.sleep(0.01)
        assert threading.active_count() <= n_threads + 4  # threads of the executors, started as they are needed
        assert "tango_rt_sessions_active 0.0" in live.metrics.text()
        assert 'reason="INTERNAL"' not in live.metrics.text()

    run(characters, talk)


def test_a_drain_lets_speech_end_and_sessions_go(characters: Path) -> None:
    async def talk(live: Live) -> tuple[Heard, Heard]:
        call, heard = live.stub.StreamGestures(), Heard()
        for request in (config(), audio(speech(0.8), "u"), end()):
            await call.write(request)
        while not heard.frames:
            heard.take(await call.read())
        live.service.begin_drain()
        refused = await converse(live, [config()])
        await listen(call, heard)
        return heard, refused

    heard, refused = run(characters, talk)
    assert refused.info is not None and refused.info.reason == "DRAINING" and refused.retry is not None
    assert refused.code is heard.code is grpc.StatusCode.UNAVAILABLE
    assert heard.info is not None and heard.info.reason == "DRAINING"
    assert [(event.utterance_id, event.interrupted) for event in heard.finished] == [("u", False)]
    assert [event.reason for event in heard.all("warning")] == ["DRAINING"]


def test_a_minute_at_once_waits_outside(characters: Path) -> None:
    """What is ahead of the performance is bounded: the rest stays with the client, and comes later."""
    data = speech(2.0)

    async def talk(live: Live) -> tuple[Heard, int]:
        call, heard = live.stub.StreamGestures(), Heard()
        await call.write(config(audio_echo=True, idle=False))
        heard.take(await call.read())
        most = 0
        (stream,) = live.service._streams
        writing = asyncio.create_task(write_all(call, chunks(data, "100")))
        reading = asyncio.create_task(listen(call, heard))
        while not reading.done():
            most = max(most, stream._session.queue.n_queued)
            await asyncio.sleep(0.005)
        await writing
        return heard, most

    heard, most = run(characters, talk, max_queued_audio_s=0.1)
    limit_s = heard.accepted.max_queued_audio.ToNanoseconds() / 1e9
    assert limit_s > heard.accepted.lookahead_samples / 16_000
    assert most <= (limit_s + 0.1) * 16_000 < len(data) // 2
    assert heard.sound[: len(data)] == data


async def write_all(call: Any, parts: Iterator[bytes]) -> None:
    for part in parts:
        await call.write(audio(part, "u"))
    await call.done_writing()


@pytest.mark.parametrize("encoding", ["JPEG", "RGB24", "I420", "REFERENCE"])
def test_pictures_come_in_every_encoding(characters: Path, encoding: str) -> None:
    heard = said(characters, config(video_encoding=f"VIDEO_ENCODING_{encoding}", **FAST), audio(speech(0.5)))
    assert len(heard.frames) == 15
    for frame in heard.frames:
        size = {"RGB24": 3 * WIDTH * HEIGHT, "I420": 3 * WIDTH * HEIGHT // 2, "REFERENCE": 0}.get(encoding)
        assert len(frame.data) == size if size is not None else frame.data.startswith(b"\xff\xd8")
        assert frame.source.frame // 4 == frame.source.node and frame.encoding == heard.accepted.config.video_encoding
        assert frame.key_frame == (encoding != "REFERENCE" or frame.source.frame % 4 == 0)


def test_transitions_are_told_apart(characters: Path) -> None:
    pool = TransitionPool(1, 1 << 30)
    try:
        setup = config(blender="BLENDER_FLOW", stats_period={"seconds": 60}, **FAST)
        heard = said(characters, setup, audio(speech(4.0)), pool=pool)
    finally:
        pool.close()
    assert heard.code is grpc.StatusCode.OK and len(heard.frames) == 120
    drawn = [frame for frame in heard.frames if frame.kind == media_pb2.FRAME_KIND_TRANSITION]
    assert drawn and all(frame.source.blender == media_pb2.BLENDER_FLOW for frame in drawn)
    for frame in heard.frames:
        halves = frame.source.HasField("cut_to") + frame.source.HasField("cut_from")
        assert halves == (1 if frame in drawn else 0)
    cuts = {(f.source.node, f.source.cut_to) for f in drawn if f.source.HasField("cut_to")}
    joins = {(f.source.cut_from, f.source.node) for f in drawn if f.source.HasField("cut_from")}
    assert joins <= cuts


@pytest.mark.parametrize("whole", [True, False])
def test_a_clip_is_the_same_as_a_fast_session(characters: Path, whole: bool) -> None:
    data = speech(2.0)
    setup = config(audio_echo=True)
    setup.config.whole_utterance = whole
    if not whole:
        setup.config.lookahead_nodes = 1
    fast = Request(config=setup.config)
    fast.config.pacing = session_pb2.PACING_FAST

    async def talk(live: Live) -> tuple[Heard, Heard]:
        clip = Heard()
        call = live.stub.RenderClip(service_pb2.RenderClipRequest(config=setup.config, audio=data))
        setup.config.ClearField("pacing")
        await listen(call, clip)
        return clip, await converse(live, [fast, audio(data)])

    clip, session = run(characters, talk)
    assert clip.code is session.code is grpc.StatusCode.OK
    assert [kind for kind, _ in clip.messages] == ["accepted", *["frame"] * 60, "finished"]
    assert [f.data for f in clip.frames] == [f.data for f in session.frames] and clip.sound == session.sound == data
    assert clip.finished[0].played_samples == len(data) // 2
    assert Fraction(len(clip.frames), clip.accepted.frame_rate) == Fraction(len(data) // 2, 16_000)


def test_characters_and_server_are_described(characters: Path) -> None:
    async def talk(live: Live) -> tuple[Any, Any, Any, Any]:
        stub = live.stub
        first = await stub.ListCharacters(service_pb2.ListCharactersRequest(page_size=1))
        rest = await stub.ListCharacters(service_pb2.ListCharactersRequest(page_token=first.characters[0].id))
        one = await stub.GetCharacter(service_pb2.GetCharacterRequest(id="anna"))
        return first, rest, one, await stub.GetServerInfo(service_pb2.GetServerInfoRequest())

    first, rest, one, info = run(characters, talk, max_sessions=3)
    assert [character.id for character in first.characters] == ["anna"] and not first.next_page_token
    assert not rest.characters and one == first.characters[0]
    assert (one.width, one.height, one.n_frames, one.n_nodes) == (WIDTH, HEIGHT, 260, 65) and len(one.sha256) == 64
    assert info.max_sessions == 3 and info.active_sessions == 0 and len(info.video_encodings) == 5
    assert "onnxruntime" in info.backends and info.max_chunk.seconds == 10
