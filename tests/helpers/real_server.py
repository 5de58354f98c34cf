"""The real server, in this process, in a thread of its own, behind a real socket."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tango_rt.server.config import ServerConfig
from tango_rt.server.listening import GestureServer


@contextmanager
def real_server(characters: Path, **options: Any) -> Iterator[str]:
    """Its address, warm."""
    started = threading.Event()
    failed: list[BaseException] = []
    at: list[Any] = []

    async def run() -> None:
        ended = asyncio.Event()
        config = ServerConfig(characters, listen=("127.0.0.1:0",), **options)
        async with GestureServer(config) as server:
            await server.warm_up()
            at.extend((server.addresses[0], asyncio.get_running_loop(), ended))
            started.set()
            await ended.wait()

    def thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failed.append(error)
            started.set()

    worker = threading.Thread(target=thread, name="server")
    worker.start()
    started.wait()
    if failed:
        raise failed[0]
    target, loop, ended = at
    try:
        yield target
    finally:
        loop.call_soon_threadsafe(ended.set)
        worker.join()
    if failed:
        raise failed[0]
