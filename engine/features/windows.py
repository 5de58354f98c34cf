"""Networks over a stream: windows at fixed places of the frame grid, so that a row never depends on chunks.

A network takes a window and gives a row per frame of it; rows near the edges of a window depend on where the edges are.
Therefore window k always covers frames [k * hop - lookback, k * hop + hop + lookahead), however the items arrive, and
only the rows of [k * hop, k * hop + hop) are kept. Offline rendering runs the same windows, so it agrees.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.errors import InputError
from engine.timebase import frame_start

__all__ = ["WindowPlan", "WindowedStream"]

Run = Callable[[np.ndarray, int], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class WindowPlan:
    """Where windows are placed, in frames of 1/30 s.

    A window has lookback + hop + lookahead frames, fewer at the start and end of the speech. One with fewer than
    `least_frames` reaches further back, as far as there is speech.
    """

    hop_frames: int
    lookback_frames: int
    lookahead_frames: int
    least_frames: int = 1

    def __post_init__(self) -> None:
        if self.hop_frames < 1 or self.least_frames < 1 or min(self.lookback_frames, self.lookahead_frames) < 0:
            raise InputError(f"invalid windows, expected hop and least frames of 1 or more, none negative: {self}")

    def first_frame(self, window: int, end: int) -> int:
        """First frame of a window that ends before frame `end`."""
        start = window * self.hop_frames
        return max(0, min(start - self.lookback_frames, end - self.least_frames))

    def end_frame(self, window: int) -> int:
        """The frame after a window, if the speech goes on long enough."""
        return (window + 1) * self.hop_frames + self.lookahead_frames


class WindowedStream:
    """Items in, in chunks of any size; rows of features out. Memory is limited to one window and one chunk.

    `run(items, n_frames)` computes a window: items float32 (n, *item_shape), which it must not keep or change, to one
    float32 (n_frames, D) for each D of `widths`. At the end of the speech the last frame may have fewer items than
    others; n_frames may be as low as 1 if the whole speech is that short, and as low as hop + lookahead at its
    beginning. `first_item(frame)` is the item at which a frame starts: engine.timebase.frame_start for 16 kHz samples,
    `int` if items are rows per frame.
    """

    def __init__(
        self,
        run: Run,
        widths: tuple[int, ...],
        plan: WindowPlan,
        first_item: Callable[[int], int] = frame_start,
        item_shape: tuple[int, ...] = (),
    ) -> None:
        self._run = run
        self._widths = widths
        self._plan = plan
        self._first_item = first_item
        self._item_shape = item_shape
        self._chunks: list[np.ndarray] = []  # joined only if a window is due: chunks may be single samples
        self._dropped = 0  # items before the first chunk
        self._n_items = 0
        self._window = 0
        self._flushed = False

    @property
    def lookahead_frames(self) -> int:
        """Row n is final once all items before the start of frame n + 1 + lookahead_frames were pushed."""
        return self._plan.hop_frames - 1 + self._plan.lookahead_frames

    def push(self, items: np.ndarray) -> tuple[np.ndarray, ...]:
        """The next items, (n, *item_shape) -> the rows that became final, one float32 (m, D) for each of `widths`.

        Raises ValueError for items of another shape, RuntimeError after `flush`.
        """
        if self._flushed:
            raise RuntimeError("flush was called, this speech has ended: start a new stream")
        items = np.array(items, np.float32)  # a copy: the caller may fill the same buffer again
        if items.ndim == 0 or items.shape[1:] != self._item_shape:
            wanted = ", ".join(["n", *map(str, self._item_shape)])
            raise ValueError(f"items of shape {items.shape}, expected ({wanted})")
        if len(items):
            self._chunks.append(items)
            self._n_items += len(items)
        due = []
        while self._first_item(self._plan.end_frame(self._window)) <= self._n_items:
            due.append(self._next_rows(self._plan.end_frame(self._window)))
        self._forget()
        return self._joined(due)

    def flush(self) -> tuple[np.ndarray, ...]:
        """End of speech: the rows still due. In all there is a row for every frame, including a partial last one."""
        self._flushed = True
        end = self._window * self._plan.hop_frames
        while self._first_item(end) < self._n_items:
            end += 1
        due = []
        while self._window * self._plan.hop_frames < end:
            due.append(self._next_rows(min(end, self._plan.end_frame(self._window))))
        self._chunks.clear()
        return self._joined(due)

    def _next_rows(self, end: int) -> tuple[np.ndarray, ...]:
        """Run the next window, which ends before frame `end` -> the rows of it that are kept."""
        start = self._plan.first_frame(self._window, end)
        if len(self._chunks) > 1:
            self._chunks = [np.concatenate(self._chunks)]
        items = self._chunks[0][self._first_item(start) - self._dropped : self._first_item(end) - self._dropped]
        rows = self._run(items, end - start)
        wanted = [(end - start, width) for width in self._widths]
        if [array.shape for array in rows] != wanted:
            raise ValueError(f"a window gave rows of shapes {[array.shape for array in rows]}, expected {wanted}")
        first = self._window * self._plan.hop_frames - start
        self._window += 1
        return tuple(array[first : first + self._plan.hop_frames] for array in rows)

    def _forget(self) -> None:
        """Drop the items that no later window can need: the next one ends at its first frame at the earliest."""
        needed = self._first_item(self._plan.first_frame(self._window, self._window * self._plan.hop_frames + 1))
        if needed > self._dropped and self._chunks:
            kept = np.concatenate(self._chunks)[needed - self._dropped :]
            self._chunks = [kept.copy()]
            self._dropped = needed

    def _joined(self, due: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
        empty = tuple(np.empty((0, width), np.float32) for width in self._widths)
        return tuple(np.concatenate(parts, dtype=np.float32) for parts in zip(empty, *due, strict=True))
