"""The clock and the connection of a live session.

Three tasks: one reads requests, one shows frames, one watches the limits. A failure in one ends the others. Steps are
decided in a thread, one at a time; nothing else touches the performer meanwhile. Frame k is due at t0 + k / 30,
computed from k, so that the clock does not drift.
"""

import asyncio
from collections import deque
from concurrent.futures import Executor
from functools import partial
from typing import Any

import grpc

from engine.timebase import FPS, FRAMES_PER_NODE
from tango_rt.server.admission import UnpacedTurns
from tango_rt.server.config import ServerConfig
from tango_rt.server.messages import Response, pong, warning
from tango_rt.server.metrics import Metrics
from tango_rt.server.opening import NewSession
from tango_rt.server.requests import request_kind
from tango_rt.server.session import ATTENTION
from tango_rt.server.status import Refusal, bad_field, draining
from tango_rt.v1 import session_pb2

__all__ = ["LiveStream"]

MAX_WAITING = 64  # utterances, and answers not yet sent: beyond that, no more requests are read
_WATCH_S = 0.25
_LEAD_S = 0.008  # a step is decided as late as possible, so that it uses the latest speech: this long before it
_LEAD_STEPS = 1.5  # is due, plus this many times the duration of the slowest of the latest steps
_FORGETS = 0.95  # decay of that duration, per step
_MAX_SKIPPED = 60  # steps at once: 8 s


class LiveStream:
    """Runs one session on one call until it is over."""

    def __init__(
        self,
        opened: NewSession,
        context: Any,
        executor: Executor,
        turns: UnpacedTurns,
        server: ServerConfig,
        metrics: Metrics,
        configured_s: float,
    ) -> None:
        """configured_s: when the configuration arrived, by the loop's clock."""
        self._session = opened.session
        self._size = opened.accepted.width, opened.accepted.height
        self._context = context
        self._executor = executor
        self._turns = turns
        self._server = server
        self._metrics = metrics
        self._max_queued = opened.max_queued
        self._configured_s = configured_s
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[Response] = deque()
        self._performing = asyncio.Lock()
        self._interrupts = 0  # waiting for the performer
        self._room: asyncio.Event | None = None  # that reading waits for
        self._waker: asyncio.Future[bool] | None = None
        self._woken = False
        self._paused = False
        self._t0_s = 0.0
        self._step_s = 0.0  # how long the slowest of the latest steps took to decide
        self._active_s = self._loop.time()  # when the client last sent something, or was being performed
        self._writing_s: float | None = None  # when the current write started
        self._deciding_s: float | None = None
        self._draining = False
        self._cut_off = False

    async def run(self) -> None:
        """Raises Refusal if the client breaks the protocol or exceeds a limit."""
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(self._read()), group.create_task(self._watch())]
                await self._pace()
                for helper in helpers:
                    helper.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the first is the cause of the others

    def drain(self) -> None:
        """End as soon as the speech received so far is performed."""
        self._draining = True
        self._say(warning("DRAINING", "the server is shutting down: this session ends when its speech is over"))

    def cut_off(self) -> None:
        """End now."""
        self._cut_off = True

    async def _read(self) -> None:
        while (request := await self._context.read()) is not grpc.aio.EOF:
            self._active_s = self._loop.time()
            await self._take(request, request_kind(request))
            if not self._has_room():
                self._room = asyncio.Event()
                await self._room.wait()
        self._session.queue.end_open()
        self._session.queue.closed = True
        self._wake()

    async def _take(self, request: Any, kind: str) -> None:
        queue = self._session.queue
        if kind == "audio":
            queue.accept(request.audio, self._loop.time())
            if self._session.plan.lookahead_nodes is None:
                queue.check_whole(self._max_queued)
            if not self._session.plan.idle:  # otherwise the clock picks it up
                self._wake()
        elif kind == "end_of_utterance":
            queue.end(request.end_of_utterance.utterance_id)
            self._wake()
        elif kind == "words":
            self._session.take_words(request.words)
        elif kind == "cue":
            if (answer := self._session.cues.accept(request.cue)) is not None:
                self._say(answer)
        elif kind == "interrupt":
            await self._interrupt(request.interrupt)
        elif kind == "set_state":
            state = request.set_state.state
            if state not in ATTENTION:
                raise bad_field("set_state.state", f"state {state} is unknown: wanted 1, 2 or 3", "BAD_STATE")
            self._session.attention = ATTENTION[state]
        elif kind == "ping":
            self._say(pong(request.ping.number))
        else:
            message = "a second configuration arrived: open another stream for it"
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "CONFIG_REPEATED", message)

    async def _interrupt(self, interrupt: session_pb2.Interrupt) -> None:
        if interrupt.mode not in session_pb2.Interrupt.Mode.values():
            raise bad_field("interrupt.mode", f"mode {interrupt.mode} is unknown: wanted 1 or 2")
        self._interrupts += 1
        try:
            async with self._performing:
                events = self._session.interrupt(interrupt.mode, interrupt.utterance_id)
        finally:
            self._interrupts -= 1
        for event in events:
            self._say(event)
        self._wake()

    def _has_room(self) -> bool:
        queue = self._session.queue
        return queue.n_queued <= self._max_queued and len(queue) < MAX_WAITING and len(self._outbox) < MAX_WAITING

    async def _pace(self) -> None:
        session, realtime = self._session, self._session.plan.realtime
        if realtime:
            self._t0_s = self._loop.time()
            await self._prepare()
            self._t0_s = self._loop.time()
        while not session.over:
            if not session.has_frame:
                if realtime and not await self._sleep(self._due_s() - self._lead_s()):
                    await self._deliver()
                elif await self._prepare():
                    self._resume()
                elif not session.unheard and not session.plan.idle:
                    await self._wait_for_speech()
            elif realtime and not await self._sleep(self._due_s()):
                await self._deliver()
            else:
                if not realtime:
                    await self._turns.turn(session.plan, *self._size)
                if session.has_frame:  # an interrupt may have arrived just now
                    await self._show()
        self._outbox.extend(session.leftover())
        if session.plan.stats_period_s is not None:
            self._outbox.append(session.stats())
        await self._deliver()

    async def _show(self) -> None:
        session = self._session
        late_s = 0.0
        if session.plan.realtime:
            late_s = self._loop.time() - self._due_s()
            if late_s > self._server.max_late_s and session.at_key_frame:
                late_s = await self._catch_up(late_s)
                if not session.has_frame:
                    return
            self._metrics.late(late_s)
        first = session.n_frames == 0
        self._outbox.extend(session.show(self._loop.time(), late_s))
        if session.speaking:
            self._active_s = self._loop.time()
        await self._deliver()
        if first:
            self._metrics.first_frame(self._loop.time() - self._configured_s)

    async def _catch_up(self, late_s: float) -> float:
        """The client or the machine is too slow. BLOCK: the clock waits. DROP: frames are dropped, idle ones too, up to
        the first key frame that is not over yet. Returns how late the next frame then is."""
        session = self._session
        if session.plan.block:
            self._t0_s += late_s
            return 0.0
        session.drop()
        self._pass_by()
        # In one go: if the machine is too slow, a round trip through a thread takes longer than the step itself.
        n_steps = int((self._loop.time() - self._due_s()) * FPS / FRAMES_PER_NODE)
        async with self._performing:
            skip = partial(session.skip, self._loop.time(), min(n_steps, _MAX_SKIPPED))
            skipped = await self._loop.run_in_executor(self._executor, skip)
        for step in skipped:
            session.pass_over(step)
            self._pass_by()
        await self._prepare()
        return self._loop.time() - self._due_s()

    def _pass_by(self) -> None:
        while self._session.has_frame:
            self._outbox.extend(self._session.show(self._loop.time()))

    async def _prepare(self) -> bool:
        """Decide the next step, in a thread."""
        async with self._performing:
            now_s = self._deciding_s = self._loop.time()
            due_in_s = self._due_s() - now_s if self._session.plan.realtime else None
            ready = await self._loop.run_in_executor(self._executor, self._session.prepare, now_s, True, due_in_s)
            self._step_s = max(self._loop.time() - now_s, _FORGETS * self._step_s)
            self._deciding_s = None
            self._outbox.extend(self._session.told())
        if self._interrupts:  # they arrived first
            await asyncio.sleep(0)
        return ready and self._session.has_frame

    async def _wait_for_speech(self) -> None:
        """Without idle frames the clock stops while there is no speech."""
        await self._deliver()
        if self._session.over:
            return
        speech = self._session.under_way
        if self._session.plan.realtime and speech is not None and not self._paused:
            if not await self._sleep(self._due_s()):
                return
            self._outbox.append(self._session.starve(speech, 0))
            await self._deliver()
        self._paused = True
        await self._sleep(self._session.held_until_s)

    def _resume(self) -> None:
        """Restart the clock with the frame that is ready."""
        if self._paused:
            self._t0_s += max(0.0, self._loop.time() - self._due_s())
            self._paused = False

    def _due_s(self) -> float:
        return self._t0_s + self._session.n_frames / FPS

    def _lead_s(self) -> float:
        return min(_LEAD_S + _LEAD_STEPS * self._step_s, 1 / FPS)

    async def _sleep(self, until_s: float | None) -> bool:
        """Wait until then (True), or until woken (False)."""
        if until_s is not None and until_s <= self._loop.time():
            return True
        if self._woken:
            self._woken = False
            return False
        self._waker = self._loop.create_future()
        timer = None if until_s is None else self._loop.call_at(until_s, _ring, self._waker, True)
        try:
            return await self._waker
        finally:
            self._waker = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        """Let the clock look at new input."""
        if self._waker is None:
            self._woken = True
        else:
            _ring(self._waker, False)

    def _say(self, message: Response) -> None:
        self._outbox.append(message)
        self._wake()

    async def _deliver(self) -> None:
        while self._outbox:
            self._writing_s = self._loop.time()
            await self._context.write(self._outbox.popleft())
            self._writing_s = None
        if self._room is not None and self._has_room():
            self._room.set()
            self._room = None

    async def _watch(self) -> None:
        """Enforce time limits and send Stats."""
        start_s = self._loop.time()
        period_s = self._session.plan.stats_period_s
        stats_s = start_s + (period_s or 0.0)
        tick_s = min(_WATCH_S, period_s or _WATCH_S, self._server.idle_timeout_s / 4)
        while True:
            await asyncio.sleep(tick_s)
            now_s = self._loop.time()
            self._check(now_s, start_s)
            if period_s is not None and now_s >= stats_s and len(self._outbox) < MAX_WAITING:
                stats_s = max(stats_s + period_s, now_s)
                self._say(self._session.stats())

    def _check(self, now_s: float, start_s: float) -> None:
        limit_s = self._server.idle_timeout_s
        if self._deciding_s is not None and now_s - self._deciding_s > _WATCH_S:  # hearing a long utterance as a whole
            self._active_s = now_s
        if self._writing_s is not None and now_s - self._writing_s > limit_s:
            raise _over("SLOW_READER", f"nothing was read for {limit_s:g} s")
        if now_s - start_s > self._server.max_session_s:
            raise _over(
                "MAX_SESSION", f"the session has lasted {self._server.max_session_s:g} s, the limit of this server"
            )
        if self._writing_s is None and not self._session.queue.closed and now_s - self._active_s > limit_s:
            raise _over("IDLE_TIMEOUT", f"nothing was received for {limit_s:g} s: regular Pings keep a session open")
        flushed = self._writing_s is None and not self._outbox
        if self._cut_off or (self._draining and flushed and not len(self._session.queue)):
            raise draining()


def _ring(waker: "asyncio.Future[bool]", in_time: bool) -> None:
    if not waker.done():
        waker.set_result(in_time)


def _over(reason: str, message: str) -> Refusal:
    return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, reason, message)
