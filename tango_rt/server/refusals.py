"""Refusals in the log: the first few of a kind individually, then their number from time to time.

Anybody who can connect can cause thousands of refusals per second, which must not fill the log.
"""

import asyncio
import logging
from collections import Counter
from typing import Any

__all__ = ["RefusalLog"]

_log = logging.getLogger(__name__)

_MOST = 5
_PERIOD_S = 10.0


class RefusalLog:
    """For the event loop of the server."""

    def __init__(self, period_s: float = _PERIOD_S) -> None:
        self._period_s = period_s
        self._n: Counter[str] = Counter()

    def refused(self, reason: str, **about: Any) -> None:
        """Log one refused call; about: further fields of the record."""
        if not self._n[reason]:
            asyncio.get_running_loop().call_later(self._period_s, self._sum_up, reason)
        self._n[reason] += 1
        if self._n[reason] <= _MOST:
            _log.warning("call refused", extra={"reason": reason, **about})

    def _sum_up(self, reason: str) -> None:
        n_more = self._n.pop(reason) - _MOST
        if n_more > 0:
            about = {"reason": reason, "n_more": n_more, "within_s": self._period_s}
            _log.warning("more calls refused", extra=about)
