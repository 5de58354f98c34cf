"""Servers are untrusted: what one sends in a session is rejected if it cannot be true.

Every number that decides how much is stored, written or waited for has a bound here, derived from the configuration,
what was sent and the time that has passed. Pure state; seconds are of time.monotonic().
"""

import time
from collections.abc import Iterable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from tango_rt.client.errors import broken, not_accepted
from tango_rt.client.formats import check_picture
from tango_rt.client.options import SessionOptions
from tango_rt.client.outbox import Request
from tango_rt.client.route import Route
from tango_rt.client.samples import BYTES_PER_SAMPLE
from tango_rt.v1 import media_pb2, session_pb2

__all__ = ["PROGRESS", "Checks", "check_durations"]

PROGRESS = (media_pb2.VideoFrame, session_pb2.UtteranceStarted, session_pb2.UtteranceFinished)
"""The events that a session is for; all others only show that the server is alive."""

_FPS = 30  # of the protocol
_MAX_ID = 256  # characters; a server takes 64 from us
_MAX_ACCEPTED_BYTES = 128 << 10
_MAX_PARAMETER_SETS = 64 << 10
_MAX_EVENT_BYTES = 64 << 10
_MAX_SIDE_PX = 8192
_MAX_LOOKAHEAD_S = 24 * 3600
_MAX_LATE_FRAMES = 11 * 30  # of a cue; servers allow 10 s
_LONGEST_S = 100 * 366 * 24 * 3600
_CLOCKS_DIFFER_S = 1  # a duration may come out a little below 0
_REQUEST_S = 10  # of additional frames when an utterance ends or is interrupted: whole nodes, the way to rest
_EVENTS = 1000  # other than frames: in a burst,
_EVENTS_A_SECOND = 200
_EVENTS_A_REQUEST = 10


class Checks:
    """Tracks the configuration and traffic of a session; `take` raises ServerError for what cannot be true."""

    def __init__(self, route: Route, options: SessionOptions, patience_s: float) -> None:
        """patience_s: how long our clock may stand still (a machine sleeps), and how far frames may be ahead of it."""
        self._route = route
        self._options = options
        self._patience_s = patience_s
        self._since_s = time.monotonic()
        self._finished_s: float | None = None
        self._n_samples = 0
        self._n_requests = 0
        self._n_begun = 0  # utterances
        self._utterance: str | None = None  # the open one: the last that sound was sent for
        self._accepted: session_pb2.Accepted | None = None
        self._next_index = 0
        self._speech: tuple[str, int] = ("", 0)  # of the latest frame: utterance, and frame within it
        self._n_events = 0
        self._n_ended = 0  # utterances

    def sent(self, request: Request) -> None:
        """To be called right before sending: the answer may arrive at once."""
        self._n_requests += 1
        if request.HasField("audio"):
            self._n_samples += len(request.audio.data) // BYTES_PER_SAMPLE[self._options.audio_encoding]
            name = request.audio.utterance_id or self._utterance or ""
            self._n_begun += name != self._utterance
            self._utterance = name
        stopped = request.HasField("interrupt") and request.interrupt.utterance_id in ("", self._utterance)
        if stopped or request.HasField("end_of_utterance"):
            self._utterance = None

    def sent_clip(self, audio: bytes) -> None:
        """All of the sound, as one utterance."""
        self._n_samples = len(audio) // BYTES_PER_SAMPLE[self._options.audio_encoding]
        self._n_begun = 1
        self.finished()

    def finished(self) -> None:
        """To be called when nothing more will be sent."""
        if self._finished_s is None:
            self._finished_s = time.monotonic()

    @property
    def idle(self) -> bool:
        """Whether frames are sent even without speech."""
        return self._accepted is not None and self._accepted.config.idle

    @property
    def owed(self) -> bool:
        """Whether the server must send something soon, even if we send nothing more."""
        unfinished = self._utterance is None and self._n_ended < self._n_begun
        return unfinished or self.idle or self._accepted is None or self._finished_s is not None

    def take(self, response: Any) -> Any:
        """The event in a response; None: an event of a newer server that we do not know."""
        self._require(response is not None, "an unreadable message")  # how gRPC reports it
        event = getattr(response, response.WhichOneof("message") or "", None)
        if not isinstance(event, media_pb2.VideoFrame):
            self._flood()
        if event is None:
            return None
        if self._accepted is None:
            if not isinstance(event, session_pb2.Accepted):
                raise not_accepted(self._route)
            self._accept(event)
        elif isinstance(event, media_pb2.VideoFrame):
            self._frame(event, self._accepted)
        else:
            self._require(event.ByteSize() <= _MAX_EVENT_BYTES, f"an event of {event.ByteSize()} bytes")
            self._other(event)
        return event

    def _accept(self, accepted: session_pb2.Accepted) -> None:
        n_bytes = accepted.ByteSize()
        self._require(n_bytes <= _MAX_ACCEPTED_BYTES, f"an acceptance of {n_bytes} bytes")
        asked, effective = self._options.to_config(), accepted.config
        for name in ("character", "video_encoding", "pacing", "audio_echo"):
            same = getattr(effective, name) == getattr(asked, name)
            self._require(same, f"it accepts another {name} than was asked for")
        fast = effective.pacing == session_pb2.PACING_FAST
        self._require(not (fast and effective.idle), "frames without speech need a clock")
        sides = (accepted.width, accepted.height)
        fine = all(2 <= side <= _MAX_SIDE_PX and side % 2 == 0 for side in sides)
        self._require(fine, f"pictures of {sides[0]}x{sides[1]} px")
        rates = (accepted.frame_rate, accepted.frames_per_node)
        self._require(rates == (_FPS, 4), f"{rates[0]} frames per second and {rates[1]} per node, not 30 and 4")
        within = 0 <= accepted.lookahead_samples <= _MAX_LOOKAHEAD_S * 16_000
        self._require(within, f"a look-ahead of {accepted.lookahead_samples} samples")
        sets = accepted.h264_parameter_sets
        self._require(len(sets) <= _MAX_PARAMETER_SETS, f"H.264 parameter sets of {len(sets)} bytes")
        limits = (accepted.max_late, accepted.max_queued_audio, accepted.idle_timeout, accepted.max_session)
        self._durations(limits)
        self._accepted = accepted

    def _frame(self, frame: media_pb2.VideoFrame, accepted: session_pb2.Accepted) -> None:
        index = frame.frame_index
        self._require(index >= self._next_index, f"frame {index} arrives when {self._next_index} or later is due")
        self._within(index, f"frame {index}")
        n_new = index + 1 - self._next_index
        self._next_index = index + 1
        problem = check_picture(frame, accepted)
        self._require(not problem, f"frame {index} {problem}")
        self._name(frame.utterance_id)
        if frame.utterance_id:
            name, before = self._speech
            least = before + 1 if name == frame.utterance_id else 0
            what = f"frame {index} is frame {frame.utterance_frame} of an utterance"
            self._require(least <= frame.utterance_frame <= self._last_of_speech, what)
            self._speech = (frame.utterance_id, frame.utterance_frame)
        self._sound(frame, n_new)
        if frame.HasField("timings"):
            spent = frame.timings
            self._durations((spent.hear, spent.search, spent.draw, spent.late, spent.latency))

    def _sound(self, frame: media_pb2.VideoFrame, n_new: int) -> None:
        """n_new: number of frames that the sound belongs to."""
        n_bytes, width = len(frame.audio.data), BYTES_PER_SAMPLE[self._options.audio_encoding]
        most = width * (-(-n_new * self._options.sample_rate_hz // _FPS) + 1) if self._options.audio_echo else 0
        what = f"frame {frame.frame_index} has {n_bytes} bytes of sound"
        self._require(n_bytes <= most and n_bytes % width == 0, what)

    def _other(self, event: Any) -> None:
        self._require(not isinstance(event, session_pb2.Accepted), "it accepts the session a second time")
        self._name(getattr(event, "utterance_id", ""))
        if isinstance(event, session_pb2.UtteranceStarted):
            self._within(event.frame_index, f"an utterance that begins at frame {event.frame_index}")
            self._durations((event.latency,))
        elif isinstance(event, session_pb2.UtteranceFinished):
            self._n_ended += 1
            self._require(self._n_ended <= self._n_begun, "more utterances end than were sent")
            self._within(event.frame_index - 1, f"an utterance that ends at frame {event.frame_index}")
            played = f"an utterance of {event.played_samples} samples, {event.played_frames} frames"
            fine = 0 <= event.played_samples <= self._n_samples
            self._require(fine and 0 <= event.played_frames <= self._last_of_speech + 1, played)
        elif isinstance(event, session_pb2.CuePlayed):
            self._within(event.frame_index, f"a cue at frame {event.frame_index}")
            self._require(0 <= event.late_frames <= _MAX_LATE_FRAMES, f"a cue {event.late_frames} frames late")
        elif isinstance(event, session_pb2.Underrun):
            self._within(event.frame_index, f"an underrun at frame {event.frame_index}")
            self._within(event.n_frames, f"an underrun of {event.n_frames} frames")
        elif isinstance(event, session_pb2.Stats):
            counts = (value for _, value in event.ListFields() if isinstance(value, int))
            self._require(all(count >= 0 for count in counts), "Stats with a count below 0")
            self._durations((event.queued_audio,))

    def _flood(self) -> None:
        self._n_events += 1
        passed_s = time.monotonic() - self._since_s
        most = _EVENTS + _EVENTS_A_SECOND * passed_s + _EVENTS_A_REQUEST * self._n_requests
        self._require(self._n_events <= most, f"{self._n_events} messages other than frames within {passed_s:.1f} s")

    @property
    def _last_of_speech(self) -> int:
        """The last frame that an utterance can have."""
        sent_s = self._n_samples / self._options.sample_rate_hz + _REQUEST_S * (self._n_begun + 1)
        return int((sent_s + self._patience_s) * _FPS)

    def _within(self, index: int, what: str) -> None:
        """A frame cannot come before it is due or, without a clock, before its speech."""
        speech_s = self._n_samples / self._options.sample_rate_hz + _REQUEST_S * (self._n_begun + 1)
        now_s = time.monotonic()
        if self._options.pacing == "fast":
            due_s = speech_s
        elif self._finished_s is None:
            due_s = now_s - self._since_s
        else:
            due_s = min(now_s, self._finished_s + speech_s) - self._since_s
        self._require(-1 <= index <= (due_s + self._patience_s) * _FPS, f"{what}, {due_s:.1f} s into the session")

    def _name(self, name: str) -> None:
        self._require(len(name) <= _MAX_ID, f"an utterance id of {len(name)} characters")

    def _durations(self, durations: Iterable[Duration]) -> None:
        problem = check_durations(durations)
        self._require(not problem, problem)

    def _require(self, fine: bool, what: str) -> None:
        if not fine:
            raise broken(self._route, what)


def check_durations(durations: Iterable[Duration]) -> str:
    """What is wrong with one of the durations; empty: nothing."""
    for duration in durations:
        seconds = duration.seconds + duration.nanos / 1e9
        if not (-_CLOCKS_DIFFER_S <= seconds <= _LONGEST_S and abs(duration.nanos) < 1_000_000_000):
            return f"a duration of {seconds:g} s"
    return ""
