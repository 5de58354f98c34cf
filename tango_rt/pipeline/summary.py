"""What can be reported of a character without keeping it open."""

from dataclasses import dataclass, replace
from typing import Self

from engine.character.pack import folder_bytes
from tango_rt.pipeline.character import Character

__all__ = ["CharacterSummary", "summarize"]


@dataclass(frozen=True)
class CharacterSummary:
    """A character as ListCharacters reports it."""

    id: str
    name: str
    width: int
    height: int
    n_frames: int
    n_nodes: int
    n_nodes_kept: int
    n_clips: int
    retrievals: tuple[str, ...]
    sha256: str
    size_bytes: int  # on disk when it was opened, including cached transitions
    cues: tuple[str, ...]  # names

    def named(self, character_id: str) -> Self:
        return self if self.id == character_id else replace(self, id=character_id)


def summarize(character: Character) -> CharacterSummary:
    info = character.pack.info
    return CharacterSummary(
        id=character.id,
        name=info.name,
        width=info.width,
        height=info.height,
        n_frames=info.n_frames,
        n_nodes=info.n_nodes,
        n_nodes_kept=character.pack.graph.n_kept,
        n_clips=len(info.clips),
        retrievals=character.retrievals,
        sha256=character.sha256,
        size_bytes=folder_bytes(character.pack.path),
        cues=tuple(character.pack.cues.by_name),
    )
