"""Which thread does what. Sessions in real time whose pictures are copied have their own threads, so they never queue
behind other work; all other threads have a lower priority for when cores are short."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tango_rt.server.checks import SessionPlan
from tango_rt.video.codecs import is_decoded

__all__ = ["Threads"]

_NICE = 5  # not higher: a thread that never gets to run while it holds Python's lock would stop all others


class Threads:
    """paced: for sessions in real time whose pictures are copied; shut down by its owner."""

    def __init__(self, paced: ThreadPoolExecutor, n: int) -> None:
        self.opening = ThreadPoolExecutor(n, thread_name_prefix="tango-opening")
        self.telling = ThreadPoolExecutor(
            1, thread_name_prefix="tango-telling"
        )  # for listings, so that opening a session never waits for one
        self._paced = paced
        self._pictures = ThreadPoolExecutor(n, "tango-pictures", _stand_back)
        self._unpaced = ThreadPoolExecutor(n, "tango-unpaced", _stand_back)  # their steps wait for transitions

    def of(self, plan: SessionPlan) -> ThreadPoolExecutor:
        """The executor that prepares the steps of a session."""
        if not plan.realtime:
            return self._unpaced
        return self._pictures if is_decoded(plan.encoding) else self._paced

    def close(self) -> None:
        """Drop the work that waits for a thread."""
        for executor in (self.opening, self.telling, self._pictures, self._unpaced):
            executor.shutdown(wait=False, cancel_futures=True)


def _stand_back() -> None:
    if sys.platform == "linux":  # where threads have their own priority
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
