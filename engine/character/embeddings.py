"""Motion features inside a pack, by embedding: computed once from the pack's own joints, used at every render.

    embeddings/NAME/embedding.json    the embedding: its name, its hash, facts about it
    embeddings/NAME/low.npy           float32 (N, D), a row per node
    embeddings/NAME/high.npy          float32 (N, E)
    embeddings/NAME/fit.npz           the embedding itself, if it was fitted to this person

Features of an embedding with another hash are refused, never compared: their numbers have another meaning.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.character.arrays import MAX_FEATURE_WIDTH, npy_bytes, read_npy
from engine.character.pack import CharacterPack
from engine.character.steps import node_rows
from engine.errors import ArtifactError, InputError
from engine.features.embedding import Embedding
from engine.features.fitted import FittedEmbedding
from engine.features.recording import Recording
from engine.files import read_plain, reading
from engine.folders import whole_folder
from engine.records import as_object, as_record, check_printable, is_sha256

__all__ = [
    "NAMES",
    "StoredEmbedding",
    "files_of",
    "read_embedding",
    "record_bytes",
    "remove_embedding",
    "stored_names",
    "write_embedding",
]

NAMES = ("fitted", "generic", "onset", "mini", "full")
FOLDER = "embeddings"
_MARKER = "embedding.json"
_FILES = frozenset(("low.npy", "high.npy", "fit.npz"))
_MAX_JSON_BYTES = 1 << 20
_MAX_FIT_BYTES = 32 << 20
_MAX_NORM = 1e3  # of a row; normalised rows have at most 1, and larger products would swamp all other costs
_DAMAGED, _REFRESH = "are damaged", "make them again with 'tango-rt character refresh'"


@dataclass(frozen=True, eq=False)
class StoredEmbedding:
    """The motion features of one embedding in a pack."""

    name: str
    sha256: str  # of the embedding
    low: np.ndarray  # float32 (N, D), read-only
    high: np.ndarray  # float32 (N, E), read-only
    about: dict[str, Any]
    fitted: FittedEmbedding | None  # the embedding itself, if the pack holds it


@dataclass(frozen=True)
class _Record:
    """Content of embedding.json."""

    name: str
    sha256: str
    about: dict[str, Any]
    files: dict[str, str]  # the sha256 of every other file, by name


def stored_names(pack: Path) -> list[str]:
    """Names of the embeddings that the pack has features for."""
    return [name for name in NAMES if (pack / FOLDER / name / _MARKER).is_file()]


def record_bytes(pack: Path, name: str) -> bytes:
    """Content of an embedding.json. Raises ArtifactError if it cannot be read."""
    folder = pack / FOLDER / name
    with reading(f"the motion features in {folder}", _DAMAGED, _REFRESH):
        return _record_bytes(folder)


def files_of(pack: Path, name: str) -> list[str]:
    """Names of the files of one embedding. Raises ArtifactError if they cannot be read, or have other names."""
    folder = pack / FOLDER / name
    with reading(f"the motion features in {folder}", _DAMAGED, _REFRESH):
        return [_MARKER, *_record(folder).files]


def write_embedding(pack: Path, embedding: Embedding, recording: Recording, about: dict[str, Any]) -> None:
    """Compute and store the features of a pack's recording, replacing older ones of the same name.

    Raises InputError if the embedding cannot be applied to the recording or the disk is full.
    """
    place = pack / FOLDER / embedding.name
    if _is_linked(place):
        raise InputError(f"{place} is a link: motion features are written only inside the pack")
    features = embedding.motion(recording)
    try:
        with whole_folder(place, _MARKER, "motion features") as folder:
            for name, rows in features._asdict().items():
                (folder / f"{name}.npy").write_bytes(npy_bytes(node_rows(rows)))
            if isinstance(embedding, FittedEmbedding):
                embedding.save(folder / "fit.npz")
            hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
            record = _Record(embedding.name, embedding.sha256, about, hashes)
            (folder / _MARKER).write_text(json.dumps(asdict(record), indent=1), "utf-8")
    except OSError as error:
        raise InputError(f"{place}: cannot be written ({error.strerror or 'is the disk full?'})") from error


def remove_embedding(pack: Path, name: str) -> None:
    """Delete the features of one embedding, if there are any."""
    place = pack / FOLDER / name
    if not _is_linked(place):
        shutil.rmtree(place, ignore_errors=True)


def read_embedding(pack: CharacterPack, name: str) -> StoredEmbedding:
    """The features of one embedding. Raises InputError if the pack has none, ArtifactError if they are damaged."""
    if name not in stored_names(pack.path):
        raise InputError(f"{pack.path} has no motion features for {name!r}: {_REFRESH}")
    folder = pack.path / FOLDER / name
    with reading(f"the motion features in {folder}", _DAMAGED, _REFRESH):
        record = _record(folder)
        n_nodes = pack.info.n_nodes
        low, high = (
            read_npy(folder / f"{part}.npy", "float32", n_nodes, MAX_FEATURE_WIDTH, record.files.get(f"{part}.npy", ""))
            for part in ("low", "high")
        )
        if not low.shape[1] or max(_longest(low), _longest(high)) > _MAX_NORM:
            raise ValueError("they have no columns, or norms far above 1")
        fitted = _fit(folder, record, low.shape[1], high.shape[1])
    if fitted is not None and fitted.sha256 != record.sha256:
        raise ArtifactError(f"the motion features in {folder} were made by another fit or version: {_REFRESH}")
    return StoredEmbedding(name, record.sha256, low, high, record.about, fitted)


def _record(folder: Path) -> _Record:
    fields = as_object(_record_bytes(folder), _MARKER)
    check_printable(fields)
    record = as_record(_Record, fields)
    if record.name != folder.name:
        raise ValueError(f"they belong to {record.name!r:.100}")
    if not all(map(is_sha256, (record.sha256, *record.files.values()))):
        raise ValueError("a hash is malformed")
    if not _FILES.issuperset(record.files):
        raise ValueError("it names unknown files")
    return record


def _record_bytes(folder: Path) -> bytes:
    if _is_linked(folder):
        raise ValueError("the folder is a link")
    return read_plain(folder / _MARKER, _MAX_JSON_BYTES, follow_links=False)


def _fit(folder: Path, record: _Record, *widths: int) -> FittedEmbedding | None:
    if "fit.npz" not in record.files:
        return None
    content = read_plain(folder / "fit.npz", _MAX_FIT_BYTES, follow_links=False)
    if hashlib.sha256(content).hexdigest() != record.files["fit.npz"]:
        raise ValueError("fit.npz was changed: its sha256 differs")
    return FittedEmbedding.load(content, record.name)


def _longest(rows: np.ndarray) -> float:
    return float(np.sqrt(np.einsum("nd,nd->n", rows, rows).max(initial=0)))


def _is_linked(folder: Path) -> bool:
    return folder.is_symlink() or folder.parent.is_symlink()
