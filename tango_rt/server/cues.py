"""The cues that a client asks for: checked, and passed to the performer by the thread that owns it."""

from collections import deque
from dataclasses import dataclass

from engine.character.cues import MAX_CUE_NAME, why_no_cue_name
from engine.timebase import SAMPLE_RATE
from tango_rt.options import DEFAULT_WITHIN_S, MAX_WITHIN_S
from tango_rt.pipeline.cueing import MAX_PENDING, RefusedCue
from tango_rt.pipeline.live import LivePerformer
from tango_rt.server.checks import SessionPlan, check_id
from tango_rt.server.messages import Response, cue_refused
from tango_rt.server.speech import SpeechQueue
from tango_rt.server.status import bad_field
from tango_rt.v1 import session_pb2

__all__ = ["CueRequests"]

_LONGEST_S = 24 * 3600


@dataclass(frozen=True)
class _Request:
    name: str
    utterance: str | None
    at_sample: int | None  # at 16 kHz; None: soon
    within_s: float


class CueRequests:
    """The event loop accepts; the thread that owns the performer passes on. Memory is bounded."""

    def __init__(self, queue: SpeechQueue, performer: LivePerformer, plan: SessionPlan) -> None:
        self._queue = queue
        self._performer = performer
        self._plan = plan
        self._waiting: deque[_Request] = deque()
        self._over: deque[str] = deque()  # utterances that ended

    def accept(self, cue: session_pb2.Cue) -> Response | None:
        """Keep a cue until the performer takes it. Returns the answer if it is refused at once. Raises Refusal for one
        that cannot be."""
        request = self._checked(cue)
        reason = self._why_not(request)
        if reason is None:
            self._waiting.append(request)
            return None
        return cue_refused(RefusedCue(request.name, reason))

    def finished(self, utterance: str) -> None:
        """An utterance was performed to its end: what was asked for in it and is still pending is refused."""
        if len(self._waiting) or self._performer.has_cues:
            self._over.append(utterance)

    def pass_on(self) -> list[Response]:
        """Give the performer what is waiting. Returns the answers to what it refuses at once."""
        for _ in range(len(self._waiting)):  # more may be added meanwhile
            request = self._waiting.popleft()
            self._performer.cue(request.name, request.at_sample, request.within_s, request.utterance)
        for _ in range(len(self._over)):
            self._performer.over(self._over.popleft())
        return self.refused()

    def refused(self) -> list[Response]:
        """The answers to what it has refused since."""
        return [cue_refused(one) for one in self._performer.refused_cues()]

    def leftover(self) -> list[Response]:
        """The session is over: the answers to all cues that are not."""
        told = self.pass_on()
        self._performer.drop_cues("the session ended")
        return told + self.refused()

    def _checked(self, cue: session_pb2.Cue) -> _Request:
        """Raises Refusal."""
        if (reason := why_no_cue_name(cue.name)) is not None:
            wanted = f"wanted 1 to {MAX_CUE_NAME} printable characters"
            raise bad_field("cue.name", f"the name of a cue {reason}: {wanted}")
        check_id("cue.utterance_id", cue.utterance_id)
        within_s = DEFAULT_WITHIN_S
        if cue.HasField("within"):
            within_s = cue.within.seconds + cue.within.nanos / 1e9  # it may not be a valid Duration
            if not 0 <= within_s <= MAX_WITHIN_S or not 0 <= cue.within.nanos < 1e9:
                raise bad_field("cue.within", f"a cue within {within_s:g} s: wanted 0 to {MAX_WITHIN_S:g} s")
        when = cue.WhichOneof("when")
        if when is None or (when == "soon" and not cue.soon):
            raise bad_field("cue.when", "a cue without a time: wanted at_sample, or soon: true")
        if when == "soon":
            if cue.utterance_id:
                raise bad_field("cue.utterance_id", "a cue that comes soon belongs to no utterance: leave its id out")
            return _Request(cue.name, None, None, within_s)
        rate_hz = self._plan.rate_hz
        if not 0 <= cue.at_sample <= _LONGEST_S * rate_hz:
            raise bad_field("cue.at_sample", f"sample {cue.at_sample}: wanted 0 to {_LONGEST_S * rate_hz}")
        name = cue.utterance_id or self._queue.open_name
        return _Request(cue.name, name, cue.at_sample * SAMPLE_RATE // rate_hz, within_s)

    def _why_not(self, request: _Request) -> str | None:
        if not self._performer.has_cue(request.name):
            return "the character has no cue of this name"
        if request.at_sample is not None and request.utterance is None:
            return "no utterance is open: name the one that will come"
        if request.utterance is not None and self._queue.is_over(request.utterance):
            return "its utterance is over"
        return None if len(self._waiting) < MAX_PENDING else f"{MAX_PENDING} cues are pending already"
