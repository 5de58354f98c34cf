"""Speech through pipes; files that were joined or written without knowing their length."""

import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from tango_rt.media import pipes
from tango_rt.media.pipes import make_rereadable
from tango_rt.sound.audio import check_audible, read_audio
from tango_rt.video.reader import VideoReader
from tests.helpers.media_files import gray_pictures, join, piped, write_audio, write_video

UNKNOWN = 0xFFFFFFFF


def tone(seconds: float, rate: int = 16000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.mp4", "a.ogg"])
def test_a_pipe_is_heard_as_the_file_is(tmp_path: Path, name: str) -> None:
    codec = {"a.wav": "pcm_s16le", "a.mp3": "libmp3lame", "a.mp4": "aac", "a.ogg": "libopus"}[name]
    file = write_audio(tmp_path / name, tone(3, 48000), 48000, codec=codec)
    with piped(file.read_bytes()) as path:
        np.testing.assert_array_equal(read_audio(path), read_audio(file))


def test_a_named_pipe(tmp_path: Path) -> None:
    file = write_audio(tmp_path / "a.wav", tone(1), 16000)
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(file.read_bytes(),))
    writer.start()
    assert len(read_audio(fifo)) == 16000
    writer.join()


READ = """
import sys
from pathlib import Path
from tango_rt.sound.audio import read_audio
print(len(read_audio(Path(sys.argv[1]))))
"""


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input(tmp_path: Path, name: str) -> None:
    """From a pipe, a file, and a socket, as Node gives to its children."""
    file = write_audio(tmp_path / "a.wav", tone(1), 16000)
    command = [sys.executable, "-c", READ, name]
    assert subprocess.run(command, input=file.read_bytes(), capture_output=True).stdout.strip() == b"16000"
    with file.open("rb") as content:
        assert subprocess.run(command, stdin=content, capture_output=True).stdout.strip() == b"16000"
    ours, theirs = socket.socketpair()
    with theirs, subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE) as process:
        ours.sendall(file.read_bytes())
        ours.close()
        theirs.close()
        assert process.communicate()[0].strip() == b"16000"


def test_errors_name_the_pipe_and_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with piped(b"no sound\n" * 100) as path, pytest.raises(InputError, match=f"^{path}: ") as caught:
        read_audio(path)
    assert str(tmp_path) not in str(caught.value)
    silence = write_audio(tmp_path / "a.wav", np.zeros(16000, np.float32), 16000).read_bytes()
    with (
        piped(silence) as path,
        pytest.raises(InputError, match=f"^{path}: the audio is silent"),
        make_rereadable(path) as file,
    ):
        check_audible(read_audio(file), file)
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]


def test_what_cannot_be_kept_or_is_no_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write_audio(tmp_path / "a.wav", tone(1), 16000).read_bytes()
    monkeypatch.setattr(pipes, "MAX_PIPED_BYTES", 1000)
    with piped(content) as path, pytest.raises(InputError, match="of input: use a file"):
        read_audio(path)
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with piped(content) as path, pytest.raises(InputError, match="cannot be read or stored"):
        read_audio(path)
    monkeypatch.undo()
    for device in ("/dev/null", "/dev/zero"):
        with pytest.raises(InputError, match="a device"):
            read_audio(Path(device))
    with pytest.raises(InputError, match="no such file"):
        read_audio(Path("/dev/fd/987"))


def test_a_video_cannot_come_through_a_pipe(tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.mkv", gray_pictures([50] * 5)).read_bytes()
    with piped(content) as path, pytest.raises(InputError, match="only once: save it to a file first"):
        VideoReader(path)
    with pytest.raises(InputError, match="only once"):
        VideoReader(Path("-"))


def wav(samples: np.ndarray, rate: int = 16000, riff: int | None = None, data: int | None = None) -> bytes:
    """riff, data: the sizes that the headers tell, instead of the true ones."""
    content = (samples * 32767).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, rate, rate * 2, 2, 16)
    riff = 36 + len(content) if riff is None else riff
    data = len(content) if data is None else data
    return (
        struct.pack("<4sI4s4sI", b"RIFF", riff, b"WAVE", b"fmt ", 16)
        + form
        + struct.pack("<4sI", b"data", data)
        + content
    )


@pytest.mark.parametrize(("riff", "data"), [(UNKNOWN, UNKNOWN), (0, 0), (36, 0), (UNKNOWN, 0), (None, UNKNOWN)])
def test_a_wav_file_that_was_written_into_a_pipe(tmp_path: Path, riff: int | None, data: int) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(wav(tone(2), riff=riff, data=data))
    samples = read_audio(file)
    np.testing.assert_allclose(samples, tone(2), atol=1e-4)
    with piped(file.read_bytes()) as path:
        np.testing.assert_array_equal(read_audio(path), samples)


@pytest.mark.parametrize("size", [None, UNKNOWN, 0])
def test_joined_wav_files_are_read_to_the_end_and_it_is_said(tmp_path: Path, size: int | None) -> None:
    file, said = tmp_path / "a.wav", list[str]()
    file.write_bytes(b"".join(wav(tone(1) * gain, riff=size, data=size) for gain in (0.2, 0.4, 0.8)))
    samples = read_audio(file, warn=said.append)
    np.testing.assert_allclose(samples, np.concatenate([tone(1) * gain for gain in (0.2, 0.4, 0.8)]), atol=1e-4)
    assert len(said) == 1 and "appended" in said[0]


def test_joined_files_of_other_rates_and_formats(tmp_path: Path) -> None:
    said: list[str] = []
    file = tmp_path / "a.wav"
    file.write_bytes(wav(tone(1)) + b"LIST\x04\0\0\0INFO" + wav(tone(1, 48000), 48000) + wav(tone(1, 8000), 8000))
    samples = read_audio(file, warn=said.append)
    assert len(samples) == pytest.approx(48000, abs=2)
    for second in range(3):
        part = samples[second * 16000 + 1000 : (second + 1) * 16000 - 1000]
        assert np.sqrt(np.mean(part**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    assert len(said) == 1
    for name, codec in (("b.m4a", "aac"), ("b.aiff", "pcm_s16be"), ("b.mka", "flac")):
        container_format = {"b.m4a": "mp4", "b.mka": "matroska"}.get(name)
        part = write_audio(tmp_path / name, tone(1, 48000), 48000, codec=codec, container_format=container_format)
        joined = join(tmp_path / f"joined-{name}", part, part, part)
        assert len(read_audio(joined, warn=said.append)) == pytest.approx(48000, abs=32), name
        assert len(said) == 2
        said.pop()


def test_what_is_behind_a_file_and_is_none_is_not_heard(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    for rubbish, remark in ((b"junk" * 1000, ""), (b"RIFF\x10\0\0\0WAVE", "appended"), (wav(tone(1))[:30], "appended")):
        said: list[str] = []
        file.write_bytes(wav(tone(1)) + rubbish)
        assert len(read_audio(file, warn=said.append)) == 16000
        assert len(said) == bool(remark) and all(remark in text and "cannot be read" in text for text in said)
