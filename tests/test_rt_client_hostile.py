"""Clients against servers that lie: one clear line, the right exit code, an end within seconds, nothing lost."""

import asyncio
import json
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2

from engine.timebase import SAMPLE_RATE
from tango_rt.cli import main
from tango_rt.client import AsyncClient, Client, ConnectOptions, ServerError, SessionOptions, small_command
from tango_rt.client.formats import jpeg_size
from tango_rt.client.printable import printable
from tango_rt.client.sound import SOUND_RATE, Echo, Speech
from tango_rt.v1 import media_pb2, service_pb2, session_pb2
from tango_rt.video.reader import VideoReader
from tests.helpers.fakes_server import Response
from tests.helpers.hostile_server import ESCAPES, LIES, N_FRAMES, Lie, honest, hostile_server, lying, refusing
from tests.helpers.speech import write_speech

SPEECH_S = 1.5
PATIENCE_S = 1.5
MAX_S = 20.0  # of a machine with other work
PATIENT = ConnectOptions(patience_s=PATIENCE_S)

every_lie = pytest.mark.parametrize("lie", [pytest.param(lie, id=name) for name, lie in LIES.items()])
Command = Callable[[list[str]], None]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech") / "speech.wav", SPEECH_S)


def told(capsys: pytest.CaptureFixture[str], command: Command, *words: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    started_s = time.monotonic()
    code = 0
    try:
        command([str(word) for word in words])
    except SystemExit as left:
        code = int(left.code or 0)
    assert time.monotonic() - started_s < MAX_S
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def one_line(error: str) -> str:
    lines = error.splitlines()
    assert len(lines) == 1 and lines[0].isprintable() and "internal error" not in error, error[:2000]
    assert len(error) < 1500
    return lines[0]


def arguments(target: str, speech: Path, out: Path) -> list[object]:
    return ["send", target, speech, "-o", out, "--character", "anna", "--patience", PATIENCE_S]


@every_lie
def test_send_says_one_line_and_keeps_what_came_before(
    lie: Lie, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    with hostile_server(lying(lie)) as target:
        code, printed_out, error = told(capsys, main, *arguments(target, speech, out), "--fast")
    line = one_line(error)
    assert code == 1 and printed_out == "" and line.startswith("tango-rt: ") and lie.said in line
    if lie.kept is None:
        assert list(tmp_path.iterdir()) == []
        return
    assert list(tmp_path.iterdir()) == [out] and f"{out} holds" in line
    with VideoReader(out) as reader:
        n_frames = sum(1 for _ in reader)
    assert n_frames == lie.kept or (lie.kept < 0 and n_frames > N_FRAMES)


@pytest.mark.parametrize(
    "name",
    ["index 2^33", "index falls", "no picture", "falls silent", "never ends", "ends at frame 2^50", "ends early"],
)
@pytest.mark.parametrize("interrupted", [False, True], ids=["to the end", "interrupted"])
def test_send_by_the_clock_says_one_line(
    name: str, interrupted: bool, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted session is ended by the client only when the server has said that the utterance is over."""
    lie, out = LIES[name], tmp_path / "out.mp4"
    how = ["--interrupt-at", "0.1"] if interrupted else ["--live"]
    with hostile_server(lambda config, _: lie.answers(honest(config)), waits=not interrupted) as target:
        code, _, error = told(capsys, main, *arguments(target, speech, out), *how)
    assert code == 1 and lie.said in one_line(error) and list(tmp_path.iterdir()) == [out]


@every_lie
def test_the_small_client_says_one_line_and_keeps_what_came_before(
    lie: Lie, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.h264"
    with hostile_server(lying(lie)) as target:
        code, _, error = told(capsys, small_command.main, *arguments(target, speech, out))
    if lie.decoded:  # it has no decoder
        assert code == 0 and error == ""
        return
    line = one_line(error)
    assert code == 1 and line.startswith("tango-rt-client: ") and lie.said in line
    assert [file.name for file in tmp_path.iterdir()] == ([] if lie.kept is None else [out.name])
    if lie.kept is not None:
        n_pictures = out.read_bytes().count(b"\0\0\0\1\x65") + out.read_bytes().count(b"\0\0\0\1\x41")
        assert n_pictures == lie.kept or (lie.kept < 0 and n_pictures > N_FRAMES)


@every_lie
@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "async"])
def test_sessions_raise_server_errors(lie: Lie, asynchronous: bool) -> None:
    options = SessionOptions("anna", pacing="fast")
    samples = np.full(round(SPEECH_S * SAMPLE_RATE), 0.1, np.float32)

    def events(target: str) -> list[Any]:
        with Client(target, PATIENT) as client, client.stream(options) as session:
            session.send_audio(samples, "u")
            session.finish()
            return list(session)

    async def events_async(target: str) -> list[Any]:
        async with AsyncClient(target, PATIENT) as client, client.stream(options) as session:
            await session.send_audio(samples, "u")
            await session.finish()
            return [event async for event in session]

    started_s = time.monotonic()
    with hostile_server(lying(lie)) as target:
        if lie.decoded or lie.said == "ENDED_EARLY":  # only who writes a video looks for that
            asyncio.run(events_async(target)) if asynchronous else events(target)
            return
        with pytest.raises(ServerError) as caught:
            asyncio.run(events_async(target)) if asynchronous else events(target)
    assert lie.said in str(caught.value) and str(caught.value).isprintable()
    assert time.monotonic() - started_s < MAX_S


@pytest.mark.parametrize("command", [main, small_command.main], ids=["send", "small"])
def test_an_honest_server_is_believed(
    command: Command, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("out.mp4" if command is main else "out.h264")
    with hostile_server(lambda config, _: honest(config)) as target:
        fast = ["--fast"] if command is main else []
        code, printed_out, error = told(capsys, command, *arguments(target, speech, out), *fast, "--json")
    assert (code, error) == (0, "") and json.loads(printed_out)["n_frames"] == N_FRAMES


def _warned(config: Any, _: Any) -> list[Any]:
    answers = honest(config)
    warning = session_pb2.Warning(message=ESCAPES + "\ud7ff" + "x" * 5000, reason=ESCAPES)
    answers[0].accepted.server_version = answers[0].accepted.session_id = ESCAPES
    return [*answers[:5], *[Response(warning=warning)] * 300, *answers[5:]]


@pytest.mark.parametrize("command", [main, small_command.main], ids=["send", "small"])
def test_what_a_server_writes_steers_no_terminal(
    command: Command, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("out.mp4" if command is main else "out.h264")
    fast = ["--fast"] if command is main else []
    with hostile_server(_warned) as target:
        code, printed_out, error = told(capsys, command, *arguments(target, speech, out), *fast, "--json")
    lines = error.splitlines()
    assert code == 0 and 100 <= len(lines) <= 101 and all(line.isprintable() for line in lines)
    assert r"\x1b]0;owned\x07b c\u202ed\x9b2J" in lines[0] and max(map(len, lines)) < 700
    result = json.loads(printed_out)
    assert printed_out.isascii() and result["session_id"] == ESCAPES and len(result["warnings"]) <= 101

    with hostile_server(refusing(ESCAPES * 20, ESCAPES)) as target:
        code, _, error = told(capsys, command, *arguments(target, speech, tmp_path / out.name), *fast)
    assert code == 1 and r"\x1b]0;owned" in one_line(error)


def _unary(message: Any) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
    return lambda *_: iter([message])


def _listed(next_token: Callable[[str], str], n: int) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
    def answers(request: bytes, _: Any) -> Iterator[Any]:
        if not request:
            yield service_pb2.ServerInfo()
            return
        token = service_pb2.ListCharactersRequest.FromString(request).page_token
        page = [service_pb2.Character(id=f"c{token}-{k}") for k in range(n)]
        yield service_pb2.ListCharactersResponse(characters=page, next_page_token=next_token(token))

    return answers


INFOS = {
    "a time of 10^15 s": _unary(service_pb2.ServerInfo(max_chunk=duration_pb2.Duration(seconds=10**15))),
    "sessions below 0": _unary(service_pb2.ServerInfo(max_sessions=-1)),
    "2 MB": _unary(service_pb2.ServerInfo(machine="x" * (2 << 20))),
    "noise": _unary(b"\xff" * 50),
    "pages for ever": _listed(lambda token: str(int(token or 0) + 1), 1),
    "the same page for ever": _listed(lambda token: "again", 1),
    "two pages in turn": _listed(lambda token: "b" if token == "a" else "a", 1),
    "empty pages": _listed(lambda token: str(int(token or 0) + 1), 0),
    "a page too large": _listed(lambda token: "", 101),
}


@pytest.mark.parametrize("answers", [pytest.param(answers, id=name) for name, answers in INFOS.items()])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "async"])
def test_what_a_server_says_of_itself(answers: Any, asynchronous: bool, capsys: pytest.CaptureFixture[str]) -> None:
    async def ask(target: str) -> None:
        async with AsyncClient(target) as client:
            await client.info()
            await client.characters()

    with hostile_server(answers) as target:
        if asynchronous:
            with pytest.raises(ServerError):
                asyncio.run(ask(target))
            return
        for json_or_not in ([], ["--json"]):
            code, out, error = told(capsys, small_command.main, "info", target, *json_or_not)
            assert code == 1 and out == "" and one_line(error)


def test_names_of_a_server_steer_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def answers(request: bytes, _: Any) -> Iterator[Any]:
        character = service_pb2.Character(id=ESCAPES, retrievals=[ESCAPES])
        listed = service_pb2.ListCharactersResponse(characters=[character])
        yield listed if request else service_pb2.ServerInfo(version=ESCAPES, machine=ESCAPES)

    with hostile_server(answers) as target:
        code, out, _ = told(capsys, small_command.main, "info", target)
        assert code == 0 and all(line.isprintable() for line in out.splitlines()) and len(out.splitlines()) == 2
        code, out, _ = told(capsys, small_command.main, "info", target, "--json")
        assert json.loads(out)["server"]["machine"] == ESCAPES and out.isascii()


def test_what_there_is_no_room_for_is_called_so() -> None:
    """And not a message that is too large, which has the same code."""

    def no_room(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded")
        yield

    for answers, said in (
        (no_room, "no room for it: Concurrent RPC limit exceeded"),
        (_unary(bytes(65 << 20)), "a message was larger than allowed"),
    ):
        with hostile_server(answers) as target, Client(target) as client, pytest.raises(ServerError, match=said):
            client.info()


def test_damaged_details_of_a_refusal() -> None:
    def answers(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\x1a\x05\xff\xff\xff\xff\xff"),))
        context.abort(grpc.StatusCode.INTERNAL, "broken")
        yield

    with hostile_server(answers) as target, Client(target) as client, pytest.raises(ServerError, match="broken"):
        client.info()


def test_one_line_of_anything() -> None:
    assert printable("a\r\n b\tc\x1b[1m \x7f\u2028d\ud800") == r"a b c\x1b[1m \x7f d\ud800"
    assert printable("Zoë 名前") == "Zoë 名前"
    assert len(printable("x" * 10**7)) < 600 and len(printable("\x1b" * 10**7)) < 600


def test_the_size_that_a_jpeg_tells() -> None:
    import cv2

    ok, data = cv2.imencode(".jpg", np.zeros((64, 96, 3), np.uint8))
    assert ok and jpeg_size(data.tobytes()) == (96, 64)
    for wrong in (b"", b"\xff\xd8", b"\x89PNG" + bytes(50), data.tobytes()[:20], b"\xff\xd8" + bytes(99)):
        assert jpeg_size(wrong) is None


@pytest.mark.parametrize("encoding", ["jpeg", "rgb24", "i420"])
def test_pictures_of_another_size(
    encoding: str, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    small = {"jpeg": (32, 32, 3), "rgb24": (64, 95, 3), "i420": (96, 95)}[encoding]
    data = np.zeros(small, np.uint8).tobytes()
    if encoding == "jpeg":  # a few bytes that tell of a gigabyte
        data = bytearray(cv2.imencode(".jpg", np.zeros(small, np.uint8))[1].tobytes())
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = b"\x7f\xff\x7f\xff"

    def answers(config: Any, _: Any) -> list[Any]:
        lied = honest(config)[:2]
        lied[1].frame.encoding = config.video_encoding
        lied[1].frame.data = bytes(data)
        return lied

    out = tmp_path / "out.mp4"
    with hostile_server(answers) as target:
        code, _, error = told(capsys, main, *arguments(target, speech, out), "--fast", "--encoding", encoding)
    assert code == 1 and "breaks the protocol: frame 0" in one_line(error)


def test_holes_and_echoes_of_any_size_take_little_memory(speech: Path) -> None:
    frame = media_pb2.VideoFrame()
    frame.audio.data = np.array([np.nan, np.inf, -7, 0.5], "<f4").tobytes()
    (sound,) = Echo().of(frame, 0)
    np.testing.assert_allclose(sound, [0, 1, -1, 0.5])
    blocks = Speech(speech).of(media_pb2.VideoFrame(), 10**9)
    assert len(next(blocks)) <= SOUND_RATE


def test_a_wav_file_that_is_a_pipe(tmp_path: Path) -> None:
    import os

    from tango_rt.client import InputError
    from tango_rt.client.wav import WavSpeech

    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(InputError):
        WavSpeech.open(tmp_path / "a.wav")
    with wave.open(str(tmp_path / "b.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    with pytest.raises(InputError, match="no samples"):
        WavSpeech.open(tmp_path / "b.wav")
