"""The content of pack.json, and checks of its types and values: it is untrusted."""

import base64
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from engine.names import MAX_NAME_BYTES, shown
from engine.records import MAX_TEXT, as_object, as_record, check_printable, is_sha256
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["SCHEMA", "Clip", "OtherSchema", "PackInfo", "Source", "legible"]

SCHEMA = 3
MAX_FRAMES = 4 * 3600 * FPS
MAX_SOURCE_FRAMES = 1 << 30
MAX_SIDE_PX = 8192
MAX_NAME = 6 * MAX_NAME_BYTES  # characters, every byte escaped: a page of 1000 names must fit into one message
MAX_EXTRADATA_BYTES = 1 << 16  # sent before every key frame; our encoder's has 40 bytes
_START_CODE = b"\x00\x00\x01"

T = TypeVar("T")


class OtherSchema(ValueError):
    """The pack has another schema version."""


@dataclass(frozen=True)
class Source:
    """A video that went into the pack."""

    name: str
    sha256: str
    n_frames: int


@dataclass(frozen=True)
class Clip:
    """Frames of one source between two shot changes, cut to whole nodes."""

    source: int
    first_frame: int
    n_frames: int


@dataclass(frozen=True)
class PackInfo:
    """Content of pack.json."""

    name: str
    width: int
    height: int
    n_frames: int
    shoulder_px: float
    sources: tuple[Source, ...]
    clips: tuple[Clip, ...]
    extradata: bytes = b""
    words: str = ""  # word timings of the first source, the JSON text as given
    report: dict[str, Any] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)  # by array name; node_sha256 covers the pictures
    schema: int = SCHEMA

    @property
    def n_nodes(self) -> int:
        return self.n_frames // FRAMES_PER_NODE

    def to_json(self) -> str:
        fields = asdict(self)
        fields["extradata"] = base64.b64encode(self.extradata).decode("ascii")
        return json.dumps(fields, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "PackInfo":
        """Raises ValueError for anything that is not a valid pack.json, OtherSchema for another version."""
        fields = as_object(text, "pack.json")
        if (schema := fields.get("schema")) != SCHEMA:
            raise OtherSchema(schema if isinstance(schema, int) else "that is not a number")
        words = fields.pop("words", "")
        extradata = base64.b64decode(_typed(fields, "extradata", str), validate=True)
        check_printable(fields | {"extradata": ""})
        fields["extradata"] = extradata
        for name, record in (("sources", Source), ("clips", Clip)):
            fields[name] = tuple(as_record(record, one) for one in _typed(fields, name, list))
        info = as_record(cls, {**fields, "words": words})
        info._check()
        return info

    def _check(self) -> None:
        for name, value, most in (
            ("width", self.width, MAX_SIDE_PX),
            ("height", self.height, MAX_SIDE_PX),
            ("n_frames", self.n_frames, MAX_FRAMES),
        ):
            if not 0 < value <= most:
                raise ValueError(f"{name} is {value}, expected 1 to {most}")
        if self.width % 2 or self.height % 2:
            raise ValueError(f"pictures of {self.width} x {self.height}, expected even numbers")
        if len(self.name) > MAX_NAME:
            raise ValueError(f"a name of {len(self.name)} characters, at most {MAX_NAME} are allowed")
        if not 0 < self.shoulder_px <= MAX_SIDE_PX:
            raise ValueError(f"shoulder_px is {self.shoulder_px}")
        if len(self.extradata) > MAX_EXTRADATA_BYTES or _START_CODE not in self.extradata[:4]:
            raise ValueError(f"extradata of {len(self.extradata)} bytes does not hold parameter sets")
        self.words.encode()  # ValueError for lone surrogates
        warnings = self.report.get("warnings", [])
        if not isinstance(warnings, list) or not all(isinstance(warning, str) for warning in warnings):
            raise ValueError("report.warnings is not a list of strings")
        if not all(map(is_sha256, self.sha256.values())):
            raise ValueError("a sha256 is malformed")
        self._check_clips()

    def _check_clips(self) -> None:
        if any(clip.n_frames <= 0 or clip.n_frames % FRAMES_PER_NODE or clip.first_frame < 0 for clip in self.clips):
            raise ValueError("a clip is not a whole number of nodes")
        if sum(clip.n_frames for clip in self.clips) != self.n_frames:
            raise ValueError(f"the clips do not add up to {self.n_frames} frames")
        if any(not 0 <= clip.source < len(self.sources) for clip in self.clips):
            raise ValueError("a clip names a source that does not exist")
        if any(not 0 <= source.n_frames <= MAX_SOURCE_FRAMES for source in self.sources):
            raise ValueError(f"a source has a negative number of frames, or more than {MAX_SOURCE_FRAMES}")
        if any(clip.first_frame + clip.n_frames > self.sources[clip.source].n_frames for clip in self.clips):
            raise ValueError("a clip is longer than its source")


def legible(info: PackInfo) -> PackInfo:
    """The same with unprintable characters escaped: file names may contain anything."""
    sources = tuple(replace(source, name=shown(source.name)) for source in info.sources)
    return replace(info, name=shown(info.name), sources=sources, report=_legible_json(info.report))


def _legible_json(value: Any) -> Any:
    if isinstance(value, str):
        return shown(value)[:MAX_TEXT]
    if isinstance(value, list | tuple):
        return [_legible_json(one) for one in value]
    if isinstance(value, dict):
        return {shown(str(name)): _legible_json(one) for name, one in value.items()}
    return value


def _typed(fields: dict[str, Any], name: str, kind: type[T]) -> T:
    value = fields.get(name)
    if type(value) is not kind:
        raise ValueError(f"{name} is {value!r:.100}, expected {kind.__name__}")
    return value
