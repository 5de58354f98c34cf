"""The words of a pack's reference, for the keyword match."""

import numpy as np

from engine.character.pack import CharacterPack
from engine.errors import ArtifactError, InputError
from engine.motion_graph.words import Keywords, Word, parse_words
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["keywords_of", "node_start_s", "reference_words"]


def keywords_of(pack: CharacterPack) -> Keywords | None:
    """Prepared for any speech; None if the pack was built without words. Raises ArtifactError if they are damaged."""
    if not pack.info.words:
        return None
    return Keywords(reference_words(pack), node_start_s(pack), np.asarray(pack["clip_start"]))


def reference_words(pack: CharacterPack) -> tuple[Word, ...]:
    """Raises ArtifactError if they are damaged."""
    try:
        return parse_words(pack.info.words)
    except InputError as error:
        raise ArtifactError(f"{pack.path} is damaged ({error}): build it again") from error


def node_start_s(pack: CharacterPack) -> np.ndarray:
    """float64 (N,): when each node starts in the first source, whose words they are; NaN for nodes of others."""
    start_s = np.full(pack.info.n_nodes, np.nan)
    for clip, first in zip(pack.info.clips, pack["clip_start"][:-1], strict=True):
        if clip.source == 0:
            n = clip.n_frames // FRAMES_PER_NODE
            start_s[first : first + n] = (clip.first_frame + FRAMES_PER_NODE * np.arange(n)) / FPS
    return start_s
