"""Progress of long work, for a bar in a terminal, a notebook or a program."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

__all__ = ["OnProgress", "Progress", "Stage", "counted", "silent"]

T = TypeVar("T")

_INTERVAL_S = 1.0  # slow enough to print every report


@dataclass(frozen=True)
class Progress:
    """The current stage and how much of it is done."""

    stage: str  # such as "tracking talk.mp4"
    done: int
    total: int | None  # None: unknown
    unit: str  # what is counted: "frames", "nodes", "cuts"

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        return f"{self.stage}: {self.done}{of} {self.unit}"


OnProgress = Callable[[Progress], None]
"""Called from the thread that does the work, about once a second, and at the start and the end of every stage."""


def silent(_: Progress) -> None:
    """Report nothing."""


class Stage:
    """One stage of the work: a context manager."""

    def __init__(self, on_progress: OnProgress, name: str, total: int | None, unit: str) -> None:
        self._on_progress = on_progress
        self._name = name
        self._total = total
        self._unit = unit
        self._done = 0

    def __enter__(self) -> Self:
        self._tell()
        return self

    def advance(self, n: int = 1) -> None:
        """Count n more as done."""
        self._done += n
        if time.monotonic() >= self._next_s:
            self._tell()

    def advance_to(self, n: int) -> None:
        """Set the number done so far to n."""
        self.advance(n - self._done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._tell()

    def _tell(self) -> None:
        self._next_s = time.monotonic() + _INTERVAL_S
        self._on_progress(Progress(self._name, self._done, self._total, self._unit))


def counted(items: Iterable[T], on_progress: OnProgress, name: str, total: int | None, unit: str) -> Iterator[T]:
    """Yield the items and count each as done when the next is requested. The stage starts with the first request."""
    with Stage(on_progress, name, total, unit) as stage:
        for item in items:
            yield item
            stage.advance()
