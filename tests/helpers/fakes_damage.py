"""Packs as a stranger may make them: changed in any way, with hashes that fit all the same."""

import hashlib
import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np

from engine.character.arrays import ARRAYS, npy_bytes
from engine.character.video import node_digest
from engine.features.fitted import FittedEmbedding
from engine.timebase import FRAMES_PER_NODE

__all__ = ["sign", "sign_fit", "sign_video"]


def sign(folder: Path) -> None:
    """Write the hashes again, as somebody does who changes a pack on purpose."""
    _put_hashes(folder / "pack.json", "sha256", {name: folder / f"{name}.npy" for name in ARRAYS})
    _sign_cues(folder)
    for record in folder.glob("embeddings/*/embedding.json"):
        _put_hashes(record, "files", {file.name: file for file in record.parent.iterdir() if file != record})
    _sign_drawn(folder)


def _sign_drawn(folder: Path) -> None:
    record, names = folder / "live" / "live.json", ("cuts", "sizes", "half_sha256")
    _put_hashes(record, "sha256", {name: record.parent / f"{name}.npy" for name in names})
    if record.is_file() and (folder / "pack.json").is_file():
        content = json.loads(record.read_text())
        content["pack"] = hashlib.sha256((folder / "pack.json").read_bytes()).hexdigest()
        record.write_text(json.dumps(content))


def _sign_cues(folder: Path) -> None:
    """Have the cues belong to the pack as it is, with the hash of their list."""
    place = folder / "cues.json"
    with suppress(OSError, ValueError, TypeError, RecursionError):  # whatever another change has left there
        record = json.loads(place.read_text())
        record["pack"] = hashlib.sha256((folder / "pack.json").read_bytes()).hexdigest()
        record["sha256"] = hashlib.sha256(json.dumps(record["cues"], sort_keys=True).encode()).hexdigest()
        place.write_text(json.dumps(record))


def sign_fit(folder: Path) -> None:
    """Have the motion features say that they were made by the fit that lies next to them."""
    for fit in filter(Path.is_file, folder.glob("embeddings/*/fit.npz")):
        record = json.loads((fit.parent / "embedding.json").read_text())
        record["sha256"] = FittedEmbedding.load(fit.read_bytes()).sha256
        (fit.parent / "embedding.json").write_text(json.dumps(record))


def sign_video(folder: Path) -> None:
    """Write the hashes of the pictures again; `sign` must follow."""
    if not all((folder / name).is_file() for name in ("packet_start.npy", "video.h264")):
        return
    starts = np.load(folder / "packet_start.npy")[::FRAMES_PER_NODE].tolist()
    video = (folder / "video.h264").read_bytes()
    digests = [node_digest([video[first:last]]) for first, last in pairwise(starts)]
    array = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    (folder / "node_sha256.npy").write_bytes(npy_bytes(array))


def _put_hashes(record: Path, field: str, files: dict[str, Path]) -> None:
    if not record.is_file():
        return
    content = json.loads(record.read_text())
    content[field] = {
        name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file.is_file()
    }
    record.write_text(json.dumps(content))
