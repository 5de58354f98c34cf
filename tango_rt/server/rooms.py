"""Limits on calls other than sessions: each kind has its own, so that none can starve another."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc

from tango_rt.server.status import RETRY_S, Refusal

__all__ = ["Room", "SilentCalls"]


class Room:
    """The limits on calls of one kind: how many at once, and how many of them on one connection."""

    def __init__(self, reason: str, what: str, most: int, most_of_connection: int | None = None) -> None:
        """reason: of the refusal; what: the calls, in the plural."""
        self.n_inside = 0
        self._reason = reason
        self._what = what
        self._most = most
        self._most_of_connection = most if most_of_connection is None else most_of_connection
        self._of_connection: Counter[str] = Counter()

    @contextmanager
    def place(self, connection: str) -> Iterator[None]:
        """A place for one call. Raises Refusal if none is free."""
        if self.n_inside >= self._most:
            raise self._refusal(f"{self._most} {self._what} are in progress, the limit of this server")
        if self._of_connection[connection] >= self._most_of_connection:
            raise self._refusal(f"{self._most_of_connection} {self._what} are already in progress on this connection")
        self.n_inside += 1
        self._of_connection[connection] += 1
        try:
            yield
        finally:
            self.n_inside -= 1
            self._of_connection -= Counter({connection: 1})  # drops connections with none

    def _refusal(self, message: str) -> Refusal:
        metadata = {"max": str(self._most), "max_of_connection": str(self._most_of_connection)}
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        return Refusal(code, self._reason, f"{message}: try again later", retry_s=RETRY_S, metadata=metadata)


class SilentCalls:
    """Calls that have sent nothing yet. If there are too many, the one that has been silent longest is dropped: real
    clients send at once, and no number of silent calls can keep others out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[asyncio.Timeout] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def patience(self, seconds: float) -> AsyncIterator[None]:
        """Raises TimeoutError when the time is up, or the call is dropped."""
        async with asyncio.timeout(seconds) as limit:
            self._waiting.append(limit)
            if len(self._waiting) > self._most:
                oldest = self._waiting.popleft()
                if not oldest.expired():
                    oldest.reschedule(asyncio.get_running_loop().time())
            try:
                yield
            finally:
                if limit in self._waiting:
                    self._waiting.remove(limit)
