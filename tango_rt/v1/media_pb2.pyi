import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AudioEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIO_ENCODING_UNSPECIFIED: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_LINEAR_PCM_S16: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_FLOAT32: _ClassVar[AudioEncoding]

class VideoEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VIDEO_ENCODING_UNSPECIFIED: _ClassVar[VideoEncoding]
    VIDEO_ENCODING_H264: _ClassVar[VideoEncoding]
    VIDEO_ENCODING_JPEG: _ClassVar[VideoEncoding]
    VIDEO_ENCODING_RGB24: _ClassVar[VideoEncoding]
    VIDEO_ENCODING_I420: _ClassVar[VideoEncoding]
    VIDEO_ENCODING_REFERENCE: _ClassVar[VideoEncoding]

class Blender(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BLENDER_UNSPECIFIED: _ClassVar[Blender]
    BLENDER_FLOW: _ClassVar[Blender]
    BLENDER_CROSSFADE: _ClassVar[Blender]
    BLENDER_CUT: _ClassVar[Blender]

class FrameKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_KIND_UNSPECIFIED: _ClassVar[FrameKind]
    FRAME_KIND_RETRIEVED: _ClassVar[FrameKind]
    FRAME_KIND_TRANSITION: _ClassVar[FrameKind]
    FRAME_KIND_IDLE: _ClassVar[FrameKind]
AUDIO_ENCODING_UNSPECIFIED: AudioEncoding
AUDIO_ENCODING_LINEAR_PCM_S16: AudioEncoding
AUDIO_ENCODING_FLOAT32: AudioEncoding
VIDEO_ENCODING_UNSPECIFIED: VideoEncoding
VIDEO_ENCODING_H264: VideoEncoding
VIDEO_ENCODING_JPEG: VideoEncoding
VIDEO_ENCODING_RGB24: VideoEncoding
VIDEO_ENCODING_I420: VideoEncoding
VIDEO_ENCODING_REFERENCE: VideoEncoding
BLENDER_UNSPECIFIED: Blender
BLENDER_FLOW: Blender
BLENDER_CROSSFADE: Blender
BLENDER_CUT: Blender
FRAME_KIND_UNSPECIFIED: FrameKind
FRAME_KIND_RETRIEVED: FrameKind
FRAME_KIND_TRANSITION: FrameKind
FRAME_KIND_IDLE: FrameKind

class AudioFormat(_message.Message):
    __slots__ = ("encoding", "sample_rate_hertz")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HERTZ_FIELD_NUMBER: _ClassVar[int]
    encoding: AudioEncoding
    sample_rate_hertz: int
    def __init__(self, encoding: _Optional[_Union[AudioEncoding, str]] = ..., sample_rate_hertz: _Optional[int] = ...) -> None: ...

class FrameSource(_message.Message):
    __slots__ = ("node", "frame", "clip", "cut_to", "cut_from", "blender")
    NODE_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    CUT_TO_FIELD_NUMBER: _ClassVar[int]
    CUT_FROM_FIELD_NUMBER: _ClassVar[int]
    BLENDER_FIELD_NUMBER: _ClassVar[int]
    node: int
    frame: int
    clip: int
    cut_to: int
    cut_from: int
    blender: Blender
    def __init__(self, node: _Optional[int] = ..., frame: _Optional[int] = ..., clip: _Optional[int] = ..., cut_to: _Optional[int] = ..., cut_from: _Optional[int] = ..., blender: _Optional[_Union[Blender, str]] = ...) -> None: ...

class FrameTimings(_message.Message):
    __slots__ = ("hear", "search", "draw", "late", "latency")
    HEAR_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    DRAW_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    hear: _duration_pb2.Duration
    search: _duration_pb2.Duration
    draw: _duration_pb2.Duration
    late: _duration_pb2.Duration
    latency: _duration_pb2.Duration
    def __init__(self, hear: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., search: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., draw: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., late: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class VideoFrame(_message.Message):
    __slots__ = ("data", "encoding", "key_frame", "frame_index", "pts", "kind", "source", "utterance_id", "utterance_frame", "timings", "audio")
    DATA_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    KEY_FRAME_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    PTS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_FRAME_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    encoding: VideoEncoding
    key_frame: bool
    frame_index: int
    pts: int
    kind: FrameKind
    source: FrameSource
    utterance_id: str
    utterance_frame: int
    timings: FrameTimings
    audio: AudioSpan
    def __init__(self, data: _Optional[bytes] = ..., encoding: _Optional[_Union[VideoEncoding, str]] = ..., key_frame: bool = ..., frame_index: _Optional[int] = ..., pts: _Optional[int] = ..., kind: _Optional[_Union[FrameKind, str]] = ..., source: _Optional[_Union[FrameSource, _Mapping]] = ..., utterance_id: _Optional[str] = ..., utterance_frame: _Optional[int] = ..., timings: _Optional[_Union[FrameTimings, _Mapping]] = ..., audio: _Optional[_Union[AudioSpan, _Mapping]] = ...) -> None: ...

class AudioSpan(_message.Message):
    __slots__ = ("data", "pts", "utterance_sample")
    DATA_FIELD_NUMBER: _ClassVar[int]
    PTS_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    pts: int
    utterance_sample: int
    def __init__(self, data: _Optional[bytes] = ..., pts: _Optional[int] = ..., utterance_sample: _Optional[int] = ...) -> None: ...
