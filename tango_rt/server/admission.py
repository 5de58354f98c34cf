"""Which sessions are admitted: limits on their number, in all and per client, and on the cost of their pictures.

H.264 and references are copied, so only their number counts. JPEG, RGB24 and I420 of sessions in real time have a
price, and together a budget. The rest of the budget is for calls that are not in real time (PACING_FAST, RenderClip),
which are always admitted and give way instead.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from engine.cores import usable_cores
from tango_rt.server.checks import SessionPlan
from tango_rt.server.config import ServerConfig
from tango_rt.server.prices import FREE, Cost, Prices
from tango_rt.server.status import RETRY_S, Refusal, draining

__all__ = ["WRITING_BUDGET", "Admission", "UnpacedTurns"]

WRITING_BUDGET = 0.25
"""Share of the event loop: the large pictures of all sessions that are due at once are written within a quarter of a
frame, so that they delay no other session by more than that."""

_MIN_LEFT = 0.1  # share of the budget: unpaced calls go on, slowly, however much is reserved
_COPIED_S = 0.0005  # about what a copied, unpaced frame costs the loop and Python's lock
_MAX_AHEAD_S = 0.002  # of the loop, in one go


class Admission:
    """Keeps count in the event loop of the server. Every Refusal says what would be admitted."""

    def __init__(self, config: ServerConfig, prices: Prices) -> None:
        making = usable_cores() / 2 if config.picture_cores is None else config.picture_cores
        self.budget = Cost(making, WRITING_BUDGET)
        self.prices = prices
        self.n_active = 0
        self.n_paced = 0
        self.reserved = FREE
        self._most = config.max_sessions
        self._most_of_client = config.max_sessions_per_client
        self._of_client: Counter[str] = Counter()
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def drain(self) -> None:
        """Admit no more."""
        self._draining = True

    async def drained(self) -> None:
        """Wait until no session or clip is left."""
        await self._empty.wait()

    def check_open(self) -> None:
        """Raises Refusal if no request at all would be admitted."""
        if self._draining:
            raise draining()
        if self.n_active >= self._most:
            message = f"all {self._most} sessions of this server are taken: try again later"
            raise _exhausted("TOO_MANY_SESSIONS", message, max_sessions=str(self._most))

    @contextmanager
    def slot(self, client: str) -> Iterator[None]:
        """A slot for one session or clip of a client. Raises Refusal if none is free."""
        self.check_open()
        if self._most_of_client and self._of_client[client] >= self._most_of_client:
            message = f"this client already has {self._most_of_client} sessions, the limit per client: end one first"
            raise _exhausted("TOO_MANY_SESSIONS_OF_CLIENT", message, max_sessions_per_client=str(self._most_of_client))
        self.n_active += 1
        self._of_client[client] += 1
        self._empty.clear()
        try:
            yield
        finally:
            self.n_active -= 1
            self._of_client -= Counter({client: 1})  # drops clients with none
            if not self.n_active:
                self._empty.set()

    @contextmanager
    def reservation(self, plan: SessionPlan, width: int, height: int) -> Iterator[None]:
        """Reserve what the pictures of a session of this size cost, for as long as it lasts. Raises Refusal."""
        if not plan.realtime:
            yield
            return
        cost = self.prices.stream(plan.encoding, width, height)
        self._check_budget(plan, cost, f"{width}x{height}")
        self.reserved += cost
        self.n_paced += 1
        try:
            yield
        finally:
            self.reserved += Cost(-cost.making, -cost.writing)
            self.n_paced -= 1
            if not self.n_paced:
                self.reserved = FREE  # clears rounding errors

    @property
    def left(self) -> Cost:
        """What is left of the budget for unpaced calls."""
        return Cost(
            max(self.budget.making - self.reserved.making, _MIN_LEFT * self.budget.making),
            max(self.budget.writing - self.reserved.writing, _MIN_LEFT * self.budget.writing),
        )

    def _check_budget(self, plan: SessionPlan, cost: Cost, size: str) -> None:
        if cost == FREE:
            return
        most, total = self.budget, self.reserved + cost
        what = f"{plan.encoding} of {size} at 30 fps"
        instead = "VIDEO_ENCODING_H264 and VIDEO_ENCODING_REFERENCE cost nothing"
        metadata = {
            "admitted_encodings": "VIDEO_ENCODING_H264,VIDEO_ENCODING_REFERENCE",
            "cost_cores": f"{cost.making:.3f}",
            "free_cores": f"{max(0.0, most.making - self.reserved.making):.3f}",
            "budget_cores": f"{most.making:.3f}",
            "cost_writing": f"{cost.writing:.3f}",
            "free_writing": f"{max(0.0, most.writing - self.reserved.writing):.3f}",
            "budget_writing": f"{most.writing:.3f}",
        }
        if cost.making > most.making or cost.writing > most.writing:
            message = f"{what} costs more than this machine can spend on encoding pictures: {instead}"
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_COSTLY", message, metadata=metadata)
        if total.making > most.making or total.writing > most.writing:
            message = f"there is no capacity for {what} on top of the current sessions: {instead}, or try again later"
            raise _exhausted("NO_CAPACITY", message, **metadata)


class UnpacedTurns:
    """The turns of unpaced calls. If there are no sessions in real time they run at full speed; otherwise they share
    what is left of the budget, in the order of their requests."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._free_at_s = 0.0

    async def turn(self, plan: SessionPlan, width: int, height: int) -> None:
        """Wait for the turn to make and write the next picture of an unpaced call; others run meanwhile."""
        wait_s = self.due_in_s(plan, width, height, asyncio.get_running_loop().time())
        if wait_s > _MAX_AHEAD_S:
            await asyncio.sleep(wait_s)

    def due_in_s(self, plan: SessionPlan, width: int, height: int, now_s: float) -> float:
        """How long to wait. Counts the turn as taken."""
        if not self._admission.n_paced:
            self._free_at_s = now_s
            return 0.0
        cost, left = self._admission.prices.frame_s(plan.encoding, width, height), self._admission.left
        due_s = max(self._free_at_s, now_s)
        self._free_at_s = due_s + max(cost.making / left.making, (_COPIED_S + cost.writing) / left.writing)
        return due_s - now_s


def _exhausted(reason: str, message: str, **metadata: str) -> Refusal:
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, message, retry_s=RETRY_S, metadata=metadata)
