"""Packs as a stranger may make them: changed in any way, with hashes that fit all the same."""

import hashlib
import json
from pathlib import Path

from engine.pack_arrays import ARRAYS

__all__ = ["sign"]


def sign(folder: Path) -> None:
    """Write the hashes anew, as somebody does who changes a pack on purpose."""
    _put_hashes(folder / "pack.json", "sha256", {name: folder / f"{name}.npy" for name in ARRAYS})
    for record in folder.glob("embeddings/*/embedding.json"):
        _put_hashes(record, "files", {file.name: file for file in record.parent.iterdir() if file != record})


def _put_hashes(record: Path, field: str, files: dict[str, Path]) -> None:
    if not record.is_file():
        return
    content = json.loads(record.read_text())
    content[field] = {
        name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file.is_file()
    }
    record.write_text(json.dumps(content))
