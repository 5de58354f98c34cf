"""The second half of the demo: streams the same speech to a server, as from a microphone."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import BackendError
from tango_rt.client.options import SessionOptions
from tango_rt.client.send import SendOptions, SendResult, send

__all__ = ["running_server", "stream_speech"]

_END_S = 20


def stream_speech(characters: Path, character: str, speech: Path, output: Path) -> SendResult:
    """Start a local server, send it the speech in real time, write what comes back: with a fixed look-ahead, because
    with an adaptive one the nodes depend on when the speech arrives."""
    with running_server(characters) as address:
        options = SendOptions(SessionOptions(character, lookahead="fixed"), live=True)
        return send(address, speech, output, options)


@contextmanager
def running_server(characters: Path) -> Iterator[str]:
    """`tango-rt serve` in a separate process, at a free port: its address. Raises BackendError if it fails."""
    command = [sys.executable, "-c", "from tango_rt.cli import main; main()", "serve", "--json"]
    command += ["--characters", str(characters), "--listen", "127.0.0.1:0", "--log-level", "warning"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None and server.stderr is not None
        ready: dict[str, Any] = json.loads(server.stdout.readline() or "{}")
        if not ready:
            said = server.stderr.read().strip().splitlines()
            raise BackendError(f"the server did not start: {said[-1] if said else 'no reason was given'}")
        yield ready["addresses"][0]
    finally:
        server.terminate()
        try:
            server.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()
