"""Which thread does what. Sessions in real time whose pictures are copied have threads of their own, and nobody else's
work is ever in front of theirs; all other threads stand back when cores are short."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tango_rt.server.checks import SessionPlan
from tango_rt.video.codecs import is_decoded

__all__ = ["Threads"]

_NICE = 5  # no more: a thread that never runs while it holds Python's lock would stop all others


class Threads:
    """paced: for sessions in real time that make no pictures, given by who ends it."""

    def __init__(self, paced: ThreadPoolExecutor, n: int) -> None:
        self.opening = ThreadPoolExecutor(n, thread_name_prefix="tango-opening")
        self.telling = ThreadPoolExecutor(
            1, thread_name_prefix="tango-telling"
        )  # lists: nobody who opens waits for one
        self._paced = paced
        self._pictures = ThreadPoolExecutor(n, "tango-pictures", _stand_back)
        self._unpaced = ThreadPoolExecutor(n, "tango-unpaced", _stand_back)  # whose steps wait for transitions

    def of(self, plan: SessionPlan) -> ThreadPoolExecutor:
        """What the steps of a session are prepared in."""
        if not plan.realtime:
            return self._unpaced
        return self._pictures if is_decoded(plan.encoding) else self._paced

    def close(self) -> None:
        """Drop what waits for a thread."""
        for executor in (self.opening, self.telling, self._pictures, self._unpaced):
            executor.shutdown(wait=False, cancel_futures=True)


def _stand_back() -> None:
    if sys.platform == "linux":  # where a thread has a priority of its own
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
