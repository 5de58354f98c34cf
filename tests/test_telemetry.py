"""Nobody is told of what runs here, nothing is written but where the user said, nothing else is run: from outside."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.folders import cache_folder
from engine.jit import kernel_folder
from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE
from tango_rt.demo.presenter import REFERENCE_SPEECH, presenter_frames
from tango_rt.sound.audio import read_audio
from tango_rt.video.gop import GopEncoder
from tango_rt.video.mp4 import Mp4Writer
from tests.helpers import watcher
from tests.helpers.fakes import make_pack
from tests.helpers.speech import write_speech
from tests.helpers.watcher import Watched, watch

ROOT = Path(__file__).resolve().parent.parent


def python(code: str, *arguments: object) -> list[object]:
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", *arguments]


def tango(*arguments: object) -> list[object]:
    return python("from tango_rt.cli import main; main()", *arguments)


def observed(
    command: Sequence[object], folder: Path, *given: Path, sockets: bool = False, **environment: str
) -> Watched:
    """With kernels that are compiled already, and a cache of its own that has the models of this machine."""
    cache, kept, kernels = folder / "cache", cache_folder(), kernel_folder()
    cache.mkdir(parents=True)
    if kept is not None and (kept / "models").is_dir():
        shutil.copytree(kept / "models", cache / "models")
    places = {"TANGO_RT_CACHE": str(cache)}
    if kernels is not None:
        places["NUMBA_CACHE_DIR"] = str(kernels.parent)
    given = (*given, cache, *([kernels.parent] if kernels else []))
    return watch(command, folder / "run", given, sockets, **places, **environment)


def clean(found: Watched) -> bool:
    assert (found.code, found.asked, found.wrote, found.ran) == (0, (), (), ()), found.stderr[-2000:]
    return True


@pytest.mark.parametrize("tracing", [True, False])
def test_the_watcher_sees_what_it_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracing: bool) -> None:
    """Nothing leaves this machine for it: a datagram socket that is connected has sent nothing."""
    if tracing and not watcher.can_trace():
        pytest.skip("strace is not installed or not allowed here: only Python code can be watched")
    monkeypatch.setattr(watcher, "can_trace", lambda: tracing)
    code = """
import os, pathlib, socket, subprocess, sys
for address in ("192.0.2.1", "127.0.0.1"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((address, 9))
child = "import pathlib; pathlib.Path.home().joinpath('intel').mkdir(); open('{}/outside', 'w').close()"
subprocess.run([sys.executable, "-c", child.format(sys.argv[1])], check=True)
subprocess.run(["true"], check=True)
open(sys.argv[2] + "/inside", "w").close()
open(os.devnull, "w").close()
"""
    for name in ("given", "other"):
        (tmp_path / name).mkdir()
    command = python(code, tmp_path / "other", tmp_path / "given")
    found = watch(command, tmp_path / "run", [tmp_path / "given"], sockets=True)
    assert found.code == 0, found.stderr
    assert [address.replace("port ", "") for address in found.asked] == ["192.0.2.1 9"]
    assert set(found.wrote) == {str(tmp_path / "other" / "outside"), str(tmp_path / "run" / "home" / "intel")}
    assert [Path(program).name for program in found.ran] == ["true"]


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_native_code_without_a_tracer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """No hook of Python's sees it: the kernel does."""
    if not watcher.can_seal():
        pytest.skip("no seccomp here: of native code only what it leaves in the home is seen")
    monkeypatch.setattr(watcher, "can_trace", lambda: False)
    code = f"import ctypes, socket; ctypes.CDLL(None).socket(int(socket.{family}), 2, 0)"
    found = watch(python(code), tmp_path / "asking", [])
    assert found.asked == ("a socket of the network",)
    quiet = watch(python(code.replace(family, "AF_UNIX")), tmp_path / "quiet", [])
    assert (quiet.code, quiet.asked) == (0, ())


@pytest.mark.parametrize("library", ["openvino", "onnxruntime"])
def test_libraries_report_to_nobody(tmp_path: Path, library: str) -> None:
    pytest.importorskip(library)
    pytest.importorskip("onnx")
    from tests.helpers.fakes_session import linear_onnx

    (tmp_path / "linear.onnx").write_bytes(linear_onnx())
    code = """
import time
from pathlib import Path
from engine.inference.backends import open_graph
from tests.helpers.fakes_session import LINEAR
with open_graph(Path(sys.argv[1]), LINEAR, sys.argv[2]):
    time.sleep(1)  # reports are sent by threads
assert "openvino_telemetry" not in sys.modules
"""
    assert clean(observed(python(code, tmp_path / "linear.onnx", library), tmp_path / "watched"))


def test_what_others_use_is_left_to_them(tmp_path: Path) -> None:
    """Who asks for the package that reports gets it, after us as before us."""
    code = """
import types
from engine.inference.backends.libraries import import_openvino
sys.modules["openvino"] = types.ModuleType("openvino")
mine = sys.modules["openvino_telemetry"] = types.ModuleType("openvino_telemetry")
assert import_openvino() is sys.modules["openvino"] and sys.modules["openvino_telemetry"] is mine
"""
    assert clean(observed(python(code), tmp_path / "watched"))


def write_talk(path: Path) -> Path:
    """A little more than the shortest that makes a character, of the drawn presenter."""
    speech = read_audio(REFERENCE_SPEECH)[: 9 * SAMPLE_RATE // 2]
    frames = np.stack(list(presenter_frames(speech, height=240)))
    encoder = GopEncoder(frames.shape[2], frames.shape[1])
    groups = frames[: len(frames) // FRAMES_PER_NODE * FRAMES_PER_NODE].reshape(-1, FRAMES_PER_NODE, *frames.shape[1:])
    with Mp4Writer(path, encoder.extradata) as writer:
        writer.write([picture for group in groups for picture in encoder.encode(group)], [speech])
    return path


@pytest.mark.slow
def test_build(tmp_path: Path) -> None:
    talk, out = write_talk(tmp_path / "talk.mp4"), tmp_path / "out"
    out.mkdir()
    command = tango("character", "build", talk, "-o", out / "anna.tango", "--jobs", 2, "--report", out / "report")
    assert clean(observed(command, tmp_path / "watched", out))
    assert (out / "anna.tango" / "pack.json").is_file() and (out / "report" / "index.html").is_file()


def test_render_and_inspect(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "anna.tango", (20, 12))
    speech, out = write_speech(tmp_path / "speech.wav", 3), tmp_path / "out"
    out.mkdir()
    assert clean(observed(tango("character", "inspect", pack.path), tmp_path / "inspected"))
    command = tango("render", pack.path, speech, "-o", out / "out.mp4", "--jobs", 2, "--plot", out / "path.png")
    assert clean(observed(command, tmp_path / "rendered", out, pack.path))
    assert sorted(file.name for file in out.iterdir()) == ["out.mp4", "path.png"]


SERVE_AND_SEND = """
import json, signal, subprocess
characters, speech, out = sys.argv[1:]
code = f"import sys; sys.path.insert(0, {sys.path[0]!r}); from tango_rt.cli import main; main()"
command = [sys.executable, "-c", code]
serve = [*command, "serve", "--characters", characters, "--listen", "127.0.0.1:0", "--metrics-listen", "0", "--json"]
with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
    address = json.loads(server.stdout.readline())["addresses"][0]
    send = [*command, "send", address, "--character", "anna", speech, "-o", out, "--fast"]
    sent = subprocess.run(send).returncode
    server.send_signal(signal.SIGTERM)
sys.exit(sent or server.returncode)
"""


def test_serve_and_send(tmp_path: Path) -> None:
    packs, out = tmp_path / "packs", tmp_path / "out"
    make_pack(packs / "anna.tango", (20, 12))
    out.mkdir()
    command = python(SERVE_AND_SEND, packs, write_speech(tmp_path / "speech.wav", 2), out / "live.mp4")
    assert clean(observed(command, tmp_path / "watched", packs, out, sockets=True))
    assert (out / "live.mp4").stat().st_size


def export(*arguments: object) -> list[object]:
    return python("from export.cli import main; main()", *arguments)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_compile_verify_and_inspect(tmp_path: Path, backend: str) -> None:
    """What is written: engines in the bundle, and the key that signs them in the state of the user."""
    pytest.importorskip(backend)
    pytest.importorskip("onnx")
    from tests.helpers.linear_bundles import make_bundle

    bundle, state = make_bundle(tmp_path / "bundle", "onnxruntime", "openvino").folder, tmp_path / "state"
    state.mkdir()
    for number, command in enumerate((["compile", bundle, "--backend", backend], ["verify", bundle], ["list", bundle])):
        watched = observed(export(*command), tmp_path / str(number), bundle, state, XDG_STATE_HOME=str(state))
        assert clean(watched) and "untrusted" not in watched.stdout
    assert [file.name for file in (state / "tango-rt").iterdir()] == ["engines.key"]


@pytest.mark.slow
def test_bundle(tmp_path: Path) -> None:
    """The libraries that write bundles know where their makers are."""
    for package in ("torch", "onnx", "onnxscript", "diffusers", "transformers"):
        pytest.importorskip(package)
    out = tmp_path / "out"
    out.mkdir()
    command = export("bundle", "acinterp", "--random", 0, "--width", "small", "-o", out / "acinterp")
    found = observed(command, tmp_path / "watched", out)
    assert clean(replace(found, ran=()))  # torch has ldconfig list the libraries of the system


OFFLINE = """
import os
from export.extra import export_extra
with export_extra(downloads=sys.argv[1] == "downloads"):
    import huggingface_hub.constants as hub
print(hub.HF_HUB_OFFLINE, hub.HF_HUB_DISABLE_TELEMETRY)
"""


@pytest.mark.parametrize(("asked", "said"), [("downloads", "False True"), ("nothing", "True True")])
def test_the_hub_is_asked_for_nothing_unless_the_user_says_so(
    tmp_path: Path, asked: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.delenv(name, raising=False)  # other tests have said something, too
    found = observed(python(OFFLINE, asked), tmp_path / "watched")
    assert clean(found) and found.stdout.strip() == said
