"""The Prometheus metrics of the server."""

from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from tango_rt.server.metrics_endpoint import MetricsEndpoint

__all__ = ["Metrics"]

# around the 33 ms of a frame and the targets of 100, 120 and 200 ms
_LATENCY_S = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.12, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)
_LATE_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1)
_LENGTH_S = (1, 10, 60, 300, 1800, 3600, 4 * 3600)

_NAMES = "tango_rt"


class Metrics:
    """Counters of one server, in a registry of its own. All methods are cheap and safe in any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._ready = self._gauge("ready", "1 while the server accepts sessions")
        self._characters = self._gauge("characters", "Characters that can be performed")
        self._damaged = self._gauge("characters_damaged", "Packs in the folder that cannot be used")
        self._active = self._gauge("sessions_active", "Sessions and clips under way")
        self._opened = self._counter("sessions_opened", "Sessions and clips that were accepted")
        self._closed = self._counter("sessions_closed", "Sessions and clips that ended", "reason")
        self._refused = self._counter("refused", "Calls that were refused", "reason")
        self._frames = self._counter("frames_sent", "Frames sent", "encoding")
        self._dropped = self._counter("frames_dropped", "Frames not sent because the client reads too slowly")
        self._underruns = self._counter("underruns", "Number of times that speech did not arrive in time")
        self._transitions = self._counter("transitions", "Transitions sent, by where they came from", "source")
        self._first_frame = self._histogram("first_frame_seconds", "Configuration to first frame", _LATENCY_S)
        self._speech = self._histogram(
            "speech_latency_seconds",
            "From the last sample that speech waited for to its first frame",
            _LATENCY_S,
        )
        self._late = self._histogram("frame_late_seconds", "How long after their due time frames were sent", _LATE_S)
        self._length = self._histogram("session_seconds", "Length of sessions", _LENGTH_S)
        self._lag = self._gauge("event_loop_lag_seconds", "Largest delay of the event loop in the last seconds")

    def ready(self, is_ready: bool) -> None:
        self._ready.set(int(is_ready))

    def characters(self, n_usable: int, n_damaged: int) -> None:
        self._characters.set(n_usable)
        self._damaged.set(n_damaged)

    def session_opened(self) -> None:
        self._opened.inc()
        self._active.inc()

    def session_closed(self, reason: str, seconds: float | None = None) -> None:
        """reason: OK, CANCELLED or the reason of the error that ended it."""
        self._active.dec()
        self._closed.labels(reason).inc()
        if seconds is not None:
            self._length.observe(seconds)

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def frames(self, n: int, encoding: str) -> None:
        self._frames.labels(encoding).inc(n)

    def dropped(self, n: int) -> None:
        self._dropped.inc(n)

    def underrun(self) -> None:
        self._underruns.inc()

    def transition(self, source: Literal["cached", "computed", "late"]) -> None:
        self._transitions.labels(source).inc()

    def first_frame(self, seconds: float) -> None:
        self._first_frame.observe(seconds)

    def speech_latency(self, seconds: float) -> None:
        self._speech.observe(seconds)

    def late(self, seconds: float) -> None:
        self._late.observe(max(seconds, 0.0))

    def loop_lag(self, seconds: float) -> None:
        self._lag.set(seconds)

    def text(self) -> str:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self.registry).decode()

    def serve(self, host: str, port: int) -> MetricsEndpoint:
        """Serve HTTP from a thread. Raises InputError if the port is not available."""
        return MetricsEndpoint(self.registry, host, port)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"{_NAMES}_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(f"{_NAMES}_{name}", about, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"{_NAMES}_{name}", about, registry=self.registry, buckets=buckets)
