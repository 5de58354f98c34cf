"""The sound sent with the frames: spans that tile the clock of a session without gap or overlap.

Frame k owns samples k * rate // 30 up to (k + 1) * rate // 30. A frame of an utterance is filled with the next samples
of that utterance, all others are silent. Frames differ by a sample in length, so the sound may run ahead of the frames
by at most one sample; it never lags, and the difference does not accumulate.
"""

from tango_rt.server.checks import SessionPlan
from tango_rt.server.speech import Speech, span_start
from tango_rt.v1 import media_pb2

__all__ = ["Echo"]


class Echo:
    """The spans of one session. Those of frames that are not sent are kept for the next frame."""

    def __init__(self, plan: SessionPlan) -> None:
        self._rate_hz = plan.rate_hz
        self._bytes = plan.sample_bytes
        self._echo = plan.audio_echo
        self._kept = bytearray()
        self._kept_from: int | None = None  # first sample of the utterance in what is kept
        self._pts = 0  # of self._kept

    def play(self, frame: int, speech: Speech | None) -> None:
        """Add the sound of the next frame: of an utterance, or silence."""
        n_samples = span_start(frame + 1, self._rate_hz) - span_start(frame, self._rate_hz)
        if self._echo:
            sound = b"" if speech is None else speech.sound(speech.n_played, n_samples)
            if sound and speech is not None and self._kept_from is None:
                self._kept_from = speech.n_played
            self._kept += sound
            self._kept += bytes(n_samples * self._bytes - len(sound))
        if speech is not None:
            speech.play(n_samples)

    def attach(self, span: media_pb2.AudioSpan) -> None:
        """Fill the span of the frame that is being sent."""
        span.data = bytes(self._kept)
        span.pts = self._pts
        if self._kept_from is not None:
            span.utterance_sample = self._kept_from
        self._pts += len(self._kept) // self._bytes
        self._kept.clear()
        self._kept_from = None
