"""Frames of any wire format as H.264 pictures for an mp4: passed through, encoded here, or copied from the pack.

The session has already checked the encoding, size and first bytes of each (formats.py).
"""

from collections.abc import Iterator
from typing import Protocol

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from engine.character.pack import CharacterPack
from engine.errors import BackendError, InputError
from engine.timebase import FRAMES_PER_NODE
from tango_rt.client.playable import Playable
from tango_rt.v1 import media_pb2, session_pb2
from tango_rt.video.gop import GopEncoder

__all__ = ["Pictures", "open_pictures"]

_TO_RGB = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT

Numbered = tuple[int, bytes]


class Pictures(Protocol):
    """Takes frames in order; yields each as (frame_index, picture), maybe later: Annex B without parameter sets."""

    @property
    def parameter_sets(self) -> bytes: ...

    def add(self, frame: media_pb2.VideoFrame) -> Iterator[Numbered]: ...

    def flush(self) -> Iterator[Numbered]: ...


def open_pictures(accepted: session_pb2.Accepted, pack: CharacterPack | None) -> Pictures:
    """pack: that of the character, needed for references. Raises InputError if it is not the server's."""
    encoding = accepted.config.video_encoding
    if encoding == media_pb2.VIDEO_ENCODING_H264:
        return _PassedThrough(accepted.h264_parameter_sets, accepted.width, accepted.height)
    if encoding == media_pb2.VIDEO_ENCODING_REFERENCE:
        if pack is None:
            raise InputError("references point to pictures of a pack: name the pack (--pack)")
        if pack.info.extradata != accepted.h264_parameter_sets:
            raise InputError(f"{pack.path} is not the pack that the server uses for {accepted.config.character!a}")
        return _Referenced(pack)
    return _Encoded(accepted.width, accepted.height)


class _PassedThrough:
    def __init__(self, parameter_sets: bytes, width: int, height: int) -> None:
        self.parameter_sets = parameter_sets
        self._playable = Playable(parameter_sets, width, height)

    def add(self, frame: media_pb2.VideoFrame) -> Iterator[Numbered]:
        picture = frame.data.removeprefix(self.parameter_sets)
        yield frame.frame_index, self._playable.checked(frame.frame_index, picture)

    def flush(self) -> Iterator[Numbered]:
        yield from ()


class _Referenced:
    def __init__(self, pack: CharacterPack) -> None:
        self.parameter_sets = pack.info.extradata
        self._pack = pack
        self._playable = Playable(pack.info.extradata, pack.info.width, pack.info.height)

    def add(self, frame: media_pb2.VideoFrame) -> Iterator[Numbered]:
        picture = frame.data.removeprefix(self.parameter_sets) if frame.data else self._of_pack(frame.source)
        yield frame.frame_index, self._playable.checked(frame.frame_index, picture)

    def _of_pack(self, source: media_pb2.FrameSource) -> bytes:
        if not 0 <= source.node < self._pack.info.n_nodes:
            raise InputError(f"{self._pack.path} has no node {source.node}: it is not the server's pack")
        return self._pack.packets(source.node)[source.frame % FRAMES_PER_NODE]

    def flush(self) -> Iterator[Numbered]:
        yield from ()


class _Encoded:
    """Independent pictures, encoded in groups of 4; a gap of dropped frames ends a group."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (height, width)
        self._encoder = GopEncoder(width, height)
        self.parameter_sets = self._encoder.extradata
        self._waiting: list[tuple[int, np.ndarray]] = []

    def add(self, frame: media_pb2.VideoFrame) -> Iterator[Numbered]:
        if self._waiting and frame.frame_index != self._waiting[-1][0] + 1:
            yield from self.flush()
        self._waiting.append((frame.frame_index, _decoded(frame, *self._size)))
        if len(self._waiting) == FRAMES_PER_NODE:
            yield from self.flush()

    def flush(self) -> Iterator[Numbered]:
        if self._waiting:
            indices = [index for index, _ in self._waiting]
            frames = [picture for _, picture in self._waiting]
            frames += frames[-1:] * (FRAMES_PER_NODE - len(frames))
            self._waiting = []
            # no picture depends on a later one, so those that only fill up the group can be left out
            yield from zip(indices, self._encoder.encode(np.stack(frames)), strict=False)


def _decoded(frame: media_pb2.VideoFrame, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3) RGB."""
    if frame.encoding == media_pb2.VIDEO_ENCODING_RGB24:
        return np.frombuffer(frame.data, np.uint8).reshape(height, width, 3)
    if frame.encoding == media_pb2.VIDEO_ENCODING_I420:
        return _from_i420(np.frombuffer(frame.data, np.uint8).reshape(height * 3 // 2, width))
    # the session has checked the size in its header, which bounds the cost of decoding
    picture = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None or picture.shape != (height, width, 3):
        raise BackendError(
            f"frame {frame.frame_index} from the server, {len(frame.data)} bytes, is not a decodable JPEG"
        )
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def _from_i420(planes: np.ndarray) -> np.ndarray:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="yuv420p")
    return picture.reformat(
        format="rgb24",
        src_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_TO_RGB,
    ).to_ndarray()
