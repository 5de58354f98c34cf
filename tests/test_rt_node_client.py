"""A client in another language, with nothing of ours but the committed protocol, renders a clip."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import av
import pytest
from scipy.io import wavfile

from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE, frame_count
from tests.helpers.fakes import HEIGHT, WIDTH, make_pack
from tests.helpers.real_server import real_server
from tests.helpers.speech import write_speech

ROOT = Path(__file__).resolve().parent.parent
NODE_CLIENT = ROOT / "tests" / "helpers" / "node_client"
SPEECH_S = 3.1


@pytest.fixture(scope="module")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client with its packages installed, outside the project."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node") / "client"
    shutil.copytree(NODE_CLIENT, folder)
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel", "error"]
    try:
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("npm cannot install the packages: the registry does not answer")
    if done.returncode:
        pytest.skip(f"npm cannot install the packages: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return folder


def test_node_renders_a_clip(node_client: Path, tmp_path: Path) -> None:
    characters = tmp_path / "characters"
    characters.mkdir()
    pack = make_pack(characters / "anna.tango")
    rate, samples = wavfile.read(write_speech(tmp_path / "speech.wav", SPEECH_S))
    assert rate == SAMPLE_RATE
    (tmp_path / "speech.s16").write_bytes(samples.astype("<i2").tobytes())
    video = tmp_path / "out.h264"
    with real_server(characters) as target:
        command = ["node", "render.js", target, ROOT / "protos", "anna", tmp_path / "speech.s16", video]
        done = subprocess.run(
            [str(word) for word in command], cwd=node_client, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    received: dict[str, Any] = json.loads(done.stdout)

    n_frames = frame_count(len(samples))
    assert received["accepted"] == {"width": WIDTH, "height": HEIGHT}
    assert received["config"]["pacing"] == "PACING_FAST" and received["config"]["request_id"] == "node"
    assert received["config"]["audio"] == {"encoding": "AUDIO_ENCODING_LINEAR_PCM_S16", "sample_rate_hertz": 16000}
    assert received["indices"] == list(range(n_frames))
    assert set(received["kinds"]) <= {"FRAME_KIND_RETRIEVED", "FRAME_KIND_TRANSITION"}
    assert all(0 <= node < pack.info.n_nodes for node in received["nodes"])
    groups = [received["nodes"][k : k + FRAMES_PER_NODE] for k in range(0, n_frames, FRAMES_PER_NODE)]
    assert all(len(set(group)) == 1 for group in groups)
    (finished,) = received["finished"]
    assert finished["utterance_id"] == "clip" and not finished["interrupted"]
    assert (finished["played_frames"], finished["played_samples"]) == (n_frames, len(samples))
    with av.open(str(video)) as container:
        pictures = list(container.decode(video=0))
    assert len(pictures) == n_frames
    assert {(picture.width, picture.height) for picture in pictures} == {(WIDTH, HEIGHT)}


def test_the_packages_are_pinned() -> None:
    dependencies = json.loads((NODE_CLIENT / "package.json").read_text("utf-8"))["dependencies"]
    assert set(dependencies) == {"@grpc/grpc-js", "@grpc/proto-loader"}
    assert all(version.replace(".", "").isdecimal() for version in dependencies.values())
