"""`tango-rt send` against the real server: what is written, what is told, and how it is stopped."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest

from engine.errors import BackendError
from engine.motion_graph.words import words_text
from engine.timebase import FPS, FRAMES_PER_NODE, SAMPLE_RATE, frame_count
from tango_rt.cli import main
from tango_rt.client import AsyncClient, Client, InputError, ServerError, SessionOptions, SpokenWord
from tango_rt.client.microphone import Microphone
from tango_rt.sound.audio import read_audio
from tango_rt.v1 import media_pb2, session_pb2
from tango_rt.video.reader import VideoReader
from tests.helpers.commands import refusal, run_json
from tests.helpers.fakes_proxy import fake_proxy
from tests.helpers.fakes_server import Response, accept, fake_server
from tests.helpers.media_files import join, piped
from tests.helpers.real_server import real_server
from tests.helpers.speech import write_speech
from tests.helpers.spoken import SAID_FROM, make_worded_pack, said_from

SPEECH_S = 2.3


@pytest.fixture(scope="module")
def server(characters: Path) -> Any:
    with real_server(characters) as target:
        yield target


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech") / "speech.wav", SPEECH_S)


def n_pictures(video: Path) -> int:
    with VideoReader(video) as reader:
        return sum(1 for _ in reader)


def send(capsys: pytest.CaptureFixture[str], server: str, *arguments: object) -> dict[str, Any]:
    return run_json(capsys, "send", server, "--character", "anna", *arguments)


def test_a_file_at_full_speed(
    server: str, characters: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    result = send(capsys, server, speech, "-o", out, "--fast", "--whole", "--timings")
    n_frames = frame_count(round(SPEECH_S * SAMPLE_RATE))
    assert (result["output"], result["n_frames"]) == (str(out), n_frames)
    assert n_pictures(out) == n_frames and result["dropped"] == 0 and not result["interrupted"]
    assert result["timings_ms"].keys() == {"hear", "search", "draw", "late", "latency"}
    rendered = run_json(capsys, "render", characters / "anna.tango", speech, "-o", tmp_path / "rendered.mp4")
    assert result["nodes"] == rendered["nodes"]
    heard, meant = read_audio(out), read_audio(tmp_path / "rendered.mp4")
    assert len(heard) == len(meant) and np.abs(heard - meant).max() < 1e-6


def test_speech_from_a_pipe(server: str, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joined = join(tmp_path / "joined.wav", speech, speech)
    wanted = send(capsys, server, joined, "-o", tmp_path / "file.mp4", "--fast")
    with piped(joined.read_bytes()) as path:
        result = send(capsys, server, path, "-o", tmp_path / "pipe.mp4", "--fast")
    assert result["nodes"] == wanted["nodes"] and len(result["nodes"]) > 0
    np.testing.assert_array_equal(read_audio(tmp_path / "pipe.mp4"), read_audio(tmp_path / "file.mp4"))
    assert [text.split(": ")[1] for text in wanted["warnings"]] == [text.split(": ")[1] for text in result["warnings"]]
    assert wanted["warnings"][0].startswith("joined.wav: other files")


@pytest.mark.parametrize("lookahead", [0, 2, 5])
def test_a_stream_is_the_render_with_its_look_ahead(
    server: str, characters: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lookahead: int
) -> None:
    result = send(capsys, server, speech, "-o", tmp_path / "live.mp4", "--fast", "--lookahead", lookahead)
    pack, offline = characters / "anna.tango", tmp_path / "offline.mp4"
    rendered = run_json(capsys, "render", pack, speech, "-o", offline, "--lookahead", lookahead)
    assert result["nodes"] == rendered["nodes"]
    assert rendered["lookahead_nodes"] == lookahead and rendered["cost"] is None


def test_words_are_sent_with_the_speech(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = make_worded_pack(tmp_path / "packs" / "anna.tango").path
    speech, words = write_speech(tmp_path / "speech.wav", 6.0), tmp_path / "words.json"
    words.write_text(words_text(said_from(20), 99), "utf-8")
    rendered = run_json(capsys, "render", pack, speech, "-o", tmp_path / "a.mp4", "--words", words)
    with real_server(pack.parent) as target:
        asked = (target, speech, "-o", tmp_path / "b.mp4", "--fast", "--words", words)
        assert send(capsys, *asked, "--whole")["nodes"] == rendered["nodes"]
        live = send(capsys, *asked)["nodes"]
        assert live[22:36] == list(range(SAID_FROM + 2, SAID_FROM + 16))
        text = refusal(
            capsys, "send", target, "--character", "anna", "--mic", "-o", tmp_path / "c.mp4", "--words", words
        )
        assert "--words" in text
        for session_of in (plain_words, lambda target, word: asyncio.run(async_words(target, word))):
            with pytest.raises(InputError, match="from sample 5 to 4"):
                session_of(target, SpokenWord("a", 5, 4))
            assert session_of(target, SpokenWord("a", 4, 5)) > 0


def plain_words(target: str, word: SpokenWord) -> int:
    with Client(target) as client, client.stream(SessionOptions("anna", pacing="fast")) as session:
        session.words([word] * 999)
        session.send_audio(np.zeros(3200))
        session.finish()
        return sum(isinstance(event, media_pb2.VideoFrame) for event in session)


async def async_words(target: str, word: SpokenWord) -> int:
    async with AsyncClient(target) as client, client.stream(SessionOptions("anna", pacing="fast")) as session:
        await session.words([word] * 999)
        await session.send_audio(np.zeros(3200))
        await session.finish()
        return len([event async for event in session if isinstance(event, media_pb2.VideoFrame)])


def test_the_clock_with_idle_and_echo(
    server: str, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    result = send(capsys, server, speech, "-o", out, "--live", "--idle", "0.5")
    n_speech = frame_count(round(SPEECH_S * SAMPLE_RATE))
    assert result["n_frames"] >= n_speech + 2 * 15
    assert n_pictures(out) == result["n_frames"] and len(result["nodes"]) == -(-result["n_frames"] // FRAMES_PER_NODE)
    assert result["first_frame_ms"] > 0 and result["first_speech_frame_ms"] > 0
    assert set(result["interval_ms"]) == {"p50", "p95", "p99", "max"}
    heard, said = read_audio(out), read_audio(speech)
    assert abs(len(heard) - result["n_frames"] * SAMPLE_RATE / FPS) < SAMPLE_RATE / FPS
    shift = int(np.argmax(np.correlate(heard, said, "valid")))
    speech_part = heard[shift : shift + len(said)]
    if not result["underruns"]:  # a machine that was held up puts silence in between
        assert np.corrcoef(speech_part, said)[0, 1] > 0.98
    assert np.abs(heard[: shift - 100]).max() < 0.02 and shift >= 0.5 * SAMPLE_RATE - 100


def test_an_interrupt_ends_speech_and_sound(
    server: str, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    result = send(capsys, server, speech, "-o", out, "--interrupt-at", "0.5", "--interrupt-mode", "cut")
    assert result["interrupted"] and not result["stopped"]
    assert 0.5 * FPS < result["n_frames"] < frame_count(round(SPEECH_S * SAMPLE_RATE))
    assert abs(len(read_audio(out)) / SAMPLE_RATE - result["duration_s"]) < 0.05


@pytest.mark.parametrize("encoding", ["jpeg", "rgb24", "i420", "reference"])
def test_every_encoding_gives_the_same_video(
    encoding: str, server: str, characters: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [speech, "--fast", "--blender", "crossfade"]
    wanted = send(capsys, server, *arguments, "-o", tmp_path / "wanted.mp4")
    pack = ["--pack", characters / "anna.tango"] if encoding == "reference" else []
    result = send(capsys, server, *arguments, "-o", tmp_path / "out.mp4", "--encoding", encoding, *pack)
    assert result["nodes"] == wanted["nodes"] and result["n_frames"] == wanted["n_frames"]
    with VideoReader(tmp_path / "wanted.mp4") as left, VideoReader(tmp_path / "out.mp4") as right:
        pairs = list(zip(left, right, strict=True))
    worst = max(np.abs(a.astype(int) - b.astype(int)).mean() for a, b in pairs)
    assert len(pairs) == result["n_frames"] and worst < (1e-9 if encoding == "reference" else 4)


def test_refusals_are_one_line(server: str, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.mp4"
    for arguments, said in (
        ((server, speech, "-o", tmp_path / "out.avi"), "must end in .mp4"),
        ((server, speech, "-o", tmp_path / "no" / "out.mp4"), "does not exist"),
        ((server, tmp_path / "no.wav", "-o", out), "no such file"),
        ((server, speech, "-o", out, "--fast", "--idle", "1"), "leave out --fast"),
        ((server, speech, "-o", out, "--encoding", "reference"), "--pack"),
        ((server, "--mic", "-o", out, "--live"), "live already"),
        ((server, speech, "--mic", "-o", out), "only one of them"),
        (("localhost", speech, "-o", out), "HOST:PORT"),
        ((server, speech, "-o", out, "--token-file", tmp_path / "none"), "cannot read the token"),
    ):
        assert said in refusal(capsys, "send", "--character", "anna", *arguments)
    for character, target, said in (("bob", server, "UNKNOWN_CHARACTER"), ("anna", "127.0.0.1:1", "UNAVAILABLE")):
        with pytest.raises(SystemExit) as left:
            main(["send", target, "--character", character, str(speech), "-o", str(out)])
        lines = capsys.readouterr().err.strip().splitlines()
        assert left.value.code == 1 and len(lines) == 1 and said in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_proxies_are_for_other_machines(
    server: str,
    speech: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    out = tmp_path / "out.mp4"
    with fake_proxy() as proxy:
        monkeypatch.setenv("https_proxy", f"http://me:pw@{proxy.address}")
        assert send(capsys, server, speech, "-o", out, "--fast")["n_frames"] > 0
        assert proxy.asked == []
        elsewhere = ["send", "gestures.invalid:443", "--character", "anna", speech, "-o", out]
        said = refusal(capsys, *elsewhere, "--insecure")
        assert f"through the proxy {proxy.address} (https_proxy" in said and "pw" not in said and proxy.asked == []
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in elsewhere])
        lines = capsys.readouterr().err.strip().splitlines()
        assert left.value.code == 1 and len(lines) == 1 and f"through the proxy {proxy.address}" in lines[0]
        assert set(proxy.asked) == {"CONNECT gestures.invalid:443 HTTP/1.1"}


def sent_and_stopped(folder: Path, *arguments: object, **environment: str) -> tuple[int, dict[str, Any]]:
    """Exit code and result of a process that got Ctrl-C while frames came."""
    command = [Path(sys.executable).with_name("tango-rt"), "send", *arguments, "--character", "anna", "--json"]
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
    )
    while not list(folder.glob(".*.partial")) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    printed, complaints = process.communicate(timeout=30)
    assert printed, complaints
    return process.returncode, json.loads(printed)


def test_ctrl_c_writes_what_was_received(server: str, speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    code, result = sent_and_stopped(tmp_path, server, speech, "-o", out, "--idle", "60")
    assert code == 130 and result["stopped"] and result["n_frames"] > 0
    assert n_pictures(out) == result["n_frames"]
    assert list(tmp_path.iterdir()) == [out]


FAKE_SOUNDDEVICE = """
import threading
import numpy as np

class PortAudioError(Exception):
    pass

class InputStream:
    def __init__(self, samplerate, channels, dtype, blocksize, callback):
        self._block = (blocksize, channels)
        self._callback = callback
        self._closed = threading.Event()
        self._period_s = blocksize / samplerate

    def start(self):
        threading.Thread(target=self._run, daemon=True).start()

    def close(self):
        self._closed.set()

    def _run(self):
        rng = np.random.default_rng(0)
        while not self._closed.wait(self._period_s):
            self._callback(rng.normal(0, 0.2, self._block).astype("float32"), self._block[0], None, None)
"""


def test_the_microphone_until_ctrl_c(server: str, tmp_path: Path) -> None:
    packages, folder = tmp_path / "packages", tmp_path / "out"
    packages.mkdir()
    folder.mkdir()
    (packages / "sounddevice.py").write_text(FAKE_SOUNDDEVICE)
    code, result = sent_and_stopped(
        folder, server, "--mic", "-o", folder / "out.mp4", PYTHONPATH=str(packages), PYTHONUNBUFFERED="1"
    )
    assert code == 0 and not result["stopped"] and not result["interrupted"]
    assert n_pictures(folder / "out.mp4") == result["n_frames"] > 0
    assert result["first_speech_frame_ms"] is not None
    heard = read_audio(folder / "out.mp4")
    assert abs(len(heard) / SAMPLE_RATE - result["duration_s"]) < 0.05
    assert np.abs(heard).max() > 0.1


def test_without_a_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(BackendError, match="pip install sounddevice"):
        Microphone(16_000)
    broken = ModuleType("sounddevice")

    class PortAudioError(Exception):
        pass

    def no_device(**_: object) -> None:
        raise PortAudioError("Error querying device -1")

    broken.PortAudioError, broken.InputStream = PortAudioError, no_device  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", broken)
    with pytest.raises(BackendError, match="no usable microphone: Error querying device -1"):
        Microphone(16_000)


def test_a_server_that_dies_leaves_no_file(speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def behaviour(requests: Any, context: Any) -> Any:
        accepted = accept(next(requests))
        accepted.accepted.h264_parameter_sets = b"\0\0\0\1sets"
        yield accepted
        raise RuntimeError("the server is broken")

    with fake_server(behaviour) as target, pytest.raises(SystemExit) as left:
        main(["send", target, "--character", "anna", str(speech), "-o", str(tmp_path / "out.mp4")])
    assert left.value.code == 1 and list(tmp_path.iterdir()) == []


class _Dropping:
    """Sends the frames of the real server without those of one group, as a server does whose client reads late."""

    def __init__(self, server: str, hole: range) -> None:
        self._server = server
        self._hole = hole

    def __call__(self, requests: Any, context: Any) -> Any:
        with Client(self._server) as client, client.stream(SessionOptions("anna", pacing="fast")) as session:
            accepted = accept(next(requests))
            accepted.accepted.CopyFrom(session.accepted)
            yield accepted
            for request in requests:
                if request.HasField("audio"):
                    session.send_audio((np.frombuffer(request.audio.data, "<f4") * 32767).astype(np.int16), "speech")
            session.finish()
            for event in session:
                if isinstance(event, media_pb2.VideoFrame) and event.frame_index not in self._hole:
                    yield Response(frame=event)
                elif isinstance(event, session_pb2.UtteranceFinished):
                    yield Response(utterance_finished=event)


def test_dropped_frames_are_told_and_sound_stays_where_it_belongs(
    server: str, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    hole = range(8, 16)
    with fake_server(_Dropping(server, hole)) as target:
        result = send(capsys, target, speech, "-o", out, "--fast")
    n_frames = frame_count(round(SPEECH_S * SAMPLE_RATE))
    assert (result["dropped"], result["n_frames"]) == (len(hole), n_frames)
    assert result["nodes"][2:4] == [None, None] and None not in result["nodes"][:2] + result["nodes"][4:]
    with av.open(str(out)) as container:
        stamps = [packet.pts * packet.time_base for packet in container.demux(video=0) if packet.pts is not None]
    shown = [round(stamp * FPS) for stamp in stamps]
    assert shown == [k for k in range(n_frames) if k not in hole]
    assert max(b - a for a, b in pairwise(shown)) == len(hole) + 1
    heard, said = read_audio(out), read_audio(speech)
    assert abs(len(heard) - len(said)) < SAMPLE_RATE // FPS
    assert np.corrcoef(heard[: len(said)], said[: len(heard)])[0, 1] > 0.98


def test_the_plain_and_the_async_client_see_the_same(server: str, speech: Path) -> None:
    import asyncio

    from tango_rt.client import AsyncClient

    options = SessionOptions("anna", pacing="fast", audio_encoding="float32")
    samples = read_audio(speech)

    def frames(events: list[Any]) -> list[bytes]:
        return [event.data for event in events if isinstance(event, media_pb2.VideoFrame)]

    async def streamed() -> tuple[list[Any], list[Any], list[str]]:
        async with AsyncClient(server) as client:
            async with client.stream(options) as session:
                for start in range(0, len(samples), 320):
                    await session.send_audio(samples[start : start + 320], "u", start)
                await session.finish()
                events = [event async for event in session]
            clip = [event async for event in client.render_clip(options, samples)]
            return events, clip, [character.id for character in await client.characters()]

    in_stream, in_clip, names = asyncio.run(streamed())
    with Client(server) as client:
        with client.stream(options) as session:
            session.send_audio(samples, "u")
            session.end_of_utterance("u")
            session.finish()
            plain = list(session)
        assert [character.id for character in client.characters()] == names == ["anna"]
        assert client.character("anna").n_nodes == client.characters()[0].n_nodes > 0
        assert client.info().max_sessions > 0
        with pytest.raises(ServerError, match="UNKNOWN_CHARACTER"):
            client.character("bob")
        clip = list(client.render_clip(options, samples))
    assert frames(plain) == frames(in_stream) and len(frames(plain)) == frame_count(len(samples))
    assert frames(clip) == frames(in_clip) and len(frames(clip)) == frame_count(len(samples))
    assert isinstance(clip[0], session_pb2.Accepted) and isinstance(clip[-1], session_pb2.UtteranceFinished)
