"""Media and the files beside them from strangers: nothing else is opened, nothing waits, nothing fills the memory."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError, TangoError
from tango_rt.characters.smplx import read_smplx
from tango_rt.characters.source import _Found, _load
from tango_rt.client import ConnectOptions
from tango_rt.client.channel import channel_options, credentials
from tango_rt.client.connection import connect_options
from tango_rt.client.route import route_to
from tango_rt.media.container import open_media
from tango_rt.media.joined import end_within
from tango_rt.models.folder import file_states
from tango_rt.server.config import ServerConfig, from_sources
from tango_rt.server.security import load_credentials, load_tokens
from tango_rt.sound.audio import read_audio
from tango_rt.video.reader import VideoReader
from tango_rt.words import read_words
from tests.helpers.media_files import gray_pictures, write_audio, write_video
from tests.helpers.planted_models import PLANTED

MAX_S = 10.0
MPD = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-main:2011" type="static">
<Period><AdaptationSet><Representation><BaseURL>other.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>
"""
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.mp4\n#EXT-X-ENDLIST\n"
SCRIPTS = {
    "speech.wav": "ffconcat version 1.0\nfile other.wav\n",
    "talk.mp4": "ffconcat version 1.0\nfile other.mp4\n",
    "list.ffconcat": "ffconcat version 1.0\nfile other.wav\n",
    "list.txt": "file 'other.wav'\n",
    "list.m3u8": HLS,
    "list.m3u": HLS,
    "hls.mp4": HLS,
    "list.mpd": MPD,
    "dash.mp4": MPD,
    "list.pls": "[playlist]\nFile1=other.wav\nNumberOfEntries=1\n",
    "list.asx": '<asx version="3.0"><entry><ref href="other.wav"/></entry></asx>',
    "list.ram": "file:other.wav\n",
    "call.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "script.vpy": "import vapoursynth\n",
    "script.avs": 'AviSource("other.avi")\n',
    "sub.idx": "# VobSub index file, v7 (do not modify this line!)\n",
    "subtitles.mp4": "1\n00:00:01,000 --> 00:00:02,000\nhello\n\n",
    "meta.wav": ";FFMETADATA1\ntitle=x\n",
    "text.mp4": "only a text\n" * 100,
    "%03d.png": "\x89PNG",
    "frame*.png": "\x89PNG",
    "concat:other.wav|other.wav": "x",
    "http:x": "x",
    "data:audio,x": "x",
    "lavfi": "sine=frequency=1000",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_lists_and_scripts_are_refused(tmp_path: Path, name: str) -> None:
    write_audio(tmp_path / "other.wav", np.full(16000, 0.3, np.float32), 16000)
    write_video(tmp_path / "other.mp4", gray_pictures([50] * 5))
    (tmp_path / "001.png").write_bytes(b"\x89PNG")
    file = tmp_path / name
    file.write_text(SCRIPTS[name], "latin-1")
    for read in (open_media, read_audio, VideoReader):
        with pytest.raises(InputError) as caught:
            read(file)
        assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


OPEN = """
import sys
from pathlib import Path
from tango_rt.media.joined import end_within
from tango_rt.media.container import open_media
for name in sys.argv[1:]:
    try:
        open_media(Path(name))
    except Exception as error:
        print(error)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_nothing_that_they_name_is_opened(tmp_path: Path) -> None:
    files = []
    for name, content in SCRIPTS.items():
        files.append(tmp_path / name)
        files[-1].write_text(content.replace("other", "secret"), "latin-1")
    for secret in ("secret.wav", "secret.mp4", "secret.avi", "sub.sub"):
        (tmp_path / secret).write_bytes(b"x")
    log = tmp_path / "log"
    command = ["strace", "-f", "-e", "trace=open,openat,stat,connect,socket", "-o", log, sys.executable, "-c", OPEN]
    done = subprocess.run([*map(str, command), *map(str, files)], capture_output=True, text=True, check=False)
    if done.returncode and "ptrace" in done.stderr:
        pytest.skip("strace may not be used here")
    assert len(done.stdout.splitlines()) == len(files)
    calls = log.read_text(errors="replace")
    assert "speech.wav" in calls and "secret" not in calls and "sub.sub" not in calls and "AF_INET" not in calls


def test_a_pipe_beside_a_list_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "speech.wav").write_text("ffconcat version 1.0\nfile pipe.wav\n")
    assert _raises(lambda: read_audio(tmp_path / "speech.wav"), InputError)


CUT = "import os, sys, time; time.sleep(0.3); os.truncate(sys.argv[1], 10)"


@pytest.mark.parametrize("content", [b"RIFF\0\0\0\0AVI " + b"RIFF\0\0\0\0" * 300_000, b"fLaC\0\0\0\x22" + bytes(50)])
def test_a_file_that_is_cut_short_while_its_end_is_looked_for(tmp_path: Path, content: bytes) -> None:
    """Mapped into memory, it would end the process by SIGBUS; read, it is only shorter."""
    file = tmp_path / "a.wav"
    file.write_bytes(content)
    os.truncate(file, 1 << 32)  # sparse
    command = [sys.executable, "-c", OPEN, str(file)]
    with subprocess.Popen([sys.executable, "-c", CUT, str(file)]):
        end_within(file, 0)
    assert subprocess.run(command, capture_output=True, check=True).stdout.startswith(str(file).encode())


def _raises(work: Callable[[], object], kind: type[Exception]) -> bool:
    """In a thread, which a pipe could hold up for ever."""
    found: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    started_s = time.monotonic()
    thread.start()
    thread.join(MAX_S)
    assert not thread.is_alive() and time.monotonic() - started_s < MAX_S
    return len(found) == 1 and isinstance(found[0], kind) and "\n" not in str(found[0])


def _connection(file: Path) -> object:
    from argparse import Namespace

    words = dict.fromkeys(("tls", "tls_ca", "tls_cert", "tls_key", "tls_name", "insecure", "patience"))
    return connect_options(Namespace(token_file=file, **words))


def _certificates(file: Path) -> object:
    assert channel_options(route_to("far:1"), ConnectOptions())
    return credentials(route_to("far:1"), ConnectOptions(ca=file))


READERS: dict[str, Callable[[Path], object]] = {
    "words": read_words,
    "client token": _connection,
    "client certificate": _certificates,
    "server token": lambda file: load_tokens(ServerConfig(characters=file.parent, token_file=file)),
    "server certificate": lambda file: load_credentials(
        ServerConfig(characters=file.parent, tls_cert=file, tls_key=file)
    ),
    "server options": lambda file: from_sources({"characters": file.parent}, {}, file),
    "SMPL-X": read_smplx,
    "video": VideoReader,
}


def _special(folder: Path, kind: str) -> Path:
    file = folder / "file"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "sparse":
        file.touch()
        os.truncate(file, 3 << 30)
    elif kind == "folder":
        file.mkdir()
    else:
        file = Path(kind)
    return file


special = pytest.mark.parametrize("kind", ["pipe", "sparse", "folder", "/dev/zero", "/dev/null"])


@special
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, kind: str, reader: str) -> None:
    file = _special(tmp_path, kind)
    assert _raises(lambda: READERS[reader](file), TangoError)


@special
def test_networks_that_are_no_plain_files_are_damaged(tmp_path: Path, kind: str) -> None:
    if kind.startswith("/"):
        (tmp_path / PLANTED.files[0].name).symlink_to(kind)
    else:
        _special(tmp_path, kind).rename(tmp_path / PLANTED.files[0].name)
    states: list[object] = []
    thread = threading.Thread(target=lambda: states.append(file_states(tmp_path, PLANTED)), daemon=True)
    thread.start()
    thread.join(MAX_S)
    assert states == [{PLANTED.files[0].name: "damaged", PLANTED.files[1].name: "absent"}]


def found(n: int = 30) -> _Found:
    return _Found(
        body=np.zeros((n, 33, 4), np.float32),
        hands=np.zeros((n, 2, 21, 3), np.float32),
        mouth=np.zeros((n, 2), np.float32),
        masks=np.zeros((n, 48), np.uint64),
        appearance=np.zeros((n, *_cells()), np.uint8),
        thumbnails=np.zeros((-(-n // 6), 24, 32, 3), np.uint8),
        shots=np.array([7, 20], np.int64),
        notes=np.array(["a note"], str),
    )


def _cells() -> tuple[int, int]:
    from engine.features.appearance import N_CELLS

    return N_CELLS, 3


def test_a_tracking_cache_is_read_as_it_was_written(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **vars(found()))
    loaded = _load(tmp_path / "a.npz", 30)
    assert loaded is not None and loaded.notes.tolist() == ["a note"]
    none_at_all = _Found(**{**vars(found()), "shots": np.array([], np.int64), "notes": np.array([], str)})
    np.savez(tmp_path / "b.npz", **vars(none_at_all))
    assert _load(tmp_path / "b.npz", 30) is not None


@special
def test_a_tracking_cache_that_is_no_plain_file_is_absent(tmp_path: Path, kind: str) -> None:
    file = _special(tmp_path, kind)
    loaded: list[object] = []
    thread = threading.Thread(target=lambda: loaded.append(_load(file, 300)), daemon=True)
    thread.start()
    thread.join(MAX_S)
    assert loaded == [None]


def test_a_tracking_cache_of_any_damage_is_absent(tmp_path: Path, rng: np.random.Generator) -> None:
    np.savez(tmp_path / "whole.npz", **vars(found()))
    np.savez_compressed(tmp_path / "packed.npz", **vars(found()))
    data = (tmp_path / "whole.npz").read_bytes()
    damaged = tmp_path / "damaged.npz"
    headers = [at for at in range(len(data) - 6) if data[at : at + 6] == b"\x93NUMPY"]
    for k in range(400):
        cut = bytearray(data)
        near = headers[k % len(headers)] if k % 2 else 0
        at = near + int(rng.integers(0, 128)) if near else int(rng.integers(0, len(cut)))
        cut[at] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(cut)
        loaded = _load(damaged, 30)  # raises nothing
        assert loaded is None or loaded.fits_together()
    for wrong in (
        {"body": np.zeros((29, 33, 4), np.float32)},
        {"body": np.zeros((30, 33, 4), np.float64)},
        {"masks": np.zeros((30, 47), np.uint64)},
        {"shots": np.array([20, 7], np.int64)},
        {"shots": np.array([2**40], np.int64)},
        {"notes": np.array([1.0])},
    ):
        np.savez(damaged, **{**vars(found()), **wrong})
        assert _load(damaged, 30) is None
    assert _load(tmp_path / "packed.npz", 30) is None
    (tmp_path / "link.npz").symlink_to(tmp_path / "whole.npz")
    assert _load(tmp_path / "link.npz", 30) is None


def test_smplx_of_any_damage_is_one_line(tmp_path: Path, rng: np.random.Generator) -> None:
    np.savez(tmp_path / "whole.npz", poses=np.zeros((30, 165)), trans=np.zeros((30, 3)))
    data = (tmp_path / "whole.npz").read_bytes()
    damaged = tmp_path / "damaged.npz"
    for _ in range(300):
        cut = bytearray(data)
        cut[int(rng.integers(0, 300))] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(cut)
        try:
            read_smplx(damaged)
        except InputError as error:
            assert str(damaged) in str(error)
