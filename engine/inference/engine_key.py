"""Everything that determines the engine a compiler makes from a network: a new driver or shape means a new engine."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from engine.errors import ArtifactError
from engine.inference.backends import BACKENDS, find_backend
from engine.inference.machine import Machine
from engine.inference.manifest import Bundle, GraphSpec, Profile
from engine.inference.precision import policy_digest
from engine.inference.target import PRECISIONS, Precision, Target
from engine.records import as_text, expect, is_sha256

__all__ = ["EngineKey", "content_digest", "engine_precision", "key_of"]

_MAX_TEXT = 500  # characters in one part of a key


@dataclass(frozen=True)
class EngineKey:
    """Everything that determines a compiled network; only equal keys may share an engine."""

    graph: str
    onnx_sha256: str  # of the network with its weights
    backend: str
    backend_version: str
    machine: Machine
    precision: Precision  # in which the network is computed
    policy: str  # digest of the rules for operators that stay in float32
    profile: str  # "" if the bundle has none
    shapes: Profile
    options: Mapping[str, str | int | bool]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "EngineKey":
        """Raises ValueError, KeyError, TypeError or AttributeError for anything that is not a valid key."""
        texts: dict[str, Any] = {name: _text(content[name]) for name in _TEXTS}
        machine = Machine(**{field.name: _text(content["machine"][field.name]) for field in fields(Machine)})
        expect(content["backend"] in BACKENDS, "its back end is unknown")
        expect(content["precision"] in PRECISIONS, "its precision is unknown")
        shapes = {_text(symbol): _bounds(sizes) for symbol, sizes in content["shapes"].items()}
        options = {_text(name): value for name, value in content["options"].items()}
        expect(all(type(value) in (str, int, bool) for value in options.values()), "an option is not a plain value")
        known = {field.name for field in fields(cls)}
        expect(content.keys() == known and content["machine"].keys() == asdict(machine).keys(), "it has unknown parts")
        texts |= {name: content[name] for name in ("backend", "precision")}
        return cls(**texts, machine=machine, shapes=shapes, options=options)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values, as from_dict reads them."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        shapes = {symbol: list(sizes) for symbol, sizes in self.shapes.items()}
        return {**parts, "machine": asdict(self.machine), "shapes": shapes, "options": dict(self.options)}

    @property
    def digest(self) -> str:
        """sha256 of all fields, in hex."""
        return content_digest(self.to_dict())

    def differences(self, other: "EngineKey") -> list[str]:
        """What differs in `other`, for example "driver 570.1 -> 580.2"; empty for equal keys."""
        old, new = _flat(self), _flat(other)
        return [
            f"{name} {' -> '.join(_shown(old.get(name, 'none'), new.get(name, 'none')))}"
            for name in dict.fromkeys((*old, *new))
            if old.get(name) != new.get(name)
        ]


def engine_precision(spec: GraphSpec, precision: Precision) -> Precision:
    """The precision in which a network is computed if `precision` is requested for its bundle."""
    return "fp32" if spec.keep_fp32 else precision


def key_of(bundle: Bundle, graph: str, target: Target) -> EngineKey:
    """The key of an engine compiled on this machine now; the target's profile must be the bundle's, "" if it has none.

    Raises ArtifactError if the bundle has no such graph or profile, BackendError if the back end is missing.
    """
    spec, backend = bundle.graph(graph), find_backend(target.backend)
    if target.profile not in (spec.profiles or ("",)):
        known = ", ".join(spec.profiles) or "none"
        raise ArtifactError(f"{bundle.folder} has no profile {target.profile!r}: it has {known}")
    computed = engine_precision(spec, target.precision)
    return EngineKey(
        graph=graph,
        onnx_sha256=bundle.graph_sha256(graph),
        backend=backend.name,
        backend_version=backend.version(),
        machine=backend.machine(),
        precision=computed,
        policy=policy_digest(spec, computed),
        profile=target.profile,
        shapes=dict(spec.profiles.get(target.profile, {})),
        options=dict(backend.build_options),
    )


def content_digest(content: Mapping[str, Any]) -> str:
    """sha256 in hex of JSON values, whatever the order of their keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


_TEXTS = ("graph", "onnx_sha256", "backend_version", "policy", "profile")


def _flat(key: EngineKey) -> dict[str, str]:
    """Every part of a key by its human-readable name."""
    flat: dict[str, str] = {}
    for field, value in key.to_dict().items():
        if field == "machine":
            flat.update({part.replace("_", " "): text or "none" for part, text in value.items()})
        elif field == "shapes":
            flat.update({f"size of {symbol}": "..".join(map(str, sizes)) for symbol, sizes in value.items()})
        elif field == "options":
            flat.update({f"option {name}": json.dumps(option) for name, option in value.items()})
        else:
            flat[field.replace("_", " ")] = value or "none"
    return flat


def _shown(old: str, new: str) -> tuple[str, str]:
    """Both values of a difference; hashes are shortened if they still differ."""
    if is_sha256(old) and is_sha256(new) and old[:12] != new[:12]:
        return old[:12], new[:12]
    return old, new


def _bounds(sizes: Any) -> tuple[int, int, int]:
    least, usual, most = sizes
    expect(all(type(size) is int for size in (least, usual, most)), "a size is not a whole number")
    return least, usual, most


def _text(value: Any) -> str:
    return as_text(value, _MAX_TEXT)
