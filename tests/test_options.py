"""Options have one home: command lines, server, client and protocol say the same words."""

from typing import get_args, get_type_hints

from engine.blending.blender import BLENDERS
from tango_rt.client.options import SessionOptions, VideoCoding
from tango_rt.options import DEFAULT_LOOKAHEAD_NODES, ENCODINGS, MAX_LOOKAHEAD_NODES
from tango_rt.pipeline.live import LiveOptions
from tango_rt.server.config import ServerConfig
from tango_rt.v1 import media_pb2, session_pb2


def _names(enum: type, prefix: str) -> set[str]:
    """Of an enum of the protocol, as options write them; UNSPECIFIED is none."""
    names = {name.removeprefix(prefix).lower() for name in enum.keys()}  # noqa: SIM118  (no dict)
    return names - {"unspecified"}


def test_words_are_those_of_the_protocol() -> None:
    assert _names(media_pb2.Blender, "BLENDER_") == set(BLENDERS)
    assert _names(media_pb2.VideoEncoding, "VIDEO_ENCODING_") == set(ENCODINGS)
    assert _names(session_pb2.Pacing, "PACING_") == set(get_args(get_type_hints(SessionOptions)["pacing"]))
    modes = get_args(get_type_hints(SessionOptions)["lookahead"])[:1]
    assert _names(session_pb2.Lookahead, "LOOKAHEAD_") == set(get_args(modes[0]))
    late = _names(session_pb2.LatePolicy, "LATE_POLICY_")
    assert late == set(get_args(get_type_hints(SessionOptions)["late_policy"]))


def test_the_client_that_is_shipped_alone_says_the_same() -> None:
    assert get_args(VideoCoding) == ENCODINGS
    assert SessionOptions("anna").blender is None


def test_defaults_agree() -> None:
    assert LiveOptions().lookahead_nodes == DEFAULT_LOOKAHEAD_NODES <= MAX_LOOKAHEAD_NODES
    assert ServerConfig.__dataclass_fields__["lookahead_nodes"].default == DEFAULT_LOOKAHEAD_NODES
