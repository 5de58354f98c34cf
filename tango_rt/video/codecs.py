"""From the encoded pictures of a step to the encoding that a client asked for."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

import cv2
import numpy as np

from engine.blending.blender import CUT
from engine.character.info import PackInfo
from engine.timebase import FRAMES_PER_NODE
from tango_rt.options import Encoding
from tango_rt.video.gop import GopDecoder
from tango_rt.video.shared_pictures import Pictures, SharedPictures

__all__ = ["DECODED", "Decoded", "FrameCoder", "StepPictures", "decode_pictures", "is_decoded"]

Decoded = Literal["jpeg", "rgb24", "i420"]

DECODED: tuple[Decoded, ...] = ("jpeg", "rgb24", "i420")
"""Encodings whose pictures are made from decoded ones, each time they are shown; all others are copied."""

JPEG_QUALITY = 90


@dataclass(frozen=True)
class StepPictures:
    """The encoded pictures of a step, and how they were made."""

    packets: tuple[bytes, ...]  # 4 pictures, the first an IDR picture, without parameter sets
    blender: str | None = None  # None if not a transition
    late: bool = False  # by a cheaper blender than requested, or only in part
    computed: bool = False  # not found in the cache; set for first halves
    changed: bool = False  # by a stage

    @property
    def generated(self) -> bool:
        """Whether the pictures belong to a transition."""
        return self.blender not in (None, CUT)


class FrameCoder:
    """Writes the pictures of one stream in one encoding; one caller at a time.

    h264: as stored, with the parameter sets before each key frame. jpeg: JFIF, full-range BT.601. rgb24: rows from the
    top. i420: planes Y, U, V as decoded, limited-range BT.709. reference: empty if the pack has the picture, h264 if it
    was generated or changed. A step of 1280x720 takes 0, 29, 20, 8, 0 ms.
    """

    def __init__(self, encoding: Encoding, info: PackInfo, shared: SharedPictures | None = None) -> None:
        """shared: with other streams; pictures made for one of them are not made again."""
        self.encoding = encoding
        self._shared = shared
        self._parameter_sets = info.extradata
        self._decoder: GopDecoder | None = None
        self._origin = hashlib.blake2b(f"{encoding} {info.width} {info.height} ".encode() + info.extradata)
        if is_decoded(encoding):
            self._decoder = GopDecoder(info.extradata, info.width, info.height, f"the video of {info.name!r}")

    def encode(self, drawn: StepPictures, n_frames: int = FRAMES_PER_NODE) -> Sequence[bytes]:
        """The first n_frames pictures of a step, one key frame ahead. Raises ArtifactError for damaged pictures."""
        packets, encoding, decoder = drawn.packets[:n_frames], self.encoding, self._decoder
        if decoder is None or not is_decoded(encoding):
            if self.encoding == "reference" and not (drawn.generated or drawn.changed):
                return [b""] * len(packets)
            return [self._parameter_sets + packets[0], *packets[1:]] if packets else []
        if self._shared is None:
            return decode_pictures(decoder, encoding, packets)
        return self._shared.get(self._key(packets), lambda: decode_pictures(decoder, encoding, packets))

    def _key(self, packets: Sequence[bytes]) -> bytes:
        """Hash of the encoded pictures: equal ones look the same, whatever pack or transition they come from."""
        digest = self._origin.copy()
        for packet in packets:
            digest.update(len(packet).to_bytes(8))
            digest.update(packet)
        return digest.digest()


def is_decoded(encoding: Encoding) -> TypeGuard[Decoded]:
    """Whether this encoding needs decoded pictures."""
    return encoding in DECODED


def decode_pictures(decoder: GopDecoder, encoding: Decoded, packets: Sequence[bytes]) -> Pictures:
    """One picture for each packet; packets start at a GOP. Raises ArtifactError for damaged packets."""
    if encoding == "i420":
        return tuple(frame.tobytes() for frame in decoder.decode_i420(packets))
    frames = decoder.decode(packets)
    return tuple(frame.tobytes() for frame in frames) if encoding == "rgb24" else _jpegs(frames)


def _jpegs(frames: Sequence[np.ndarray] | np.ndarray) -> Pictures:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    pictures = (cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in frames)
    return tuple(cv2.imencode(".jpg", picture, quality)[1].tobytes() for picture in pictures)
