"""The words of a pack's reference, prepared for the keyword match."""

import numpy as np

from engine.character.pack import CharacterPack
from engine.errors import ArtifactError, InputError
from engine.motion_graph.words import Keywords, parse_words
from engine.timebase import FPS, FRAMES_PER_NODE

__all__ = ["keywords_of"]


def keywords_of(pack: CharacterPack) -> Keywords | None:
    """None if it was built without words. Raises ArtifactError if they are damaged."""
    if not pack.info.words:
        return None
    try:
        reference = parse_words(pack.info.words)
    except InputError as error:
        raise ArtifactError(f"{pack.path} is damaged ({error}): build it again") from error
    start_s = np.full(pack.info.n_nodes, np.nan)
    for clip, first in zip(pack.info.clips, pack["clip_start"][:-1], strict=True):
        if clip.source == 0:
            n = clip.n_frames // FRAMES_PER_NODE
            start_s[first : first + n] = (clip.first_frame + FRAMES_PER_NODE * np.arange(n)) / FPS
    return Keywords(reference, start_s, np.asarray(pack["clip_start"]))
