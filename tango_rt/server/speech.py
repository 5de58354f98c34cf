"""Speech as it arrives: the sound of utterances, in order, and how far each was heard and performed.

All numbers count samples at the rate of the session. The event loop writes, and a thread reads while it analyses: sound
is only ever added at the end, and only dropped at the front while no thread analyses.
"""

from collections import OrderedDict, deque

import grpc
import numpy as np

from engine.motion_graph.words import MAX_TIME_S, MAX_WORD_CHARS, Word
from engine.timebase import FPS
from tango_rt.pipeline.stages import UtteranceSound
from tango_rt.server.checks import SessionPlan, check_id
from tango_rt.server.status import Refusal, bad_field
from tango_rt.v1 import media_pb2, session_pb2

__all__ = ["Speech", "SpeechQueue", "span_start"]

MAX_REMEMBERED = 1000  # ids of utterances that are over
MAX_EARLY = 16  # utterances whose words come before their sound
MAX_WORDS = 1000  # of a message, and of an utterance before its sound; later
MAX_WORDS_A_SECOND = 20  # of its sound may be added
FULL_SCALE = 1 + 2**-10
"""Limit of float32 samples; one step of half precision beyond 1 is rounding, and Hearing clips it."""

_SAME_MOMENT_S = 0.001  # chunks of one sample would otherwise make a list of times as long as the sound


def span_start(frame: int, rate_hz: int) -> int:
    """First sample of a frame."""
    return frame * rate_hz // FPS


class Speech:
    """One utterance: its sound, and how far it was received, heard and performed."""

    def __init__(self, name: str, plan: SessionPlan) -> None:
        self.name = name
        self.n_samples = 0  # received
        self.n_heard = 0  # passed to the performer
        self.n_played = 0  # performed
        self.n_frames = 0  # performed
        self.n_underruns = 0
        self.longest_burst = 0  # samples that arrived at once
        self.held_until_s = 0.0  # when it may start
        self.started = False
        self.ended = False
        self.heard_out = False  # the performer knows that it ended
        self.begun = False  # whether the performer was given any of its sound
        self.words: deque[Word] = deque()  # not passed to the performer yet
        self.n_words = 0  # received
        self.heard: UtteranceSound | None = None  # what the performer was given, if that is kept
        self._bytes = plan.sample_bytes
        self._echo = plan.audio_echo
        self._data = bytearray()
        self._first = 0  # sample of self._data[0]
        self._burst_from = 0
        self._arrivals: deque[tuple[int, float]] = deque()  # (samples received so far, time)

    def append(self, data: bytes, now_s: float) -> None:
        n_samples = self.n_samples + len(data) // self._bytes
        self._data += data
        if self._arrivals and now_s - self._arrivals[-1][1] < _SAME_MOMENT_S:
            self._arrivals[-1] = (n_samples, self._arrivals[-1][1])
        else:
            self._arrivals.append((n_samples, now_s))
            self._burst_from = self.n_samples
        self.longest_burst = max(self.longest_burst, n_samples - self._burst_from)
        self.n_samples = n_samples  # set last: a thread that reads it then sees consistent data

    def sound(self, first: int, n_samples: int) -> bytes:
        """Samples first .. first + n_samples - 1, as far as they have arrived; none of them may have been dropped."""
        start = (first - self._first) * self._bytes
        return bytes(self._data[start : start + n_samples * self._bytes])

    def play(self, n_samples: int) -> None:
        """Count a performed frame of n_samples."""
        self.n_played = min(self.n_played + n_samples, self.n_samples)
        self.n_frames += 1

    def arrived(self, n_samples: int) -> tuple[int, float] | None:
        """The first arrival that completed n_samples: how many there were then, and when; None if not yet. n_samples
        must not decrease from call to call: earlier arrivals are forgotten."""
        if n_samples > self.n_samples:
            return None
        while self._arrivals[0][0] < n_samples:
            self._arrivals.popleft()
        return self._arrivals[0]

    def forget(self) -> None:
        """Drop sound that is not needed any more. Not while a thread analyses."""
        spent = min(self.n_heard, self.n_played) if self._echo else self.n_heard
        del self._data[: (spent - self._first) * self._bytes]
        self._first = spent


class SpeechQueue:
    """The utterances of a session that are not over, in order. Breaches of the protocol raise Refusal."""

    def __init__(self, plan: SessionPlan, max_chunk_s: float) -> None:
        self._plan = plan
        self._max_chunk_s = max_chunk_s
        self._waiting: dict[str, Speech] = {}
        self._over: OrderedDict[str, None] = OrderedDict()
        self._n_named = 0
        self._early: dict[str, list[Word]] = {}  # words of utterances without sound yet; "": of the next one
        self.n_late_words = 0  # of utterances that are over
        self.closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def all(self) -> list[Speech]:
        return list(self._waiting.values())

    def find(self, name: str) -> Speech | None:
        """The utterance of this name; None if it is over."""
        return self._waiting.get(name)

    @property
    def open_name(self) -> str | None:
        """The utterance that sound can be added to."""
        opened = self._opened()
        return None if opened is None else opened.name

    def is_over(self, name: str) -> bool:
        return name in self._over

    @property
    def n_queued(self) -> int:
        """Number of samples received and not yet performed."""
        return sum(speech.n_samples - speech.n_played for speech in self._waiting.values())

    def check_whole(self, most: int) -> None:
        """Raises Refusal if the open utterance has more samples: performed as a whole, it would never start."""
        opened = self._opened()
        if opened is not None and opened.n_samples > most:
            seconds = most / self._plan.rate_hz
            message = (
                f"an utterance that is performed as a whole may last {seconds:g} s: end it, or set lookahead_nodes"
            )
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIP_TOO_LONG", message)

    def accept(self, chunk: session_pb2.AudioChunk, now_s: float) -> None:
        """Add the next sound. Empty chunks do not open an utterance."""
        self._check(chunk.data)
        check_id("audio.utterance_id", chunk.utterance_id)
        opened = self._opened()
        name = chunk.utterance_id or ("" if opened is None else opened.name)
        goes_on = opened is not None and opened.name == name
        if not goes_on and (name in self._waiting or name in self._over):
            raise _ended(name)
        wanted = opened.n_samples if opened is not None and goes_on else 0
        if chunk.HasField("first_sample_index") and chunk.first_sample_index != wanted:
            raise _gap(name, wanted, chunk.first_sample_index)
        if not chunk.data:
            return
        if opened is None or not goes_on:
            self.end_open()
            opened = Speech(name or self._new_name(), self._plan)
            self._waiting[opened.name] = opened
            for early in ("", name) if name else ("",):
                self._add_words(opened, self._early.pop(early, []))
        opened.append(chunk.data, now_s)

    def accept_words(self, message: session_pb2.Words) -> None:
        """Keep the words of an utterance until the performer takes them."""
        name = message.utterance_id
        check_id("words.utterance_id", name)
        words = words_of(message, self._plan.rate_hz)
        opened = self._opened()
        speech = self._waiting.get(name) or (opened if not name else None)
        if speech is not None:
            self._add_words(speech, words)
        elif name in self._over:
            self.n_late_words += len(words)
        else:
            self._keep_early(name, words)

    def _add_words(self, speech: Speech, words: list[Word]) -> None:
        most = MAX_WORDS + MAX_WORDS_A_SECOND * speech.n_samples // self._plan.rate_hz
        if speech.n_words + len(words) > most:
            raise _too_many(f"{speech.n_words + len(words)} words of utterance {speech.name!r}: wanted at most {most}")
        speech.n_words += len(words)
        speech.words.extend(words)

    def _keep_early(self, name: str, words: list[Word]) -> None:
        known = self._early.get(name, [])
        if len(known) + len(words) > MAX_WORDS:
            raise _too_many(f"{len(known) + len(words)} words before any sound: wanted at most {MAX_WORDS}")
        if name not in self._early and len(self._early) >= MAX_EARLY:
            raise _too_many(f"words of {MAX_EARLY + 1} utterances without sound: wanted at most {MAX_EARLY}")
        self._early[name] = known + words

    def end(self, name: str) -> None:
        """End the sound of an utterance; empty: of the open one."""
        check_id("end_of_utterance.utterance_id", name)
        opened = self._opened()
        if opened is not None and name in ("", opened.name):
            opened.ended = True
        elif name in self._waiting or name in self._over:
            raise _ended(name)
        else:
            raise _unknown(name)

    def end_open(self) -> None:
        opened = self._opened()
        if opened is not None:
            opened.ended = True

    def interrupt(self, name: str) -> list[Speech]:
        """End the named utterance (empty: all) and return those that ended, in order. It may already be over."""
        check_id("interrupt.utterance_id", name)
        if name and name not in self._waiting and name not in self._over:
            raise _unknown(name)
        dropped = [speech for speech in self._waiting.values() if name in ("", speech.name)]
        for speech in dropped:
            self.finish(speech)
        return dropped

    def finish(self, speech: Speech) -> None:
        """The utterance is over: its name is refused for a long while."""
        del self._waiting[speech.name]
        self._over[speech.name] = None
        if len(self._over) > MAX_REMEMBERED:
            self._over.popitem(last=False)

    def _opened(self) -> Speech | None:
        """The utterance that sound can be added to: only ever the last."""
        last = next(reversed(self._waiting.values()), None)
        return None if last is None or last.ended else last

    def _new_name(self) -> str:
        while True:
            self._n_named += 1
            name = f"utterance-{self._n_named}"
            if name not in self._waiting and name not in self._over:
                return name

    def _check(self, data: bytes) -> None:
        n_samples, rest = divmod(len(data), self._plan.sample_bytes)
        if rest:
            wanted = f"samples of {self._plan.sample_bytes} bytes"
            raise bad_field(
                "audio.data", f"{len(data)} bytes are not a whole number of samples: wanted {wanted}", "BAD_SAMPLES"
            )
        if n_samples > self._max_chunk_s * self._plan.rate_hz:
            seconds = n_samples / self._plan.rate_hz
            message = f"{seconds:.2f} s of sound in one message: wanted at most {self._max_chunk_s:g} s"
            raise bad_field("audio.data", message, "CHUNK_TOO_LONG")
        if self._plan.audio_encoding == media_pb2.AUDIO_ENCODING_FLOAT32:
            _check_floats(np.frombuffer(data, "<f4"))


def _check_floats(samples: np.ndarray) -> None:
    """Samples beyond 1 are not a recording that was too loud, but data that is not sound in this encoding."""
    peak = float(np.abs(samples).max(initial=0.0))  # NaN if any sample is
    if not peak <= FULL_SCALE:
        found = f"samples up to {peak:g}" if np.isfinite(peak) else "samples that are NaN or infinite"
        raise bad_field("audio.data", f"{found}: wanted numbers from -1 to 1", "BAD_SAMPLES")


def words_of(message: session_pb2.Words, rate_hz: int) -> list[Word]:
    """The words of a message, in seconds of their utterance. Raises Refusal for what no word can be."""
    if len(message.words) > MAX_WORDS:
        raise bad_field("words.words", f"{len(message.words)} words in one message: wanted at most {MAX_WORDS}")
    longest = int(MAX_TIME_S * rate_hz)
    for number, word in enumerate(message.words):
        if len(word.text) > MAX_WORD_CHARS:
            found = f"word {number} has {len(word.text)} characters: wanted at most {MAX_WORD_CHARS}"
            raise bad_field("words.text", found)
        if not 0 <= word.start_sample <= word.end_sample <= longest:
            found = f"word {number} is from sample {word.start_sample} to {word.end_sample}"
            raise bad_field("words.start_sample", f"{found}: wanted 0 <= start <= end <= {longest}")
    return [Word(word.text, word.start_sample / rate_hz, word.end_sample / rate_hz) for word in message.words]


def _too_many(message: str) -> Refusal:
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WORDS", message)


def _ended(name: str) -> Refusal:
    message = f"utterance {name!r} is over: give new speech a new id"
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, "UTTERANCE_ENDED", message)


def _unknown(name: str) -> Refusal:
    message = f"utterance {name!r} is unknown" if name else "no utterance is open"
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, "UNKNOWN_UTTERANCE", message)


def _gap(name: str, wanted: int, found: int) -> Refusal:
    what = f"utterance {name!r}" if name else "a new utterance"
    message = f"{what} continues with sample {wanted}, found {found}: samples may not be left out or sent twice"
    metadata = {"wanted": str(wanted), "found": str(found)}
    return Refusal(grpc.StatusCode.OUT_OF_RANGE, "SAMPLE_GAP", message, metadata=metadata)
