"""A server that lies in one of many ways, behind a real socket; and what a client must make of each lie."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain, count, islice, repeat
from typing import Any

import grpc
import numpy as np
from google.protobuf import duration_pb2

from tango_rt.v1 import media_pb2, service_pb2, session_pb2
from tango_rt.video.gop import GopEncoder
from tests.helpers.fakes_server import Response, refuse

WIDTH, HEIGHT = 96, 64
N_FRAMES = 40
LIE_AT = 20
"""The frame at which a session goes wrong, where it begins well."""

ESCAPES = "a\x1b]0;owned\x07b\rc\u202ed\x9b2J"


@cache
def encoded(width: int = WIDTH, height: int = HEIGHT) -> tuple[bytes, tuple[bytes, ...]]:
    """Parameter sets, and 4 pictures of one group."""
    encoder = GopEncoder(width, height)
    frames = np.random.default_rng(0).integers(0, 255, (4, height, width, 3), np.uint8)
    return encoder.extradata, tuple(encoder.encode(frames))


def picture(index: int) -> media_pb2.VideoFrame:
    sets, pictures = encoded()
    return media_pb2.VideoFrame(
        data=(b"" if index % 4 else sets) + pictures[index % 4],
        encoding=media_pb2.VIDEO_ENCODING_H264,
        key_frame=index % 4 == 0,
        frame_index=index,
        pts=index,
        utterance_id="u",
        utterance_frame=index,
    )


def honest(config: session_pb2.SessionConfig) -> list[Any]:
    accepted = session_pb2.Accepted(
        session_id="s",
        config=config,
        width=WIDTH,
        height=HEIGHT,
        frame_rate=30,
        frames_per_node=4,
        h264_parameter_sets=encoded()[0],
        lookahead_samples=4000,
    )
    accepted.config.idle = False
    finished = session_pb2.UtteranceFinished(utterance_id="u", frame_index=N_FRAMES, played_frames=N_FRAMES)
    finished.played_samples = N_FRAMES * 500
    frames = [Response(frame=picture(index)) for index in range(N_FRAMES)]
    return [Response(accepted=accepted), *frames, Response(utterance_finished=finished)]


Answers = Callable[[list[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Lie:
    """said: what the one line must tell. kept: how many frames came before it, None where nothing is to be kept.
    decoded: only who decodes notices."""

    answers: Answers
    said: str
    kept: int | None = LIE_AT
    decoded: bool = False


def _accepting(**fields: Any) -> Answers:
    def answers(honest: list[Any]) -> list[Any]:
        for name, value in fields.items():
            if isinstance(value, duration_pb2.Duration):
                getattr(honest[0].accepted, name).CopyFrom(value)
            else:
                setattr(honest[0].accepted, name, value)
        return honest

    return answers


def _configured(**fields: Any) -> Answers:
    def answers(honest: list[Any]) -> list[Any]:
        for name, value in fields.items():
            setattr(honest[0].accepted.config, name, value)
        return honest

    return answers


def _framed(**fields: Any) -> Answers:
    def answers(honest: list[Any]) -> list[Any]:
        for name, value in fields.items():
            setattr(honest[1 + LIE_AT].frame, name, value)
        return honest

    return answers


def _heard(**seconds: int) -> Answers:
    def answers(honest: list[Any]) -> list[Any]:
        for name, value in seconds.items():
            getattr(honest[1 + LIE_AT].frame.timings, name).seconds = value
        return honest

    return answers


def _sounding(honest: list[Any]) -> list[Any]:
    honest[1 + LIE_AT].frame.audio.data = bytes(1 << 20)
    return honest


def _finished(**fields: int) -> Answers:
    def answers(honest: list[Any]) -> list[Any]:
        for name, value in fields.items():
            setattr(honest[-1].utterance_finished, name, value)
        return honest

    return answers


def _instead(*messages: Any) -> Answers:
    """In the place of what would come behind some good frames."""
    return lambda honest: [*honest[: 1 + LIE_AT], *messages]


def _flood(message: Any) -> Answers:
    return lambda honest: chain(honest[: 1 + LIE_AT], repeat(message))


def _endless(honest: list[Any]) -> Iterator[Any]:
    yield from honest[:-1]
    for index in count(N_FRAMES):
        yield Response(frame=picture(index))


def _late_key(honest: list[Any]) -> list[Any]:
    return [honest[0], *honest[2:]]


def _two_sets(honest: list[Any]) -> list[Any]:
    small = honest[0].accepted.h264_parameter_sets = encoded(32, 32)[0]
    for answer in honest[1:-1:4]:
        answer.frame.data = small + answer.frame.data
    return honest


def _small_pictures(honest: list[Any]) -> list[Any]:
    sets, pictures = encoded(32, 32)
    honest[0].accepted.h264_parameter_sets = sets
    for index, answer in enumerate(honest[1:-1]):
        answer.frame.data = (b"" if index % 4 else sets) + pictures[index % 4]
    return honest


NOISE = b"\0\0\0\1\x65" + np.random.default_rng(1).bytes(3000)
OTHER_SERVICE = service_pb2.ServerInfo(version="x" * 30, machine="of another service").SerializeToString()
LONG = duration_pb2.Duration(seconds=10**15)
Warned = session_pb2.Warning
SILENCE = "silence"
"""Nothing more comes, and the stream does not end."""

LIES = {
    "index 2^33": Lie(_framed(frame_index=2**33), "frame 8589934592"),
    "index 2^62": Lie(_framed(frame_index=2**62), f"frame {2**62}"),
    "index below 0": Lie(_framed(frame_index=-5), "frame -5"),
    "index falls": Lie(_framed(frame_index=3), "frame 3 comes where 20"),
    "index repeats": Lie(_framed(frame_index=LIE_AT - 1), "frame 19 comes where 20"),
    "no picture": Lie(_framed(data=b""), "not H.264"),
    "a picture of 2 bytes": Lie(_framed(data=b"\0\0"), "not H.264 in Annex B: 2 bytes"),
    "a start code alone": Lie(_framed(data=b"\0\0\0\1"), "no H.264"),
    "a text for a picture": Lie(_framed(data=b"hello" * 99), "no H.264"),
    "a picture of noise": Lie(_framed(data=encoded()[0] + NOISE), "not decodable H.264 of 96x64 px", decoded=True),
    "a picture of 5 MB": Lie(_framed(data=NOISE[:5] + bytes(5 << 20)), "more than its pixels"),
    "a JPEG for H.264": Lie(_framed(encoding=media_pb2.VIDEO_ENCODING_JPEG), "encoding 2"),
    "an encoding that is none": Lie(_framed(encoding=99), "encoding 99"),
    "a frame of an utterance, 2^40": Lie(_framed(utterance_frame=2**40), f"frame {2**40} of an utterance"),
    "a frame of an utterance below 0": Lie(_framed(utterance_frame=-1), "frame -1 of an utterance"),
    "frames of an utterance fall": Lie(_framed(utterance_frame=5), "frame 5 of an utterance"),
    "an utterance's name of 100 KB": Lie(_framed(utterance_id="u" * 100_000), "100000 characters"),
    "sound that nobody asked for": Lie(_sounding, "1048576 bytes of sound"),
    "a time below 0": Lie(_heard(latency=-1000), "a duration of -1000 s"),
    "a time of 10^15 s": Lie(_heard(late=10**15), "a duration of 1e+15 s"),
    "played 2^50 frames": Lie(_finished(played_frames=2**50), "frames", N_FRAMES),
    "played below 0": Lie(_finished(played_samples=-1), "-1 samples", N_FRAMES),
    "ends at frame 2^50": Lie(_finished(frame_index=2**50), f"ends at frame {2**50}", N_FRAMES),
    "ends twice": Lie(lambda honest: [*honest, honest[-1]], "more utterances end than were sent", N_FRAMES),
    "accepts twice": Lie(lambda honest: [*honest[: 1 + LIE_AT], honest[0]], "a second time"),
    "counts below 0": Lie(_instead(Response(stats=session_pb2.Stats(frames_sent=-1))), "below 0"),
    "an underrun of 2^40": Lie(_instead(Response(underrun=session_pb2.Underrun(n_frames=2**40))), "an underrun"),
    "a warning of 1 MB": Lie(_instead(Response(warning=Warned(message="x" * (1 << 20)))), "an event of "),
    "a flood of statistics": Lie(_flood(Response(stats=session_pb2.Stats())), "messages other than frames"),
    "a flood of warnings": Lie(_flood(Response(warning=Warned(message="w"))), "messages other than frames"),
    "a flood of pongs": Lie(_flood(Response(pong=session_pb2.Pong())), "messages other than frames"),
    "a flood of what we do not know": Lie(_flood(b"\xfa\x7f\x00"), "messages other than frames"),
    "frames for ever": Lie(_endless, "s into the session", kept=-1),
    "a message that is none": Lie(_instead(b"\xff" * 50), ""),
    "a message of 65 MB": Lie(_instead(Response(frame=media_pb2.VideoFrame(data=bytes(65 << 20)))), "larger than"),
    "ends early": Lie(_instead(), "ENDED_EARLY"),
    "falls silent": Lie(_instead(SILENCE), "STALLED"),
    "never ends": Lie(lambda honest: [*honest, SILENCE], "STALLED", N_FRAMES),
    "width 2^30": Lie(_accepting(width=2**30), "pictures of 1073741824x64", None),
    "pictures of another size": Lie(_small_pictures, "no H.264 of 96x64", None, decoded=True),
    "width 0": Lie(_accepting(width=0), "pictures of 0x64", None),
    "height below 0": Lie(_accepting(height=-64), "pictures of 96x-64", None),
    "an odd width": Lie(_accepting(width=97), "pictures of 97x64", None),
    "another size than it says": Lie(_accepting(width=128), "no H.264 of 128x64", None, decoded=True),
    "parameter sets of another size": Lie(
        _accepting(h264_parameter_sets=encoded(32, 32)[0]), "does not begin with the parameter sets", None
    ),
    "parameter sets of 8 MB": Lie(_accepting(h264_parameter_sets=bytes(8 << 20)), "acceptance", None),
    "parameter sets of 100 KB": Lie(_accepting(h264_parameter_sets=bytes(100_000)), "parameter sets of 100000", None),
    "parameter sets of another size before the right ones": Lie(_two_sets, "its own parameter sets", None),
    "another encoding": Lie(_configured(video_encoding=2), "another video_encoding", None),
    "another character": Lie(_configured(character="bob"), "another character", None),
    "another pacing": Lie(_configured(pacing=1), "another pacing", None),
    "no frame rate": Lie(_accepting(frame_rate=0), "0 frames per second", None),
    "a look-ahead below 0": Lie(_accepting(lookahead_samples=-1), "look-ahead of -1", None),
    "a look-ahead of 2^62": Lie(_accepting(lookahead_samples=2**62), "look-ahead", None),
    "a session of 10^15 s": Lie(_accepting(max_session=LONG), "a duration of 1e+15 s", None),
    "a queue below 0": Lie(_accepting(max_queued_audio=duration_pb2.Duration(seconds=-9)), "duration of -9 s", None),
    "nanoseconds that are none": Lie(_accepting(max_late=duration_pb2.Duration(nanos=2**31 - 1)), "a duration", None),
    "a session's name of 1 MB": Lie(_accepting(session_id="s" * (1 << 20)), "acceptance", None),
    "begins with a frame": Lie(lambda honest: honest[1:], "NOT_ACCEPTED", None),
    "begins with a picture that needs another": Lie(_late_key, "no H.264 of 96x64", None, decoded=True),
    "says nothing and ends": Lie(lambda _: [], "NOT_ACCEPTED", None),
    "accepts and ends": Lie(lambda honest: honest[:1], "ENDED_EARLY", None),
    "accepts and falls silent": Lie(lambda honest: [honest[0], SILENCE], "STALLED", None),
    "another service's message": Lie(lambda _: [OTHER_SERVICE], "", None),
    "other services' messages for ever": Lie(lambda _: repeat(b"\xfa\x7f\x00"), "messages other than frames", None),
    "noise for messages": Lie(lambda _: [bytes(range(256))], "", None),
}


class HostileServer(grpc.GenericRpcHandler):
    """Answers every method with what it was given: messages, or bytes as they are."""

    def __init__(self, answers: Callable[[Any, grpc.ServicerContext], Iterable[Any]], waits: bool) -> None:
        self._answers = answers
        self._waits = waits

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method.endswith("/StreamGestures"):
            return grpc.stream_stream_rpc_method_handler(
                self._stream, session_pb2.StreamGesturesRequest.FromString, _serialised
            )
        return grpc.unary_unary_rpc_method_handler(self._single, None, _serialised)

    def _stream(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        config = next(requests).config
        for answer in self._answers(config, context):
            if not context.is_active():
                return
            if answer == SILENCE:
                _wait(context)
                return
            yield answer
            if isinstance(answer, Response) and answer.HasField("accepted"):
                deque(requests if self._waits else islice(requests, 2), 0)  # who was accepted speaks

    def _single(self, request: bytes, context: grpc.ServicerContext) -> Any:
        return next(iter(self._answers(request, context)))


def _wait(context: grpc.ServicerContext) -> None:
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait(30)


def _serialised(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


@contextmanager
def hostile_server(answers: Callable[[Any, grpc.ServicerContext], Iterable[Any]], waits: bool = True) -> Iterator[str]:
    """Its address. answers: of a session by its configuration (who is accepted is heard first), or of a request.

    waits: until all is said; else the beginning is enough.
    """
    options = [("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(8), [HostileServer(answers, waits)], options=options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def lying(lie: Lie) -> Callable[[Any, grpc.ServicerContext], Iterable[Any]]:
    return lambda config, _: lie.answers(honest(config))


def refusing(message: str, reason: str) -> Callable[[Any, grpc.ServicerContext], Iterable[Any]]:
    def answers(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        refuse(context, grpc.StatusCode.INVALID_ARGUMENT, reason, message)
        yield Response()

    return answers
