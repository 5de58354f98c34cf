"""The evaluation: what was planted is measured, what was not is not, every row is there, odd input is told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import ArtifactError, InputError
from engine.features.embedding import Features
from engine.features.fit import FitOptions
from engine.features.recording import Recording
from engine.features.scores import WINDOW
from engine.features.validation import outside
from engine.timebase import SAMPLE_RATE
from export.evaluation import run
from export.evaluation.baselines import CorrelationEmbedding, LaggedEmbedding
from export.evaluation.effects import EFFECTS, pitched, stretched
from export.evaluation.measures import measure, summary
from export.evaluation.people import Person, compute_features
from export.evaluation.rivals import Rival, bundle_rival, make_rivals
from export.evaluation.run import EvaluateOptions, evaluate, summarize
from export.evaluation.tables import markdown
from tests.helpers.fakes import make_pack
from tests.helpers.fakes_recording import at_ease, gestures, noise, recording_of, syllables, voiced

QUICK = FitOptions(scales=(8, 24))
SINGLE = FitOptions(scales=(16,))
OPTIONS = EvaluateOptions(fit=QUICK, progress=False)
ROWS_ALONE = EvaluateOptions(fit=SINGLE, progress=False, shown=False, curves=False, voices=False)


def planted(seed: int, n_frames: int = 1200, lag: int = 0) -> Recording:
    """Somebody whose hands move as the voice does, `lag` frames later."""
    rng = np.random.default_rng(seed)
    loud = syllables(n_frames, rng)
    recording = recording_of(gestures(loud, lag, rng), samples=voiced(loud, rng))
    return replace(recording, name=f"person {seed}", mouth=rng.normal(size=(n_frames, 2)).astype(np.float32))


def jumpy(seed: int) -> Recording:
    """Noise that jumps to another place every two seconds; the voice pauses there."""
    rng = np.random.default_rng(seed)
    n_clips, nodes = 20, 15
    loud = syllables(n_clips * nodes * 4, rng)
    joints = at_ease(len(loud)) + rng.normal(0, 2, (len(loud), 75, 3)).astype(np.float32)
    for clip in range(n_clips):
        first = clip * nodes * 4
        joints[first : first + nodes * 4] += rng.normal(0, 60, (1, 75, 3)).astype(np.float32)
        loud[max(first - 6, 0) : first + 6] = 0
    return replace(recording_of(joints, [nodes] * n_clips, samples=voiced(loud, rng)), name="jumpy")


def told(people: list[Recording], options: EvaluateOptions, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(run, "read_people", lambda data: [Person(one) for one in people])
    return evaluate([], options)


def row_of(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in result["rows"] if row["row"] == name)


def figures(recording: Recording) -> dict[str, Any]:
    """Of the fitted embedding, and its control."""
    person = Person(recording)
    rivals = {rival.name: rival for rival in make_rivals([person], QUICK)}
    fitted, onset = (measure(rivals[name], person) for name in ("fitted", "onset"))
    return summary([fitted], {"onset": [onset]})


@pytest.mark.slow
def test_planted_is_found() -> None:
    late, prompt = figures(planted(1, 900, lag=8)), figures(planted(2, 900))
    for one in (late, prompt):
        assert one["low"]["low"] > 0.7 > 0.45 > one["control"]["mean"]
        assert one["first"]["mean"] > 0.8 and one["far_beaten"]["mean"] > 0.95
        assert abs(one["r"]["random"]["mean"]) < 0.1
    assert late["gain"]["onset"]["low"] > 0.2, "onsets look for the gesture at the same time"
    assert prompt["r"]["true"]["mean"] > 0.9 and prompt["r"]["chosen"]["mean"] > 0.3


@pytest.mark.slow
def test_strangers_and_jumps_have_nothing_in_common() -> None:
    stranger = replace(planted(1, 900), samples=planted(9, 900).samples)
    for recording in (stranger, jumpy(4)):
        one = figures(recording)
        assert one["low"]["low"] <= one["control"]["mean"] + 0.05
        assert one["first"]["mean"] < 0.2 and 0.2 < one["far_beaten"]["mean"] < 0.8


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A pack and two planted people, every section."""
    folder = tmp_path_factory.mktemp("evaluation")
    pack = make_pack(folder / "drawn.tango", (60, 40), seed=3)
    people = [Person(planted(1, 700)), Person(pack.recording, pack), Person(planted(2, 300))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "read_people", lambda data: people)
        result = evaluate([], replace(OPTIONS, fit=SINGLE, output=folder / "report"))
    return result, folder / "report"


@pytest.mark.slow
def test_every_row_is_in_the_tables(report: tuple[dict[str, Any], Path]) -> None:
    result, folder = report
    names = [
        "control",
        *(rival.name for rival in make_rivals([Person(planted(1)), Person(planted(2))], SINGLE)),
    ]
    assert [row["row"] for row in result["rows"]] == names
    for wanted in ("onset, trial, 13", "onset", "generic", "generic, lag fitted", "fitted", "fitted+mouth"):
        assert wanted in names
    text, marked = summarize(result), markdown(result)
    for wanted in (*names, "drawn", "person 1", "Shown path", "Look-ahead", "Learning curve", "Other voices", *EFFECTS):
        assert wanted in text and wanted in marked
    assert "nan" not in text and "None" not in text
    assert json.loads((folder / "evaluation.json").read_text("utf-8")) == result
    assert (folder / "evaluation.md").read_text("utf-8").startswith("# Evaluation")
    assert (folder / "evaluation.png").stat().st_size > 10_000


@pytest.mark.slow
def test_who_is_too_short_is_told(report: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = report
    assert [one["name"] for one in result["people"]] == ["person 1", "drawn"]
    assert "person 2: 10.0 s are too short for a test" in summarize(result)
    with pytest.raises(InputError, match=r"longest of 1 recordings has 10\.0 s: give one of 12 s or more"):
        told([planted(2, 300)], ROWS_ALONE, monkeypatch)


@pytest.mark.slow
def test_only_packs_have_a_path_to_show(report: tuple[dict[str, Any], Path]) -> None:
    result, _ = report
    assert [row["row"] for row in result["shown"]] == ["onset", "generic", "fitted", "fitted+mouth"]
    assert all(list(row["people"]) == ["drawn"] for row in result["shown"])


@pytest.mark.slow
def test_longer_waiting_and_longer_fits_find_more(report: tuple[dict[str, Any], Path]) -> None:
    result, _ = report
    curve = result["lookahead"]["people"]["person 1"]
    assert curve["whole"]["mean"] >= curve["0"]["mean"] > 0.3
    assert curve["whole"]["mean"] == row_of(result, "fitted")["people"]["person 1"]["low"]["mean"]
    assert list(result["learning"]["person 1"]["fitted"]) == ["5", "10", "15"]
    assert result["costs"]["rows_times_real_time"] > 10


@pytest.mark.slow
def test_another_microphone_costs_little(report: tuple[dict[str, Any], Path]) -> None:
    result, _ = report
    changed = result["voices"]["people"]["person 1"]
    plain = row_of(result, "fitted")["people"]["person 1"]["low"]
    assert changed["unchanged"]["low"] == plain and changed["unchanged"]["gain"]["mean"] == 0
    assert abs(changed["20 dB quieter"]["gain"]["mean"]) < 0.1
    assert changed["tempo 0.9"]["low"]["mean"] > plain["mean"] / 2
    assert list(result["voices"]["foreign"]["person 1"]) == [
        "chosen",
        "random",
        "alike",
        "same",
        "alike_control",
        "same_control",
    ]


def test_alone_there_are_no_generic_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    result = told([replace(planted(1, 600), mouth=None)], ROWS_ALONE, monkeypatch)
    names = [row["row"] for row in result["rows"]]
    assert not [name for name in names if "generic" in name or "prior" in name or "mouth" in name]
    assert row_of(result, "fitted")["pooled"]["frames"] > 0
    summarize(result)


def test_namesakes_stay_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        make_pack(tmp_path / folder / "anna.tango", (6, 5))
    people = run.read_people([tmp_path])
    assert [person.name for person in people] == ["anna", "anna #2"]
    assert all(person.pack is not None for person in people)
    with pytest.raises(InputError, match="is a file"):
        (tmp_path / "file").write_text("")
        evaluate([tmp_path], replace(OPTIONS, output=tmp_path / "file"))


def test_windows_asked_for_lie_in_what_is_kept_out() -> None:
    for n_frames in (400, 800, 1800):
        person = Person(planted(1, n_frames))
        assert len(person.asked) == len(person.stretches) == 5
        for stretch in person.stretches:
            starts = person.window_starts[stretch.windows]
            reach = person.scales(QUICK)[-1]
            kept = reach.frames[outside(reach, stretch.frames)]
            first, last = starts.min() - reach.half_frames, starts.max() + WINDOW + reach.half_frames
            assert not ((kept + reach.half_frames > first) & (kept - reach.half_frames < last)).any()


def test_correlation_is_that_of_the_contexts() -> None:
    person = Person(planted(3, 400))
    embedding = CorrelationEmbedding(13)
    speech, motion = (features.low for features in compute_features(embedding, person))
    flux = person.rows[100 - 13 : 100 + 14, 2]
    assert speech.shape == motion.shape == (400, 27)
    np.testing.assert_allclose(speech[100], (flux - flux.mean()) / (flux.std() * np.sqrt(27)), atol=1e-5)
    later = LaggedEmbedding(embedding, 5).motion(person.recording).low
    np.testing.assert_array_equal(later[:390], motion[5:395])


def test_effects_keep_what_they_should() -> None:
    seconds = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    tone = (0.3 * np.sin(2 * np.pi * 440 * seconds) * (seconds > 0.5)).astype(np.float32)
    slow, high = stretched(tone, 0.8), pitched(tone, 12)
    assert len(slow) == len(tone) / 0.8 and len(high) == len(tone)
    assert _hertz(slow) == pytest.approx(440, abs=3) and _hertz(high) == pytest.approx(880, abs=5)
    assert abs(np.flatnonzero(np.abs(slow) > 0.1)[0] / SAMPLE_RATE - 0.5 / 0.8) < 0.04
    rng = np.random.default_rng(0)
    for tempo, effect in EFFECTS.values():
        made = effect(noise(60, rng))
        assert made.dtype == np.float32 and np.isfinite(made).all()
        assert abs(len(made) - round(SAMPLE_RATE * 2 / tempo)) <= 1
    assert np.isfinite(EFFECTS["clipped at a tenth of the peak"][1](np.zeros(0, np.float32))).all()


def _hertz(samples: np.ndarray) -> float:
    middle = samples[len(samples) // 2 :][: SAMPLE_RATE // 2]
    return float(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * SAMPLE_RATE / len(middle))


def test_what_cannot_be_tried_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wanting(CorrelationEmbedding):
        def motion(self, recording: Recording) -> Features:
            raise InputError(f"{recording.name} has no motion of 55 joints")

    monkeypatch.setattr(
        run, "bundle_rival", lambda folder: Rival("full b", lambda person, asked: Wanting(13), shown=True)
    )
    result = told([planted(1, 600)], replace(ROWS_ALONE, bundles=(Path("b"),), shown=True), monkeypatch)
    assert "full b" not in [row["row"] for row in result["rows"]]
    assert result["notes"] == ["full b could not be tested: person 1 has no motion of 55 joints"]


def test_only_bundles_of_embeddings_are_tried(tmp_path: Path) -> None:
    with pytest.raises((InputError, ArtifactError), match=r"bundle|manifest"):
        bundle_rival(tmp_path)


def test_networks_learn_from_others_and_adapt_to_what_is_not_asked() -> None:
    pytest.importorskip("torch")
    from export.evaluation.networks import ABLATIONS, NetworkOptions, network_rivals
    from export.training.trainer import TrainOptions

    train = TrainOptions(steps=1, batch=2, variants=0, progress=False)
    people = [Person(planted(seed, n_frames)) for seed, n_frames in ((1, 900), (2, 400))]
    rivals = network_rivals(people, NetworkOptions(n_groups=2, train=train, adapt_steps=1))
    by_name = {rival.name: rival for rival in rivals}
    assert list(by_name) == [*ABLATIONS, "mini, adapted"]
    hashes = {}
    for name in ("mini", "mini, low only", "mini, adapted"):
        embeddings = [by_name[name].without(person, person.asked[0]) for person in people]
        hashes[name] = [embedding.sha256 for embedding in embeddings]
        speech, motion = compute_features(embeddings[0], people[0])
        assert speech.low.shape == motion.low.shape == (900, 16)
        assert speech.high.shape == motion.high.shape == (900, 0 if "low" in name else 16)
    assert hashes["mini"][0] != hashes["mini"][1], "each is trained without the other"
    assert hashes["mini, adapted"][0] != hashes["mini"][0]
    assert by_name["mini, adapted"].without(people[1], np.arange(400)).sha256 == hashes["mini"][1], (
        "nothing to adapt to"
    )
    with pytest.raises(InputError, match="two recordings"):
        network_rivals(people[:1], NetworkOptions())
