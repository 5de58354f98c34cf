"""Media files as the application meets them: opened safely, decoded past damage, timed in exact fractions."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.frame import Frame
from av.stream import Disposition, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from engine.errors import InputError

__all__ = [
    "MAX_HOURS",
    "MAX_JUMP_S",
    "PacketDecoder",
    "first_picture_s",
    "open_media",
    "stamp_s",
    "video_stream",
]

MAX_HOURS = 4
"""Longest video, and longest audio held in memory at once."""

MAX_JUMP_S = 10
"""A stream's clock may stand still for so long; beyond that its clock is taken to be broken, and bridged."""

_MAX_READ_ERRORS = 100

# What FFmpeg opens as video although it is none: texts as terminal recordings, and lists of other files.
_NOT_MEDIA = {"tty", "hls", "concat", "concatf", "bin", "xbin", "adf", "idf"}


def open_media(path: Path) -> InputContainer:
    """Open a local file for reading; InputError where there is none or it is no media."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder, wanted a video or audio file")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        # The prefix keeps a name like "http:x" from being an address, the list keeps the content local.
        container = av.open(f"file:{path}", container_options={"protocol_whitelist": "file"}, metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path}: cannot be read as video or audio ({error.strerror})") from error
    if _NOT_MEDIA & set(container.format.name.split(",")):
        container.close()
        raise InputError(f"{path}: is not a video or audio file")
    return container


def video_stream(container: InputContainer) -> VideoStream | None:
    """The first video track that is not the cover picture of an audio file."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    return None


def stamp_s(frame: Frame) -> Fraction | None:
    """Presentation time of a frame by the container's clock."""
    return None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base


def first_picture_s(path: Path) -> Fraction | None:
    """Time of the first picture that decodes; None without video."""
    with open_media(path) as container:
        stream = video_stream(container)
        first = None if stream is None else next(iter(PacketDecoder(container, stream)), None)
    return None if first is None else stamp_s(first)


class PacketDecoder:
    """Decoded frames of one stream; what does not decode is skipped and counted, never fatal.

    decoder: in the place of the one that FFmpeg prefers.
    """

    def __init__(self, container: InputContainer, stream: Stream, decoder: VideoCodecContext | None = None) -> None:
        self.skipped = 0
        self._container = container
        self._stream = stream
        self._decoder = decoder

    def __iter__(self) -> Iterator[Any]:
        for packet in self._packets():
            try:
                frames = packet.decode() if self._decoder is None else self._decoder.decode(packet)
            except av.FFmpegError:
                self.skipped += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.skipped += 1
                else:
                    yield frame

    def _packets(self) -> Iterator[Any]:
        """Packets to the end of the file, past places that cannot be read."""
        for _ in range(_MAX_READ_ERRORS):
            try:
                yield from self._container.demux(self._stream)
                return
            except av.FFmpegError:
                self.skipped += 1
