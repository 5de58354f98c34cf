"""Which embedding is used: what a build chose, what the user asks for, what does not fit the pack and is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.character.embeddings import read_embedding, stored_names, write_embedding
from engine.character.pack import CharacterPack
from engine.character.perform import PerformOptions, perform
from engine.character.retrieval import RetrievalOptions, open_retrieval
from engine.character.steps import speech_steps
from engine.errors import ArtifactError, InputError
from engine.features.fit import FitOptions, fit_prior
from engine.features.onset import OnsetEmbedding
from engine.features.prior import save_prior
from engine.features.scores import Interval
from engine.features.speech import speech_features
from engine.features.validation import FitReport, fit_person
from engine.motion_graph.costs import CostOptions, MotionVectors, SpeechSteps, node_costs
from engine.timebase import SAMPLE_RATE
from tango_rt.characters.embed import EmbedOptions, embed
from tango_rt.characters.inspect import fit_warnings
from tango_rt.sound.audio import read_audio
from tango_rt.video.reader import VideoReader
from tests.helpers.commands import refusal, run_json
from tests.helpers.fakes import make_pack
from tests.helpers.fakes_session import write_fake_bundle
from tests.helpers.mini_bundles import mini_bundle
from tests.helpers.speech import write_speech


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with onsets and a fit; it is too short to choose the fit."""
    pack = make_pack(tmp_path_factory.mktemp("made") / "anna.tango")
    embed(pack.path, pack.recording, EmbedOptions())
    return pack.path


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> CharacterPack:
    return CharacterPack.open(shutil.copytree(made, tmp_path / "anna.tango"))


@pytest.fixture
def samples(tmp_path: Path) -> np.ndarray:
    return read_audio(write_speech(tmp_path / "speech.wav", 4))


def change_record(pack: CharacterPack, name: str, **changes: object) -> None:
    file = pack.path / "embeddings" / name / "embedding.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def chosen(pack: CharacterPack, name: str = "auto") -> str:
    return open_retrieval(pack, RetrievalOptions(name)).embedding.name  # type: ignore[arg-type]


def test_a_pack_gets_a_fit_and_what_it_is_worth(pack: CharacterPack) -> None:
    assert stored_names(pack.path) == ["fitted", "onset"]
    fit = read_embedding(pack, "fitted")
    assert fit.fitted is not None
    assert {"choice", "why", "scores", "control", "gain", "lag_frames", "speech_s", "mouth"} <= set(fit.about)
    fitted, _, report = fit_person(pack.recording, FitOptions(mouth=True))
    assert fitted.sha256 == fit.sha256 and report.to_dict() == fit.about, "the same pack gives the same fit"


def test_auto_is_what_the_report_says(pack: CharacterPack) -> None:
    assert chosen(pack) == read_embedding(pack, "fitted").about["choice"] == "onset"
    change_record(pack, "fitted", about={"choice": "fitted"})
    assert chosen(pack) == "fitted"
    assert chosen(pack, "onset") == "onset" and chosen(pack, "fitted") == "fitted"
    shutil.rmtree(pack.path / "embeddings" / "fitted")
    assert chosen(pack) == "onset"


@pytest.mark.parametrize("choice", ["generic", "mini", "../fitted", 7, None, ["fitted"]])
def test_a_choice_that_is_not_there_is_refused(pack: CharacterPack, choice: object) -> None:
    change_record(pack, "fitted", about={"choice": choice})
    with pytest.raises((InputError, ArtifactError)) as refused:
        open_retrieval(pack)
    assert str(pack.path) in str(refused.value)


@pytest.mark.parametrize("name", ["onset", "fitted"])
def test_features_of_another_hash_are_refused_and_made_anew(
    pack: CharacterPack, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change_record(pack, name, sha256="0" * 64)
    speech, out = tmp_path / "speech.wav", tmp_path / "out.mp4"
    write_speech(speech, 2)
    said = refusal(capsys, "render", pack.path, speech, "-o", out, "--retrieval", name)
    assert "character refresh" in said and not out.exists()
    figures = run_json(capsys, "character", "refresh", pack.path)
    assert set(figures["retrieval"]) == {"onset", "fitted"}
    result = run_json(capsys, "render", pack.path, speech, "-o", out, "--retrieval", name, "--blender", "cut")
    assert result["retrieval"] == name


def test_features_of_another_width_are_refused(pack: CharacterPack, samples: np.ndarray) -> None:
    file = pack.path / "embeddings" / "fitted" / "low.npy"
    np.save(file, np.load(file)[:, :-1])
    with pytest.raises(ArtifactError):
        perform(pack, samples, PerformOptions(retrieval=RetrievalOptions("fitted")))


@pytest.mark.parametrize("name", ["fitted", "onset"])
def test_render_by(pack: CharacterPack, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    speech, out = write_speech(tmp_path / "speech.wav", 3), tmp_path / "out.mp4"
    result = run_json(capsys, "render", pack.path, speech, "-o", out, "--retrieval", name, "--jobs", 1)
    assert result["retrieval"] == name
    with VideoReader(out) as reader:
        assert sum(1 for _ in reader) == result["n_frames"] == 90


@pytest.mark.parametrize(("name", "weight"), [("fitted", 2.0), ("onset", 0.5)])
def test_similarities_count_by_the_weight_of_the_embedding(
    pack: CharacterPack, samples: np.ndarray, monkeypatch: pytest.MonkeyPatch, name: str, weight: float
) -> None:
    seen = []

    def watched(steps: SpeechSteps, motion: MotionVectors, rest: np.ndarray, options: CostOptions) -> np.ndarray:
        seen.append(options)
        return node_costs(steps, motion, rest, options)

    monkeypatch.setattr("engine.character.perform.node_costs", watched)
    costs = CostOptions(similarity_weight=0.5, level_weight=3.0)
    perform(pack, samples, PerformOptions(retrieval=RetrievalOptions(name), costs=costs))  # type: ignore[arg-type]
    assert seen and all(options == replace(costs, similarity_weight=weight) for options in seen)


def test_what_is_compared_makes_a_difference(pack: CharacterPack, samples: np.ndarray) -> None:
    paths = [
        perform(pack, samples, PerformOptions(retrieval=RetrievalOptions(name))).nodes  # type: ignore[arg-type]
        for name in ("fitted", "onset")
    ]
    assert paths[0].tolist() != paths[1].tolist()


def test_the_search_of_the_release_does_without_a_high_level(pack: CharacterPack, samples: np.ndarray) -> None:
    found = perform(pack, samples, PerformOptions(retrieval=RetrievalOptions("fitted"), search="official"))
    assert found.retrieval == "fitted" and len(found.nodes) == len(found.speaking)
    assert np.isfinite(found.cost) and set(found.nodes.tolist()) <= set(np.flatnonzero(pack["graph_kept"]).tolist())


@pytest.mark.parametrize("name", ["mini", "full"])
def test_networks_are_asked_for(
    pack: CharacterPack, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    speech = write_speech(tmp_path / "speech.wav", 1)
    said = refusal(capsys, "render", pack.path, speech, "-o", tmp_path / "out.mp4", "--retrieval", name)
    assert f"{name!r} needs its networks" in said


def test_what_the_pack_does_not_hold_is_named(
    pack: CharacterPack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speech = write_speech(tmp_path / "speech.wav", 1)
    said = refusal(capsys, "render", pack.path, speech, "-o", tmp_path / "out.mp4", "--retrieval", "generic")
    assert "no motion features for 'generic'" in said


def test_no_lips(pack: CharacterPack, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run_json(capsys, "character", "refresh", pack.path, "--no-mouth")
    assert figures["retrieval"]["fitted"]["mouth"] is False
    assert figures["name"] == "anna" and figures["schema"] == pack.info.schema


def test_a_prior_is_leant_on(pack: CharacterPack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = pack.recording
    options = FitOptions(mouth=False)
    save_prior(fit_prior([(recording, speech_features(recording.samples))], options), tmp_path / "people.npz")
    before = read_embedding(pack, "fitted").sha256
    said = refusal(capsys, "character", "refresh", pack.path, "--prior", tmp_path / "people.npz")
    assert "is not a prior for a fit with the mouth" in said
    assert read_embedding(pack, "fitted").sha256 == before
    figures = run_json(capsys, "character", "refresh", pack.path, "--prior", tmp_path / "people.npz", "--no-mouth")
    assert "generic" in figures["retrieval"]["fitted"]["scores"]
    assert read_embedding(pack, "fitted").sha256 != before
    assert "no prior at" in refusal(capsys, "character", "refresh", pack.path, "--prior", tmp_path / "nobody.npz")


def test_a_prior_with_lips_serves_a_pack_without(
    pack: CharacterPack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mouth of this pack does not move."""
    recording = pack.recording
    prior = fit_prior([(recording, speech_features(recording.samples))], FitOptions(mouth=True))
    save_prior(prior, tmp_path / "people.npz")
    figures = run_json(capsys, "character", "refresh", pack.path, "--prior", tmp_path / "people.npz")
    assert "generic" in figures["retrieval"]["fitted"]["scores"]


def test_networks_of_a_bundle(pack: CharacterPack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    bundle, other = mini_bundle(tmp_path / "bundle"), mini_bundle(tmp_path / "other", 0.2)
    speech, out = write_speech(tmp_path / "speech.wav", 3), tmp_path / "out.mp4"
    render = ("render", pack.path, speech, "-o", out, "--blender", "cut", "--jobs", 1)
    assert "no motion features for 'mini'" in refusal(capsys, *render, "--bundle", bundle)
    figures = run_json(capsys, "character", "refresh", pack.path, "--bundle", bundle)
    assert set(figures["retrieval"]) == {"onset", "fitted", "mini"}
    told = run_json(capsys, *render, "--bundle", bundle)
    assert told["retrieval"] == "mini" and "onnxruntime fp32" in told["networks"]
    unverified = mini_bundle(tmp_path / "unverified", verified=False)
    assert "unverified" in refusal(capsys, *render, "--bundle", unverified)
    assert run_json(capsys, *render, "--bundle", unverified, "--unverified")["nodes"] == told["nodes"]
    from tango_rt.cli import main

    with pytest.raises(SystemExit) as left:
        main([*map(str, render), "--bundle", str(bundle), "--backend", "onnxruntime", "--precision", "bf16"])
    said = capsys.readouterr().err
    assert left.value.code == 1 and said.startswith("tango-rt: onnxruntime computes in fp32, ") and "bf16" in said
    assert run_json(capsys, *render, "--bundle", bundle, "--search", "official")["retrieval"] == "mini"
    said = refusal(capsys, *render, "--bundle", other)
    assert "holds mini motion features of" in said and "character refresh" in said
    assert "retrieval by 'fitted' was requested" in refusal(
        capsys, *render, "--bundle", bundle, "--retrieval", "fitted"
    )
    assert run_json(capsys, *render)["retrieval"] == "onset", "without a bundle what was chosen"


def test_bundles_of_something_else(pack: CharacterPack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_fake_bundle(tmp_path / "bundle", {}, {})
    said = refusal(capsys, "character", "refresh", pack.path, "--bundle", tmp_path / "bundle")
    assert "retrieval wants mini or full" in said
    assert "nowhere" in refusal(capsys, "character", "refresh", pack.path, "--bundle", tmp_path / "nowhere")
    assert stored_names(pack.path) == ["fitted", "onset"]


def test_inspect_tells_of_the_fit(pack: CharacterPack, capsys: pytest.CaptureFixture[str]) -> None:
    from tango_rt.cli import main

    main(["character", "inspect", str(pack.path)])
    told = capsys.readouterr().out
    assert "retrieval: onset, for" in told and "embeddings: fitted, onset" in told
    shutil.rmtree(pack.path / "embeddings" / "fitted")
    main(["character", "inspect", str(pack.path)])
    assert "retrieval: onset\n" in capsys.readouterr().out


@pytest.mark.parametrize("about", [{}, {"choice": 1, "why": [], "lag_frames": "x", "speech_s": None}])
def test_inspect_of_a_fit_of_which_little_is_known(
    pack: CharacterPack, capsys: pytest.CaptureFixture[str], about: dict[str, object]
) -> None:
    """A pack may come from anybody: told or refused in one line, but no internal error."""
    from tango_rt.cli import main

    change_record(pack, "fitted", about=about)
    try:
        main(["character", "inspect", str(pack.path)])
    except SystemExit as left:
        assert left.code == 2
    assert "internal error" not in capsys.readouterr().err


def report_of(**changes: object) -> FitReport:
    sure = Interval(0.6, 0.5, 0.7)
    report = FitReport("fitted", "because", {"fitted": sure}, {"fitted": 0.2}, sure, 900, 30.0, 0, True)
    return replace(report, **changes)  # type: ignore[arg-type]


def test_a_user_is_warned_of_a_poor_fit() -> None:
    def warned(**changes: object) -> list[str]:
        return fit_warnings({"fitted": report_of(**changes).to_dict()}, Path("a.tango"))

    assert warned() == [] and fit_warnings({"onset": {}}, Path("a.tango")) == []
    (little,) = warned(speech_s=9.4)
    assert "only 9 s of speech" in little and "15 s" in little
    (none,) = warned(choice="onset", why="nothing was found")
    assert "onsets" in none and "nothing was found" in none


def test_onsets_of_a_pack_are_those_of_its_joints(pack: CharacterPack) -> None:
    retrieval = open_retrieval(pack, RetrievalOptions("onset"))
    steps = speech_steps(retrieval.embedding, np.zeros(SAMPLE_RATE, np.float32))
    assert steps.low.shape[1] == retrieval.motion.low.shape[1]
    np.testing.assert_array_equal(retrieval.motion.level, pack["motion_level"])
    write_embedding(pack.path, OnsetEmbedding(), pack.recording, {})
    again = open_retrieval(CharacterPack.open(pack.path), RetrievalOptions("onset"))
    np.testing.assert_array_equal(again.motion.low, retrieval.motion.low)
