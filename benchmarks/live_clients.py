"""Many paced sessions from one process: what a crowd of clients does to a server, seen from their side.

    python -m benchmarks.live_clients SPEC.json    (started by bench_live and bench_faults; writes what spec.out names)

Every stream is a conversation: speech for a while, a pause, speech again, in chunks as a microphone gives them.
"""

import json
import random
import selectors
import signal
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from benchmarks.raw_stream import RawStream
from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE, frame_start
from tango_rt.client.options import SessionOptions
from tango_rt.v1 import media_pb2, session_pb2

__all__ = ["ClientSpec", "run_streams"]

_TICK_S = 0.005


@dataclass(frozen=True)
class ClientSpec:
    """n_streams begin within ramp_s; frames count from ramp_s + settle_s on, for seconds or until SIGTERM.

    speech: int16 at 16 kHz, .npy. n_scripts: so many of them say something different, the others the same at other
    times: what they need is cached then, as it is for a character in use.
    """

    host: str
    port: int
    character: str
    speech: str
    out: str
    n_streams: int = 1
    seconds: float = 30.0
    ramp_s: float = 1.0
    settle_s: float = 2.0
    chunk_ms: int = 100
    utterance_s: float = 5.0
    pause_s: float = 2.0
    seed: int = 0
    n_scripts: int = 4
    blender: str = "flow"
    video_encoding: str = "h264"
    token: str = ""

    def save(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path


class _Conversation:
    """One stream: when it says what, and what it saw."""

    def __init__(self, spec: ClientSpec, speech: np.ndarray, number: int, start_s: float, phase_s: float) -> None:
        self.spec = spec
        self.start_s = start_s
        self.stream: RawStream | None = None
        self.config_s = 0.0
        self.first_frame_s = 0.0
        self.arrivals: list[float] = []
        self.indices: list[int] = []
        self.waits: list[float] = []
        self.server_waits: list[float] = []
        self.n_underruns = 0
        self.n_underrun_frames = 0
        self.stats = session_pb2.Stats()
        self.failed = False
        self._speech = speech
        script = number % spec.n_scripts
        self._random = random.Random(script)
        self._length_s = self._around(spec.utterance_s)
        self._at = (script * 7919 * SAMPLE_RATE) % len(speech)
        self._chunk = SAMPLE_RATE * spec.chunk_ms // 1000
        self._lookahead = 0
        self._utterance = 0
        self._said = 0
        self._said_at: list[float] = []
        self._due_s = phase_s  # after the acceptance
        self._accepted = False
        self._name = ""

    def open(self) -> RawStream:
        self.stream = RawStream(self.spec.host, self.spec.port, token=self.spec.token)
        return self.stream

    def configure(self, now: float) -> None:
        assert self.stream is not None
        options = SessionOptions(
            self.spec.character,
            blender=self.spec.blender,  # type: ignore[arg-type]
            video_encoding=self.spec.video_encoding,  # type: ignore[arg-type]
            stats_period_s=1.0,
        )
        self.config_s = now
        self.stream.send(session_pb2.StreamGesturesRequest(config=options.to_config()).SerializeToString())

    def speak(self, now: float) -> None:
        """Send what the microphone has by now."""
        while self._accepted and self.stream is not None and now >= self._due_s and not self.stream.ended:
            if self._said == 0:
                self._utterance += 1
                self._name = f"u{self._utterance}"
                self._said_at = []
            chunk = np.take(self._speech, np.arange(self._at, self._at + self._chunk), mode="wrap")
            audio = session_pb2.AudioChunk(data=chunk.tobytes(), first_sample_index=self._said, utterance_id=self._name)
            self.stream.send(session_pb2.StreamGesturesRequest(audio=audio).SerializeToString())
            self._at = (self._at + self._chunk) % len(self._speech)
            self._said += self._chunk
            self._said_at.append(time.monotonic())
            self._due_s += self.spec.chunk_ms / 1000
            if self._said >= self._length_s * SAMPLE_RATE:
                end = session_pb2.EndOfUtterance(utterance_id=self._name)
                self.stream.send(session_pb2.StreamGesturesRequest(end_of_utterance=end).SerializeToString())
                self._said = 0
                self._length_s = self._around(self.spec.utterance_s)
                self._due_s += self._around(self.spec.pause_s)

    def _around(self, seconds: float) -> float:
        """Half to one and a half of it: speech and frames must not keep step."""
        return seconds * self._random.uniform(0.5, 1.5)

    def listen(self, now: float) -> None:
        assert self.stream is not None
        for message in self.stream.receive():
            response = session_pb2.StreamGesturesResponse.FromString(message)
            kind = response.WhichOneof("message")
            if kind == "frame":
                self._see(response.frame, now)
            elif kind == "accepted":
                self._accepted = True
                self._lookahead = response.accepted.lookahead_samples
                self._due_s += now
            elif kind == "underrun":
                self.n_underruns += 1
                self.n_underrun_frames += response.underrun.n_frames
            elif kind == "utterance_started":
                self.server_waits.append(response.utterance_started.latency.ToNanoseconds() / 1e9)
            elif kind == "stats":
                self.stats = response.stats
        self.failed = self.failed or self.stream.ended

    def _see(self, frame: media_pb2.VideoFrame, now: float) -> None:
        if not self.arrivals:
            self.first_frame_s = now
        self.arrivals.append(now)
        self.indices.append(frame.frame_index)
        if frame.utterance_id == self._name and frame.utterance_frame == 0 and self._said_at:
            # the last sample that the step of this frame waits for, and when the chunk that holds it was sent
            needed = frame_start(FRAMES_PER_NODE) + self._lookahead
            chunk = min((needed - 1) // self._chunk, len(self._said_at) - 1)
            self.waits.append(now - self._said_at[chunk])


def run_streams(spec: ClientSpec) -> dict[str, np.ndarray]:
    """Hold the conversations; returns what _gather tells."""
    speech = np.load(spec.speech)
    rng = np.random.default_rng(spec.seed)
    began, cpu_s = time.monotonic(), time.process_time()
    crowd = [
        _Conversation(
            spec,
            speech,
            number + spec.seed,
            began + spec.ramp_s * number / spec.n_streams,
            float(rng.uniform(0, spec.pause_s)),
        )
        for number in range(spec.n_streams)
    ]
    ends = began + spec.ramp_s + spec.settle_s + spec.seconds
    waiting = list(crowd)
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    with selectors.DefaultSelector() as selector:
        while (now := time.monotonic()) < ends and not told:
            while waiting and waiting[0].start_s <= now:
                one = waiting.pop(0)
                selector.register(one.open().socket, selectors.EVENT_READ, one)
            for key, _ in selector.select(_TICK_S):
                _serve(key.data, selector)
            for one in crowd:
                one.speak(time.monotonic())
    for one in crowd:
        if one.stream is not None and not one.stream.ended:
            one.stream.cancel()
    seen = _gather(crowd, began + spec.ramp_s + spec.settle_s)
    return {**seen, "cpu_s": np.array(time.process_time() - cpu_s)}


def _serve(one: _Conversation, selector: selectors.BaseSelector) -> None:
    assert one.stream is not None
    file = one.stream.socket
    was_ready = one.stream.ready
    one.listen(time.monotonic())
    if one.stream.ended:
        selector.unregister(file)
        one.stream.close()
    elif one.stream.ready and not was_ready:
        one.configure(time.monotonic())


def _gather(crowd: list[_Conversation], counted_from: float) -> dict[str, np.ndarray]:
    """Seconds: arrivals (monotonic clock), intervals, first_frames, waits (client), server_waits; counts: the rest."""
    arrived, intervals, holes = [np.zeros(0)], [np.zeros(0)], 0
    for one in crowd:
        arrivals, indices = np.array(one.arrivals), np.array(one.indices)
        counted = arrivals[1:] >= counted_from
        arrived.append(arrivals)
        intervals.append(np.diff(arrivals)[counted] if len(arrivals) > 1 else np.zeros(0))
        holes += int(indices[-1] + 1 - len(indices)) if len(indices) else 0
    stats = [one.stats for one in crowd]
    return {
        "arrivals": np.concatenate(arrived),
        "intervals": np.concatenate(intervals),
        "first_frames": np.array([one.first_frame_s - one.config_s for one in crowd if one.arrivals]),
        "waits": np.array([wait for one in crowd for wait in one.waits]),
        "server_waits": np.array([wait for one in crowd for wait in one.server_waits]),
        "failed": np.array(sum(one.failed or not one.arrivals for one in crowd)),
        "underruns": np.array(sum(one.n_underruns for one in crowd)),
        "underrun_frames": np.array(sum(one.n_underrun_frames for one in crowd)),
        "dropped": np.array(holes),
        "frames": np.array(sum(len(one.arrivals) for one in crowd)),
        "cached": np.array(sum(one.transitions_cached for one in stats)),
        "computed": np.array(sum(one.transitions_computed for one in stats)),
        "late": np.array(sum(one.transitions_late for one in stats)),
        "lookahead": np.array(max((one._lookahead for one in crowd), default=0)),
    }


def main() -> None:
    values = json.loads(Path(sys.argv[1]).read_text())
    spec = ClientSpec(**{field.name: values[field.name] for field in fields(ClientSpec) if field.name in values})
    np.savez(spec.out, **run_streams(spec))


if __name__ == "__main__":
    main()
