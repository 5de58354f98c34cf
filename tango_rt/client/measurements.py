"""The timing of a session as the client sees it: when frames arrived, which were missing."""

import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from tango_rt.v1 import media_pb2, session_pb2

__all__ = ["Measurements", "percentiles"]

_KEPT = 108_000  # an hour of frames: a session may go on forever


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """p50, p95, p99 and max, interpolated; empty if there are no values."""
    in_order = sorted(values)
    if not in_order:
        return {}
    names = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    return {name: round(_quantile(in_order, percent / 100), 3) for name, percent in names.items()}


def _quantile(in_order: list[float], part: float) -> float:
    place = part * (len(in_order) - 1)
    low = int(place)
    high = min(low + 1, len(in_order) - 1)
    return in_order[low] + (place - low) * (in_order[high] - in_order[low])


class Measurements:
    """Updated by the session with every event; seconds are of time.monotonic()."""

    def __init__(self) -> None:
        self.config_sent_s = time.monotonic()
        self.first_audio_sent_s: float | None = None
        self.accepted_s: float | None = None
        self.first_frame_s: float | None = None
        self.first_speech_frame_s: float | None = None
        self.last_frame_s: float | None = None
        self.n_frames = 0
        self.n_dropped = 0
        self.n_underruns = 0
        self.n_underrun_frames = 0
        self.stats: session_pb2.Stats | None = None
        self._next_index = 0
        self._intervals_s: deque[float] = deque(maxlen=_KEPT)

    def sent_audio(self) -> None:
        if self.first_audio_sent_s is None:
            self.first_audio_sent_s = time.monotonic()

    def arrived(self, event: Any) -> None:
        if isinstance(event, media_pb2.VideoFrame):
            self._frame(event, time.monotonic())
        elif isinstance(event, session_pb2.Underrun):
            self.n_underruns += 1
            self.n_underrun_frames += event.n_frames
        elif isinstance(event, session_pb2.Stats):
            self.stats = event

    def _frame(self, frame: media_pb2.VideoFrame, now_s: float) -> None:
        if self.last_frame_s is not None:
            self._intervals_s.append(now_s - self.last_frame_s)
        else:
            self.first_frame_s = now_s
        if frame.utterance_id and self.first_speech_frame_s is None:
            self.first_speech_frame_s = now_s
        self.n_dropped += frame.frame_index - self._next_index
        self._next_index = frame.frame_index + 1
        self.last_frame_s = now_s
        self.n_frames += 1

    @property
    def interval_ms(self) -> dict[str, float]:
        """Percentiles of the time between frames over the last hour."""
        return percentiles(1000 * interval_s for interval_s in self._intervals_s)

    @property
    def first_frame_ms(self) -> float | None:
        """From the configuration to the first frame."""
        return _ms(self.config_sent_s, self.first_frame_s)

    @property
    def first_speech_frame_ms(self) -> float | None:
        """From the first sample handed over to the first frame of an utterance."""
        return _ms(self.first_audio_sent_s, self.first_speech_frame_s)


def _ms(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else round(1000 * (end_s - start_s), 3)
