"""What decides which engine a compiler makes of a network: another driver or another shape is another engine."""

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

_MAX_TEXT = 500  # characters of a part of a key


@dataclass(frozen=True)
class EngineKey:
    """All that decides what a compiler makes of a network; equal keys may share an engine, others never."""

    graph: str
    onnx_sha256: str  # of the network with its weights
    backend: str
    backend_version: str
    machine: Machine
    precision: Precision  # that it is computed in
    policy: str  # digest of which operators keep float32
    profile: str  # "" where the bundle has none
    shapes: Profile
    options: Mapping[str, str | int | bool]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "EngineKey":
        """Raises ValueError, KeyError, TypeError or AttributeError for anything that is not a sane key."""
        texts: dict[str, Any] = {name: _text(content[name]) for name in _TEXTS}
        machine = Machine(**{field.name: _text(content["machine"][field.name]) for field in fields(Machine)})
        expect(content["backend"] in BACKENDS, "its back end is unknown")
        expect(content["precision"] in PRECISIONS, "its precision is unknown")
        shapes = {_text(symbol): _bounds(sizes) for symbol, sizes in content["shapes"].items()}
        options = {_text(name): value for name, value in content["options"].items()}
        expect(all(type(value) in (str, int, bool) for value in options.values()), "an option is no plain value")
        known = {field.name for field in fields(cls)}
        expect(content.keys() == known and content["machine"].keys() == asdict(machine).keys(), "it has unknown parts")
        texts |= {name: content[name] for name in ("backend", "precision")}
        return cls(**texts, machine=machine, shapes=shapes, options=options)

    def to_dict(self) -> dict[str, Any]:
        """As JSON gives it back."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        shapes = {symbol: list(sizes) for symbol, sizes in self.shapes.items()}
        return {**parts, "machine": asdict(self.machine), "shapes": shapes, "options": dict(self.options)}

    @property
    def digest(self) -> str:
        """sha256 of all of it, in hex."""
        return content_digest(self.to_dict())

    def differences(self, other: "EngineKey") -> list[str]:
        """What is another in `other`, as "driver 570.1 -> 580.2"; none where the keys are equal."""
        old, new = _flat(self), _flat(other)
        return [
            f"{name} {' -> '.join(_shown(old.get(name, 'none'), new.get(name, 'none')))}"
            for name in dict.fromkeys((*old, *new))
            if old.get(name) != new.get(name)
        ]


def engine_precision(spec: GraphSpec, precision: Precision) -> Precision:
    """The precision in which a network is computed where `precision` is asked of its bundle."""
    return "fp32" if spec.keep_fp32 else precision


def key_of(bundle: Bundle, graph: str, target: Target) -> EngineKey:
    """The key of an engine made here and now, for a target whose profile is one of the bundle's, "" where it has none.

    Raises ArtifactError where the bundle has no such graph or profile, BackendError where the back end is missing.
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
    """sha256 in hex of plain values, however their keys are ordered."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


_TEXTS = ("graph", "onnx_sha256", "backend_version", "policy", "profile")


def _flat(key: EngineKey) -> dict[str, str]:
    """Every part of a key by the name that a person reads."""
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
    """Both values of a difference; hashes by what tells them apart."""
    if is_sha256(old) and is_sha256(new) and old[:12] != new[:12]:
        return old[:12], new[:12]
    return old, new


def _bounds(sizes: Any) -> tuple[int, int, int]:
    least, usual, most = sizes
    expect(all(type(size) is int for size in (least, usual, most)), "a size is no whole number")
    return least, usual, most


def _text(value: Any) -> str:
    return as_text(value, _MAX_TEXT)
