"""Embeddings of a character: the fit to the person, and motion features for every embedding; takes seconds."""

from dataclasses import dataclass
from pathlib import Path

from engine.character.embeddings import remove_embedding, write_embedding
from engine.character.pack import CharacterPack
from engine.features.embedding import Embedding
from engine.features.fit import FitOptions
from engine.features.onset import OnsetEmbedding
from engine.features.prior import load_prior
from engine.features.recording import Recording
from engine.features.validation import FitReport, fit_person

__all__ = ["EmbedOptions", "embed", "refresh"]


@dataclass(frozen=True)
class EmbedOptions:
    """How the speech of a character is fitted to its motion."""

    mouth: bool = True  # use the lips in the fit
    prior: Path | None = None  # covariances of other people, from 'tango-export prior'


def embed(pack: Path, recording: Recording, options: EmbedOptions) -> FitReport:
    """Fit to the person and store the motion features of the fit and of onsets. Returns the quality of the fit."""
    fit = FitOptions(mouth=options.mouth)
    prior = None if options.prior is None else load_prior(options.prior, fit)
    fitted, chosen, report = fit_person(recording, fit, prior)
    write_embedding(pack, fitted, recording, report.to_dict())
    write_embedding(pack, OnsetEmbedding(), recording, {})
    remove_embedding(pack, "generic")  # made with another prior, or no longer with any
    if chosen.name == "generic":
        write_embedding(pack, chosen, recording, {})
    return report


def refresh(pack: CharacterPack, options: EmbedOptions, learned: Embedding | None = None) -> FitReport:
    """Recompute the motion features from what the pack holds; `learned`: those of a network, too.

    Raises InputError if the network cannot be applied to this pack.
    """
    recording = pack.recording
    if learned is not None:
        write_embedding(pack.path, learned, recording, {})
    return embed(pack.path, recording, options)
