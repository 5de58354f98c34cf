"""How long each stage of a frame took, as reported by the server."""

from collections import deque

from tango_rt.client.measurements import percentiles
from tango_rt.v1 import media_pb2

__all__ = ["Timings"]

_STAGES = ("hear", "search", "draw", "late", "latency")
_KEPT = 108_000


class Timings:
    """VideoFrame.timings of the last hour; latency only for frames of speech."""

    def __init__(self) -> None:
        self._ms: dict[str, deque[float]] = {stage: deque(maxlen=_KEPT) for stage in _STAGES}

    def add(self, frame: media_pb2.VideoFrame) -> None:
        if not frame.HasField("timings"):
            return
        for stage, kept in self._ms.items():
            if stage != "latency" or frame.utterance_id:
                kept.append(getattr(frame.timings, stage).ToNanoseconds() / 1e6)

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Milliseconds of each stage: p50, p95, p99, max."""
        return {stage: percentiles(kept) for stage, kept in self._ms.items()}
