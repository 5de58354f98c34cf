"""The receiving half of `tango-rt send`: writes frames into an mp4 as they arrive, and sums them up at the end."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.character.cues import TimedCue
from engine.timebase import FPS, FRAMES_PER_NODE, SAMPLE_RATE
from tango_rt.client.measurements import Measurements
from tango_rt.client.pictures import Numbered, Pictures
from tango_rt.client.plain import Session
from tango_rt.client.sound import Sound
from tango_rt.client.timings import Timings
from tango_rt.v1 import media_pb2, session_pb2
from tango_rt.video.mp4 import Mp4Writer

__all__ = ["Receiver", "SendResult"]

_MAX_WARNINGS = 100
_LONGEST_WARNING = 1000  # characters


@dataclass(frozen=True)
class SendResult:
    """What was written, and the timing of the session."""

    output: str  # the mp4
    n_frames: int
    duration_s: float
    first_frame_ms: float | None  # after the configuration was sent
    first_speech_frame_ms: float | None  # after the first sample was handed over
    interval_ms: dict[str, float]  # between frames: p50, p95, p99, max
    underruns: int
    dropped: int  # frames
    transitions: dict[str, int] | None  # cached, computed, late; None: the server sent no Stats
    interrupted: bool
    stopped: bool  # by Ctrl-C
    nodes: list[int | None]  # one per group of 4 frames; None: all four were dropped
    retrieval: str
    lookahead_ms: float
    server_version: str
    session_id: str
    cues: list[dict[str, Any]]  # name, asked_s and played_s of each, in seconds of the speech; None: not played
    warnings: list[str]
    timings_ms: dict[str, dict[str, float]] | None  # percentiles by stage; None: not asked for

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Receiver:
    """Writes frames into the mp4 as they arrive, and collects the figures of the result."""

    def __init__(self, writer: Mp4Writer, pictures: Pictures, sound: Sound, progress: Callable[[int], object]) -> None:
        self._writer = writer
        self._pictures = pictures
        self._sound = sound
        self._progress = progress
        self._next_index = 0
        self._nodes: dict[int, int] = {}
        self._finished: session_pb2.UtteranceFinished | None = None
        self._warnings: list[str] = []
        self._n_warnings = 0
        self._timings = Timings()
        self._asked: list[TimedCue] = []
        self._played: dict[int, int | None] = {}  # by the place of the cue: the frame that it begins with
        self._speech_frame: int | None = None  # the first of the speech

    @property
    def any(self) -> bool:
        return bool(self._nodes)

    @property
    def finished(self) -> bool:
        """Whether the server has reported how far the speech was performed."""
        return self._finished is not None

    def take(self, event: Any) -> None:
        if isinstance(event, media_pb2.VideoFrame):
            self._frame(event)
        elif isinstance(event, session_pb2.UtteranceFinished):
            self._finished = event
        elif isinstance(event, session_pb2.CuePlayed):
            self._answered(event.name, event.frame_index)
        elif isinstance(event, session_pb2.CueRefused):
            self._refused(event)
        elif isinstance(event, session_pb2.Warning):
            self._warn(f"{event.message[:_LONGEST_WARNING]} ({event.reason[:_LONGEST_WARNING]})")

    def asked(self, cue: TimedCue) -> None:
        """A cue was sent: the server will say whether it is played."""
        self._asked.append(cue)

    def not_asked(self, cue: TimedCue) -> None:
        """A cue was not sent: the speech is over."""
        self._played[len(self._asked)] = None
        self._asked.append(cue)
        self._warn(f"cue {cue.name} was not played: the speech was over before it")

    @property
    def n_unanswered(self) -> int:
        """Number of cues that the server has not answered."""
        return len(self._asked) - len(self._played)

    def _answered(self, name: str, frame_index: int | None) -> bool:
        """The answer to the first cue of this name that has none yet: the frame that it begins with."""
        for number, cue in enumerate(self._asked):
            if cue.name == name and number not in self._played:
                self._played[number] = frame_index
                return True
        return False

    def _refused(self, event: session_pb2.CueRefused) -> None:
        what = "was not played" if self._answered(event.name, None) else "was not played to its end"
        self._warn(f"cue {event.name[:_LONGEST_WARNING]} {what}: {event.reason[:_LONGEST_WARNING]}")

    def _warn(self, text: str) -> None:
        self._n_warnings += 1
        if self._n_warnings <= _MAX_WARNINGS:
            self._warnings.append(text)

    def _cues(self) -> list[dict[str, Any]]:
        """A cue begins with a frame of the session; the speech may have begun later than that."""
        told: list[dict[str, Any]] = []
        for number, cue in enumerate(self._asked):
            frame = self._played.get(number)
            played_s = None if frame is None else round((frame - (self._speech_frame or 0)) / FPS, 3)
            told.append({"name": cue.name, "asked_s": cue.at_s, "played_s": played_s})
        return told

    def _frame(self, frame: media_pb2.VideoFrame) -> None:
        self._write(self._pictures.add(frame))
        n_missing = frame.frame_index - self._next_index
        for block in self._sound.of(frame, n_missing):
            self._writer.write_audio(block)
        self._next_index = frame.frame_index + 1
        self._nodes.setdefault(frame.frame_index // FRAMES_PER_NODE, frame.source.node)
        if frame.utterance_id and self._speech_frame is None:
            self._speech_frame = frame.frame_index - frame.utterance_frame
        self._timings.add(frame)
        self._progress(n_missing + 1)

    def _write(self, pictures: Iterator[Numbered]) -> None:
        for index, picture in pictures:
            # the picture before a gap stays on the screen for its length: sound and video stay in sync
            self._writer.skip_to(index)
            self._writer.write_video([picture])

    def finish(self) -> None:
        self._write(self._pictures.flush())
        if self._finished is not None:
            self._writer.write_audio(self._sound.rest(self._finished.played_frames))

    def _left_out(self) -> Iterator[str]:
        if self._n_warnings > _MAX_WARNINGS:
            yield f"{self._n_warnings - _MAX_WARNINGS} more warnings from the server were left out"

    def result(self, output: Path, n_frames: int, stopped: bool, session: Session) -> SendResult:
        accepted, measurements = session.accepted, session.measurements
        return SendResult(
            output=str(output),
            n_frames=n_frames,
            duration_s=round(n_frames / FPS, 4),
            first_frame_ms=measurements.first_frame_ms,
            first_speech_frame_ms=measurements.first_speech_frame_ms,
            interval_ms=measurements.interval_ms,
            underruns=measurements.n_underruns,
            dropped=measurements.n_dropped,
            transitions=_transitions(measurements),
            interrupted=self._finished is not None and self._finished.interrupted,
            stopped=stopped,
            nodes=[self._nodes.get(step) for step in range(max(self._nodes, default=-1) + 1)],
            retrieval=accepted.retrieval,
            lookahead_ms=round(1000 * accepted.lookahead_samples / SAMPLE_RATE, 1),
            server_version=accepted.server_version,
            session_id=accepted.session_id,
            cues=self._cues(),
            warnings=[*self._warnings, *self._left_out()],
            timings_ms=self._timings.percentiles() if session.options.timings else None,
        )


def _transitions(measurements: Measurements) -> dict[str, int] | None:
    stats = measurements.stats
    if stats is None:
        return None
    return {
        "cached": stats.transitions_cached,
        "computed": stats.transitions_computed,
        "late": stats.transitions_late,
    }
