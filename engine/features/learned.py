"""Embeddings by networks: which one a bundle holds, and how its networks are best run."""

from dataclasses import replace
from pathlib import Path

from engine.errors import InputError
from engine.features.embedding import Embedding
from engine.features.full import FullEmbedding
from engine.features.mini import MiniEmbedding
from engine.inference.manifest import Bundle
from engine.inference.networks import NetworkOptions, Networks

__all__ = ["learned_embedding", "open_embedding_networks"]

_MINI_THREADS = 1  # networks this small gain nothing from threads


def open_embedding_networks(folder: Path, options: NetworkOptions | None = None) -> Networks:
    """Open the bundle of an embedding. Raises InputError for a bundle of another kind, and as Networks.open does."""
    options = options or NetworkOptions()
    bundle = Bundle.open(folder)
    if bundle.name not in (MiniEmbedding.name, FullEmbedding.name):
        raise InputError(f"{folder} is a bundle of {bundle.name!r}: retrieval wants mini or full")
    if bundle.name == MiniEmbedding.name and options.n_threads is None:
        options = replace(options, n_threads=_MINI_THREADS)
    return Networks.open(bundle, options)


def learned_embedding(networks: Networks) -> Embedding:
    """The embedding that these networks compute; the caller must close them.

    Raises InputError for networks of another kind, ArtifactError for those of another version.
    """
    name = networks.bundle.name
    if name == MiniEmbedding.name:
        return MiniEmbedding.of(networks)
    if name == FullEmbedding.name:
        return FullEmbedding(networks)
    raise InputError(f"{networks.bundle.folder} is a bundle of {name!r}: retrieval wants mini or full")
