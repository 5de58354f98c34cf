"""Bundle: the folder of networks that `tango-export bundle` writes and the run time opens.

    manifest.json    name, config, graphs with their inputs and outputs, hashes of all files, measured parity
    GRAPH.onnx       one network each
    FILE             anything else the networks need: weights of networks over 2 GiB, vocabularies
    engines/         networks that 'tango-export compile' compiled for this machine; see engine.inference.engines

Bundles are untrusted: names are plain, links are refused, sizes are bounded before anything is read, and a file is used
only if it has the hash given in the manifest. Files that the manifest does not list are refused, except hidden ones,
which nothing reads. A network is used only if all its tensors are in files that were checked with it.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import ArtifactError, InputError
from engine.files import open_plain, read_plain, reading
from engine.inference.onnx_files import external_files
from engine.records import as_object, expect, is_sha256, is_text, is_whole

__all__ = [
    "DTYPES",
    "ENGINES",
    "MANIFEST",
    "SCHEMA",
    "Bundle",
    "FileSpec",
    "GraphSpec",
    "Profile",
    "TensorSpec",
    "bundle_sha256",
    "file_spec",
]

SCHEMA = 1
MANIFEST = "manifest.json"
ENGINES = "engines"
DTYPES = ("float32", "float64", "int32", "int64", "bool")

MAX_MANIFEST_BYTES = 8 << 20
MAX_FILE_BYTES = 8 << 30
MAX_FILES = 256
MAX_TENSORS = 64
MAX_TENSOR_NAME = 200  # characters
MAX_RANK = 8
MAX_SIZE = 1 << 31
MAX_PROFILES = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

Profile = Mapping[str, tuple[int, int, int]]
"""Sizes that a network is compiled for: symbol in its inputs' shapes -> smallest, usual, largest."""
_REMEDY = "make it again with 'tango-export bundle'"


@dataclass(frozen=True)
class FileSpec:
    """Hash and size of a file of the bundle."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        expect(is_sha256(self.sha256), "a sha256 is malformed")
        expect(is_whole(self.bytes, 0, MAX_FILE_BYTES), f"a file of {self.bytes!r} bytes")


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a network."""

    name: str
    dtype: str  # one of DTYPES
    shape: tuple[int | str, ...]  # fixed sizes, and symbols such as "batch" or "2*frames"
    below: int | None = None  # integers of this input are at least 0 and less than this

    def __post_init__(self) -> None:
        expect(is_text(self.name, 1, MAX_TENSOR_NAME), "a tensor's name is not plain")
        expect(self.dtype in DTYPES, f"tensor {self.name} has dtype {self.dtype!r}")
        expect(len(self.shape) <= MAX_RANK, f"tensor {self.name} has {len(self.shape)} axes")
        for size in self.shape:
            fits = is_whole(size, 0, MAX_SIZE) or is_text(size, 1, MAX_TENSOR_NAME)
            expect(fits, f"tensor {self.name} has size {size!r}")
        bounded = self.below is None or is_whole(self.below, 1, MAX_SIZE)
        expect(bounded, f"tensor {self.name} has integers below {self.below!r}")


@dataclass(frozen=True)
class GraphSpec:
    """One network of a bundle."""

    name: str
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parity: Mapping[str, Any]  # by back end: how closely it agrees with the original in torch
    weights: tuple[str, ...] = ()  # files with its larger tensors; networks may share them
    profiles: Mapping[str, Profile] = field(default_factory=dict)  # by name
    keep_fp32: bool = False  # never compute it in fp16 or bf16

    @classmethod
    def from_dict(cls, name: str, fields: Mapping[str, Any]) -> "GraphSpec":
        """Raises ValueError, KeyError or TypeError for anything that is not a valid graph."""
        inputs, outputs = (
            tuple(
                TensorSpec(t["name"], t["dtype"], tuple(t["shape"]), t.get("below"))
                for t in fields[way][: MAX_TENSORS + 1]
            )
            for way in ("inputs", "outputs")
        )
        for tensors in (inputs, outputs):
            unique = len({tensor.name for tensor in tensors}) == len(tensors)
            expect(0 < len(tensors) <= MAX_TENSORS and unique, f"graph {name} has invalid inputs or outputs")
        for record in fields["parity"].values():
            for output in record["reached"].values():
                figures = (output["max_abs"], output["mean_abs"], output["cosine"])
                expect(all(isinstance(figure, float | int) for figure in figures), f"graph {name} has invalid parity")
        weights = fields.get("weights", [])
        expect(isinstance(weights, list) and len(weights) <= MAX_FILES, f"graph {name} has invalid weights")
        profiles = _profiles(name, inputs, fields.get("profiles", {}))
        keep_fp32 = fields.get("keep_fp32", False)
        expect(type(keep_fp32) is bool, f"graph {name}: keep_fp32 is neither true nor false")
        files = _plain(fields["file"]), tuple(map(_plain, weights))
        # libraries take other suffixes for other formats: ONNX Runtime has its own format for ".ort"
        expect(files[0].endswith(".onnx"), f"graph {name} is in {files[0]}, not in an .onnx file")
        return cls(_plain(name), files[0], inputs, outputs, fields["parity"], files[1], profiles, keep_fp32)

    def to_dict(self) -> dict[str, Any]:
        fields = asdict(self)
        del fields["name"]
        return fields


@dataclass(frozen=True)
class Bundle:
    """An open bundle: all files exist with the right size; their content is checked on first use."""

    folder: Path
    name: str
    sha256: str  # of all files and the config: equal hashes give equal features
    config: Mapping[str, Any]
    graphs: Mapping[str, GraphSpec]
    files: Mapping[str, FileSpec]
    licence: str  # of the weights
    versions: Mapping[str, str]  # of the programs that wrote it
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)  # files whose hash was verified
    _checked_models: set[str] = field(default_factory=set, repr=False, compare=False)  # graphs with checked tensors

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Open and check a bundle folder. Raises InputError if there is none, ArtifactError if it is unusable."""
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"no bundle at {folder}: expected a folder made by 'tango-export bundle'")
        with _damage(folder):
            bundle = cls._from_dict(folder, _read_manifest(folder))
            bundle._check_folder()
        return bundle

    def check(self) -> None:
        """Check the content of all files. Raises ArtifactError for the first that does not match the manifest."""
        for name in self.files:
            self.file(name)

    def file(self, name: str) -> Path:
        """Path of a file of the bundle. Raises ArtifactError if there is none of this name or it was changed."""
        if name not in self.files:
            raise ArtifactError(f"{self.folder} is a bundle without {name}: {_REMEDY}")
        if name not in self._checked:
            with _damage(self.folder):
                self._check_place(name)
                changed = file_spec(self.folder / name).sha256 != self.files[name].sha256
                expect(not changed, f"{name} was changed, its sha256 differs")
            self._checked.add(name)
        return self.folder / name

    def model(self, graph: str) -> Path:
        """Path of a network's ONNX file, checked together with its weights; raises like `file` and `graph`.

        Also if it would read a tensor from any other file.
        """
        spec = self.graph(graph)
        for name in spec.weights:
            self.file(name)
        path = self.file(spec.file)
        if graph not in self._checked_models:
            with reading(path, "is not a network", _REMEDY):
                places = external_files(path)
            with _damage(self.folder):
                for place in places:
                    expect(place in spec.weights, f"{spec.file} has tensors in {place[:100]!r}, not one of its weights")
            self._checked_models.add(graph)
        return path

    def graph_sha256(self, graph: str) -> str:
        """Identity of a network with its weights, from the hashes in the manifest; no file is read."""
        spec = self.graph(graph)
        parts = [(name, self.files[name].sha256) for name in (spec.file, *sorted(spec.weights))]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def profile_names(self) -> tuple[str, ...]:
        """Profiles that its networks may be compiled for; the first is the default. Old bundles have none."""
        return next((tuple(graph.profiles) for graph in self.graphs.values()), ())

    def graph(self, name: str) -> GraphSpec:
        """A network by name. Raises ArtifactError if there is none."""
        if name not in self.graphs:
            raise ArtifactError(f"bundle {self.name} has the graphs {', '.join(self.graphs)}, but none called {name}")
        return self.graphs[name]

    def to_dict(self) -> dict[str, Any]:
        """Content of manifest.json."""
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
        expect(len(fields["files"]) <= MAX_FILES, f"{len(fields['files'])} files")
        files = {_plain(name): FileSpec(spec["sha256"], spec["bytes"]) for name, spec in fields["files"].items()}
        graphs = {name: GraphSpec.from_dict(name, graph) for name, graph in fields["graphs"].items()}
        for graph in graphs.values():
            expect({graph.file, *graph.weights} <= files.keys(), f"a file of graph {graph.name} is not listed")
        expect(len({tuple(graph.profiles) for graph in graphs.values()}) <= 1, "its graphs have different profiles")
        expect(isinstance(fields["config"], dict), "config is not an object")
        for name, texts in (("licence", [fields["licence"]]), ("versions", fields["versions"].values())):
            expect(all(isinstance(text, str) for text in texts), f"{name} is not text")
        expect(fields["sha256"] == bundle_sha256(files, fields["config"]), "its sha256 does not match its content")
        named = _plain(fields["name"])
        return cls(
            folder, named, fields["sha256"], fields["config"], graphs, files, fields["licence"], fields["versions"]
        )

    def _check_folder(self) -> None:
        known = {MANIFEST, ENGINES, *self.files}
        for entry in self.folder.iterdir():
            hidden = entry.name.startswith(".")  # left by desktops and editors
            expect(hidden or entry.name in known, f"{entry.name[:100]} is not in its manifest")
        for name in self.files:
            self._check_place(name)

    def _check_place(self, name: str) -> None:
        path = self.folder / name
        _expect_plain(path)
        size, written = path.stat().st_size, self.files[name].bytes
        expect(size == written, f"{name} has {size} bytes, expected {written}")


def file_spec(path: Path) -> FileSpec:
    """Size and hash of a file."""
    with open(open_plain(path, follow_links=False), "rb") as file:
        return FileSpec(hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size)


def bundle_sha256(files: Mapping[str, FileSpec], config: Mapping[str, Any]) -> str:
    """Identity of a bundle, from its files and config."""
    content = {"files": sorted((name, spec.sha256) for name, spec in files.items()), "config": config}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class _SchemaError(ValueError):
    """The bundle is of another version."""


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Turn whatever is wrong with a bundle into an ArtifactError."""
    with reading(folder, "is damaged or not a bundle", _REMEDY):
        try:
            yield
        except _SchemaError as error:
            raise ArtifactError(
                f"{folder} has bundle schema {error}, this version reads {SCHEMA}: {_REMEDY}"
            ) from error


def _profiles(graph: str, inputs: tuple[TensorSpec, ...], fields: Mapping[str, Any]) -> dict[str, Profile]:
    """Raises ValueError or TypeError if a profile does not give ordered sizes for each symbol of the inputs."""
    symbols = {size for tensor in inputs for size in tensor.shape if isinstance(size, str)}
    expect(len(fields) <= MAX_PROFILES, f"graph {graph} has {len(fields)} profiles")
    profiles: dict[str, Profile] = {}
    for name, bounds in fields.items():
        expect(set(bounds) == symbols, f"profile {name!r} of graph {graph} does not match the symbols of its inputs")
        profile: dict[str, tuple[int, int, int]] = {}
        for symbol, (least, usual, most) in bounds.items():
            whole = all(type(size) is int for size in (least, usual, most))
            ordered = whole and 0 < least <= usual <= most <= MAX_SIZE
            expect(ordered, f"profile {name!r} of graph {graph} is not in ascending order")
            profile[symbol] = (least, usual, most)
        profiles[_plain(name)] = profile
    return profiles


def _plain(name: object) -> str:
    """Check a name: a single path component on every system, and not the manifest's own."""
    fits = isinstance(name, str) and _NAME.fullmatch(name) and name.lower() not in (MANIFEST, ENGINES)
    expect(fits, f"{str(name)[:100]!r} is not a plain name")
    return str(name)


def _expect_plain(path: Path) -> None:
    expect(not path.is_symlink() and path.is_file(), f"{path.name} is missing or not a plain file")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    _expect_plain(path)
    expect(path.stat().st_size <= MAX_MANIFEST_BYTES, f"{MANIFEST} has over {MAX_MANIFEST_BYTES} bytes")
    return as_object(read_plain(path, MAX_MANIFEST_BYTES, follow_links=False).decode("utf-8"), MANIFEST)
