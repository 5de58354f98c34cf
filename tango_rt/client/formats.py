"""Checks whether a picture has the declared format, by its first bytes and its size, without decoding it."""

from tango_rt.v1 import media_pb2, session_pb2

__all__ = ["check_picture", "jpeg_size"]

_SPARE_BYTES = 1 << 16
_START_CODES = (b"\0\0\1", b"\0\0\0\1")
_SETS = (7, 8)  # types of H.264 NAL units
_MIN_BYTES = 5  # a start code and the type of the unit after it
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # of JPEG: those that hold the size


def check_picture(frame: media_pb2.VideoFrame, accepted: session_pb2.Accepted) -> str:
    """What is wrong with a frame; empty: nothing."""
    wanted = accepted.config.video_encoding
    encoding = frame.encoding or media_pb2.VIDEO_ENCODING_H264
    if encoding != wanted:
        return f"has encoding {encoding}, not {media_pb2.VideoEncoding.Name(wanted)}"
    data, n_pixels = frame.data, accepted.width * accepted.height
    if encoding == media_pb2.VIDEO_ENCODING_REFERENCE and not data:
        return ""
    if encoding == media_pb2.VIDEO_ENCODING_RGB24:
        return _of_size(data, 3 * n_pixels)
    if encoding == media_pb2.VIDEO_ENCODING_I420:
        return _of_size(data, n_pixels * 3 // 2)
    if len(data) > 4 * n_pixels + _SPARE_BYTES:
        return f"has {len(data)} bytes, more than its pixels"
    if encoding == media_pb2.VIDEO_ENCODING_JPEG:
        size = jpeg_size(data)
        fits = size == (accepted.width, accepted.height)
        return "" if fits else f"is not a JPEG of {accepted.width}x{accepted.height} px" + (f": {size}" if size else "")
    if len(data) < _MIN_BYTES or not data.startswith(_START_CODES):
        return f"is not H.264 in Annex B: {len(data)} bytes, {data[:_MIN_BYTES].hex(' ')}"
    return _check_sets(frame, accepted.h264_parameter_sets)


def _check_sets(frame: media_pb2.VideoFrame, sets: bytes) -> str:
    """A video file has one header, which applies to all pictures."""
    if frame.encoding != media_pb2.VIDEO_ENCODING_REFERENCE and frame.key_frame and not frame.data.startswith(sets):
        return "does not begin with the parameter sets of the acceptance"
    picture = frame.data.removeprefix(sets)[:_MIN_BYTES]
    kind = picture[3 + picture.startswith(_START_CODES[1]) :][:1]
    return "has its own parameter sets" if sets and kind and kind[0] & 0x1F in _SETS else ""


def _of_size(data: bytes, n_bytes: int) -> str:
    return "" if len(data) == n_bytes else f"has {len(data)} bytes, not {n_bytes}"


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from its header, which decide the cost of decoding; None: not a JPEG."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while data[at : at + 1] == b"\xff" and at + 9 <= len(data):
        kind = data[at + 1]
        if kind in _FRAME_HEADERS:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
