"""What the cache of drawn transitions is asked for, without a pack."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from engine.character.pack import CharacterPack

PICTURES = [b"\0\0\0\1" + bytes([kind]) + bytes(95) for kind in (0x65, 0x41, 0x41, 0x41) * 2]  # 864 bytes as a file


def pack_at(path: Path, sha256: str = "00" * 32) -> CharacterPack:
    """As much of a pack as its cache asks for."""
    return cast(CharacterPack, SimpleNamespace(path=path, sha256=sha256))
