"""Installs a pack where a server finds it: whole or not at all, even while sessions use its predecessor."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from engine.character.arrays import array_names
from engine.character.cues import cue_files
from engine.character.drawn import FOLDER as DRAWN
from engine.character.drawn import drawn_files
from engine.character.embeddings import FOLDER as EMBEDDINGS
from engine.character.embeddings import embedding_files, stored_names
from engine.character.pack import SUFFIX, CharacterPack
from engine.character.writer import check_name
from engine.errors import InputError
from engine.files import open_plain
from engine.folders import atomic_folder
from tango_rt.pipeline.transition_cache import FOLDER as TRANSITIONS

__all__ = ["install"]


def install(source: Path, folder: Path) -> CharacterPack:
    """Copy the pack `source` into `folder`, fully checked; a pack of the same name is replaced by a rename.

    Sessions continue with the pack that they hold. Files that do not belong to a pack are not copied. Raises InputError
    if it cannot be written, ArtifactError if the pack is damaged.
    """
    pack = CharacterPack.open(source)
    pack.verify()
    path = folder / source.resolve().name
    if path.suffix != SUFFIX:
        raise InputError(f"{source} must end in {SUFFIX}, for example anna{SUFFIX}")
    if path.resolve() == source.resolve():
        raise InputError(f"{source} is already in this folder")
    check_name(path)
    with atomic_folder(path, "pack.json", "a character pack") as copy:
        try:
            for name in _names(pack):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                with _opened(source / name) as read, (copy / name).open("xb") as written:
                    shutil.copyfileobj(read, written, 1 << 20)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
        CharacterPack.open(copy).verify()
    return CharacterPack.open(path)


def _names(pack: CharacterPack) -> Iterator[str]:
    yield from ("pack.json", "video.h264", *(f"{name}.npy" for name in array_names(pack.info)))
    yield from cue_files(pack.path)
    for name in stored_names(pack.path):
        yield from (f"{EMBEDDINGS}/{name}/{file}" for file in embedding_files(pack.path, name))
    yield from (f"{DRAWN}/{file}" for file in drawn_files(pack.path))
    for file in sorted(pack.path.glob(f"{TRANSITIONS}/*/*.gops")):
        if not any(part.is_symlink() for part in (file, file.parent, file.parent.parent)) and file.is_file():
            yield str(file.relative_to(pack.path))


def _opened(file: Path) -> IO[bytes]:
    return os.fdopen(open_plain(file, follow_links=False), "rb")
