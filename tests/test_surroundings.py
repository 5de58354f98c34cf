"""Every command works without a home, a cache, a name for its user or a disk to write to: as real processes."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.jit import kernel_folder
from tests.helpers.drawn_sets import with_drawn
from tests.helpers.fakes import make_pack
from tests.helpers.speech import write_speech

ROOT = Path(__file__).resolve().parent.parent
STRANGER = 12345  # of whom the system knows nothing
DROP = ("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", "--bounding-set=-all")
# all of the disk read-only but for one folder, and a new /dev/shm; in a mount namespace, so that nobody else notices
SEALED = """
mount --bind "$0" "$0" && mount -t tmpfs none /dev/shm && mount -o remount,bind,ro / &&
if [ "$1" = none ]; then mount -o remount,ro /dev/shm; fi && shift && exec "$@"
"""


Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Place:
    """Where a user without a name runs commands of an install that is root's."""

    folder: Path
    python: str
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: object, before: Sequence[object] = (), **environment: str) -> Done:
        return self.execute("from tango_rt.cli import main; main()", *arguments, before=before, **environment)

    def execute(self, code: str, *arguments: object, before: Sequence[object] = (), **environment: str) -> Done:
        command = [*before, *DROP, self.python, "-c", code, *arguments]
        told = {**self.environment, **environment}
        words = [str(word) for word in command]
        return subprocess.run(words, env=told, cwd="/", capture_output=True, text=True, timeout=300)

    def give(self, path: Path) -> Path:
        """Make the stranger the owner of all of it."""
        for one in (path, *path.rglob("*")):
            os.chown(one, STRANGER, STRANGER)
        return path


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """anna.tango and speech.wav in a folder of the stranger, and kernels that are compiled among temporary files."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become a user without a name, by setpriv")
    with tempfile.TemporaryDirectory(prefix="tango-test-", dir="/tmp") as made:  # pytest's own folder is root's alone
        folder = Path(made)
        with_drawn(make_pack(folder / "anna.tango", (20, 12)))
        write_speech(folder / "speech.wav", 2)
        (folder / "doubled.py").write_text(DOUBLED)
        own = folder / "tmp" / f"tango-rt-{STRANGER}" / f"kernels-{STRANGER}"
        own.parent.mkdir(parents=True)
        kernels = kernel_folder()
        shutil.copytree(kernels, own) if kernels else own.mkdir()
        for private in (own, own.parent):
            private.chmod(0o700)
        packages = dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))
        environment = {"PATH": os.environ["PATH"], "TMPDIR": str(folder / "tmp")}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *packages])
        found = Place(folder, "", {**environment, "PYTHONDONTWRITEBYTECODE": "1"})
        found.give(folder)
        yield Place(folder, _python(found), found.environment)


def _python(place: Place) -> str:
    """An interpreter that the stranger may run, workers of it too; the one of these tests may lie in root's home."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import numba, engine'], check=True)"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        try:
            if Place(place.folder, python, place.environment).execute(code).returncode == 0:
                return python
        except OSError:
            continue
    pytest.skip(f"no {version} that a user who is not root could run, with the packages of this one")


def check(done: Done, *said: str) -> None:
    """It worked, and said nothing but lines that have these parts, each once."""
    lines = [line for line in done.stderr.splitlines() if "%|" not in line]
    assert done.returncode == 0, done.stderr
    assert len(lines) == len(said) and all(part in line for part, line in zip(said, lines, strict=True)), done.stderr


def render(place: Place, name: str) -> list[object]:
    folder = place.folder
    return ["render", folder / "anna.tango", folder / "speech.wav", "-o", folder / name, "--blender", "cut"]


@pytest.mark.parametrize("home", [None, "/root", "/nonexistent", "", "sealed"])
def test_without_a_home(place: Place, home: str | None) -> None:
    if home == "sealed":
        (place.folder / "sealed").mkdir(mode=0o555)
        home = str(place.folder / "sealed")
    environment = {} if home is None else {"HOME": home}
    check(place.run("character", "inspect", place.folder / "anna.tango", **environment))
    assert not Path("/nonexistent").exists()


def test_a_user_without_a_name_renders_and_draws(place: Place) -> None:
    """Matplotlib, too, wants a home; workers start, as users do."""
    plot = place.folder / "path.png"
    check(place.run(*render(place, "out.mp4"), "--plot", plot, "--jobs", 2))
    assert (place.folder / "out.mp4").stat().st_size and plot.stat().st_size
    assert {path.name for path in (place.folder / "tmp").iterdir()} == {f"tango-rt-{STRANGER}"}


def test_one_core(place: Place) -> None:
    if shutil.which("taskset") is None:
        pytest.skip("no taskset")
    core = min(os.sched_getaffinity(0))
    check(place.run(*render(place, "one-core.mp4"), before=("taskset", "-c", core)))


def test_kernels_of_another_user_are_neither_read_nor_written(place: Place) -> None:
    """They are code. What is used in their place is said once, also where there are workers."""
    other = place.folder / "others"
    other.mkdir()
    planted = other / f"kernels-{STRANGER}"
    planted.mkdir(mode=0o777)
    planted.chmod(0o777)
    said = f"tango-rt: warning: NUMBA_CACHE_DIR {other} is another user's or cannot be written: compiled kernels are "
    check(place.run(*render(place, "numba.mp4"), "--jobs", 2, NUMBA_CACHE_DIR=str(other)), said)
    assert list(planted.iterdir()) == []


def test_a_cache_that_cannot_be_written_stops_nothing(place: Place) -> None:
    (place.folder / "file").touch()
    check(place.run("character", "inspect", place.folder / "anna.tango", TANGO_RT_CACHE=str(place.folder / "file")))


def sealed(place: Place, shm: str) -> list[object]:
    """What to put before a command. shm: "shm", which can be written to, or "none"."""
    command = ["unshare", "-m", "sh", "-c", SEALED, str(place.folder), shm]
    if subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespaces here")
    return [*command]


DRAWN = """
import argparse, pathlib, sys
from tango_rt.console import add_command, run_command
def draw(_):
    from matplotlib.figure import Figure
    Figure().savefig(pathlib.Path(sys.argv[1]))
run_command(add_command(None, "draw", "as a command does", "", draw), [])
"""
DOUBLED = """
from engine.jit import kernel_folder, njit
@njit()
def doubled(x): return x + x
assert doubled(21) == 42
print(kernel_folder())
"""
RUN_DOUBLED = "import sys; sys.path.insert(0, sys.argv[1]); import doubled"


def test_a_disk_that_is_read_only(place: Place) -> None:
    """As of a container without a folder for temporary files: what is slow to make is kept as long as that lives."""
    before = sealed(place, "shm")
    done = place.execute(RUN_DOUBLED, place.folder, before=before, TMPDIR="/nonexistent")
    check(done)
    assert done.stdout == f"/dev/shm/tango-rt-{STRANGER}/kernels-{STRANGER}\n"
    plot = place.folder / "sealed.png"
    check(place.execute(DRAWN, plot, before=before, TMPDIR="/nonexistent"))
    assert plot.stat().st_size


def test_nothing_that_can_be_written_but_the_output(place: Place) -> None:
    """All works, and what that costs is said once."""
    before = sealed(place, "none")
    kept = "tango-rt: warning: compiled kernels are not cached, every start takes half a minute longer: there is no"
    check(place.run("character", "inspect", place.folder / "anna.tango", before=before, TMPDIR="/nonexistent"), kept)
    done = place.execute(RUN_DOUBLED, place.folder, before=before, TMPDIR="/nonexistent")
    check(done, "compiled kernels are not cached")
    assert done.stdout == "None\n"
    code = "from export.cli import main; main()"
    refused = place.execute(code, "bundle", "mini", "a.ckpt", "-o", "b", before=before, TMPDIR="/nonexistent")
    line = "tango-export: torch needs a folder for temporary files, and none is writable: set TMPDIR\n"
    assert (refused.returncode, refused.stderr) == (1, line)


SERVE_AND_SEND = """
import json, signal, subprocess, sys
command = [sys.executable, "-c", "from tango_rt.cli import main; main()"]
serve = [*command, "serve", "--characters", sys.argv[1], "--listen", "127.0.0.1:0", "--json", "--log-level", "warning"]
with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
    address = json.loads(server.stdout.readline())["addresses"][0]
    sent = subprocess.run([*command, "send", address, "--character", "anna", *sys.argv[2:]])
    server.send_signal(signal.SIGTERM)
    complaints = server.stderr.read()
assert " WARNING " not in complaints, complaints
sys.exit(sent.returncode or server.returncode)
"""


def test_serve_and_send(place: Place) -> None:
    out = place.folder / "live.mp4"
    check(place.execute(SERVE_AND_SEND, place.folder, place.folder / "speech.wav", "-o", out, "--fast"))
    assert out.stat().st_size


def test_without_shared_memory_the_processes_that_track_poses_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.errors import BackendError
    from tango_rt.characters.pose_workers import Workers

    def refused(*_: object) -> None:
        raise OSError(30, "Read-only file system", "/dev/shm/pym-1-x")

    monkeypatch.setattr("tango_rt.characters.pose_workers.ensure_models", Path)
    monkeypatch.setattr("multiprocessing.context.BaseContext.RawArray", refused)
    said = r"processes that track poses cannot be started \(Read-only file system\): they need shared memory"
    with Workers(1) as workers, pytest.raises(BackendError, match=said):
        workers.slot(100)
