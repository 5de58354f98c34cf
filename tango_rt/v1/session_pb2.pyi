import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from tango_rt.v1 import media_pb2 as _media_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Pacing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PACING_UNSPECIFIED: _ClassVar[Pacing]
    PACING_REALTIME: _ClassVar[Pacing]
    PACING_FAST: _ClassVar[Pacing]

class LatePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LATE_POLICY_UNSPECIFIED: _ClassVar[LatePolicy]
    LATE_POLICY_DROP: _ClassVar[LatePolicy]
    LATE_POLICY_BLOCK: _ClassVar[LatePolicy]

class Lookahead(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOOKAHEAD_UNSPECIFIED: _ClassVar[Lookahead]
    LOOKAHEAD_FIXED: _ClassVar[Lookahead]
    LOOKAHEAD_ADAPTIVE: _ClassVar[Lookahead]
PACING_UNSPECIFIED: Pacing
PACING_REALTIME: Pacing
PACING_FAST: Pacing
LATE_POLICY_UNSPECIFIED: LatePolicy
LATE_POLICY_DROP: LatePolicy
LATE_POLICY_BLOCK: LatePolicy
LOOKAHEAD_UNSPECIFIED: Lookahead
LOOKAHEAD_FIXED: Lookahead
LOOKAHEAD_ADAPTIVE: Lookahead

class StreamGesturesRequest(_message.Message):
    __slots__ = ("config", "audio", "end_of_utterance", "interrupt", "set_state", "ping", "words", "cue")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    END_OF_UTTERANCE_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_FIELD_NUMBER: _ClassVar[int]
    SET_STATE_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    CUE_FIELD_NUMBER: _ClassVar[int]
    config: SessionConfig
    audio: AudioChunk
    end_of_utterance: EndOfUtterance
    interrupt: Interrupt
    set_state: SetState
    ping: Ping
    words: Words
    cue: Cue
    def __init__(self, config: _Optional[_Union[SessionConfig, _Mapping]] = ..., audio: _Optional[_Union[AudioChunk, _Mapping]] = ..., end_of_utterance: _Optional[_Union[EndOfUtterance, _Mapping]] = ..., interrupt: _Optional[_Union[Interrupt, _Mapping]] = ..., set_state: _Optional[_Union[SetState, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., words: _Optional[_Union[Words, _Mapping]] = ..., cue: _Optional[_Union[Cue, _Mapping]] = ...) -> None: ...

class StreamGesturesResponse(_message.Message):
    __slots__ = ("accepted", "frame", "utterance_started", "utterance_finished", "underrun", "warning", "stats", "pong", "cue_played", "cue_refused")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_STARTED_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_FINISHED_FIELD_NUMBER: _ClassVar[int]
    UNDERRUN_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    CUE_PLAYED_FIELD_NUMBER: _ClassVar[int]
    CUE_REFUSED_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    frame: _media_pb2.VideoFrame
    utterance_started: UtteranceStarted
    utterance_finished: UtteranceFinished
    underrun: Underrun
    warning: Warning
    stats: Stats
    pong: Pong
    cue_played: CuePlayed
    cue_refused: CueRefused
    def __init__(self, accepted: _Optional[_Union[Accepted, _Mapping]] = ..., frame: _Optional[_Union[_media_pb2.VideoFrame, _Mapping]] = ..., utterance_started: _Optional[_Union[UtteranceStarted, _Mapping]] = ..., utterance_finished: _Optional[_Union[UtteranceFinished, _Mapping]] = ..., underrun: _Optional[_Union[Underrun, _Mapping]] = ..., warning: _Optional[_Union[Warning, _Mapping]] = ..., stats: _Optional[_Union[Stats, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., cue_played: _Optional[_Union[CuePlayed, _Mapping]] = ..., cue_refused: _Optional[_Union[CueRefused, _Mapping]] = ...) -> None: ...

class SessionConfig(_message.Message):
    __slots__ = ("request_id", "character", "audio", "video_encoding", "pacing", "idle", "lookahead_nodes", "whole_utterance", "blender", "retrieval", "seed", "audio_echo", "timings", "late_policy", "stats_period", "lookahead")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CHARACTER_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    VIDEO_ENCODING_FIELD_NUMBER: _ClassVar[int]
    PACING_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    LOOKAHEAD_NODES_FIELD_NUMBER: _ClassVar[int]
    WHOLE_UTTERANCE_FIELD_NUMBER: _ClassVar[int]
    BLENDER_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    AUDIO_ECHO_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    LATE_POLICY_FIELD_NUMBER: _ClassVar[int]
    STATS_PERIOD_FIELD_NUMBER: _ClassVar[int]
    LOOKAHEAD_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    character: str
    audio: _media_pb2.AudioFormat
    video_encoding: _media_pb2.VideoEncoding
    pacing: Pacing
    idle: bool
    lookahead_nodes: int
    whole_utterance: bool
    blender: _media_pb2.Blender
    retrieval: str
    seed: int
    audio_echo: bool
    timings: bool
    late_policy: LatePolicy
    stats_period: _duration_pb2.Duration
    lookahead: Lookahead
    def __init__(self, request_id: _Optional[str] = ..., character: _Optional[str] = ..., audio: _Optional[_Union[_media_pb2.AudioFormat, _Mapping]] = ..., video_encoding: _Optional[_Union[_media_pb2.VideoEncoding, str]] = ..., pacing: _Optional[_Union[Pacing, str]] = ..., idle: bool = ..., lookahead_nodes: _Optional[int] = ..., whole_utterance: bool = ..., blender: _Optional[_Union[_media_pb2.Blender, str]] = ..., retrieval: _Optional[str] = ..., seed: _Optional[int] = ..., audio_echo: bool = ..., timings: bool = ..., late_policy: _Optional[_Union[LatePolicy, str]] = ..., stats_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lookahead: _Optional[_Union[Lookahead, str]] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("session_id", "config", "width", "height", "frame_rate", "frames_per_node", "video_time_base", "lookahead_samples", "h264_parameter_sets", "max_late", "max_queued_audio", "idle_timeout", "max_session", "retrieval", "character_sha256", "server_version")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FRAME_RATE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PER_NODE_FIELD_NUMBER: _ClassVar[int]
    VIDEO_TIME_BASE_FIELD_NUMBER: _ClassVar[int]
    LOOKAHEAD_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    H264_PARAMETER_SETS_FIELD_NUMBER: _ClassVar[int]
    MAX_LATE_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_AUDIO_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSION_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_FIELD_NUMBER: _ClassVar[int]
    CHARACTER_SHA256_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    config: SessionConfig
    width: int
    height: int
    frame_rate: int
    frames_per_node: int
    video_time_base: TimeBase
    lookahead_samples: int
    h264_parameter_sets: bytes
    max_late: _duration_pb2.Duration
    max_queued_audio: _duration_pb2.Duration
    idle_timeout: _duration_pb2.Duration
    max_session: _duration_pb2.Duration
    retrieval: str
    character_sha256: str
    server_version: str
    def __init__(self, session_id: _Optional[str] = ..., config: _Optional[_Union[SessionConfig, _Mapping]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., frame_rate: _Optional[int] = ..., frames_per_node: _Optional[int] = ..., video_time_base: _Optional[_Union[TimeBase, _Mapping]] = ..., lookahead_samples: _Optional[int] = ..., h264_parameter_sets: _Optional[bytes] = ..., max_late: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_queued_audio: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_session: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., retrieval: _Optional[str] = ..., character_sha256: _Optional[str] = ..., server_version: _Optional[str] = ...) -> None: ...

class TimeBase(_message.Message):
    __slots__ = ("numerator", "denominator")
    NUMERATOR_FIELD_NUMBER: _ClassVar[int]
    DENOMINATOR_FIELD_NUMBER: _ClassVar[int]
    numerator: int
    denominator: int
    def __init__(self, numerator: _Optional[int] = ..., denominator: _Optional[int] = ...) -> None: ...

class AudioChunk(_message.Message):
    __slots__ = ("data", "first_sample_index", "utterance_id")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FIRST_SAMPLE_INDEX_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    first_sample_index: int
    utterance_id: str
    def __init__(self, data: _Optional[bytes] = ..., first_sample_index: _Optional[int] = ..., utterance_id: _Optional[str] = ...) -> None: ...

class Words(_message.Message):
    __slots__ = ("utterance_id", "words")
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    words: _containers.RepeatedCompositeFieldContainer[Word]
    def __init__(self, utterance_id: _Optional[str] = ..., words: _Optional[_Iterable[_Union[Word, _Mapping]]] = ...) -> None: ...

class Word(_message.Message):
    __slots__ = ("text", "start_sample", "end_sample")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    START_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    END_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    text: str
    start_sample: int
    end_sample: int
    def __init__(self, text: _Optional[str] = ..., start_sample: _Optional[int] = ..., end_sample: _Optional[int] = ...) -> None: ...

class EndOfUtterance(_message.Message):
    __slots__ = ("utterance_id",)
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    def __init__(self, utterance_id: _Optional[str] = ...) -> None: ...

class Interrupt(_message.Message):
    __slots__ = ("mode", "utterance_id")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[Interrupt.Mode]
        MODE_TRANSITION_TO_IDLE: _ClassVar[Interrupt.Mode]
        MODE_CUT: _ClassVar[Interrupt.Mode]
    MODE_UNSPECIFIED: Interrupt.Mode
    MODE_TRANSITION_TO_IDLE: Interrupt.Mode
    MODE_CUT: Interrupt.Mode
    MODE_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    mode: Interrupt.Mode
    utterance_id: str
    def __init__(self, mode: _Optional[_Union[Interrupt.Mode, str]] = ..., utterance_id: _Optional[str] = ...) -> None: ...

class SetState(_message.Message):
    __slots__ = ("state",)
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[SetState.State]
        STATE_IDLE: _ClassVar[SetState.State]
        STATE_LISTENING: _ClassVar[SetState.State]
        STATE_SPEAKING: _ClassVar[SetState.State]
    STATE_UNSPECIFIED: SetState.State
    STATE_IDLE: SetState.State
    STATE_LISTENING: SetState.State
    STATE_SPEAKING: SetState.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: SetState.State
    def __init__(self, state: _Optional[_Union[SetState.State, str]] = ...) -> None: ...

class Cue(_message.Message):
    __slots__ = ("name", "utterance_id", "at_sample", "soon", "within")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    AT_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    SOON_FIELD_NUMBER: _ClassVar[int]
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    name: str
    utterance_id: str
    at_sample: int
    soon: bool
    within: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., utterance_id: _Optional[str] = ..., at_sample: _Optional[int] = ..., soon: bool = ..., within: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class UtteranceStarted(_message.Message):
    __slots__ = ("utterance_id", "frame_index", "latency")
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    frame_index: int
    latency: _duration_pb2.Duration
    def __init__(self, utterance_id: _Optional[str] = ..., frame_index: _Optional[int] = ..., latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class UtteranceFinished(_message.Message):
    __slots__ = ("utterance_id", "frame_index", "played_samples", "played_frames", "interrupted")
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    PLAYED_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    PLAYED_FRAMES_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTED_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    frame_index: int
    played_samples: int
    played_frames: int
    interrupted: bool
    def __init__(self, utterance_id: _Optional[str] = ..., frame_index: _Optional[int] = ..., played_samples: _Optional[int] = ..., played_frames: _Optional[int] = ..., interrupted: bool = ...) -> None: ...

class Underrun(_message.Message):
    __slots__ = ("utterance_id", "frame_index", "n_frames")
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    N_FRAMES_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    frame_index: int
    n_frames: int
    def __init__(self, utterance_id: _Optional[str] = ..., frame_index: _Optional[int] = ..., n_frames: _Optional[int] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Stats(_message.Message):
    __slots__ = ("frames_sent", "frames_dropped", "underruns", "transitions_cached", "transitions_computed", "transitions_late", "queued_audio", "utterances_finished", "utterances_interrupted")
    FRAMES_SENT_FIELD_NUMBER: _ClassVar[int]
    FRAMES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    UNDERRUNS_FIELD_NUMBER: _ClassVar[int]
    TRANSITIONS_CACHED_FIELD_NUMBER: _ClassVar[int]
    TRANSITIONS_COMPUTED_FIELD_NUMBER: _ClassVar[int]
    TRANSITIONS_LATE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_AUDIO_FIELD_NUMBER: _ClassVar[int]
    UTTERANCES_FINISHED_FIELD_NUMBER: _ClassVar[int]
    UTTERANCES_INTERRUPTED_FIELD_NUMBER: _ClassVar[int]
    frames_sent: int
    frames_dropped: int
    underruns: int
    transitions_cached: int
    transitions_computed: int
    transitions_late: int
    queued_audio: _duration_pb2.Duration
    utterances_finished: int
    utterances_interrupted: int
    def __init__(self, frames_sent: _Optional[int] = ..., frames_dropped: _Optional[int] = ..., underruns: _Optional[int] = ..., transitions_cached: _Optional[int] = ..., transitions_computed: _Optional[int] = ..., transitions_late: _Optional[int] = ..., queued_audio: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., utterances_finished: _Optional[int] = ..., utterances_interrupted: _Optional[int] = ...) -> None: ...

class CuePlayed(_message.Message):
    __slots__ = ("name", "frame_index", "late_frames")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    LATE_FRAMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    frame_index: int
    late_frames: int
    def __init__(self, name: _Optional[str] = ..., frame_index: _Optional[int] = ..., late_frames: _Optional[int] = ...) -> None: ...

class CueRefused(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
