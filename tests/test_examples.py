"""The programs of examples/ run as they stand."""

import os
import re
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.fakes import make_pack
from tests.helpers.live_server import speech
from tests.helpers.real_server import real_server

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.alone  # they speak by the clock


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    characters = tmp_path_factory.mktemp("characters")
    make_pack(characters / "anna.tango")
    with real_server(characters) as target:
        yield target


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of noise that comes and goes as speech does."""
    file = tmp_path_factory.mktemp("speech") / "speech.wav"
    with wave.open(str(file), "wb") as written:
        written.setparams((1, 2, 16_000, 0, "NONE", ""))
        written.writeframes(speech(2.0))
    return file


def run(name: str, *words: object) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_live_file(server: str, spoken: Path, tmp_path: Path) -> None:
    told = run("live_file.py", server, "anna", spoken, tmp_path / "out.h264")
    assert "performed 60 frames" in told
    assert (tmp_path / "out.h264").read_bytes().startswith(b"\0\0\0\1")


def test_barge_in(server: str, spoken: Path) -> None:
    told = re.search(r"interrupted after (.+) s", run("barge_in.py", server, "anna", spoken))
    assert told is not None and 0.4 < float(told[1]) < 1.5, "of two seconds"


def test_every_example_is_described_and_tried() -> None:
    described = (EXAMPLES / "README.md").read_text("utf-8")
    tried = Path(__file__).read_text("utf-8")
    for file in EXAMPLES.iterdir():
        if file.suffix == ".py":
            assert f"({file.name})" in described and f'"{file.name}"' in tried


def test_frames(spoken: Path, tmp_path: Path) -> None:
    make_pack(tmp_path / "anna.tango")
    told = re.fullmatch(
        r"(\d+) frames of speech, (\d+) at rest, \d+ of them drawn\n", run("frames.py", tmp_path / "anna.tango", spoken)
    )
    assert told is not None and int(told[1]) == 60 and int(told[2]) > 0


def test_notebook(spoken: Path, tmp_path: Path) -> None:
    make_pack(tmp_path / "anna.tango")
    told = run("notebook.py", tmp_path / "anna.tango", spoken, tmp_path / "pictures")
    assert told.splitlines()[-1] == "frames.png motion.png out.mp4 path.png"
