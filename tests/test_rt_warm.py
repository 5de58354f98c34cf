"""Warming a pack: the cuts that are likely, drawn before anybody waits for them."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engine.blending.blender import open_blender
from engine.character.pack import CharacterPack
from engine.motion_graph.graph import CONTINUE
from tango_rt.cli import main
from tango_rt.pipeline.character import open_character
from tango_rt.pipeline.drawers import draw_ahead
from tango_rt.pipeline.live import LiveOptions
from tango_rt.pipeline.transitions import TransitionStore
from tango_rt.pipeline.warm import WarmOptions, likely_cuts, warm_transitions
from tango_rt.sound.audio import read_audio
from tests.helpers.commands import run_json
from tests.helpers.fakes import make_pack
from tests.helpers.speech import write_speech


def brief(n_cuts: int) -> WarmOptions:
    return WarmOptions(n_cuts=n_cuts, performed_s=30)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_pack(tmp_path / "anna.tango").path


def test_likely_cuts_are_edges_and_hold_those_of_the_speech(path: Path, tmp_path: Path) -> None:
    character = open_character(path)
    speech = read_audio(write_speech(tmp_path / "speech.wav", 6))
    cuts = likely_cuts(character, [speech], brief(10_000))
    graph = character.pack.graph
    cut = graph.kind != CONTINUE
    edges = set(zip(graph.sources[cut].tolist(), graph.indices[cut].tolist(), strict=True))
    assert len(cuts) == len(set(cuts)) > 3 and set(cuts) <= edges
    live = character.performer(LiveOptions())
    live.push(character.pack.recording.samples, "own")
    live.end_of_utterance()
    live.push(speech, "speech")
    live.flush()
    taken = set()
    while (step := live.next()) is not None:
        if step.cut_to is not None:
            taken.add((step.node, step.cut_to))
    assert taken <= set(cuts)
    assert likely_cuts(character, [speech], brief(3)) == likely_cuts(open_character(path), [speech], brief(3))
    assert len(likely_cuts(character, [np.zeros(0, np.float32)], brief(2))) == 2


def test_warm_transitions_are_ready(path: Path) -> None:
    result = warm_transitions(path, [], brief(5))
    assert (result.n_cuts, result.n_computed, result.n_cached) == (5, 5, 0)
    again = warm_transitions(path, [], brief(6))
    assert (again.n_cuts, again.n_computed, again.n_cached) == (6, 1, 5)
    store = TransitionStore(CharacterPack.open(path), open_blender("flow"))
    assert all(map(store.is_cached, likely_cuts(open_character(path), [], brief(6))))


def run(*arguments: object) -> None:
    main(["character", *map(str, arguments)])


def test_command(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tango_rt.pipeline.warm.WarmOptions", partial(WarmOptions, performed_s=30))
    options = "--cuts", 2, "--jobs", 1, "--blender=crossfade"
    result = run_json(capsys, "character", "warm", path, write_speech(tmp_path / "speech.wav", 3), *options)
    assert (result["n_cuts"], result["n_computed"], result["blender"]) == (2, 2, "crossfade")
    run("warm", path, "--cuts", 2, "--jobs", 1)
    assert "2 transitions are ready" in capsys.readouterr().out
    for wrong in ((path, tmp_path / "none.wav"), (tmp_path / "none.tango",), (path, "--lookahead", 9)):
        with pytest.raises(SystemExit) as left:
            run("warm", *wrong)
        assert left.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_without_workers_one_process_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a system allows no more processes."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(11, "no more")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", refused)
    character = open_character(make_pack(tmp_path / "anna.tango", (20, 12)).path)
    cuts = likely_cuts(character, [], brief(6))
    store = TransitionStore(character.pack, open_blender("crossfade"))
    assert list(draw_ahead(store, cuts, 2)) == cuts and all(map(store.is_cached, cuts))
    assert caplog.messages == ["transitions are drawn in this process only: no others can be started (no more)"]
