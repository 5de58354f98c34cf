"""Passes received sound to the performer: in pieces, resampled, and no faster than it is performed."""

import time

import numpy as np

from engine.timebase import FPS, FRAMES_PER_NODE, SAMPLE_RATE, frame_count, frame_start
from tango_rt.options import MAX_HEARD_NODES
from tango_rt.pipeline.live import LivePerformer
from tango_rt.pipeline.stages import UtteranceSound
from tango_rt.server.checks import SessionPlan
from tango_rt.server.speech import Speech, SpeechQueue
from tango_rt.sound.resample import Resampler
from tango_rt.v1 import media_pb2

__all__ = ["MIN_JITTER_S", "Hearing"]

AHEAD_STEPS = 2 * FPS // FRAMES_PER_NODE
"""With a fixed look-ahead speech is analysed about 2 s ahead of what is shown, with an adaptive one as far as it is
used, so that a burst of a minute costs a little at a time."""

MIN_JITTER_S = 0.02
_MAX_JITTER_S = 0.1
_SLACK_S = 0.03
"""A client that sends in real time sends each message only once it was spoken, so speech that starts with the last
sample it needs runs dry at once. In real time it therefore starts later, by the length of its longest message, clipped
to these two bounds, plus the slack. Sound received in advance counts towards it: clients that send faster than real
time see no delay."""

_PIECE_S = 0.25


class Hearing:
    """Feeds one performer from one queue; used by the thread that owns the performer."""

    def __init__(
        self, queue: SpeechQueue, performer: LivePerformer, plan: SessionPlan, keeps_sound: bool = False
    ) -> None:
        """keeps_sound: keep the sound that the performer hears in each Speech."""
        self._queue = queue
        self._keeps_sound = keeps_sound
        self._performer = performer
        self._plan = plan
        self._ahead_steps = MAX_HEARD_NODES + 1 if plan.adaptive else AHEAD_STEPS
        self._piece = max(1, int(_PIECE_S * plan.rate_hz))
        first_step = frame_start(FRAMES_PER_NODE) + performer.lookahead_samples
        self._first_step = -(-first_step * plan.rate_hz // SAMPLE_RATE) + Resampler(plan.rate_hz).lookahead_samples
        self._resampler: Resampler | None = None
        self._speech: Speech | None = None
        self._n_heard = 0  # of the utterance, at 16 kHz
        self.n_late_words = 0  # that came after their node was decided
        self.held_until_s: float | None = None  # when speech that was heard may start

    def may_begin(self, now_s: float) -> bool:
        """Whether speech that was heard may be performed now, rather than wait a moment so as not to run dry."""
        waiting = self._queue.all()
        self.held_until_s = None
        if not (self._plan.realtime and waiting) or self._performer.under_way is not None:
            return True
        speech, rate_hz = waiting[0], self._plan.rate_hz
        arrived = None if speech.ended else speech.arrived(self._first_step)
        if arrived is None:
            return True
        n_samples, time_s = arrived
        jitter = max(MIN_JITTER_S * rate_hz, min(speech.longest_burst, _MAX_JITTER_S * rate_hz))
        speech.held_until_s = time_s + max(0.0, _SLACK_S + (jitter - n_samples + self._first_step) / rate_hz)
        if now_s >= speech.held_until_s:
            return True
        self.held_until_s = speech.held_until_s
        return False

    def listen(self, budget_s: float) -> bool:
        """Process sound for about budget_s, at least one piece. Returns whether more is waiting."""
        until_s = time.perf_counter() + budget_s
        for speech in self._queue.all():
            self._pass_words(speech)
        for speech in self._queue.all():
            while not speech.heard_out:
                if self._performer.queued_steps >= self._ahead_steps:
                    return True
                if not self._take(speech):
                    return False
                if time.perf_counter() > until_s:
                    return True
        return False

    def _take(self, speech: Speech) -> bool:
        """Process the next piece of an utterance, or its end. False: nothing is available yet."""
        ended = speech.ended  # read before the samples are counted: then all are there
        n_samples = min(speech.n_samples - speech.n_heard, self._piece)
        if n_samples <= 0:
            if ended:
                self._end(speech)
            return ended
        samples = self._samples(speech.sound(speech.n_heard, n_samples))
        speech.n_heard += n_samples
        self._push(speech, self._resampler_of(speech).push(samples))
        return True

    def _end(self, speech: Speech) -> None:
        self._push(speech, self._resampler_of(speech).flush())
        # Every sample needs a frame to be played in. Rounding to 16 kHz may lose the last frame, and every underrun may
        # have cost a sample, because frames differ in length.
        n_frames = -(-(speech.n_samples + speech.n_underruns) * FPS // self._plan.rate_hz)
        if frame_count(self._n_heard) < n_frames:
            self._push(speech, np.zeros(frame_start(n_frames - 1) + 1 - self._n_heard, np.float32))
        self._performer.end_of_utterance()
        speech.heard_out = True

    def _resampler_of(self, speech: Speech) -> Resampler:
        if self._resampler is None or self._speech is not speech:
            self._speech, self._resampler, self._n_heard = speech, Resampler(self._plan.rate_hz), 0
            speech.heard = UtteranceSound() if self._keeps_sound else None
        return self._resampler

    def _push(self, speech: Speech, samples: np.ndarray) -> None:
        if len(samples):
            self._n_heard += len(samples)
            if speech.heard is not None:
                speech.heard.push(samples)
            self._performer.push(samples, speech.name)
            speech.begun = True
            self._pass_words(speech)

    def _pass_words(self, speech: Speech) -> None:
        if speech.begun and speech.words:
            words = [speech.words.popleft() for _ in range(len(speech.words))]  # more may be added meanwhile
            self.n_late_words += self._performer.words(words, speech.name)

    def _samples(self, data: bytes) -> np.ndarray:
        """float32 (n,) in [-1, 1]."""
        if self._plan.audio_encoding == media_pb2.AUDIO_ENCODING_FLOAT32:
            return np.clip(np.frombuffer(data, "<f4"), -1.0, 1.0)
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
