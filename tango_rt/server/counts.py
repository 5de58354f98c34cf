"""The counters of a session, for the Stats sent to its client."""

from dataclasses import dataclass, field
from typing import Literal

from tango_rt.server.messages import Response

__all__ = ["Counts", "TransitionOrigin"]

TransitionOrigin = Literal["cached", "computed", "late"]


@dataclass
class Counts:
    n_sent: int = 0
    n_dropped: int = 0
    n_underruns: int = 0
    n_finished: int = 0
    n_interrupted: int = 0
    transitions: dict[TransitionOrigin, int] = field(default_factory=lambda: {"cached": 0, "computed": 0, "late": 0})

    def stats(self, queued_ns: int) -> Response:
        """queued_ns: length of the queued speech."""
        message = Response()
        stats = message.stats
        stats.frames_sent, stats.frames_dropped, stats.underruns = self.n_sent, self.n_dropped, self.n_underruns
        stats.transitions_cached = self.transitions["cached"]
        stats.transitions_computed = self.transitions["computed"]
        stats.transitions_late = self.transitions["late"]
        stats.queued_audio.FromNanoseconds(queued_ns)
        stats.utterances_finished = self.n_finished
        stats.utterances_interrupted = self.n_interrupted
        return message
