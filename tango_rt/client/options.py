"""The configuration of a session, and how the protocol encodes it."""

import uuid
from dataclasses import dataclass, field
from typing import Literal

from google.protobuf.duration_pb2 import Duration

from tango_rt.client.errors import InputError
from tango_rt.v1 import media_pb2, session_pb2

__all__ = ["AudioCoding", "InterruptMode", "LookaheadMode", "SessionOptions", "State", "VideoCoding"]

AudioCoding = Literal["s16", "float32"]
VideoCoding = Literal["h264", "jpeg", "rgb24", "i420", "reference"]
InterruptMode = Literal["rest", "cut"]
LookaheadMode = Literal["fixed", "adaptive"]
State = Literal["idle", "listening", "speaking"]

AUDIO_ENCODINGS = {
    "s16": media_pb2.AUDIO_ENCODING_LINEAR_PCM_S16,
    "float32": media_pb2.AUDIO_ENCODING_FLOAT32,
}
PACINGS = {"realtime": session_pb2.PACING_REALTIME, "fast": session_pb2.PACING_FAST}
LATE_POLICIES = {"drop": session_pb2.LATE_POLICY_DROP, "block": session_pb2.LATE_POLICY_BLOCK}
LOOKAHEADS = {
    None: session_pb2.LOOKAHEAD_UNSPECIFIED,
    "fixed": session_pb2.LOOKAHEAD_FIXED,
    "adaptive": session_pb2.LOOKAHEAD_ADAPTIVE,
}
INTERRUPT_MODES = {
    "rest": session_pb2.Interrupt.MODE_TRANSITION_TO_IDLE,
    "cut": session_pb2.Interrupt.MODE_CUT,
}
STATES = {
    "idle": session_pb2.SetState.STATE_IDLE,
    "listening": session_pb2.SetState.STATE_LISTENING,
    "speaking": session_pb2.SetState.STATE_SPEAKING,
}


@dataclass(frozen=True)
class SessionOptions:
    """SessionConfig of the protocol, which explains every field and default; None leaves the choice to the server."""

    character: str
    sample_rate_hz: int = 16_000
    audio_encoding: AudioCoding = "s16"
    video_encoding: VideoCoding = "h264"
    pacing: Literal["realtime", "fast"] = "realtime"
    idle: bool | None = None
    lookahead_nodes: int | None = None
    whole_utterance: bool = False
    blender: str | None = None  # a value of Blender in media.proto, without its prefix; None: the character's own
    retrieval: str = "auto"
    seed: int = 0
    audio_echo: bool = False
    timings: bool = False
    late_policy: Literal["drop", "block"] = "drop"
    stats_period_s: float | None = None
    lookahead: LookaheadMode | None = None
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def to_config(self) -> session_pb2.SessionConfig:
        """Raises InputError for a name that is not valid text."""
        try:
            self.character.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the character name {self.character!a} is not valid UTF-8") from error
        config = session_pb2.SessionConfig(
            request_id=self.request_id,
            character=self.character,
            audio=media_pb2.AudioFormat(
                encoding=AUDIO_ENCODINGS[self.audio_encoding], sample_rate_hertz=self.sample_rate_hz
            ),
            video_encoding=media_pb2.VideoEncoding.Value(f"VIDEO_ENCODING_{self.video_encoding.upper()}"),
            pacing=PACINGS[self.pacing],
            lookahead_nodes=self.lookahead_nodes,
            whole_utterance=self.whole_utterance,
            blender=media_pb2.Blender.Value(f"BLENDER_{(self.blender or 'unspecified').upper()}"),
            retrieval=self.retrieval,
            seed=self.seed,
            audio_echo=self.audio_echo,
            timings=self.timings,
            late_policy=LATE_POLICIES[self.late_policy],
            lookahead=LOOKAHEADS[self.lookahead],
        )
        if self.idle is not None:
            config.idle = self.idle
        if self.stats_period_s is not None:
            period = Duration()
            period.FromNanoseconds(round(self.stats_period_s * 1e9))
            config.stats_period.CopyFrom(period)
        return config
