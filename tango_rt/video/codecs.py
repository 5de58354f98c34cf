"""From the encoded pictures of a step to what a client asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from engine.pack_info import PackInfo
from engine.timebase import FRAMES_PER_NODE
from tango_rt.video.gop import GopDecoder

__all__ = ["Drawn", "Encoding", "FrameCoder"]

Encoding = Literal["h264", "jpeg", "rgb24", "i420", "reference"]

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Drawn:
    """packets: 4 encoded pictures, the first an IDR picture, without parameter sets. blender: None if no transition.

    late: by a cheaper blender than asked for, or in part. computed: not found in the cache; for first halves.
    """

    packets: tuple[bytes, ...]
    blender: Literal["flow", "crossfade", "cut"] | None = None
    late: bool = False
    computed: bool = False

    @property
    def generated(self) -> bool:
        """Whether the pictures are not those of the node."""
        return self.blender in ("flow", "crossfade")


class FrameCoder:
    """Writes the pictures of one stream in one encoding; one caller at a time.

    h264: as stored, the parameter sets before each key frame. jpeg: JFIF, BT.601 in full range. rgb24: rows from the
    top. i420: planes Y, U, V as decoded, BT.709 in limited range. reference: nothing where the pack has the picture,
    h264 where it was generated. A step of 1280x720 takes 0, 29, 20, 8, 0 ms.
    """

    def __init__(self, encoding: Encoding, info: PackInfo) -> None:
        self.encoding = encoding
        self._parameter_sets = info.extradata
        self._decoder: GopDecoder | None = None
        if encoding not in ("h264", "reference"):
            self._decoder = GopDecoder(info.extradata, info.width, info.height, f"the video of {info.name!r}")

    def encode(self, drawn: Drawn, n_frames: int = FRAMES_PER_NODE) -> list[bytes]:
        """The first n_frames pictures of a step, one key frame ahead. Raises ArtifactError for damaged pictures."""
        packets = drawn.packets[:n_frames]
        if self._decoder is None:
            if self.encoding == "reference" and not drawn.generated:
                return [b""] * len(packets)
            return [self._parameter_sets + packets[0], *packets[1:]] if packets else []
        if self.encoding == "i420":
            return [frame.tobytes() for frame in self._decoder.decode_i420(packets)]
        frames = self._decoder.decode(packets)
        return [frame.tobytes() for frame in frames] if self.encoding == "rgb24" else _jpegs(frames)


def _jpegs(frames: Sequence[np.ndarray] | np.ndarray) -> list[bytes]:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    pictures = (cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in frames)
    return [cv2.imencode(".jpg", picture, quality)[1].tobytes() for picture in pictures]
