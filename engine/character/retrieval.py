"""The embedding that compares speech with a character, and the character's motion in it."""

from dataclasses import dataclass

import numpy as np

from engine.character.embeddings import StoredEmbedding, read_embedding, stored_names
from engine.character.pack import CharacterPack
from engine.choices import RetrievalName
from engine.errors import ArtifactError, InputError
from engine.features.embedding import Embedding
from engine.features.learned import learned_embedding
from engine.features.onset import OnsetEmbedding
from engine.features.speech import N_COLUMNS
from engine.inference.networks import Networks
from engine.motion_graph.costs import MotionVectors

__all__ = ["Retrieval", "RetrievalOptions", "open_retrieval"]


@dataclass(frozen=True)
class RetrievalOptions:
    """Which embedding to use."""

    name: RetrievalName = "auto"  # auto: the one that cross-validation chose when the pack was built
    networks: Networks | None = None  # open networks, for mini or full


@dataclass(frozen=True)
class Retrieval:
    """An embedding for the speech, and the nodes of the character in its space."""

    embedding: Embedding
    motion: MotionVectors


def open_retrieval(pack: CharacterPack, options: RetrievalOptions | None = None) -> Retrieval:
    """Raises InputError if the pack or the options lack something, ArtifactError if speech and motion do not match."""
    options = options or RetrievalOptions()
    embedding, stored = _chosen(pack, options)
    if embedding.sha256 != stored.sha256:
        made_by = f"the bundle {options.networks.bundle.folder}" if options.networks else "this version"
        raise ArtifactError(
            f"{pack.path} holds {embedding.name} motion features of {stored.sha256[:12]}, {made_by} is "
            f"{embedding.sha256[:12]}: make them again with 'tango-rt character refresh'"
        )
    nothing = embedding.listen().push(np.empty(0, np.float32), np.empty((0, N_COLUMNS), np.float32))
    if (stored.low.shape[1], stored.high.shape[1]) != (nothing.low.shape[1], nothing.high.shape[1]):
        raise ArtifactError(
            f"{pack.path} holds {embedding.name} motion features that differ in width from those of speech: "
            "make them again with 'tango-rt character refresh'"
        )
    level = np.asarray(pack["motion_level"])
    return Retrieval(embedding, MotionVectors(np.asarray(stored.low), np.asarray(stored.high), level))


def _chosen(pack: CharacterPack, options: RetrievalOptions) -> tuple[Embedding, StoredEmbedding]:
    name = options.name
    if options.networks is not None:
        embedding = learned_embedding(options.networks)
        if name not in ("auto", embedding.name):
            raise InputError(
                f"{options.networks.bundle.folder} is a bundle of {embedding.name!r}, "
                f"but retrieval by {name!r} was requested"
            )
        return embedding, read_embedding(pack, embedding.name)
    if name in ("mini", "full"):
        raise InputError(f"retrieval by {name!r} needs its networks: give the bundle")
    if name == "auto":
        has_fit = "fitted" in stored_names(pack.path)
        name = read_embedding(pack, "fitted").about.get("choice", "fitted") if has_fit else "onset"
    stored = read_embedding(pack, name)
    if name != "onset" and stored.fitted is None:
        raise ArtifactError(f"{pack.path} lacks the {name} embedding itself: run 'tango-rt character refresh'")
    return (OnsetEmbedding() if stored.fitted is None else stored.fitted), stored
