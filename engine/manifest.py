"""Bundle: the folder of networks that `tango-export bundle` writes and the run time opens.

    manifest.json    what it is: name, config, graphs with their inputs and outputs, hashes of all files, parity reached
    GRAPH.onnx       one network each, self-contained
    FILE             whatever else the networks need, vocabularies for example

A bundle may come from a stranger: names are plain, nothing is linked, sizes are bounded before anything is read, and
every file has the hash that the manifest gives it. There is no file in the folder that the manifest does not know.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import ArtifactError, InputError

__all__ = [
    "DTYPES",
    "MANIFEST",
    "SCHEMA",
    "Bundle",
    "FileSpec",
    "GraphSpec",
    "TensorSpec",
    "bundle_sha256",
    "file_spec",
]

SCHEMA = 1
MANIFEST = "manifest.json"
DTYPES = ("float32", "float64", "int32", "int64", "bool")

MAX_MANIFEST_BYTES = 8 << 20
MAX_FILE_BYTES = 8 << 30
MAX_FILES = 256
MAX_TENSORS = 64
MAX_RANK = 8
MAX_SIZE = 1 << 31
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileSpec:
    """Content of a file of the bundle."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        _expect(isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256), "a sha256 is malformed")
        _expect(type(self.bytes) is int and 0 <= self.bytes <= MAX_FILE_BYTES, f"a file of {self.bytes!r} bytes")


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: dtype of DTYPES; shape of fixed sizes and of symbols, as "batch" or "2*frames"."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __post_init__(self) -> None:
        _expect(isinstance(self.name, str) and 0 < len(self.name) <= 200, "a tensor has no plain name")
        _expect(self.dtype in DTYPES, f"tensor {self.name} has dtype {self.dtype!r}")
        _expect(len(self.shape) <= MAX_RANK, f"tensor {self.name} has {len(self.shape)} axes")
        for size in self.shape:
            fits = 0 <= size <= MAX_SIZE if type(size) is int else isinstance(size, str) and 0 < len(size) <= 200
            _expect(fits, f"tensor {self.name} has size {size!r}")


@dataclass(frozen=True)
class GraphSpec:
    """One network: its file, what it takes and gives, and how closely it was found to agree with its origin."""

    name: str
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parity: Mapping[str, Any]

    @classmethod
    def from_dict(cls, name: str, fields: Mapping[str, Any]) -> "GraphSpec":
        """Raises ValueError, KeyError or TypeError for anything that is not a sane graph."""
        inputs, outputs = (
            tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in fields[way][: MAX_TENSORS + 1])
            for way in ("inputs", "outputs")
        )
        for tensors in (inputs, outputs):
            unique = len({tensor.name for tensor in tensors}) == len(tensors)
            _expect(0 < len(tensors) <= MAX_TENSORS and unique, f"graph {name} has no sane inputs and outputs")
        for record in fields["parity"].values():
            for output in record["reached"].values():
                figures = (output["max_abs"], output["mean_abs"], output["cosine"])
                _expect(all(isinstance(figure, float | int) for figure in figures), f"graph {name} has no sane parity")
        return cls(_plain(name), _plain(fields["file"]), inputs, outputs, fields["parity"])

    def to_dict(self) -> dict[str, Any]:
        fields = asdict(self)
        del fields["name"]
        return fields


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every file is there and is the one that the manifest describes."""

    folder: Path
    name: str
    sha256: str  # of all files and the config: equal hashes give equal features
    config: Mapping[str, Any]
    graphs: Mapping[str, GraphSpec]
    files: Mapping[str, FileSpec]
    licence: str  # of the weights
    versions: Mapping[str, str]  # of what wrote it

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Check a bundle folder. Raises InputError when there is none, ArtifactError when it is unusable."""
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"no bundle at {folder}: expected a folder made by 'tango-export bundle'")
        try:
            bundle = cls._from_dict(folder, _read_manifest(folder))
            bundle._check_files()
        except _SchemaError as error:
            raise ArtifactError(
                f"{folder} has bundle schema {error}, this version reads {SCHEMA}: make it again with "
                "'tango-export bundle'"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ArtifactError(
                f"{folder} is damaged or not a bundle ({reason}): make it again with 'tango-export bundle'"
            ) from error
        return bundle

    def file(self, name: str) -> Path:
        """Place of a file of the bundle. Raises ArtifactError where the manifest knows none of this name."""
        if name not in self.files:
            raise ArtifactError(f"{self.folder} is a bundle without {name}: make it again with 'tango-export bundle'")
        return self.folder / name

    def graph(self, name: str) -> GraphSpec:
        """A network by name. Raises ArtifactError where there is none."""
        if name not in self.graphs:
            raise ArtifactError(f"bundle {self.name} has the graphs {', '.join(self.graphs)}, none is called {name}")
        return self.graphs[name]

    def to_dict(self) -> dict[str, Any]:
        """What manifest.json holds."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "sha256": self.sha256,
            "licence": self.licence,
            "versions": dict(self.versions),
            "config": dict(self.config),
            "graphs": {name: graph.to_dict() for name, graph in self.graphs.items()},
            "files": {name: asdict(spec) for name, spec in self.files.items()},
        }

    @classmethod
    def _from_dict(cls, folder: Path, fields: dict[str, Any]) -> "Bundle":
        if fields["schema"] != SCHEMA:
            raise _SchemaError(repr(fields["schema"])[:40])
        _expect(len(fields["files"]) <= MAX_FILES, f"{len(fields['files'])} files")
        files = {_plain(name): FileSpec(spec["sha256"], spec["bytes"]) for name, spec in fields["files"].items()}
        graphs = {name: GraphSpec.from_dict(name, graph) for name, graph in fields["graphs"].items()}
        _expect(all(graph.file in files for graph in graphs.values()), "a graph's file is not listed")
        _expect(isinstance(fields["config"], dict), "config is no object")
        for name, texts in (("licence", [fields["licence"]]), ("versions", fields["versions"].values())):
            _expect(all(isinstance(text, str) for text in texts), f"{name} is no text")
        _expect(fields["sha256"] == bundle_sha256(files, fields["config"]), "its sha256 does not match its content")
        named = _plain(fields["name"])
        return cls(
            folder, named, fields["sha256"], fields["config"], graphs, files, fields["licence"], fields["versions"]
        )

    def _check_files(self) -> None:
        known = {MANIFEST, *self.files}
        for entry in self.folder.iterdir():
            hidden = entry.name.startswith(".")  # what desktops and editors leave about
            _expect(hidden or entry.name in known, f"{entry.name[:100]} is not in its manifest")
        for name, spec in self.files.items():
            path = self.folder / name
            _expect(not path.is_symlink() and path.is_file(), f"{name} is missing or not a plain file")
            size = path.stat().st_size
            _expect(size == spec.bytes, f"{name} has {size} bytes, {spec.bytes} were written")
            _expect(file_spec(path).sha256 == spec.sha256, f"{name} was changed, its sha256 is another")


def file_spec(path: Path) -> FileSpec:
    """Size and hash of a file."""
    with path.open("rb") as file:
        return FileSpec(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def bundle_sha256(files: Mapping[str, FileSpec], config: Mapping[str, Any]) -> str:
    """Identity of a bundle, over its files and its config."""
    content = {"files": sorted((name, spec.sha256) for name, spec in files.items()), "config": config}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class _SchemaError(ValueError):
    """The bundle is of another version."""


def _expect(fits: object, otherwise: str) -> None:
    if not fits:
        raise ValueError(otherwise)


def _plain(name: object) -> str:
    """A name that is one part of a path, on every system, and not the manifest's own."""
    fits = isinstance(name, str) and _NAME.fullmatch(name) and name.lower() != MANIFEST
    _expect(fits, f"{str(name)[:100]!r} is no plain name")
    return str(name)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    _expect(not path.is_symlink() and path.is_file(), f"{MANIFEST} is missing or not a plain file")
    _expect(path.stat().st_size <= MAX_MANIFEST_BYTES, f"{MANIFEST} has over {MAX_MANIFEST_BYTES} bytes")
    fields = json.loads(path.read_text("utf-8"))
    _expect(isinstance(fields, dict), f"{MANIFEST} is no object")
    return dict(fields)
