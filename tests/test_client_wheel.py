"""tango-rt-client, the small distribution: complete without the rest of this checkout and without any heavy package."""

import ast
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
import wave
import zipfile
from pathlib import Path
from typing import Any

import google.protobuf
import grpc
import numpy as np
import pytest

from engine.timebase import SAMPLE_RATE, frame_count
from tango_rt import __version__
from tango_rt.client import Client, SessionOptions
from tango_rt.v1 import media_pb2
from tango_rt.video.reader import VideoReader
from tests.helpers.installing import CLIENT, ROOT, built_wheel, pip, run
from tests.helpers.json_keys import check_keys
from tests.helpers.live_server import speech as noise
from tests.helpers.real_server import real_server

SPEECH_S = 1.3
N_FRAMES = frame_count(round(SPEECH_S * SAMPLE_RATE))
HEAVY = ("numpy", "numba", "cv2", "av", "scipy", "matplotlib", "mediapipe", "onnxruntime", "networkx", "tqdm", "PIL")
ABSENT = (*HEAVY, "engine", "export", "tests", "torch", "openvino", "prometheus_client", "grpc_status", "grpc_health")


def shipped() -> list[Path]:
    config = tomllib.loads((CLIENT / "pyproject.toml").read_text("utf-8"))
    files = config["tool"]["hatch"]["build"]["hooks"]["custom"]["files"]
    return [ROOT / file for file in files]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(CLIENT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def server(characters: Path) -> Any:
    with real_server(characters) as target:
        yield target


def alone(unpacked: Path, *words: object, python_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Python that knows the wheel and installed packages, but no ABSENT ones, and no .pth file that leads here."""
    packages = {str(Path(package.__path__[0]).parents[up]) for package, up in ((grpc, 0), (google.protobuf, 1))}
    code = (
        "import runpy, sys\n"
        f"sys.path[:0] = {[str(path) for path in (python_path, unpacked, *packages) if path]!r}\n"
        f"sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__') if sys.argv[0].endswith('.py') else "
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
    )
    return run(sys.executable, "-I", "-S", "-c", code, *words)


def test_it_holds_the_very_files_and_nothing_else(wheel: Path, unpacked: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        for name in names:
            assert archive.read(name) == (ROOT / name).read_bytes(), name
    generated = {f"tango_rt/v1/{file.name}" for file in (ROOT / "tango_rt" / "v1").glob("*.py*")}
    assert names == generated | {str(path.relative_to(ROOT)) for path in shipped() if path.is_file()}


def test_what_it_says_of_itself(unpacked: Path) -> None:
    (metadata,) = (file.read_text("utf-8") for file in unpacked.glob("*.dist-info/METADATA"))
    assert f"\nName: tango-rt-client\nVersion: {__version__}\n" in metadata and "Requires-Python: >=3.10\n" in metadata
    needed = set(re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE))
    assert needed == {"grpcio", "protobuf", "googleapis-common-protos"}
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_a_wheel_from_its_source_distribution_is_the_same(wheel: Path, tmp_path: Path) -> None:
    """As `python -m build` and those who package for others make it, with no checkout around it."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=CLIENT)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    done = pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, archive)
    assert done.returncode == 0, done.stderr
    (rebuilt,) = tmp_path.glob("*.whl")
    assert rebuilt.read_bytes() == wheel.read_bytes()


def test_a_session_with_nothing_else_installed(unpacked: Path, server: str, tmp_path: Path) -> None:
    speech = tmp_path / "speech.raw"
    speech.write_bytes(noise(SPEECH_S))
    done = alone(unpacked, ROOT / "tests" / "helpers" / "small_session.py", server, "anna", speech)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["same"] and told["echo"]
    assert told["refusals"] == ["3 bytes are not a whole number of s16 samples", "UNKNOWN_CHARACTER"]
    options = SessionOptions("anna", pacing="fast")
    with Client(server) as client, client.stream(options) as session:
        session.send_audio(speech.read_bytes())
        session.finish()
        frames = [event.data for event in session if isinstance(event, media_pb2.VideoFrame)]
    assert told["frames"] == [hashlib.sha256(frame).hexdigest() for frame in frames] and len(frames) == N_FRAMES


def write_wav(path: Path, channels: list[np.ndarray], n_bytes: int) -> Path:
    """channels: float (n,) in [-1, 1)."""
    samples = np.stack(channels, axis=1)
    if n_bytes == 1:
        data = (np.floor(samples * 128) + 128).astype(np.uint8).tobytes()
    else:
        upper = np.floor(samples * 2**31).astype("<i4").reshape(-1, 1).view(np.uint8).reshape(-1, 4)
        data = upper[:, 4 - n_bytes :].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((len(channels), n_bytes, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(data)
    return path


def test_the_command(unpacked: Path, server: str, tmp_path: Path) -> None:
    mono = np.frombuffer(noise(SPEECH_S), "<i2") / 32768
    wavs = [
        write_wav(tmp_path / "16.wav", [mono], 2),
        write_wav(tmp_path / "24.wav", [mono], 3),
        write_wav(tmp_path / "opposite phases.wav", [0.9 * mono, mono, -mono], 4),
    ]
    info = alone(unpacked, "tango_rt.client.small_command", "info", server, "--json")
    assert info.returncode == 0, info.stderr
    assert [one["id"] for one in json.loads(info.stdout)["characters"]] == ["anna"]
    videos = []
    for wav in wavs:
        out = tmp_path / f"{wav.stem}.h264"
        words = ["send", server, wav, "-o", out, "--character", "anna"]
        done = alone(unpacked, "tango_rt.client.small_command", *words, "--json")
        assert done.returncode == 0, done.stderr
        printed = json.loads(done.stdout)
        check_keys("tango-rt-client", words, printed)
        assert printed["n_frames"] == N_FRAMES
        assert ("channel 2 of 3 was sent, the loudest" in done.stderr) == (wav is wavs[2])
        videos.append(out.read_bytes())
    assert videos[0] == videos[1] == videos[2]
    with VideoReader(tmp_path / "16.h264") as reader:
        assert sum(1 for _ in reader) == N_FRAMES
    assert not list(tmp_path.glob(".*"))


def test_the_command_refuses_in_one_line(unpacked: Path, server: str, tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "speech.wav", [np.zeros(1600)], 2)
    empty = write_wav(tmp_path / "empty.wav", [np.zeros(0)], 2)
    no_wav = tmp_path / "speech.mp3"
    no_wav.write_bytes(b"ID3 and so on" * 100)
    out, anna = tmp_path / "out.h264", ("--character", "anna")
    for words, code, said in (
        (("send", server, wav, "-o", tmp_path / "out.mp4", *anna), 2, "must end in .h264"),
        (("send", server, tmp_path / "none.wav", "-o", out, *anna), 2, "no such file"),
        (("send", server, empty, "-o", out, *anna), 2, "no samples in it"),
        (("send", server, no_wav, "-o", out, *anna), 2, "wanted WAV of 8 to 32 bits: ffmpeg"),
        (("send", server, wav, "-o", tmp_path / "none" / "out.h264", *anna), 2, "No such file"),
        (("send", server, wav, "-o", out, "--character", "bob"), 1, "UNKNOWN_CHARACTER"),
        (("info", "localhost"), 2, "HOST:PORT"),
        (("info", "127.0.0.1:1"), 1, "no server answers there"),
    ):
        done = alone(unpacked, "tango_rt.client.small_command", *words)
        lines = done.stderr.strip().splitlines()
        assert done.returncode == code and len(lines) == 1 and said in lines[0], done.stderr
        assert lines[0].startswith("tango-rt-client: ")
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_8_bits_and_files_that_were_cut_off(tmp_path: Path) -> None:
    from tango_rt.client.wav import WavSpeech

    ramp = np.arange(-128, 128) / 128
    eight = WavSpeech.open(write_wav(tmp_path / "8.wav", [ramp], 1))
    assert np.array_equal(np.frombuffer(b"".join(eight.blocks()), "<i2"), ramp * 32768)
    whole = write_wav(tmp_path / "cut.wav", [ramp, ramp / 2], 3)
    whole.write_bytes(whole.read_bytes()[:-10])
    cut = WavSpeech.open(whole)
    assert np.array_equal(np.frombuffer(b"".join(cut.blocks()), "<i2"), (ramp * 32768)[:-2])


def imports(file: Path) -> set[str]:
    """Of modules, wherever in a file they are imported."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and not node.level, file
            found.add(node.module)
    return found


def test_what_is_shipped_imports_nothing_else() -> None:
    files = [path for path in shipped() if path.suffix == ".py"]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files}
    optional = {"errors.py": {"tango_rt.errors"}, "samples.py": {"numpy"}}
    for file in files:
        typed = {"engine.errors", "tango_rt.api", "tango_rt.progress"} if file.parent.name == "tango_rt" else set()
        foreign = imports(file) - modules - optional.get(file.name, set()) - typed  # typed: for type checkers alone
        foreign = {
            name for name in foreign if name.partition(".")[0] not in {*sys.stdlib_module_names, "grpc", "google"}
        }
        assert foreign <= {"tango_rt.v1"}, f"{file}: {foreign}"


@pytest.mark.parametrize(
    ("versions", "warned"),
    [
        ({"tango_rt": "0.1.0", "tango_rt_client": "0.2.0"}, True),
        ({"tango_rt": "0.2.0", "tango_rt_client": "0.2.0"}, False),
        ({}, False),
    ],
)
def test_a_mixture_of_versions_is_said_once(
    versions: dict[str, str], warned: bool, unpacked: Path, tmp_path: Path
) -> None:
    for name, number in versions.items():
        (tmp_path / f"{name}-{number}.dist-info").mkdir()
        about = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {number}\n"
        (tmp_path / f"{name}-{number}.dist-info" / "METADATA").write_text(about)
    (tmp_path / "use.py").write_text("from tango_rt.client import Client, ServerError, SessionOptions\n")
    bare = tmp_path / "bare"
    shutil.copytree(unpacked, bare, ignore=shutil.ignore_patterns("*.dist-info"))
    done = alone(bare, tmp_path / "use.py", python_path=tmp_path)
    assert done.returncode == 0, done.stderr
    said = "UserWarning: tango-rt 0.1.0 and tango-rt-client 0.2.0 are installed in one environment and share files"
    assert done.stderr.count("UserWarning") == warned and (said in done.stderr) == warned, done.stderr


@pytest.mark.slow
def test_what_is_shipped_is_written_for_the_oldest_python() -> None:
    """Names and syntax that came later than 3.10, by mypy's knowledge of the standard library."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    files = [path for path in shipped() if path.suffix == ".py"]
    assert len(files) > 10
    config = ["--config-file", CLIENT / "pyproject.toml"]
    done = subprocess.run([sys.executable, "-m", "mypy", *config, *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
