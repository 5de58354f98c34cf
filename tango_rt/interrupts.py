"""Starting processes safely when Ctrl-C may come at any time."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

__all__ = ["hold_interrupts"]

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Start worker processes in here. A signal to end that arrives meanwhile takes effect once they have started.

    The workers ignore Ctrl-C, which a terminal sends to all its processes: the parent ends them. This takes two steps.
    The workers inherit the signal mask of this thread. But in this process another thread may receive the signal, and
    Python then runs its handler here, possibly between the start of a worker and the data that it waits for. So the
    handlers are replaced as well.
    """
    resource_tracker.ensure_running()  # otherwise it is started with the workers, and lifts the mask
    heard: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():  # only this one may set handlers, and is interrupted
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
