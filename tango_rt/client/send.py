"""Send speech to a server and write the gesture video that it returns as an mp4: `tango-rt send`."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from engine.character.cues import TimedCue
from engine.character.pack import CharacterPack
from engine.errors import BackendError, InputError
from engine.motion_graph.words import parse_words
from engine.timebase import FPS, SAMPLE_RATE, frame_count
from tango_rt.client.channel import ConnectOptions
from tango_rt.client.errors import ServerError, ended_early
from tango_rt.client.microphone import Microphone
from tango_rt.client.options import InterruptMode, SessionOptions
from tango_rt.client.pictures import open_pictures
from tango_rt.client.plain import Client, Session
from tango_rt.client.receiver import Receiver, SendResult
from tango_rt.client.sound import SOUND_RATE, Echo, Sound, Speech
from tango_rt.client.speaker import UTTERANCE, Speaker
from tango_rt.client.spoken import SpokenWord
from tango_rt.media.container import MAX_HOURS
from tango_rt.media.pipes import make_rereadable
from tango_rt.progress import OnProgress, Stage, silent
from tango_rt.sound.audio import Warn, audio_blocks, check_audible, discard_warning
from tango_rt.v1 import media_pb2, session_pb2
from tango_rt.video.mp4 import Mp4Writer
from tango_rt.words import read_words

__all__ = ["SendOptions", "SendResult", "send"]

_STATS_S = 0.5
_MAX_PENDING_CUES = 32
_PING_FRAMES = 5 * FPS
_PATIENCE_A_SECOND = 0.05  # of speech


@dataclass(frozen=True)
class SendOptions:
    """How to send speech and what to ask the server for."""

    session: SessionOptions  # except audio format and echo, which depend on the speech
    connect: ConnectOptions = field(default_factory=ConnectOptions)
    live: bool = False  # send a file at the pace of a microphone
    idle_s: float | None = None  # seconds of rest before and after the speech; None: the speech alone
    interrupt_at_s: float | None = None  # seconds into the speech; None: not at all
    interrupt_mode: InterruptMode = "rest"
    words: Path | None = None  # word timings of the speech
    cues: tuple[TimedCue, ...] = ()  # by their times
    pack: Path | None = None  # with the pictures that references point to


def send(
    target: str, speech: Path | None, output: Path, options: SendOptions, on_progress: OnProgress = silent
) -> SendResult:
    """Send a speech file or pipe (None: the microphone, until Ctrl-C) and write the video that the server returns.

    After Ctrl-C, or if the server fails or breaks the protocol, the video holds what was received so far. Raises
    InputError for bad input, ServerError, and BackendError for pictures that cannot be shown.
    """
    _check(speech, output, options)
    if speech is None:
        return _send(target, None, output, options, discard_warning, on_progress)
    with make_rereadable(speech) as file:
        warnings: list[str] = []
        result = _send(target, file, output, options, warnings.append, on_progress)
        return replace(result, warnings=[*(f"{speech.name}: {text}" for text in warnings), *result.warnings])


def _send(
    target: str, speech: Path | None, output: Path, options: SendOptions, warn: Warn, on_progress: OnProgress
) -> SendResult:
    echoes = speech is None or options.idle_s is not None
    rate_hz = SOUND_RATE if echoes else SAMPLE_RATE
    asked = replace(
        options.session,
        sample_rate_hz=rate_hz,
        audio_encoding="float32",  # the server gets exactly our samples, bit for bit
        idle=echoes,
        audio_echo=echoes,
        stats_period_s=_STATS_S,
    )
    pack = None if options.pack is None else CharacterPack.open(options.pack)
    source = Microphone(rate_hz) if speech is None else _read(speech, rate_hz, warn)
    sound: Sound = Echo() if speech is None or echoes else Speech(speech)
    words = () if isinstance(source, Microphone) else _spoken(options.words, len(source), rate_hz)
    total = None if isinstance(source, Microphone) else _expected_frames(len(source), rate_hz, options)
    failure: BackendError | None = None
    with Client(target, _patient(options.connect, total)) as client, client.stream(asked) as session:
        pictures = open_pictures(session.accepted, pack)
        with Mp4Writer(output, pictures.parameter_sets, SOUND_RATE) as writer:
            stopped = False
            with Stage(on_progress, "receiving", total, "frames") as stage:
                receiver = Receiver(writer, pictures, sound, stage.advance)
                try:
                    stopped = _exchange(session, source, receiver, options, words)
                except BackendError as error:
                    if not receiver.any:
                        raise
                    failure = error
            receiver.finish()
            n_frames = writer.n_frames
    if failure is not None:  # keep what was received before it
        failure.args = (f"{failure}; {output} holds the {n_frames / FPS:.1f} s received before that",)
        raise failure
    return receiver.result(output, n_frames, stopped, session)


def _patient(connect: ConnectOptions, n_frames: int | None) -> ConnectOptions:
    """Allow more time for whole utterances, which are searched as a whole before their first frame."""
    return replace(connect, patience_s=connect.patience_s + _PATIENCE_A_SECOND * (n_frames or 0) / FPS)


def _check(speech: Path | None, output: Path, options: SendOptions) -> None:
    if output.suffix.lower() not in (".mp4", ".m4v", ".mov"):
        raise InputError(f"the output {output} must end in .mp4")
    if not output.parent.is_dir():
        raise InputError(f"{output}: the folder {output.parent} does not exist")
    if speech is not None and output.exists() and speech.exists() and output.samefile(speech):
        raise InputError(f"{output} is the speech file itself: choose another name for the output")
    fast = options.session.pacing == "fast"
    if fast and (speech is None or options.live or options.idle_s is not None):
        raise InputError("a microphone, --live and --idle run in real time: leave out --fast")
    if speech is None and options.live:
        raise InputError("a microphone is live already: leave out --live")
    if speech is None and options.words is not None:
        raise InputError("what a microphone will hear has no word timings yet: leave out --words")
    if options.session.video_encoding == "reference" and options.pack is None:
        raise InputError("references point to pictures of a pack: name the pack (--pack)")


def _read(speech: Path, rate_hz: int, warn: Warn) -> np.ndarray:
    blocks = []
    left = MAX_HOURS * 3600 * rate_hz
    for block in audio_blocks(speech, rate_hz, warn=warn):
        blocks.append(block)
        left -= len(block)
        if left < 0:
            raise InputError(f"{speech}: audio longer than {MAX_HOURS} hours: cut it up")
    samples = np.concatenate(blocks)
    check_audible(samples, speech)
    return samples


def _spoken(file: Path | None, n_samples: int, rate_hz: int) -> tuple[SpokenWord, ...]:
    """Rounded up, so that no word gets into the node before its own."""
    words = () if file is None else parse_words(read_words(file), n_samples / rate_hz)
    return tuple(SpokenWord(one.text, ceil(one.start_s * rate_hz), ceil(one.end_s * rate_hz)) for one in words)


def _expected_frames(n_samples: int, rate_hz: int, options: SendOptions) -> int:
    return frame_count(n_samples * SAMPLE_RATE // rate_hz) + round(2 * FPS * (options.idle_s or 0))


def _exchange(
    session: Session,
    source: np.ndarray | Microphone,
    receiver: Receiver,
    options: SendOptions,
    words: Sequence[SpokenWord],
) -> bool:
    """Speak and receive until the end. words: of the speech. Returns whether Ctrl-C ended it early."""
    speaker = Speaker(session, source, options.live, words)
    performance = _Performance(session, speaker, receiver, options)
    try:
        # Ctrl-C is also how a microphone is ended
        with _ending(speaker.stop) if isinstance(source, Microphone) else nullcontext():
            performance.run()
        spoken = session.measurements.first_audio_sent_s is not None
        if not receiver.finished and (spoken or not receiver.any):
            raise ended_early(session.route)
    except KeyboardInterrupt:
        if not receiver.any:
            raise
        return True
    finally:
        session.cancel()
        speaker.close()
    return False


@contextmanager
def _ending(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C (or equivalent signal) calls stop; the next one is a KeyboardInterrupt.

    No exception the first time: a call whose reading was interrupted by one cannot be read any further.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if callable(signal.getsignal(n))]
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def heard(*_: object) -> None:
        restore()
        stop()

    for number in numbers:
        signal.signal(number, heard)
    try:
        yield
    finally:
        restore()


class _Performance:
    """Decides by the frames that arrive when to start speaking, interrupt and end."""

    def __init__(self, session: Session, speaker: Speaker, receiver: Receiver, options: SendOptions) -> None:
        self._session = session
        self._speaker = speaker
        self._receiver = receiver
        self._idle_frames = None if options.idle_s is None else round(options.idle_s * FPS)
        self._interrupt_frame = None if options.interrupt_at_s is None else int(options.interrupt_at_s * FPS)
        self._mode: InterruptMode = options.interrupt_mode
        alone = self._idle_frames is None and self._interrupt_frame is None
        self._finishes = alone and len(options.cues) <= _MAX_PENDING_CUES  # else something follows the speech
        self._last_frame: int | None = None
        self._cues = deque(options.cues)
        self._ask()
        if not self._idle_frames:
            self._speak()

    def run(self) -> None:
        try:
            for event in self._session:
                self._take(event)
        except ServerError:
            self._speaker.check()  # if it fails it ends the session, and its error is the cause
            raise
        self._speaker.check()

    def _take(self, event: Any) -> None:
        self._receiver.take(event)
        if isinstance(event, media_pb2.VideoFrame):
            self._frame(event)
        elif isinstance(event, session_pb2.CuePlayed | session_pb2.CueRefused):
            self._ask()
        elif isinstance(event, session_pb2.UtteranceFinished):
            for cue in self._cues:
                self._receiver.not_asked(cue)
            self._cues.clear()
            if self._last_frame is None:  # there is only one utterance
                self._last_frame = event.frame_index - 1 + (self._idle_frames or 0)
            self._end_after(event.frame_index - 1)

    def _frame(self, frame: media_pb2.VideoFrame) -> None:
        if self._idle_frames and frame.frame_index + 1 >= self._idle_frames:
            self._speak()
        if self._interrupt_frame is not None and frame.utterance_id and frame.utterance_frame >= self._interrupt_frame:
            self._session.interrupt(self._mode)
            self._interrupt_frame = None
        if not self._finishes and frame.frame_index % _PING_FRAMES == 0 and self._last_frame is None:
            self._session.ping(frame.frame_index)  # the server ends a session whose client is silent
        self._end_after(frame.frame_index)

    def _ask(self) -> None:
        """As many cues as the server keeps; the others follow one by one."""
        rate_hz = self._session.options.sample_rate_hz
        while self._cues and self._receiver.n_unanswered < _MAX_PENDING_CUES:
            cue = self._cues.popleft()
            self._receiver.asked(cue)
            self._session.cue(cue.name, round(cue.at_s * rate_hz), UTTERANCE, cue.within_s)

    def _speak(self) -> None:
        self._speaker.start(self._finishes)

    def _end_after(self, frame_index: int) -> None:
        if self._last_frame is not None and frame_index >= self._last_frame:
            self._session.finish()
