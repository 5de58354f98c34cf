"""Priors: what people have in common helps where there is little of a person; files, and files of something else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ArtifactError, InputError
from engine.features.fit import fit_prior
from engine.features.prior import load_prior, save_prior
from engine.features.validation import fit_person
from tests.helpers.planted_people import QUICK, fitted_to, person, rows_of, share_found


def test_people_of_the_same_kind_help_where_there_is_little() -> None:
    others = [person(seed, lag=8, noise_px=10) for seed in (20, 21, 22)]
    prior = fit_prior([(other, rows_of(other)) for other in others], QUICK)
    little, later = person(25, n_frames=120, lag=8, noise_px=10), person(65, lag=8, noise_px=10)
    alone, leaning = (share_found(fitted_to(little, QUICK, each), later) for each in (None, prior))
    assert leaning > alone + 0.1 and leaning > 0.6
    _, chosen, report = fit_person(person(26, n_frames=500, lag=8, noise_px=10), QUICK, prior)
    assert report.choice in ("fitted", "generic") and chosen.name == report.choice
    assert report.scores["generic"].low > report.control["generic"]


def test_a_prior_survives_the_disk(tmp_path: Path) -> None:
    recording = person(26, n_frames=400)
    prior = fit_prior([(recording, rows_of(recording))], QUICK)
    save_prior(prior, tmp_path / "people.npz")
    again = load_prior(tmp_path / "people.npz", QUICK)
    assert list(again) == list(prior) == [8, 24]
    for half, part in prior.items():
        for name in ("voice", "body", "both"):
            np.testing.assert_allclose(getattr(again[half], name), getattr(part, name), rtol=1e-6, atol=1e-9)


def test_what_is_no_prior_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no prior at"):
        load_prior(tmp_path / "nothing.npz", QUICK)
    with pytest.raises(InputError, match="cannot be written"):
        save_prior({}, tmp_path / "no folder" / "people.npz")
    recording = person(26, n_frames=400)
    file = tmp_path / "people.npz"
    save_prior(fit_prior([(recording, rows_of(recording))], QUICK), file)
    whole = file.read_bytes()
    wrong = [replace(QUICK, mouth=True), replace(QUICK, scales=(8, 32))]
    for options in wrong:
        with pytest.raises(ArtifactError, match="is not a prior for a fit"):
            load_prior(file, options)
    for content in (b"", b"hello", whole[:500], whole[:-100], whole.replace(b"8/both", b"8/loth")):
        file.write_bytes(content)
        with pytest.raises(ArtifactError, match="is not a prior for a fit") as refused:
            load_prior(file, QUICK)
        assert "\n" not in str(refused.value)
    np.savez(file, **{"8/voice": np.full((15, 15), np.nan, np.float32)})
    with pytest.raises(ArtifactError):
        load_prior(file, QUICK)


def test_a_prior_with_lips_serves_somebody_without() -> None:
    lips = person(31, 400)
    lips = replace(lips, mouth=np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32))
    options = replace(QUICK, mouth=True)
    prior = fit_prior([(lips, rows_of(lips))], options)
    report = fit_person(person(32, 600), options, prior)[2]
    assert not report.mouth and report.choice != ""
