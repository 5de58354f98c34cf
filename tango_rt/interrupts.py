"""Starting processes without being torn apart by Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

__all__ = ["interrupts_held"]

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Start worker processes in here. A request to end that comes meanwhile takes effect when they have started.

    The processes never hear of Ctrl-C, which goes to all of a terminal: the parent ends them. Two things are needed:
    they inherit the mask of this thread; but in this process another thread may take the signal, and Python then runs
    its handler here all the same, between the start of a process and what it waits to be told.
    """
    resource_tracker.ensure_running()  # else it is started with them, and lifts the mask
    heard: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():  # no other may set handlers, and none is interrupted
        handlers = {ending: signal.getsignal(ending) for ending in _ENDINGS if callable(signal.getsignal(ending))}
    for ending in handlers:
        signal.signal(ending, lambda number, _: heard.append(number))
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        for ending, handler in handlers.items():
            signal.signal(ending, handler)
        if heard:
            signal.raise_signal(heard[0])
