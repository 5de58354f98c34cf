import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from tango_rt.v1 import media_pb2 as _media_pb2
from tango_rt.v1 import session_pb2 as _session_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RenderClipRequest(_message.Message):
    __slots__ = ("config", "audio")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    config: _session_pb2.SessionConfig
    audio: bytes
    def __init__(self, config: _Optional[_Union[_session_pb2.SessionConfig, _Mapping]] = ..., audio: _Optional[bytes] = ...) -> None: ...

class RenderClipResponse(_message.Message):
    __slots__ = ("accepted", "frame", "finished")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    accepted: _session_pb2.Accepted
    frame: _media_pb2.VideoFrame
    finished: _session_pb2.UtteranceFinished
    def __init__(self, accepted: _Optional[_Union[_session_pb2.Accepted, _Mapping]] = ..., frame: _Optional[_Union[_media_pb2.VideoFrame, _Mapping]] = ..., finished: _Optional[_Union[_session_pb2.UtteranceFinished, _Mapping]] = ...) -> None: ...

class Character(_message.Message):
    __slots__ = ("id", "name", "width", "height", "n_frames", "n_nodes", "n_nodes_kept", "n_clips", "retrievals", "sha256", "size_bytes", "cues")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    N_FRAMES_FIELD_NUMBER: _ClassVar[int]
    N_NODES_FIELD_NUMBER: _ClassVar[int]
    N_NODES_KEPT_FIELD_NUMBER: _ClassVar[int]
    N_CLIPS_FIELD_NUMBER: _ClassVar[int]
    RETRIEVALS_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CUES_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    width: int
    height: int
    n_frames: int
    n_nodes: int
    n_nodes_kept: int
    n_clips: int
    retrievals: _containers.RepeatedScalarFieldContainer[str]
    sha256: str
    size_bytes: int
    cues: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., n_frames: _Optional[int] = ..., n_nodes: _Optional[int] = ..., n_nodes_kept: _Optional[int] = ..., n_clips: _Optional[int] = ..., retrievals: _Optional[_Iterable[str]] = ..., sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., cues: _Optional[_Iterable[str]] = ...) -> None: ...

class ListCharactersRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCharactersResponse(_message.Message):
    __slots__ = ("characters", "next_page_token")
    CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    characters: _containers.RepeatedCompositeFieldContainer[Character]
    next_page_token: str
    def __init__(self, characters: _Optional[_Iterable[_Union[Character, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetCharacterRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "backends", "bundles", "max_sessions", "active_sessions", "default_lookahead_nodes", "max_message_bytes", "max_chunk", "max_session", "idle_timeout", "max_queued_audio", "video_encodings", "machine")
    class Bundle(_message.Message):
        __slots__ = ("name", "sha256", "backend", "precision", "profile", "engine_key", "report_sha256")
        NAME_FIELD_NUMBER: _ClassVar[int]
        SHA256_FIELD_NUMBER: _ClassVar[int]
        BACKEND_FIELD_NUMBER: _ClassVar[int]
        PRECISION_FIELD_NUMBER: _ClassVar[int]
        PROFILE_FIELD_NUMBER: _ClassVar[int]
        ENGINE_KEY_FIELD_NUMBER: _ClassVar[int]
        REPORT_SHA256_FIELD_NUMBER: _ClassVar[int]
        name: str
        sha256: str
        backend: str
        precision: str
        profile: str
        engine_key: str
        report_sha256: str
        def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., backend: _Optional[str] = ..., precision: _Optional[str] = ..., profile: _Optional[str] = ..., engine_key: _Optional[str] = ..., report_sha256: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_LOOKAHEAD_NODES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSION_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_AUDIO_FIELD_NUMBER: _ClassVar[int]
    VIDEO_ENCODINGS_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    version: str
    backends: _containers.RepeatedScalarFieldContainer[str]
    bundles: _containers.RepeatedCompositeFieldContainer[ServerInfo.Bundle]
    max_sessions: int
    active_sessions: int
    default_lookahead_nodes: int
    max_message_bytes: int
    max_chunk: _duration_pb2.Duration
    max_session: _duration_pb2.Duration
    idle_timeout: _duration_pb2.Duration
    max_queued_audio: _duration_pb2.Duration
    video_encodings: _containers.RepeatedScalarFieldContainer[_media_pb2.VideoEncoding]
    machine: str
    def __init__(self, version: _Optional[str] = ..., backends: _Optional[_Iterable[str]] = ..., bundles: _Optional[_Iterable[_Union[ServerInfo.Bundle, _Mapping]]] = ..., max_sessions: _Optional[int] = ..., active_sessions: _Optional[int] = ..., default_lookahead_nodes: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_chunk: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_session: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_queued_audio: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., video_encodings: _Optional[_Iterable[_Union[_media_pb2.VideoEncoding, str]]] = ..., machine: _Optional[str] = ...) -> None: ...
