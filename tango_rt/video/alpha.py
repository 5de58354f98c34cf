"""Transparency of VP8 and VP9 in WebM: a second stream next to the pictures, which only libvpx reads."""

import av
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

__all__ = ["alpha_decoder", "has_alpha_track"]

_LIBVPX = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def has_alpha_track(stream: VideoStream) -> bool:
    """Whether the container says that the pictures of a VP8 or VP9 stream are transparent."""
    says = {key.lower(): value for key, value in stream.metadata.items()}  # in capitals when written as a tag
    return says.get("alpha_mode") == "1" and stream.codec_context.name in _LIBVPX


def alpha_decoder(stream: VideoStream) -> VideoCodecContext | None:
    """A decoder for such a stream; None for all others, and if FFmpeg was built without libvpx."""
    if not has_alpha_track(stream):
        return None
    name = _LIBVPX[stream.codec_context.name]
    decoder = CodecContext.create(name, "r") if name in av.codecs_available else None
    return decoder if isinstance(decoder, VideoCodecContext) else None
