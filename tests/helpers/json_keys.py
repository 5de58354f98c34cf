"""The keys of every command's JSON: the same thing has the same key in all of them.

A pack is the `character`, a bundle the `bundle`, whatever else was written the `output`; node ids are `nodes`, numbers
of things `n_...`, durations `..._s`, what a command took `took_s`.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["check_keys"]

_PACK = {
    *("character", "name", "schema", "n_frames", "n_nodes", "n_nodes_kept", "n_edges", "n_cut_edges"),
    *("n_relaxed_edges", "n_clips", "pose_coverage", "hand_coverage", "fps", "width", "height", "duration_s", "bytes"),
    *("n_live_cuts", "live_blender", "hand_gaps", "cues", "n_transitions_stored", "retrieval", "sources", "build"),
}
_BUNDLE = {"bundle", "name", "sha256", "bytes", "took_s", "graphs"}

KEYS: Mapping[str, set[str]] = {
    "tango-rt demo": {"output", "contact_sheet", "render", "live"},
    "tango-rt render": {
        *("output", "n_frames", "duration_s", "n_cuts", "n_hard_cuts", "n_transitions_cached"),
        *("n_transitions_computed", "blender", "retrieval", "networks", "search", "seed", "lookahead_nodes", "cost"),
        *("took_s", "realtime_factor", "nodes", "cues", "warnings"),
    },
    "tango-rt send": {
        *("output", "n_frames", "duration_s", "first_frame_ms", "first_speech_frame_ms", "interval_ms", "underruns"),
        *("dropped", "transitions", "interrupted", "stopped", "nodes", "retrieval", "lookahead_ms"),
        *("server_version", "session_id", "cues", "warnings", "timings_ms"),
    },
    "tango-rt character build": _PACK,
    "tango-rt character inspect": _PACK,
    "tango-rt character refresh": _PACK,
    "tango-rt character install": {"character", "sha256", "bytes"},
    "tango-rt character mark": {"character", "cues"},
    "tango-rt character warm": {
        *("character", "blender", "n_cuts", "n_cached", "n_computed", "took_s", "warnings"),
    },
    "tango-rt models fetch": {"folder", "fetched", "files"},
    "tango-rt models list": {"release", "folder", "files", "bytes"},
    "tango-rt serve": {"addresses", "metrics", "characters", "tls", "token", "warm_up_s", "pid", "version"},
    "tango-rt-client send": {
        *("output", "n_frames", "duration_s", "first_frame_ms", "session_id", "warnings"),
    },
    "tango-export bundle full": _BUNDLE,
    "tango-export bundle mini": _BUNDLE,
    "tango-export compile": {
        *("bundle", "name", "backend", "backend_version", "precision", "profile", "engines", "built", "bytes"),
        *("took_s", "networks", "report"),
    },
    "tango-export verify": {"bundle", "sha256", "reports"},
    "tango-export inspect": {
        *("schema", "name", "sha256", "licence", "versions", "config", "graphs", "files", "bytes", "policies"),
        *("engines",),
    },
    "tango-export list": {"bundles"},
}
_OPTIONAL = {
    "tango-rt character build": {"report"},
    "tango-rt character mark": {"output", "suggestions"},
    "tango-export compile": {"triton"},
}
_OLD: Mapping[str, set[str]] = {
    "tango-rt demo": {"video"},
    "tango-rt render": {"path", "seconds"},
    "tango-rt send": {"path"},
    "tango-rt character build": {"path"},
    "tango-rt character inspect": {"path"},
    "tango-rt character refresh": {"path"},
    "tango-rt character install": {"path"},
    "tango-rt character warm": {"pack", "seconds"},
    "tango-rt-client send": {"path"},
    "tango-export bundle full": {"seconds"},
    "tango-export bundle mini": {"seconds"},
    "tango-export compile": {"seconds"},
}
"""What some were called in the last release: printed next to the new ones until the next one."""


def check_keys(program: str, words: tuple[object, ...], printed: Mapping[str, Any]) -> None:
    """Whether a command printed its keys, no others, and those of the last release with the same content."""
    said = [program, *map(str, words[:2])]
    command = next(name for n in (3, 2) if (name := " ".join(said[:n])) in KEYS)
    old = _OLD.get(command, set())
    assert set(printed) - _OPTIONAL.get(command, set()) == KEYS[command] | old, command
    for key in old:
        assert printed[key] in [printed[new] for new in KEYS[command]], key
