"""Background work, newest first: what was requested long ago is probably too late already."""

import logging
import math
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from engine.errors import TangoError

__all__ = ["Lane"]

_log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
J = TypeVar("J")
V = TypeVar("V")

_NICE = 5
_LEARNING = 0.2  # weight of the newest job in the running cost
_MAX_FAILED = 4096
_MAX_KINDS = 64
_SLACK = 1.2  # some jobs take longer than the mean


class Lane(Generic[K, J, V]):
    """Threads that do one job per key: newest request first; the oldest are dropped if too many wait.

    A key whose job raises is remembered and refused. A result is kept until `max_done` newer ones have come. A job may
    give a part of its result before it is done. The cost of a job, and of that part, is learnt by its `kind`, so that
    callers do not wait for a result that will be late.
    """

    def __init__(
        self, name: str, workers: Sequence[Callable[[J, Callable[[V], None]], V]], max_waiting: int, max_done: int
    ) -> None:
        """workers: each is called in a thread of its own, and may in turn drive a process. It is given the job, and
        what to call with a part of the result."""
        self._name = name
        self._max_waiting = max_waiting
        self._max_done = max_done
        self._waiting: OrderedDict[K, tuple[J, str]] = OrderedDict()  # the newest at the end
        self._begun: dict[K, _Begun[V]] = {}
        self._done: OrderedDict[K, V] = OrderedDict()
        self._failed: OrderedDict[K, None] = OrderedDict()
        self._cost_s: OrderedDict[str, float] = OrderedDict()
        self._part_cost_s: OrderedDict[str, float] = OrderedDict()
        self._closing = False
        self._changed = threading.Condition()
        self.n_done = 0
        self.n_failed = 0
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f"{name} {k}", daemon=True)
            for k, work in enumerate(workers)
        ]
        for thread in self._threads:
            thread.start()

    def cost_s(self, kind: str) -> float | None:
        """Running mean of the seconds that a job of a kind takes; None before the first."""
        return self._cost_s.get(kind)

    @property
    def n_waiting(self) -> int:
        return len(self._waiting) + len(self._begun)

    def failed(self, key: K) -> bool:
        """Whether it will never be done, as is everything unfinished when the lane is closed."""
        return self._closing or key in self._failed

    def request(self, key: K, job: J, kind: str) -> None:
        """Have it done, ahead of all earlier requests; never blocks."""
        with self._changed:
            if self._closing or key in self._begun or key in self._done or key in self._failed:
                return
            self._waiting[key] = job, kind
            self._waiting.move_to_end(key)
            if len(self._waiting) > self._max_waiting:
                self._waiting.popitem(last=False)
            self._changed.notify_all()

    def result(self, key: K, within_s: float | None = 0.0, part: bool = False) -> V | None:
        """The result for a key, or None. Waits if it will probably be done in time; without a limit (None), until it is
        done, dropped or failed. part: the part that its job gives first will do."""
        end_s = None if within_s is None else time.monotonic() + within_s
        with self._changed:
            while (ready := self._ready(key, part)) is None:
                if self._closing or not (key in self._waiting or key in self._begun):
                    return None
                left_s = None if end_s is None else end_s - time.monotonic()
                if left_s is not None and (left_s <= 0 or _SLACK * self._expected_s(key, part) > left_s):
                    return None
                self._changed.wait(left_s)
            return ready

    def forget(self, key: K) -> None:
        """Discard a result that is no longer valid: if requested again, it is done again."""
        with self._changed:
            self._done.pop(key, None)

    def close(self, interrupt: Callable[[], None] = lambda: None) -> None:
        """Drop waiting jobs and end. interrupt: called once no new job can begin, to cut short the running ones."""
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()
        interrupt()
        for thread in self._threads:
            thread.join()

    def _ready(self, key: K, part: bool) -> V | None:
        if key in self._done:
            self._done.move_to_end(key)
            return self._done[key]
        return self._begun[key].part if part and key in self._begun else None

    def _expected_s(self, key: K, part: bool) -> float:
        """Seconds until the job of a key, or a part of it, is done; inf if nothing is known, or others come first."""
        costs_s = self._part_cost_s if part else self._cost_s
        if key in self._begun:
            return self._left_s(key, costs_s)
        _, kind = self._waiting[key]
        if kind not in costs_s or next(reversed(self._waiting)) != key:
            return math.inf
        busy = len(self._begun) >= len(self._threads)
        return costs_s[kind] + (min(self._left_s(other, self._cost_s) for other in self._begun) if busy else 0.0)

    def _left_s(self, key: K, costs_s: Mapping[str, float]) -> float:
        begun = self._begun[key]
        return max(0.0, costs_s.get(begun.kind, math.inf) - (time.monotonic() - begun.at_s))

    def _run(self, work: Callable[[J, Callable[[V], None]], V]) -> None:
        if sys.platform == "linux":  # where threads have their own priority
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                key, (job, kind) = self._waiting.popitem()
                self._begun[key] = _Begun(time.monotonic(), kind)
            self._do(work, key, job)

    def _do(self, work: Callable[[J, Callable[[V], None]], V], key: K, job: J) -> None:
        result: list[V] = []
        try:
            result.append(work(job, partial(self._give, key)))
        except Exception as error:
            if not self._closing:
                _log.warning("%s: %s failed: %s", self._name, key, error, exc_info=not isinstance(error, TangoError))
        with self._changed:
            begun = self._begun.pop(key)
            if result:
                self.n_done += 1
                _learn(self._cost_s, begun)
                _put(self._done, key, result[0], self._max_done)
            elif not self._closing:
                self.n_failed += 1
                _put(self._failed, key, None, _MAX_FAILED)
            self._changed.notify_all()

    def _give(self, key: K, part: V) -> None:
        with self._changed:
            begun = self._begun[key]
            begun.part = part
            _learn(self._part_cost_s, begun)
            self._changed.notify_all()


@dataclass
class _Begun(Generic[V]):
    """A job under way."""

    at_s: float  # monotonic clock
    kind: str
    part: V | None = None


def _learn(costs_s: OrderedDict[str, float], begun: _Begun[V]) -> None:
    took_s = time.monotonic() - begun.at_s
    known_s = costs_s.pop(begun.kind, took_s)
    _put(costs_s, begun.kind, known_s + _LEARNING * (took_s - known_s), _MAX_KINDS)


def _put(results: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    results[key] = value
    while len(results) > most:
        results.popitem(last=False)
