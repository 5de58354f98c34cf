"""Refusals in the log: the first ones of a kind as they come, then their number now and then.

Anybody who can connect can be refused, thousands of times a second: what one line says a hundred need not repeat.
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
        """One call was refused; about: further fields of the record."""
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
