"""`tango-rt serve` as a process: the ready line, signals, and that nothing outlives it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.timebase import SAMPLE_RATE
from tango_rt.v1 import service_pb2_grpc
from tests.helpers.json_keys import check_keys
from tests.helpers.operated_server import PATIENCE_S, SERVING, begun, health_of, refusal, within


@contextlib.contextmanager
def process(packs: Path, *flags: object) -> "Iterator[subprocess.Popen[str]]":
    """`tango-rt serve` as a process of its own."""
    command = [sys.executable, "-c", "from tango_rt.cli import main; main()", "serve", "--characters", packs]
    command += ["--listen", "127.0.0.1:0", "--log-format", "json", "--json", *flags]
    with subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=QUIET
    ) as running:
        try:
            yield running
        finally:
            running.kill()


QUIET = {name: value for name, value in os.environ.items() if not name.startswith("TANGO_RT_")}


def ready(running: "subprocess.Popen[str]") -> str:
    """The address, when sessions are taken."""
    assert running.stdout is not None and running.stderr is not None
    line = running.stdout.readline()
    assert line, running.stderr.read()
    said = json.loads(line)
    check_keys("tango-rt", ("serve",), said)
    assert (said["pid"], said["characters"], said["tls"]) == (running.pid, ["anna"], False)
    return said["addresses"][0]


def records(running: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    """All that it logged, when it has ended."""
    assert running.stderr is not None
    return [json.loads(line) for line in running.stderr.read().splitlines()]


def test_sigterm_lets_utterances_end(packs: Path) -> None:
    async def drained(running: "subprocess.Popen[str]", address: str) -> None:
        async with grpc.aio.insecure_channel(address) as to:
            call = await begun(to, 4)
            running.send_signal(signal.SIGTERM)
            while (await health_of(to)).status == SERVING:
                await asyncio.sleep(0.01)
            late = service_pb2_grpc.GestureServiceStub(to).StreamGestures()
            assert await refusal(late.read(), late) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
            finished = []
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                while (answer := await call.read()) is not grpc.aio.EOF:
                    if answer.WhichOneof("message") == "utterance_finished":
                        finished.append(answer.utterance_finished)
            assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
            (one,) = finished
            assert (one.utterance_id, one.interrupted, one.played_samples) == ("hello", False, 4 * SAMPLE_RATE)

    with process(packs, "--grace-s", 20) as running:
        address = ready(running)
        within(lambda: drained(running, address))
        assert running.wait(PATIENCE_S) == 0
        logged = records(running)
    by_message = {record["message"]: record for record in logged}
    assert {"configuration", "character opened", "serving", "draining", "ended"} <= set(by_message)
    assert by_message["configuration"]["grace_s"] == 20 and by_message["draining"]["signal"] == "SIGTERM"
    assert by_message["ended"]["in_order"] is True
    session = next(record for record in logged if record["message"] == "session ended" and "character" in record)
    assert {"session_id", "peer", "duration_s", "reason"} <= set(session)


def test_a_second_signal_ends_at_once(packs: Path) -> None:
    async def twice(running: "subprocess.Popen[str]", address: str) -> None:
        async with grpc.aio.insecure_channel(address) as to:
            await begun(to, 50)
            running.send_signal(signal.SIGINT)
            while (await health_of(to)).status == SERVING:
                await asyncio.sleep(0.01)
            running.send_signal(signal.SIGTERM)
            await asyncio.to_thread(running.wait, 20)

    with process(packs, "--grace-s", 100) as running:
        address = ready(running)
        within(lambda: twice(running, address))
        assert running.returncode == 130
        assert records(running)[-1]["in_order"] is False


def test_a_signal_while_it_starts(packs: Path) -> None:
    with process(packs) as running:
        assert running.stderr is not None
        while '"message": "configuration"' not in running.stderr.readline():
            assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE_S) == 0


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children of processes are looked up in /proc")
def test_nothing_outlives_a_server_that_is_killed(packs: Path) -> None:
    with process(packs, "--draw-workers", 2) as running:
        ready(running)
        children = [int(pid) for task in tasks(running.pid) for pid in (task / "children").read_text().split()]
        assert len(children) >= 2
        running.kill()
        deadline = time.monotonic() + PATIENCE_S
        while any(map(is_running, children)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
