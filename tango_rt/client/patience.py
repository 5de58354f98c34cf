"""How long a reader waits for a server that owes it an answer."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Patience", "watched"]


class Patience:
    """The time spent waiting since the last progress: a frame, an event of an utterance, or a message that we sent.

    Time in which nobody reads does not count, and mere signs of life from the server do not renew it.
    """

    def __init__(self, limit_s: float, owed: Callable[[], bool]) -> None:
        """owed: whether the server must send something soon."""
        self.limit_s = limit_s
        self.tick_s = min(1.0, limit_s / 4)
        """How often to check."""
        self.gave_up = False
        """Whether it has run out once: the call was then cancelled."""
        self._owed = owed
        self._waited_s = 0.0
        self._since_s: float | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self._since_s = time.monotonic()
        try:
            yield
        finally:
            self._waited_s += time.monotonic() - self._since_s
            self._since_s = None

    def renew(self) -> None:
        self._waited_s = 0.0
        if self._since_s is not None:
            self._since_s = time.monotonic()

    @property
    def over(self) -> bool:
        since_s = self._since_s
        if since_s is None:
            return False
        if not self._owed():
            self.renew()
            return False
        return self._waited_s + time.monotonic() - since_s > self.limit_s


@contextmanager
def watched(call: Any, patience: Patience) -> Iterator[None]:
    """Cancel the call when patience runs out: reading from it without asyncio has no timeout of its own."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(patience.tick_s):
            if patience.over:
                patience.gave_up = True
                call.cancel()
                return

    threading.Thread(target=watch, name="patience", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
