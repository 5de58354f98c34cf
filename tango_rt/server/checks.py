"""The configuration of a session: checked, and every default filled in."""

from dataclasses import dataclass

from engine.blending.blender import BLENDERS
from engine.choices import RETRIEVALS, RetrievalName
from tango_rt.options import DEFAULT_RETRIEVAL, ENCODINGS, MAX_LOOKAHEAD_NODES, Encoding
from tango_rt.server.config import ServerConfig
from tango_rt.server.status import bad_field
from tango_rt.sound.resample import MAX_RATE_HZ, MIN_RATE_HZ
from tango_rt.v1 import media_pb2, session_pb2

__all__ = ["MAX_ID_CHARACTERS", "SessionPlan", "blender_value", "check_id", "plan_session"]

MAX_ID_CHARACTERS = 64
MIN_STATS_PERIOD_S = 0.1

_SAMPLE_BYTES = {media_pb2.AUDIO_ENCODING_LINEAR_PCM_S16: 2, media_pb2.AUDIO_ENCODING_FLOAT32: 4}
_VIDEO: "dict[media_pb2.VideoEncoding, Encoding]" = {
    media_pb2.VideoEncoding.Value(f"VIDEO_ENCODING_{name.upper()}"): name for name in ENCODINGS
}


@dataclass(frozen=True)
class SessionPlan:
    """What a session does: SessionConfig with every default filled in."""

    request_id: str
    character: str
    audio_encoding: "media_pb2.AudioEncoding"
    rate_hz: int
    video_encoding: "media_pb2.VideoEncoding"
    realtime: bool  # paced by the clock; otherwise as fast as the client reads
    idle: bool  # send frames without speech
    lookahead_nodes: int | None  # None: whole utterances
    adaptive: bool  # decide with all that has arrived
    blender: str  # empty: what drew the transitions of the character
    retrieval: RetrievalName
    seed: int
    audio_echo: bool
    timings: bool
    block: bool  # the clock waits for a slow client; otherwise frames are dropped
    stats_period_s: float | None  # None: no Stats

    @property
    def drawn_only(self) -> bool:
        """Whether it takes only cuts that are drawn already: paced, or hearing a part of the utterance at a time."""
        return self.realtime or self.lookahead_nodes is not None

    @property
    def sample_bytes(self) -> int:
        return _SAMPLE_BYTES[self.audio_encoding]

    @property
    def encoding(self) -> Encoding:
        return _VIDEO[self.video_encoding]

    def to_config(self) -> session_pb2.SessionConfig:
        """The effective configuration, for Accepted."""
        config = session_pb2.SessionConfig(
            request_id=self.request_id,
            character=self.character,
            audio=media_pb2.AudioFormat(encoding=self.audio_encoding, sample_rate_hertz=self.rate_hz),
            video_encoding=self.video_encoding,
            pacing=session_pb2.PACING_REALTIME if self.realtime else session_pb2.PACING_FAST,
            idle=self.idle,
            whole_utterance=self.lookahead_nodes is None,
            blender=blender_value(self.blender),
            retrieval=self.retrieval,
            seed=self.seed,
            audio_echo=self.audio_echo,
            timings=self.timings,
            late_policy=session_pb2.LATE_POLICY_BLOCK if self.block else session_pb2.LATE_POLICY_DROP,
            lookahead=session_pb2.LOOKAHEAD_ADAPTIVE if self.adaptive else session_pb2.LOOKAHEAD_FIXED,
        )
        if self.lookahead_nodes is not None:
            config.lookahead_nodes = self.lookahead_nodes
        if self.stats_period_s is not None:
            config.stats_period.FromNanoseconds(round(self.stats_period_s * 1e9))
        return config


def plan_session(config: session_pb2.SessionConfig, server: ServerConfig, clip: bool = False) -> SessionPlan:
    """Check a configuration and fill in its defaults. clip: for RenderClip, which is never paced. Raises Refusal."""
    check_id("request_id", config.request_id)
    if not config.character:
        raise bad_field("character", "no character given: wanted an id from ListCharacters")
    realtime = _realtime(config, clip)
    idle = config.idle if config.HasField("idle") else realtime
    if idle and not realtime:
        raise bad_field("idle", "idle frames never end: they need PACING_REALTIME")
    return SessionPlan(
        request_id=config.request_id,
        character=config.character,
        audio_encoding=_audio_encoding(config.audio.encoding),
        rate_hz=_rate(config.audio.sample_rate_hertz),
        video_encoding=_video_encoding(config.video_encoding),
        realtime=realtime,
        idle=idle,
        lookahead_nodes=_lookahead(config, server.lookahead_nodes, clip),
        adaptive=_adaptive(config, realtime),
        blender=_blender(config.blender),
        retrieval=_retrieval(config.retrieval),
        seed=config.seed,
        audio_echo=config.audio_echo,
        timings=config.timings,
        block=_blocks(config.late_policy),
        stats_period_s=_stats_period(config),
    )


def check_id(field: str, text: str) -> None:
    """Raises Refusal for an id that is too long or would corrupt a log."""
    if len(text) > MAX_ID_CHARACTERS or not text.isprintable():
        raise bad_field(field, f"{field} must be at most {MAX_ID_CHARACTERS} printable characters, found {len(text)}")


def _realtime(config: session_pb2.SessionConfig, clip: bool) -> bool:
    known = (session_pb2.PACING_UNSPECIFIED, session_pb2.PACING_REALTIME, session_pb2.PACING_FAST)
    if config.pacing not in known:
        raise bad_field("pacing", f"pacing {config.pacing} is unknown: wanted PACING_REALTIME or PACING_FAST")
    if clip and config.pacing == session_pb2.PACING_REALTIME:
        raise bad_field("pacing", "a clip is rendered as fast as it is read: leave pacing out, or use StreamGestures")
    return not clip and config.pacing != session_pb2.PACING_FAST


def _audio_encoding(encoding: "media_pb2.AudioEncoding") -> "media_pb2.AudioEncoding":
    chosen = encoding or media_pb2.AUDIO_ENCODING_LINEAR_PCM_S16
    if chosen not in _SAMPLE_BYTES:
        wanted = "wanted AUDIO_ENCODING_LINEAR_PCM_S16 or AUDIO_ENCODING_FLOAT32"
        raise bad_field("audio.encoding", f"audio encoding {encoding} is unknown: {wanted}", "BAD_ENCODING")
    return chosen


def _rate(rate_hz: int) -> int:
    chosen = rate_hz or 16_000
    if not MIN_RATE_HZ <= chosen <= MAX_RATE_HZ:
        message = f"a sample rate of {rate_hz} Hz: wanted {MIN_RATE_HZ} to {MAX_RATE_HZ}"
        raise bad_field("audio.sample_rate_hertz", message, "BAD_SAMPLE_RATE")
    return chosen


def _video_encoding(encoding: "media_pb2.VideoEncoding") -> "media_pb2.VideoEncoding":
    chosen = encoding or media_pb2.VIDEO_ENCODING_H264
    if chosen not in _VIDEO:
        known = ", ".join(_VIDEO.values())
        raise bad_field(
            "video_encoding", f"video encoding {encoding} is unknown: wanted one of {known}", "BAD_ENCODING"
        )
    return chosen


def _lookahead(config: session_pb2.SessionConfig, default: int, clip: bool) -> int | None:
    given = config.HasField("lookahead_nodes")
    if config.whole_utterance and given:
        raise bad_field("lookahead_nodes", "whole_utterance and lookahead_nodes exclude each other: give one of them")
    if config.whole_utterance or (clip and not given):
        return None
    nodes = config.lookahead_nodes if given else default
    if not 0 <= nodes <= MAX_LOOKAHEAD_NODES:
        raise bad_field("lookahead_nodes", f"a look-ahead of {nodes} nodes: wanted 0 to {MAX_LOOKAHEAD_NODES}")
    return nodes


def _adaptive(config: session_pb2.SessionConfig, realtime: bool) -> bool:
    asked = config.lookahead
    if asked not in (session_pb2.LOOKAHEAD_UNSPECIFIED, session_pb2.LOOKAHEAD_FIXED, session_pb2.LOOKAHEAD_ADAPTIVE):
        raise bad_field("lookahead", f"look-ahead {asked} is unknown: wanted LOOKAHEAD_FIXED or LOOKAHEAD_ADAPTIVE")
    if asked == session_pb2.LOOKAHEAD_ADAPTIVE and not realtime:
        raise bad_field("lookahead", "only PACING_REALTIME can be LOOKAHEAD_ADAPTIVE: other results must be repeatable")
    if asked == session_pb2.LOOKAHEAD_ADAPTIVE and config.whole_utterance:
        raise bad_field("lookahead", "whole_utterance and LOOKAHEAD_ADAPTIVE exclude each other: give one of them")
    return realtime and not config.whole_utterance and asked != session_pb2.LOOKAHEAD_FIXED


def blender_value(name: str) -> "media_pb2.Blender":
    """The protocol's value for a blender in BLENDERS, or empty. Raises ValueError if it has none."""
    if not name:
        return media_pb2.BLENDER_UNSPECIFIED
    return media_pb2.Blender.Value(f"BLENDER_{name.upper()}")


def _blender(blender: "media_pb2.Blender") -> str:
    if blender == media_pb2.BLENDER_UNSPECIFIED:
        return ""
    for name in BLENDERS:
        if blender_value(name) == blender:
            return name
    raise bad_field("blender", f"blender {blender} is unknown: wanted one of {', '.join(BLENDERS)}")


def _retrieval(name: str) -> RetrievalName:
    for known in RETRIEVALS:
        if known == (name or DEFAULT_RETRIEVAL):
            return known
    found = name[:MAX_ID_CHARACTERS]
    raise bad_field("retrieval", f"retrieval {found!r} is unknown: wanted one of {', '.join(RETRIEVALS)}")


def _blocks(policy: int) -> bool:
    if policy not in (0, session_pb2.LATE_POLICY_DROP, session_pb2.LATE_POLICY_BLOCK):
        wanted = "wanted LATE_POLICY_DROP or LATE_POLICY_BLOCK"
        raise bad_field("late_policy", f"late policy {policy} is unknown: {wanted}")
    return policy == session_pb2.LATE_POLICY_BLOCK


def _stats_period(config: session_pb2.SessionConfig) -> float | None:
    if not config.HasField("stats_period"):
        return None
    period = config.stats_period
    # summed by hand: with the nanos of an untrusted client it may not be a valid Duration
    seconds = period.seconds + period.nanos / 1e9
    if not MIN_STATS_PERIOD_S <= seconds <= 1e6 or not 0 <= period.nanos < 1e9:
        raise bad_field("stats_period", f"a stats period of {seconds:g} s: wanted {MIN_STATS_PERIOD_S:g} s or more")
    return seconds
