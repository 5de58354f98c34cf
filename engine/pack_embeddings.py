"""Motion features inside a pack, by embedding: made once from the pack's own joints, used at every render.

    embeddings/NAME/embedding.json    whose they are: name, hash of what made them, what is known about it
    embeddings/NAME/low.npy           float32 (N, D), a row a node
    embeddings/NAME/high.npy          float32 (N, E)
    embeddings/NAME/fit.npz           the embedding itself, where it was fitted to this person

Features of another hash are refused, never compared: the numbers would mean something else.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ArtifactError, InputError
from engine.features.embedding import Embedding
from engine.features.fitted import FittedEmbedding
from engine.features.recording import Recording
from engine.folders import whole_folder
from engine.pack import MAX_FEATURE_WIDTH, CharacterPack, plain_file
from engine.retrieval import node_rows

__all__ = [
    "NAMES",
    "StoredEmbedding",
    "read_embedding",
    "record_bytes",
    "remove_embedding",
    "stored_names",
    "write_embedding",
]

NAMES = ("fitted", "generic", "onset", "mini", "full")
FOLDER = "embeddings"
_MARKER = "embedding.json"
_MAX_JSON_BYTES = 1 << 20
_MAX_FIT_BYTES = 32 << 20
_REFRESH = "make them anew with 'tango-rt character refresh'"


@dataclass(frozen=True, eq=False)
class StoredEmbedding:
    """low float32 (N, D), high float32 (N, E): memory maps. fitted: the embedding, where the pack carries it."""

    name: str
    sha256: str
    low: np.ndarray
    high: np.ndarray
    about: dict[str, Any]
    fitted: FittedEmbedding | None


def stored_names(pack: Path) -> list[str]:
    """Embeddings of which the pack has features."""
    return [name for name in NAMES if (pack / FOLDER / name / _MARKER).is_file()]


def record_bytes(pack: Path, name: str) -> bytes:
    """What says whose features these are. Raises ArtifactError where it cannot be read."""
    try:
        return plain_file(pack / FOLDER / name, _MARKER, _MAX_JSON_BYTES).read_bytes()
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"the motion features in {pack / FOLDER / name} are damaged ({error}): {_REFRESH}"
        ) from error


def write_embedding(pack: Path, embedding: Embedding, recording: Recording, about: dict[str, Any]) -> None:
    """Compute and store the features of a pack's recording; they replace older ones of the same name.

    Raises InputError where the embedding cannot be applied to the recording or the disk is full.
    """
    place = pack / FOLDER / embedding.name
    if _is_linked(place):
        raise InputError(f"{place} is a link: motion features are written into the pack alone")
    features = embedding.motion(recording)
    record = {"name": embedding.name, "sha256": embedding.sha256, "about": about}
    try:
        with whole_folder(place, _MARKER, "motion features") as folder:
            for name, rows in features._asdict().items():
                np.save(folder / f"{name}.npy", node_rows(rows), allow_pickle=False)
            if isinstance(embedding, FittedEmbedding):
                embedding.save(folder / "fit.npz")
            (folder / _MARKER).write_text(json.dumps(record, indent=1), "utf-8")
    except OSError as error:
        raise InputError(f"{place}: cannot be written ({error.strerror or 'is the disk full?'})") from error


def remove_embedding(pack: Path, name: str) -> None:
    """Forget the features of one embedding, if there are any."""
    place = pack / FOLDER / name
    if not _is_linked(place):
        shutil.rmtree(place, ignore_errors=True)


def read_embedding(pack: CharacterPack, name: str) -> StoredEmbedding:
    """Raises InputError when the pack has none of this name, ArtifactError when it is damaged."""
    if name not in stored_names(pack.path):
        raise InputError(f"{pack.path} has no motion features of {name!r}: {_REFRESH}")
    folder = pack.path / FOLDER / name
    try:
        if _is_linked(folder):
            raise ValueError("the folder is a link")
        record = json.loads(plain_file(folder, _MARKER, _MAX_JSON_BYTES).read_text("utf-8"))
        low, high = (_map_rows(folder, part, pack.info.n_nodes) for part in ("low", "high"))
        fitted = None
        if (folder / "fit.npz").exists():
            fitted = FittedEmbedding.load(plain_file(folder, "fit.npz", _MAX_FIT_BYTES), name)
        sha256, about = str(record["sha256"]), dict(record["about"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        raise ArtifactError(f"the motion features in {folder} are damaged ({error}): {_REFRESH}") from error
    if fitted is not None and fitted.sha256 != sha256:
        raise ArtifactError(f"the motion features in {folder} were made by another fit or version: {_REFRESH}")
    return StoredEmbedding(name, sha256, low, high, about, fitted)


def _is_linked(folder: Path) -> bool:
    return folder.is_symlink() or folder.parent.is_symlink()


def _map_rows(folder: Path, name: str, n_nodes: int) -> np.ndarray:
    rows = np.load(plain_file(folder, f"{name}.npy"), mmap_mode="r", allow_pickle=False)
    if rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != n_nodes or rows.shape[1] > MAX_FEATURE_WIDTH:
        raise ValueError(
            f"{name} is {rows.dtype}{rows.shape}, expected float32 ({n_nodes}, at most {MAX_FEATURE_WIDTH})"
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} is not finite")
    return np.asarray(rows)
