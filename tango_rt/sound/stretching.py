"""Makes mono sound a little longer or shorter, seamlessly, by windowed-sinc interpolation."""

from collections import deque

import numpy as np

__all__ = ["Stretcher"]

_HALF = 16  # samples of context on either side


class Stretcher:
    """push and flush return the samples that became final, float32 (n,); unstretched sound passes unchanged."""

    def __init__(self) -> None:
        self._plans: deque[tuple[int, int]] = deque()
        self._past = np.zeros(_HALF, np.float32)
        self._waiting = np.zeros(0, np.float32)

    def plan(self, n_samples: int, n_more: int) -> None:
        """The next n_samples that are not planned yet are to become n_samples + n_more."""
        self._plans.append((n_samples, n_more))

    def push(self, samples: np.ndarray) -> np.ndarray:
        self._waiting = np.concatenate([self._waiting, samples]) if len(self._waiting) else samples
        out: list[np.ndarray] = []
        while self._plans and (piece := self._next(*self._plans[0])) is not None:
            out.append(piece)
        return out[0] if len(out) == 1 else np.concatenate([np.zeros(0, np.float32), *out])

    def flush(self, cut: bool) -> np.ndarray:
        """No more sound. cut: drop what is not planned."""
        n_planned = sum(n_samples for n_samples, _ in self._plans)
        rest = self._waiting[n_planned:]
        self._waiting = self._waiting[:n_planned]
        out = self.push(np.zeros(n_planned - len(self._waiting) + _HALF, np.float32))
        return out if cut else np.concatenate([out, rest])

    def _next(self, n_samples: int, n_more: int) -> np.ndarray | None:
        """As much of the first plan as is possible now; None if nothing is."""
        if n_more == 0 or n_samples == 0:
            n_done = min(n_samples, len(self._waiting))
            out = self._waiting[:n_done]
        elif len(self._waiting) < n_samples + _HALF:
            return None
        else:
            n_done = n_samples
            out = _stretched(np.concatenate([self._past, self._waiting[: n_samples + _HALF]]), n_samples + n_more)
        if n_done == 0 and n_samples:
            return None
        self._past = np.concatenate([self._past, self._waiting[max(0, n_done - _HALF) : n_done]])[-_HALF:]
        self._waiting = self._waiting[n_done:]
        if n_done == n_samples:
            self._plans.popleft()
        else:
            self._plans[0] = (n_samples - n_done, 0)
        return out


def _stretched(window: np.ndarray, n_out: int) -> np.ndarray:
    """The window without _HALF samples at either end, resampled to n_out equidistant samples."""
    places = np.arange(n_out) * ((len(window) - 2 * _HALF) / n_out)
    whole = places.astype(np.int64)
    offsets = (places - whole)[:, None] - np.arange(-_HALF, _HALF)
    weights = np.sinc(offsets) * (0.5 + 0.5 * np.cos(np.pi * offsets / _HALF))
    around = np.lib.stride_tricks.sliding_window_view(window, 2 * _HALF)[whole]
    out: np.ndarray = np.einsum("ij,ij->i", around, weights.astype(np.float32))
    return out
