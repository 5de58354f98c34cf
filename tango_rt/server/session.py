"""One session without its clock and its connection: speech in, steps of 4 frames out, messages for the client.

Two threads use it. The event loop takes requests and shows frames; `prepare` may run in another thread, as long as
nothing interrupts, shows or closes meanwhile.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE
from tango_rt.pipeline.live import LivePerformer, Step
from tango_rt.pipeline.pictures import PictureSource
from tango_rt.pipeline.stages import StageChain
from tango_rt.server.checks import SessionPlan, blender_value
from tango_rt.server.counts import Counts, TransitionOrigin
from tango_rt.server.cues import CueRequests
from tango_rt.server.echo import Echo
from tango_rt.server.hearing import Hearing
from tango_rt.server.messages import Response, cue_played, finished, started, underrun, warning
from tango_rt.server.metrics import Metrics
from tango_rt.server.speech import Speech, SpeechQueue
from tango_rt.server.status import Refusal
from tango_rt.v1 import media_pb2, session_pb2
from tango_rt.video.codecs import FrameCoder, StepPictures, is_decoded

__all__ = ["ATTENTION", "Session"]

ATTENTION: dict[int, float] = {
    session_pb2.SetState.STATE_IDLE: 0.0,
    session_pb2.SetState.STATE_LISTENING: 0.25,
    session_pb2.SetState.STATE_SPEAKING: 0.6,
}
"""How much idle steps in a state resemble speech: at 0, leaving rest costs most; at 1, nothing."""

_FAST_BUDGET_S = 0.05  # other sessions need the thread too


@dataclass(slots=True)
class _Shown:
    """The step whose frames are being shown."""

    step: Step
    drawn: StepPictures | None  # None: its frames are dropped
    pictures: Sequence[bytes]
    speech: Speech | None  # that the frames belong to; None after an interrupt
    starved: Speech | None  # the utterance whose sound was late, if this step was inserted for it
    n_frames: int
    clip: int
    timings: media_pb2.FrameTimings | None
    refused: list[Response]  # cues, by this step
    n_done: int = 0  # frames shown


class Session:
    """The state of one session. `show` turns the next frame into messages, in the order in which to send them."""

    def __init__(
        self,
        plan: SessionPlan,
        queue: SpeechQueue,
        performer: LivePerformer,
        pictures: PictureSource,
        stages: StageChain,
        coder: FrameCoder,
        clip_start: np.ndarray,
        metrics: Metrics,
        paced_budget_s: float = 0.01,
    ) -> None:
        """clip_start: first node of each clip. paced_budget_s: for analysis per step in real time: the next frame must
        not wait."""
        self.plan = plan
        self.queue = queue
        self.n_frames = 0
        self.attention = ATTENTION[session_pb2.SetState.STATE_IDLE]
        self.speaking = False  # whether the last frame shown belongs to an utterance
        self.unheard = False  # whether `prepare` left sound to be analysed
        self._counts = Counts()
        self._performer = performer
        self._pictures = pictures
        self._stages = stages
        self._coder = coder
        self._clip_start = clip_start
        self._metrics = metrics
        self._paced_budget_s = paced_budget_s
        self._hearing = Hearing(queue, performer, plan, keeps_sound=stages.lookahead_s is not None)
        self._echo = Echo(plan)
        self.cues = CueRequests(queue, performer, plan)
        self._told: list[Response] = []  # answers to cues, not sent yet
        self._shown: _Shown | None = None
        self._heard_s = 0.0
        self._told_late = False  # whether the client knows that words came too late

    @property
    def has_frame(self) -> bool:
        """Whether a frame is ready to be shown."""
        return self._shown is not None and self._shown.n_done < self._shown.n_frames

    @property
    def at_key_frame(self) -> bool:
        """Whether the next frame is the first of its step."""
        return self._shown is None or self._shown.n_done in (0, self._shown.n_frames)

    @property
    def held_until_s(self) -> float | None:
        """When speech that is held back so as not to run dry may start, by the clock of the requests."""
        return self._hearing.held_until_s

    @property
    def over(self) -> bool:
        """The client has half-closed, and all speech was performed."""
        return self.queue.closed and not len(self.queue)

    @property
    def under_way(self) -> Speech | None:
        """The utterance that has started; if no step is available, its sound is late."""
        name = self._performer.under_way
        return None if name is None else self.queue.find(name)

    def take_words(self, words: session_pb2.Words) -> None:
        """Raises Refusal for a character without words, and for words that cannot be."""
        if not self._performer.takes_words:
            message = f"character {self.plan.character!r} was built without word timings: send none, or build it again"
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "WORDS_UNAVAILABLE", message)
        self.queue.accept_words(words)

    def prepare(self, now_s: float = math.inf, draw: bool = True, due_in_s: float | None = None) -> bool:
        """Decide the next step and draw it; False if there is none yet. Without draw its frames are dropped.

        now_s: by the clock of the requests. due_in_s: time until its first frame is due; None: no deadline.

        Raises ArtifactError for a damaged pack.
        """
        start_s = time.perf_counter()
        self._heard_s = 0.0
        self._told += self.cues.pass_on()
        step = self._heard_step(now_s)
        starved = self.under_way if step is None else None
        if step is None:
            if not self.plan.idle:
                return False
            step = self._performer.idle(self.attention)
        searched_s = time.perf_counter()
        left_s = None if due_in_s is None else max(0.0, due_in_s - (searched_s - start_s))
        speech = None if step.utterance is None else self.queue.find(step.utterance)
        drawn = self._drawn(step, speech, left_s) if draw else None
        self._shown = _Shown(
            step=step,
            drawn=drawn,
            pictures=[] if drawn is None else self._coder.encode(drawn),
            speech=speech,
            starved=starved,
            n_frames=FRAMES_PER_NODE if self.plan.idle else step.n_frames,
            clip=int(np.searchsorted(self._clip_start, step.node, side="right")) - 1,
            timings=_timings(self._heard_s, searched_s - start_s, searched_s) if self.plan.timings else None,
            refused=self.cues.refused(),
        )
        return True

    def show(self, now_s: float, late_s: float = 0.0) -> list[Response]:
        """Show the next frame: the messages to the client."""
        shown = self._shown
        assert shown is not None
        messages: list[Response] = []
        step, position, frame = shown.step, shown.n_done, self.n_frames
        if not position:
            self._begin(shown, messages)
            self._tell_late(messages)
        shown.n_done += 1
        self.n_frames += 1
        speech = shown.speech
        self.speaking = speech is not None
        waited_s = 0.0 if speech is None else now_s - self._ready_s(step, speech)
        if speech is not None and not speech.started:
            speech.started = True
            self._metrics.speech_latency(waited_s)
            messages.append(started(speech, frame, waited_s))
        self._echo.play(frame, speech)
        if shown.drawn is None:
            self._counts.n_dropped += 1
            self._metrics.dropped(1)
        else:
            self._counts.n_sent += 1
            self._metrics.frames(1, self._coder.encoding)
            messages.append(self._frame(shown, shown.drawn, frame, speech, late_s, waited_s))
        if speech is not None:
            speech.forget()
            if step.last and position + 1 == step.n_frames:
                self.queue.finish(speech)
                self.cues.finished(speech.name)
                shown.speech = None
                messages.append(self._end(speech, interrupted=False))
        return messages

    def skip(self, now_s: float, n_steps: int) -> "list[_Shown]":
        """Decide up to n_steps steps that will not be shown. Pass each of them to pass_over."""
        skipped: list[_Shown] = []
        while len(skipped) < n_steps and self.prepare(now_s, draw=False):
            assert self._shown is not None
            skipped.append(self._shown)
        self._shown = None
        return skipped

    def pass_over(self, skipped: "_Shown") -> None:
        """Make a skipped step the current one: its frames pass without being sent."""
        self._shown = skipped

    def drop(self) -> None:
        """Drop the remaining frames of the step."""
        if self._shown is not None:
            self._shown.drawn = None

    def interrupt(self, mode: int, name: str) -> list[Response]:
        """Stop speaking from the next frame on. Raises Refusal for an unknown utterance."""
        dropped = self.queue.interrupt(name)
        told = self.cues.pass_on()
        cut = mode == session_pb2.Interrupt.MODE_CUT
        if self._shown is not None and not self._shown.n_done:
            self._performer.take_back()
            self._shown = None
        self._performer.interrupt("cut" if cut else "rest", name or None)
        shown = self._shown
        if shown is not None and shown.step.utterance is not None and name in ("", shown.step.utterance):
            shown.speech = None
            if cut or not self.plan.idle:
                self._shown = None
        told += self.cues.refused()
        return [*told, *(self._end(speech, interrupted=True) for speech in dropped)]

    def told(self) -> list[Response]:
        """Answers to cues that belong to no frame, once."""
        told, self._told = self._told, []
        return told

    def leftover(self) -> list[Response]:
        """The session is over: the last answers to cues."""
        return self.told() + self.cues.leftover()

    def starve(self, speech: Speech, n_frames: int) -> Response:
        """The sound of the current utterance is late: n_frames frames are inserted."""
        speech.n_underruns += n_frames > 0
        self._counts.n_underruns += 1
        self._metrics.underrun()
        return underrun(speech, self.n_frames, n_frames)

    def stats(self) -> Response:
        return self._counts.stats(self.queue.n_queued * 10**9 // self.plan.rate_hz)

    def _heard_step(self, now_s: float) -> Step | None:
        """The next step of speech. The current utterance is analysed for as long as its next step needs."""
        self._listen()
        if not self._hearing.may_begin(now_s):
            return None
        step = self._performer.next()
        while step is None and self.unheard and self.under_way is not None:
            self._listen()
            step = self._performer.next()
        return step

    def _drawn(self, step: Step, speech: Speech | None, due_in_s: float | None) -> StepPictures:
        sound = None if speech is None else speech.heard
        return self._stages.apply(step, self._pictures.draw(step, due_in_s), sound)

    def _listen(self) -> None:
        start_s = time.perf_counter()
        self.unheard = self._hearing.listen(self._paced_budget_s if self.plan.realtime else _FAST_BUDGET_S)
        self._heard_s += time.perf_counter() - start_s

    def _begin(self, shown: _Shown, messages: list[Response]) -> None:
        """The first frame of a step is shown."""
        messages += shown.refused
        if shown.step.cue is not None:
            messages.append(cue_played(shown.step.cue, self.n_frames))
        if shown.starved is not None and self.queue.find(shown.starved.name) is shown.starved:
            messages.append(self.starve(shown.starved, shown.n_frames))
        drawn = shown.drawn
        if drawn is not None and shown.step.cut_to is not None:
            source: TransitionOrigin = "late" if drawn.late else "computed" if drawn.computed else "cached"
            self._counts.transitions[source] += 1
            self._metrics.transition(source)

    def _tell_late(self, messages: list[Response]) -> None:
        n_late = self.queue.n_late_words + self._hearing.n_late_words
        if n_late and not self._told_late:
            self._told_late = True
            text = f"{n_late} words came after their frames were decided and are ignored: send words with their sound"
            messages.append(warning("LATE_WORDS", f"{text}. This is said once"))

    def _ready_s(self, step: Step, speech: Speech) -> float:
        """When all sound that a step had to wait for had arrived."""
        heard = -(-step.heard_samples * self.plan.rate_hz // SAMPLE_RATE)
        arrived = speech.arrived(min(speech.n_samples, heard))
        return max(speech.held_until_s, 0.0 if arrived is None else arrived[1])

    def _frame(
        self, shown: _Shown, drawn: StepPictures, frame: int, speech: Speech | None, late_s: float, waited_s: float
    ) -> Response:
        message = Response()
        sent, step, position = message.frame, shown.step, shown.n_done - 1
        sent.data = shown.pictures[position]
        sent.encoding = self.plan.video_encoding
        sent.key_frame = position == 0 or is_decoded(self._coder.encoding)
        sent.frame_index = sent.pts = frame
        source = sent.source
        source.node, source.frame, source.clip = step.node, FRAMES_PER_NODE * step.node + position, shown.clip
        if drawn.generated:
            sent.kind = media_pb2.FRAME_KIND_TRANSITION
        else:
            sent.kind = media_pb2.FRAME_KIND_IDLE if speech is None else media_pb2.FRAME_KIND_RETRIEVED
        if drawn.blender is not None:
            source.blender = blender_value(drawn.blender)
            if step.cut_to is not None:
                source.cut_to = step.cut_to
            if step.cut_from is not None:
                source.cut_from = step.cut_from
        if speech is not None:
            sent.utterance_id, sent.utterance_frame = speech.name, step.first_frame + position
        if shown.timings is not None:
            sent.timings.CopyFrom(shown.timings)
            sent.timings.late.FromNanoseconds(round(max(0.0, late_s) * 1e9))
            sent.timings.latency.FromNanoseconds(round(waited_s * 1e9))
        if self.plan.audio_echo:
            self._echo.attach(sent.audio)
        return message

    def _end(self, speech: Speech, interrupted: bool) -> Response:
        if interrupted:
            self._counts.n_interrupted += 1
        else:
            self._counts.n_finished += 1
        return finished(speech, self.n_frames, interrupted)


def _timings(heard_s: float, decided_s: float, since_s: float) -> media_pb2.FrameTimings:
    """decided_s: duration of hearing and search together; since_s: when they were done."""
    timings = media_pb2.FrameTimings()
    timings.hear.FromNanoseconds(round(heard_s * 1e9))
    timings.search.FromNanoseconds(round((decided_s - heard_s) * 1e9))
    timings.draw.FromNanoseconds(round((time.perf_counter() - since_s) * 1e9))
    return timings
