"""Messages that a session has yet to send, in order. An interrupt overtakes the sound that it makes obsolete.

Pure state; the sessions lock it.
"""

from collections import deque
from collections.abc import Iterator

from tango_rt.client.options import INTERRUPT_MODES, AudioCoding, InterruptMode
from tango_rt.client.samples import BYTES_PER_SAMPLE
from tango_rt.v1 import session_pb2

__all__ = ["Outbox"]

_ROOM_S = 2  # of sound; beyond that, senders wait
_REMEMBERED = 16  # interrupted utterances for which more sound may still arrive
_MESSAGE_S = 1  # an interrupt only overtakes whole messages; servers take at most 10 s

Request = session_pb2.StreamGesturesRequest


class Outbox:
    """rate_hz, encoding: of the session's sound; they give the length of sound in seconds."""

    def __init__(self, rate_hz: int, encoding: AudioCoding) -> None:
        self.finished = False
        self._second_bytes = rate_hz * BYTES_PER_SAMPLE[encoding]
        self._sample_bytes = BYTES_PER_SAMPLE[encoding]
        self._waiting: deque[Request] = deque()
        self._waiting_bytes = 0
        self._sent_utterance: str | None = None
        self._put_utterance = ""
        self._interrupted: deque[str] = deque(maxlen=_REMEMBERED)
        self.n_interrupts = 0
        """Number of interrupts so far, of any utterance."""

    @property
    def has_room(self) -> bool:
        return self._waiting_bytes < _ROOM_S * self._second_bytes

    @property
    def idle(self) -> bool:
        return not self._waiting

    def messages(self, data: bytes, utterance: str, first_sample: int | None) -> Iterator[Request]:
        """Split sound into messages that are short enough; no message for no samples."""
        step = _MESSAGE_S * self._second_bytes
        for start in range(0, len(data), step):
            index = None if first_sample is None else first_sample + start // self._sample_bytes
            chunk = session_pb2.AudioChunk(
                data=data[start : start + step], first_sample_index=index, utterance_id=utterance
            )
            yield Request(audio=chunk)

    def worthless(self, utterance: str, n_interrupts: int) -> bool:
        """Whether sound handed over after n_interrupts belongs to an utterance interrupted since, or before."""
        return utterance in self._interrupted or n_interrupts != self.n_interrupts

    def put(self, request: Request) -> None:
        if request.HasField("audio"):
            self._put_utterance = request.audio.utterance_id
        self._waiting.append(request)
        self._waiting_bytes += len(request.audio.data)

    def interrupt(self, mode: InterruptMode, utterance: str) -> None:
        """Drop the waiting sound that is interrupted, and send the interrupt before anything else."""
        interrupted = utterance or self._put_utterance
        if interrupted:
            self._interrupted.append(interrupted)
        if not utterance:
            self.n_interrupts += 1
        kept = [request for request in self._waiting if not _of_utterance(request, utterance)]
        never_begun = bool(utterance) and len(kept) < len(self._waiting) and self._sent_utterance != utterance
        self._waiting = deque(kept)
        self._waiting_bytes = sum(len(request.audio.data) for request in kept)
        if not never_begun:  # otherwise the server does not know it
            self._waiting.appendleft(
                Request(interrupt=session_pb2.Interrupt(mode=INTERRUPT_MODES[mode], utterance_id=utterance))
            )

    def take(self) -> Request | None:
        """The next message to send; None: nothing waits."""
        if not self._waiting:
            return None
        request = self._waiting.popleft()
        self._waiting_bytes -= len(request.audio.data)
        if request.HasField("audio"):
            self._sent_utterance = request.audio.utterance_id
        return request


def _of_utterance(request: Request, utterance: str) -> bool:
    """Whether a message belongs to an utterance (empty: to any)."""
    if request.HasField("audio"):
        return not utterance or request.audio.utterance_id == utterance
    if request.HasField("words"):
        return not utterance or request.words.utterance_id == utterance
    if request.HasField("cue"):  # one that comes soon is answered by the interrupt
        return request.cue.HasField("at_sample") and (not utterance or request.cue.utterance_id == utterance)
    return request.HasField("end_of_utterance") and (
        not utterance or request.end_of_utterance.utterance_id == utterance
    )
