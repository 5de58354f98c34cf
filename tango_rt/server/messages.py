"""What a session tells its client, as messages of the protocol.

Fields are set one by one, which takes half the time of keyword arguments, for every frame of every stream.
"""

from typing import Any

from google.protobuf import duration_pb2

from engine.character.info import PackInfo
from engine.timebase import FPS, FRAMES_PER_NODE
from tango_rt import __version__
from tango_rt.pipeline.cueing import PlayedCue, RefusedCue
from tango_rt.server.checks import SessionPlan
from tango_rt.server.config import ServerConfig
from tango_rt.server.speech import Speech
from tango_rt.v1 import session_pb2

__all__ = [
    "Response",
    "accepted",
    "cue_played",
    "cue_refused",
    "duration",
    "finished",
    "pong",
    "started",
    "underrun",
    "warning",
]

Response = session_pb2.StreamGesturesResponse


def duration(seconds: float) -> duration_pb2.Duration:
    made = duration_pb2.Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


def accepted(
    session_id: str, plan: SessionPlan, server: ServerConfig, info: PackInfo, **effective: Any
) -> session_pb2.Accepted:
    """effective: lookahead_samples, max_queued_audio, retrieval, character_sha256."""
    return session_pb2.Accepted(
        session_id=session_id,
        config=plan.to_config(),
        width=info.width,
        height=info.height,
        frame_rate=FPS,
        frames_per_node=FRAMES_PER_NODE,
        video_time_base=session_pb2.TimeBase(numerator=1, denominator=FPS),
        h264_parameter_sets=info.extradata,
        max_late=duration(server.max_late_s),
        idle_timeout=duration(server.idle_timeout_s),
        max_session=duration(server.max_session_s),
        server_version=__version__,
        **effective,
    )


def started(speech: Speech, frame: int, waited_s: float) -> Response:
    message = Response()
    event = message.utterance_started
    event.utterance_id, event.frame_index = speech.name, frame
    event.latency.FromNanoseconds(round(waited_s * 1e9))
    return message


def finished(speech: Speech, frame: int, interrupted: bool) -> Response:
    message = Response()
    event = message.utterance_finished
    event.utterance_id, event.frame_index, event.interrupted = speech.name, frame, interrupted
    event.played_samples, event.played_frames = speech.n_played, speech.n_frames
    return message


def underrun(speech: Speech, frame: int, n_frames: int) -> Response:
    message = Response()
    event = message.underrun
    event.utterance_id, event.frame_index, event.n_frames = speech.name, frame, n_frames
    return message


def pong(number: int) -> Response:
    message = Response()
    message.pong.number = number
    return message


def cue_played(cue: PlayedCue, frame: int) -> Response:
    played = session_pb2.CuePlayed(name=cue.name, frame_index=frame, late_frames=cue.late_frames)
    return Response(cue_played=played)


def cue_refused(cue: RefusedCue) -> Response:
    return Response(cue_refused=session_pb2.CueRefused(name=cue.name, reason=cue.reason))


def warning(reason: str, text: str) -> Response:
    return Response(warning=session_pb2.Warning(reason=reason, message=text))
