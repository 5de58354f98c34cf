"""Room for calls beside the sessions: each kind has its own, so that none of them takes what another one needs."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc

from tango_rt.server.status import RETRY_S, Refusal

__all__ = ["Room", "SilentCalls"]


class Room:
    """For calls of one kind: so many at once, and so many of them on one connection."""

    def __init__(self, reason: str, what: str, most: int, most_of_connection: int | None = None) -> None:
        """reason: of the refusal; what: the calls, in plural."""
        self.n_inside = 0
        self._reason = reason
        self._what = what
        self._most = most
        self._most_of_connection = most if most_of_connection is None else most_of_connection
        self._of_connection: Counter[str] = Counter()

    @contextmanager
    def place(self, connection: str) -> Iterator[None]:
        """Raises Refusal where there is none."""
        if self.n_inside >= self._most:
            raise self._refusal(f"{self._most} {self._what} are under way, as many as this server takes")
        if self._of_connection[connection] >= self._most_of_connection:
            raise self._refusal(f"{self._most_of_connection} {self._what} are under way on this connection already")
        self.n_inside += 1
        self._of_connection[connection] += 1
        try:
            yield
        finally:
            self.n_inside -= 1
            self._of_connection -= Counter({connection: 1})  # forgets who has none

    def _refusal(self, message: str) -> Refusal:
        metadata = {"max": str(self._most), "max_of_connection": str(self._most_of_connection)}
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        return Refusal(code, self._reason, f"{message}: try again later", retry_s=RETRY_S, metadata=metadata)


class SilentCalls:
    """Calls that have said nothing yet. Where too many are, the one that has been silent for longest is given up:
    who means it speaks at once, and silent calls in any number keep nobody out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[asyncio.Timeout] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def patience(self, seconds: float) -> AsyncIterator[None]:
        """Raises TimeoutError when it is over."""
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
