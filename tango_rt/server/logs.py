"""Logs of the server: text or one JSON object per line on standard error, written by a separate thread.

The fields of a record are given as `extra`: log.info("session ended", extra={"session_id": ..., "reason": ...}). A
blocked standard error must not stop the streams, so records beyond a bounded queue are dropped and counted.
"""

import json
import logging
import math
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler
from typing import Any, Literal, TextIO

__all__ = ["JsonFormatter", "TextFormatter", "logging_to"]

_MAX_WAITING = 10_000
_LAST_S = 2.0  # for the records that are queued at the end
_MAX_CHARACTERS = 2000  # of one value: some come from clients
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def logging_to(
    level: Literal["debug", "info", "warning", "error"], form: Literal["text", "json"], stream: TextIO | None = None
) -> Iterator[None]:
    """Send all loggers to `stream` (default: standard error) in here, then restore the previous handlers."""
    root = logging.getLogger()
    before, level_before = root.handlers[:], root.level
    writer = logging.StreamHandler(stream or sys.stderr)
    writer.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(_MAX_WAITING)
    handler = _Dropping(waiting)
    thread = threading.Thread(target=_write, args=(waiting, writer), daemon=True)
    thread.start()
    root.handlers = [handler]
    root.setLevel(level.upper())
    try:
        yield
    finally:
        root.handlers, root.level = before, level_before
        with suppress(queue.Full):
            handler.put_count(_LAST_S)
            waiting.put(None, timeout=_LAST_S)
            thread.join(_LAST_S)


def _write(waiting: "queue.Queue[logging.LogRecord | None]", writer: logging.Handler) -> None:
    while (record := waiting.get()) is not None:
        writer.handle(record)


class TextFormatter(logging.Formatter):
    """2026-01-31T12:00:00.000Z INFO message key=value key="value with spaces"."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = [f"{name}={_plain(value)}" for name, value in _fields(record).items()]
        if record.exc_info:
            pairs.append(f"trace={json.dumps(self.formatException(record.exc_info))}")
        return " ".join([_moment(record), record.levelname, _one_line(record.getMessage()), *pairs])


class JsonFormatter(logging.Formatter):
    """One object per line: time, level, logger, message, the fields of `extra`, and the trace if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


class _Dropping(QueueHandler):
    """Never waits, and reports how many records were lost as soon as there is room again."""

    def __init__(self, waiting: "queue.Queue[logging.LogRecord | None]") -> None:
        super().__init__(waiting)
        self.lost = 0
        self._waiting = waiting

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record.msg, record.args = record.getMessage(), None  # before its arguments change
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.put_count()
            self._waiting.put_nowait(record)
        except queue.Full:
            self.lost += 1

    def put_count(self, within_s: float | None = None) -> None:
        """Put the number of lost records into the queue. Raises queue.Full if there is no room in time."""
        if self.lost:
            about = {"name": __name__, "levelname": "WARNING", "levelno": logging.WARNING}
            count = logging.makeLogRecord({**about, "msg": "log records lost", "n_lost": self.lost})
            self._waiting.put(count, block=within_s is not None, timeout=within_s)
            self.lost = 0


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: _short(value) for name, value in vars(record).items() if name not in _OWN and value is not None}


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else str(value)
    if isinstance(value, str) and len(value) > _MAX_CHARACTERS:
        return value[:_MAX_CHARACTERS] + "..."
    return value


def _plain(value: Any) -> str:
    """A value, perhaps chosen by a client, written so that it cannot look like another field or record."""
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(_plain(part) for part in value)
    word = value if isinstance(value, str) else json.dumps(value, default=str)
    safe = word.isprintable() and word and not any(character in ' "=' for character in word)
    return word if safe else json.dumps(word)


def _one_line(message: str) -> str:
    return message if message.isprintable() else json.dumps(message)


def _moment(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
