"""A separate `tango-rt serve` for measurements: a copy of a pack, a free port, and figures from /proc."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

__all__ = ["LiveServer", "family", "proportional_mb"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 60


class LiveServer:
    """Use it in a `with`: it is warm inside, and ended after it."""

    def __init__(
        self,
        pack: Path,
        *flags: str,
        before: Callable[[], object] | None = None,
        port: int = 0,
        keep: bool = False,
        token: str = "",
    ) -> None:
        """token: that clients have to bring. before: runs in the process before it becomes the server.

        keep: serve the pack in its own folder.
        """
        self._scratch = Path(tempfile.mkdtemp(prefix="tango-live-"))
        self.characters = pack.parent if keep else self._scratch / "characters"
        if not keep:
            shutil.copytree(pack, self.characters / pack.name)
        self.character = pack.name.removesuffix(".tango")
        self._flags = (*flags, "--token", token) if token else flags
        self.token = token
        self._before = before
        self._port = port
        self.host = "127.0.0.1"

    def __enter__(self) -> Self:
        self._log = (self._scratch / "log").open("w")
        command = [Path(sys.executable).with_name("tango-rt"), "serve", "--characters", self.characters]
        command += ["--listen", f"{self.host}:{self._port}", "--metrics-listen", f"{self.host}:0", "--json"]
        self.process = subprocess.Popen(
            [str(word) for word in (*command, *self._flags)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            preexec_fn=self._before,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start: {self.log[-2000:]}")
        ready = json.loads(line)
        self.target = ready["addresses"][0]
        self.port = int(self.target.rpartition(":")[2])
        self._metrics = ready["metrics"]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            print(f"the server said:\n{self.log[-8000:]}", file=sys.stderr)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self._log.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def log(self) -> str:
        return (self._scratch / "log").read_text()

    def cpu_s(self) -> float:
        """Of the server and its workers, so far."""
        return sum(_cpu_s(pid) for pid in family(self.process.pid))

    def rss_mb(self) -> float:
        """Resident memory of the process that serves."""
        return _status_kb(self.process.pid, "VmRSS") / 1024

    def workers_mb(self) -> float:
        """Resident memory of its workers together, pages that they share counted for each."""
        return sum(_status_kb(pid, "VmRSS") for pid in family(self.process.pid)[1:]) / 1024

    def family_mb(self) -> float:
        """Memory of all its processes together, shared pages counted once."""
        return sum(proportional_mb(pid) for pid in family(self.process.pid))

    def n_threads(self) -> int:
        return int(_status_kb(self.process.pid, "Threads"))

    def n_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def metric(self, name: str) -> float:
        """The sum over all labels of a counter or gauge."""
        text = urllib.request.urlopen(f"http://{self._metrics}/metrics", timeout=10).read().decode()
        found = re.findall(rf"^tango_rt_{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        return sum(float(value) for value in found)


def family(pid: int) -> Sequence[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def _cpu_s(pid: int) -> float:
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(values[11]) + int(values[12])) / _TICKS


def _status_kb(pid: int, key: str) -> float:
    """0 for what has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0.0)


def proportional_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
