"""A cache of pictures that several streams show, so that each is made once; bounded in memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

__all__ = ["Pictures", "SharedPictures"]

Pictures = tuple[bytes, ...]


class SharedPictures:
    """Safe in any thread. A caller that asks for a picture in the making waits for it instead of making it again."""

    def __init__(self, limit_bytes: int) -> None:
        """limit_bytes: of all pictures; the least recently shown go first."""
        self.n_bytes = 0
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[bytes, Pictures] = OrderedDict()
        self._making: dict[bytes, Future[Pictures]] = {}
        self._lock = threading.Lock()

    def get(self, key: bytes, make: Callable[[], Pictures]) -> Pictures:
        """What `make` returns, or returned before for this key. An exception from `make` is raised to all that wait."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
            making = self._making.get(key)
            if making is None:
                mine = self._making[key] = Future()
        return making.result() if making is not None else self._make(key, mine, make)

    def _make(self, key: bytes, mine: "Future[Pictures]", make: Callable[[], Pictures]) -> Pictures:
        try:
            pictures = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            self._kept[key] = pictures
            self.n_bytes += _size(pictures)
            while self.n_bytes > self._limit_bytes:
                self.n_bytes -= _size(self._kept.popitem(last=False)[1])
        mine.set_result(pictures)
        return pictures


def _size(pictures: Pictures) -> int:
    return sum(map(len, pictures))
