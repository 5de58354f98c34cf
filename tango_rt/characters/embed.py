"""Embeddings of a character: the fit to the person, and motion features of every embedding in use, in seconds."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.features.embedding import Embedding
from engine.features.fit import FitOptions
from engine.features.onset import OnsetEmbedding
from engine.features.prior import load_prior
from engine.features.recording import Recording
from engine.features.validation import MIN_SPEECH_S, FitReport, fit_person
from engine.pack import CharacterPack
from engine.pack_embeddings import write_embedding

__all__ = ["EmbedOptions", "embed", "fit_warnings", "refresh"]


@dataclass(frozen=True)
class EmbedOptions:
    """mouth: whether the lips take part in the fit. prior: covariances of other people, by 'tango-export prior'."""

    mouth: bool = True
    prior: Path | None = None


def embed(pack: Path, recording: Recording, options: EmbedOptions) -> FitReport:
    """Fit to the person and store the motion features of the fit and of onsets. Returns what the fit is worth."""
    fit = FitOptions(mouth=options.mouth)
    prior = None if options.prior is None else load_prior(options.prior, fit)
    fitted, chosen, report = fit_person(recording, fit, prior)
    write_embedding(pack, fitted, recording, report.to_dict())
    write_embedding(pack, OnsetEmbedding(), recording, {})
    if chosen.name == "generic":
        write_embedding(pack, chosen, recording, {})
    return report


def fit_warnings(report: FitReport) -> Iterator[str]:
    """What a user should know before trusting the fit."""
    if report.speech_s < MIN_SPEECH_S:
        yield (
            f"only {report.speech_s:.0f} s of speech: a fit to the person wants {MIN_SPEECH_S:.0f} s, "
            "and still gains at 40"
        )
    if report.choice == "onset":
        yield f"retrieval by onsets, not by a fit to the person: {report.why}"


def refresh(pack: CharacterPack, options: EmbedOptions, learned: Embedding | None = None) -> FitReport:
    """Make the motion features anew from what the pack holds; `learned`: those of a network, too.

    Raises InputError where the network cannot be applied to this pack.
    """
    recording = pack.recording
    if learned is not None:
        write_embedding(pack.path, learned, recording, {})
    return embed(pack.path, recording, options)
