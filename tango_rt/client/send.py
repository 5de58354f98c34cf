"""Speech to a server, gesture video back, as an mp4: what `tango-rt send` does."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.character.pack import CharacterPack
from engine.errors import BackendError, InputError
from engine.timebase import FPS, SAMPLE_RATE, frame_count
from tango_rt.client.channel import ConnectOptions
from tango_rt.client.errors import ServerError, ended_early
from tango_rt.client.microphone import Microphone
from tango_rt.client.options import InterruptMode, SessionOptions
from tango_rt.client.pictures import open_pictures
from tango_rt.client.plain import Client, Session
from tango_rt.client.received import Received, SendResult
from tango_rt.client.sound import SOUND_RATE, Echo, Sound, Speech
from tango_rt.client.speaker import Speaker
from tango_rt.media.container import MAX_HOURS
from tango_rt.media.pipes import make_rereadable
from tango_rt.progress import OnProgress, Stage, silent
from tango_rt.sound.audio import Warn, audio_blocks, check_audible, discard_warning
from tango_rt.v1 import media_pb2, session_pb2
from tango_rt.video.mp4 import Mp4Writer

__all__ = ["SendOptions", "SendResult", "send"]

_STATS_S = 0.5
_PING_FRAMES = 5 * FPS
_PATIENCE_A_SECOND = 0.05  # of speech


@dataclass(frozen=True)
class SendOptions:
    """session: its sound and echo are decided by what is sent. live: the file is paced as a microphone would. idle_s:
    seconds of rest before and after the speech; None: the speech alone. interrupt_at_s: where in the speech it is
    interrupted. pack: holds the pictures that references name.
    """

    session: SessionOptions
    connect: ConnectOptions = field(default_factory=ConnectOptions)
    live: bool = False
    idle_s: float | None = None
    interrupt_at_s: float | None = None
    interrupt_mode: InterruptMode = "rest"
    pack: Path | None = None


def send(
    target: str, speech: Path | None, output: Path, options: SendOptions, on_progress: OnProgress = silent
) -> SendResult:
    """Write what the server makes of a speech file or pipe; of the microphone where it is None, until Ctrl-C.

    Ctrl-C while a file is sent writes what was received, and so does a server that fails or lies on the way. Raises
    InputError for what cannot be used, ServerError, BackendError for pictures that cannot be shown.
    """
    _check(speech, output, options)
    if speech is None:
        return _send(target, None, output, options, discard_warning, on_progress)
    with make_rereadable(speech) as file:
        said: list[str] = []
        result = _send(target, file, output, options, said.append, on_progress)
        return replace(result, warnings=[*(f"{speech.name}: {text}" for text in said), *result.warnings])


def _send(
    target: str, speech: Path | None, output: Path, options: SendOptions, warn: Warn, on_progress: OnProgress
) -> SendResult:
    echoes = speech is None or options.idle_s is not None
    rate_hz = SOUND_RATE if echoes else SAMPLE_RATE
    asked = replace(
        options.session,
        sample_rate_hz=rate_hz,
        audio_encoding="float32",  # what is heard there is what is heard here, to the last bit
        idle=echoes,
        audio_echo=echoes,
        stats_period_s=_STATS_S,
    )
    pack = None if options.pack is None else CharacterPack.open(options.pack)
    source = Microphone(rate_hz) if speech is None else _read(speech, rate_hz, warn)
    sound: Sound = Echo() if speech is None or echoes else Speech(speech)
    total = None if isinstance(source, Microphone) else _expected_frames(len(source), rate_hz, options)
    failure: BackendError | None = None
    with Client(target, _patient(options.connect, total)) as client, client.stream(asked) as session:
        pictures = open_pictures(session.accepted, pack)
        with Mp4Writer(output, pictures.parameter_sets, SOUND_RATE) as writer:
            stopped = False
            with Stage(on_progress, "receiving", total, "frames") as stage:
                received = Received(writer, pictures, sound, stage.advance)
                try:
                    stopped = _exchange(session, source, received, options)
                except BackendError as error:
                    if not received.any:
                        raise
                    failure = error
            received.finish()
            n_frames = writer.n_frames
    if failure is not None:  # what came before is worth something
        failure.args = (f"{failure}; {output} holds the {n_frames / FPS:.1f} s that came until then",)
        raise failure
    return received.result(output, n_frames, stopped, session)


def _patient(connect: ConnectOptions, n_frames: int | None) -> ConnectOptions:
    """What is heard as a whole is searched as a whole, before the first frame of it comes."""
    return replace(connect, patience_s=connect.patience_s + _PATIENCE_A_SECOND * (n_frames or 0) / FPS)


def _check(speech: Path | None, output: Path, options: SendOptions) -> None:
    if output.suffix.lower() not in (".mp4", ".m4v", ".mov"):
        raise InputError(f"the output {output} must end in .mp4")
    if not output.parent.is_dir():
        raise InputError(f"{output}: the folder {output.parent} does not exist")
    if speech is not None and output.exists() and speech.exists() and output.samefile(speech):
        raise InputError(f"{output} is the speech itself: choose another name for the output")
    fast = options.session.pacing == "fast"
    if fast and (speech is None or options.live or options.idle_s is not None):
        raise InputError("a microphone, --live and --idle go by the clock: leave out --fast")
    if speech is None and options.live:
        raise InputError("a microphone is live already: leave out --live")
    if options.session.video_encoding == "reference" and options.pack is None:
        raise InputError("references name pictures of the pack: say which pack holds them (--pack)")


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


def _expected_frames(n_samples: int, rate_hz: int, options: SendOptions) -> int:
    return frame_count(n_samples * SAMPLE_RATE // rate_hz) + round(2 * FPS * (options.idle_s or 0))


def _exchange(session: Session, source: np.ndarray | Microphone, received: Received, options: SendOptions) -> bool:
    """Speak and receive until the end. Returns whether Ctrl-C came before it."""
    speaker = Speaker(session, source, options.live)
    performance = _Performance(session, speaker, received, options)
    try:
        # so does one end what is said into a microphone
        with _ending(speaker.stop) if isinstance(source, Microphone) else nullcontext():
            performance.run()
        said = session.measured.first_audio_sent_s is not None
        if not received.finished and (said or not received.any):
            raise ended_early(session.route)
    except KeyboardInterrupt:
        if not received.any:
            raise
        return True
    finally:
        session.cancel()
        speaker.close()
    return False


@contextmanager
def _ending(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C (or what counts as one) calls stop; the next one is a KeyboardInterrupt.

    No exception the first time: a call that is torn out of reading cannot be read on.
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
    """When to begin to speak, to interrupt and to end, by the frames that come."""

    def __init__(self, session: Session, speaker: Speaker, received: Received, options: SendOptions) -> None:
        self._session = session
        self._speaker = speaker
        self._received = received
        self._idle_frames = None if options.idle_s is None else round(options.idle_s * FPS)
        self._interrupt_frame = None if options.interrupt_at_s is None else int(options.interrupt_at_s * FPS)
        self._mode: InterruptMode = options.interrupt_mode
        self._finishes = self._idle_frames is None and self._interrupt_frame is None
        self._last_frame: int | None = None
        if not self._idle_frames:
            self._speak()

    def run(self) -> None:
        try:
            for event in self._session:
                self._take(event)
        except ServerError:
            self._speaker.check()  # it ends the session where it fails: then its error is the cause
            raise
        self._speaker.check()

    def _take(self, event: Any) -> None:
        self._received.take(event)
        if isinstance(event, media_pb2.VideoFrame):
            self._frame(event)
        elif isinstance(event, session_pb2.UtteranceFinished):
            if self._last_frame is None:  # there is one utterance
                self._last_frame = event.frame_index - 1 + (self._idle_frames or 0)
            self._end_after(event.frame_index - 1)

    def _frame(self, frame: media_pb2.VideoFrame) -> None:
        if self._idle_frames and frame.frame_index + 1 >= self._idle_frames:
            self._speak()
        if self._interrupt_frame is not None and frame.utterance_id and frame.utterance_frame >= self._interrupt_frame:
            self._session.interrupt(self._mode)
            self._interrupt_frame = None
        if not self._finishes and frame.frame_index % _PING_FRAMES == 0 and self._last_frame is None:
            self._session.ping(frame.frame_index)  # the server ends a session that says nothing
        self._end_after(frame.frame_index)

    def _speak(self) -> None:
        self._speaker.start(self._finishes)

    def _end_after(self, frame_index: int) -> None:
        if self._last_frame is not None and frame_index >= self._last_frame:
            self._session.finish()
