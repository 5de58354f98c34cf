"""Media files: opened safely, read past damage, timed in exact fractions."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.frame import Frame
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from engine.errors import InputError
from tango_rt.media.joined import find_appended, find_end
from tango_rt.media.pipes import is_pipe

__all__ = [
    "MAX_HOURS",
    "MAX_JUMP_S",
    "Packets",
    "audio_stream",
    "open_media",
    "stamp_s",
    "video_stream",
]

MAX_HOURS = 4
"""Limit for videos, and for audio held in memory."""

MAX_JUMP_S = 10
"""A longer gap is taken for a broken clock, and closed."""

_MAX_READ_ERRORS = 100

# Accepted formats, by FFmpeg's names: those that contain sound or pictures themselves. It knows 250 more, including
# lists of other files and addresses (playlists, ffconcat, SDP, numbered pictures), and texts that it renders as video.
_FORMATS = (
    "mov,matroska,webm,avi,flv,live_flv,asf,asf_o,mpegts,mpeg,mpegvideo,mxf,gxf,nut,ogg,rm,wtv,dv,ivf,pva,"
    "h261,h263,h264,hevc,vvc,m4v,vc1,av1,obu,dirac,cavsvideo,avs2,mjpeg,yuv4mpegpipe,gif,apng,"
    "wav,w64,aiff,au,caf,voc,ircam,nistsphere,iff,sox,dsf,flac,mp3,aac,ac3,eac3,ac4,dts,dtshd,truehd,mlp,loas,"
    "amr,amrnb,amrwb,gsm,g722,ape,tta,wv,tak,mpc,mpc8,qoa,spdif,qcp"
)

# A title that is not UTF-8 is no reason to refuse a file; PyAV 19 accepts it without this option.
_ANY_TITLE: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}

# Tracks that the container marks as something other than the talk itself.
_ASIDE = (
    Disposition.comment
    | Disposition.lyrics
    | Disposition.karaoke
    | Disposition.hearing_impaired
    | Disposition.visual_impaired
    | Disposition.clean_effects
    | Disposition.descriptions
)

S = TypeVar("S", bound=Stream)


def open_media(path: Path, start: int = 0) -> InputContainer:
    """Open a local file, or the one that begins at byte `start`. InputError if it is missing or not media."""
    if is_pipe(path):
        raise InputError(f"{path}: is a pipe or a device and can be read only once: save it to a file first")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, wanted a video or audio file")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    # The prefix keeps a name like "http:x" from being a URL. The lists keep the content local: FFmpeg looks into
    # the file for its format, and gives up before it opens anything that the file refers to.
    url, protocols = f"file:{path}", "file"
    try:
        if (end := find_end(path, start)) is not None or start:
            url, protocols = f"subfile,,start,{start},end,{end or 0},,:file:{path}", "file,subfile"
        lists = {"format_whitelist": _FORMATS, "protocol_whitelist": protocols}
        return av.open(url, container_options=lists, **_ANY_TITLE)
    except av.ArgumentError as error:  # FFmpeg's answer to a format that is not on the list
        raise InputError(f"{path}: is not a video or audio file of a supported format") from error
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path}: cannot be read as video or audio ({error.strerror})") from error


def video_stream(container: InputContainer) -> VideoStream | None:
    """The container's default video track, else the first; never the cover of an audio file."""
    return _chosen(container.streams.video)


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The container's default audio track, else the first; comments and descriptions only if there is nothing else."""
    return _chosen(container.streams.audio)


def _chosen(tracks: Iterable[S]) -> S | None:
    usable = [t for t in tracks if t.codec_context is not None and not t.disposition & Disposition.attached_pic]
    return min(usable, key=_rank, default=None)


def _rank(track: Stream) -> tuple[bool, bool]:
    return bool(track.disposition & _ASIDE), not track.disposition & Disposition.default


def stamp_s(frame: Frame) -> Fraction | None:
    """Presentation time of a frame by the container's clock, in seconds."""
    return None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base


class Packets:
    """Packets of the selected tracks of a file to its end: past unreadable places, and on into files that were
    appended to it (`cat a.webm b.webm > c.webm`)."""

    def __init__(self, path: Path, container: InputContainer, kinds: Collection[str]) -> None:
        """kinds: "audio", "video" or both. The container stays the caller's."""
        self.skipped = 0
        self.n_files = 1
        """Files begun so far; each link of an Ogg chain counts as a file."""
        self.cut_off = False
        """Whether another file was appended that cannot be read."""
        self.position = 0
        """Byte offset of the latest packet, if the format tells."""
        self._path = path
        self._first = container
        self._kinds = kinds
        self._end = 0  # of the latest packet, in bytes

    def __iter__(self) -> Iterator[Any]:
        yield from self._of(self._first, 0)
        while (start := find_appended(self._path, self._first.format.name, self._end)) is not None:
            with ExitStack() as stack:
                try:
                    container = stack.enter_context(open_media(self._path, start))
                except InputError:
                    self.cut_off = True
                    return
                self.n_files += 1
                yield from self._of(container, start)

    def _of(self, container: InputContainer, start: int) -> Iterator[Any]:
        """The packets of the file that begins at byte `start`."""
        self._end = start + 1
        tracks = [track for track in (audio_stream(container), video_stream(container)) if track]
        for packet in self._readable(container, tracks):
            if packet.pos is not None:
                self.position = start + packet.pos
                self._end = max(self._end, self.position + packet.size)
            if packet.stream.type in self._kinds:
                yield packet

    def _readable(self, container: InputContainer, tracks: list[Any]) -> Iterator[Any]:
        if not tracks:
            return
        for _ in range(_MAX_READ_ERRORS):
            try:
                yield from container.demux(*tracks)
                return
            except av.FFmpegError:
                self.skipped += 1
