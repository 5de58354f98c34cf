"""The drawn set of a character: its cuts are chosen, drawn, extended, drawn again; live takes no others."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engine.blending.blender import open_blender
from engine.character.pack import CharacterPack
from engine.motion_graph.graph import CONTINUE
from engine.motion_graph.live_graph import leading_cuts
from engine.motion_graph.search import SearchOptions
from tango_rt.characters.inspect import describe, summarize
from tango_rt.cli import main
from tango_rt.pipeline import live_cuts
from tango_rt.pipeline.character import open_character
from tango_rt.pipeline.drawers import draw_ahead
from tango_rt.pipeline.live import LiveOptions
from tango_rt.pipeline.live_cuts import choose_cuts, likely_cuts
from tango_rt.pipeline.pictures import PictureSource
from tango_rt.pipeline.render import RenderOptions, render
from tango_rt.pipeline.transitions import TransitionStore
from tango_rt.pipeline.warm import WarmOptions, warm
from tango_rt.sound.audio import read_audio
from tests.helpers.commands import run_json
from tests.helpers.cues import with_cues
from tests.helpers.drawn_sets import with_drawn
from tests.helpers.fakes import make_pack
from tests.helpers.speech import write_speech


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_pack(tmp_path / "anna.tango").path


def test_likely_cuts_are_edges_and_found_again(path: Path, tmp_path: Path) -> None:
    character = open_character(path)
    speech = read_audio(write_speech(tmp_path / "speech.wav", 6))
    cuts = likely_cuts(character, [speech], 2)
    graph = character.pack.graph
    cut = graph.kind != CONTINUE
    edges = set(zip(graph.sources[cut].tolist(), graph.indices[cut].tolist(), strict=True))
    assert len(cuts) == len(set(cuts)) > 10 and set(cuts) <= edges
    assert likely_cuts(open_character(path), [speech], 2) == cuts
    assert set(choose_cuts(character, [speech], 5, 2)) >= set(cuts[:5])


def test_every_cut_of_a_live_performance_is_drawn(path: Path, tmp_path: Path) -> None:
    """Speech, interrupts of both kinds and rest: by what was drawn, from the first step on, at any speed."""
    warm(path, [], WarmOptions(0.5))
    character = open_character(path)
    drawn = character.pack.drawn
    assert drawn is not None
    live = character.performer(LiveOptions(drawn_only=True))
    source = PictureSource(character.pack, open_blender(character.blender), None)
    speech = read_audio(write_speech(tmp_path / "speech.wav", 20))
    rng = np.random.default_rng(1)
    cuts = 0
    for number in range(12):
        live.push(np.roll(speech, 8000 * number), f"{number}")
        live.end_of_utterance()
        for _ in range(int(rng.integers(20, 150))):
            step = live.next() or live.idle()
            shown = source.draw(step, due_in_s=0.0)
            assert not shown.late and (step.cut_to is None or not shown.computed)
            if step.cut_to is not None:
                cuts += 1
                assert (step.node, step.cut_to) in drawn
                assert drawn.packets((step.node, step.cut_to))[:4] == list(shown.packets)
        live.interrupt("rest" if number % 3 else "cut")
    assert cuts > 20


def test_renders_keep_all_cuts_unless_they_hear_as_live_does(path: Path, tmp_path: Path) -> None:
    speech = write_speech(tmp_path / "speech.wav", 20)
    free = {
        ahead: render(CharacterPack.open(path), speech, tmp_path / "a.mp4", RenderOptions(lookahead_nodes=ahead))
        for ahead in (None, 2)
    }
    warm(path, [], WarmOptions(0.3))
    pack = CharacterPack.open(path)
    held = {
        ahead: render(pack, speech, tmp_path / "b.mp4", RenderOptions(lookahead_nodes=ahead)) for ahead in (None, 2)
    }
    assert held[None].nodes == free[None].nodes
    assert held[2].nodes != free[2].nodes
    assert pack.drawn is not None
    steps = list(zip(held[2].nodes, held[2].nodes[1:], strict=False))
    kinds = {(int(i), int(j)) for i, j in zip(pack.drawn.graph.sources, pack.drawn.graph.indices, strict=True)}
    assert set(steps) <= kinds


def test_a_whole_utterance_of_a_live_stream_takes_only_drawn_cuts(path: Path, tmp_path: Path) -> None:
    character = open_character(with_drawn(CharacterPack.open(path)).path)
    speech = read_audio(write_speech(tmp_path / "speech.wav", 12))
    taken = {}
    for drawn_only in (False, True):
        live = character.performer(LiveOptions(None, False, drawn_only))
        live.push(speech, "speech")
        live.flush()
        cuts = set()
        while (step := live.next()) is not None:
            if step.cut_to is not None:
                cuts.add((step.node, step.cut_to))
        taken[drawn_only] = cuts
    assert character.pack.drawn is not None
    assert taken[True] <= set(character.pack.drawn.numbers) and not taken[False] <= set(character.pack.drawn.numbers)


def test_warming_goes_on_extends_and_draws_again(path: Path, tmp_path: Path) -> None:
    first = warm(path, [], WarmOptions(0.2, "crossfade"))
    assert (first.blender, first.n_cached) == ("crossfade", 0) and first.n_computed == first.n_cuts > 0
    assert not list(path.glob("transitions/*/*.gops")), "once in the set, the pictures are kept only there"
    again = warm(path, [], WarmOptions(0.2))
    assert (again.blender, again.n_cuts, again.n_computed) == ("crossfade", first.n_cuts, 0)
    more = warm(path, [write_speech(tmp_path / "speech.wav", 6)], WarmOptions(1.0))
    assert more.n_cuts > first.n_cuts and more.n_cached == first.n_cuts
    drawn = CharacterPack.open(path).drawn
    other = warm(path, [], WarmOptions(0.2, "flow"))
    assert (other.blender, other.n_cuts, other.n_computed) == ("flow", more.n_cuts, more.n_cuts)
    redrawn = CharacterPack.open(path).drawn
    assert drawn is not None and redrawn is not None and redrawn.numbers == drawn.numbers


def test_what_was_drawn_before_an_interrupt_is_kept(path: Path) -> None:
    character = open_character(path)
    blender = open_blender("crossfade")
    cuts = choose_cuts(character, [], round(0.2 * character.pack.graph.n_kept), 2)
    store = TransitionStore(character.pack, blender)
    done = draw_ahead(store, cuts, 1)
    for _ in range(3):
        next(done)
    done.close()
    result = warm(path, [], WarmOptions(0.2, "crossfade"))
    assert (result.n_cached, result.n_computed) == (3, len(cuts) - 3)


def test_packs_without_a_drawn_set_work_and_say_what_to_do(path: Path) -> None:
    pack = CharacterPack.open(path)
    assert "character warm" in summarize(describe(pack))
    character = open_character(path)
    assert character.blender == "flow"
    live, limited = (character.performer(LiveOptions(drawn_only=only)) for only in (False, True))
    assert [live.idle().node for _ in range(40)] == [limited.idle().node for _ in range(40)]
    with_drawn(pack)
    assert "cuts drawn by crossfade" in summarize(describe(CharacterPack.open(path)))


def test_command(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_cuts, "likely_cuts", partial(_few_cuts, live_cuts.likely_cuts))
    options = "--live-cuts", 0.1, "--jobs", 1, "--blender=crossfade"
    result = run_json(capsys, "character", "warm", path, write_speech(tmp_path / "speech.wav", 3), *options)
    assert result["n_cuts"] == result["n_computed"] > 0 and result["blender"] == "crossfade"
    main(["character", "warm", str(path), "--live-cuts", "0.1", "--jobs", "1"])
    assert "transitions are ready for live streams" in capsys.readouterr().out
    for wrong in ((path, tmp_path / "none.wav"), (tmp_path / "none.tango",), (path, "--live-cuts", -1)):
        with pytest.raises(SystemExit) as left:
            main(["character", "warm", *map(str, wrong)])
        assert left.value.code == 2


def _few_cuts(all_of_them, *arguments):  # type: ignore[no-untyped-def]
    return all_of_them(*arguments)[:4]


def test_cuts_lead_to_the_cues(path: Path) -> None:
    plain = choose_cuts(open_character(path), [], 5, 2)
    pack = with_cues(CharacterPack.open(path), wave=(20, 5), nod=(50, 3))
    cuts = choose_cuts(open_character(path), [], 5, 2)
    assert set(cuts) > set(plain)
    assert leading_cuts(pack.graph, np.array(cuts, np.int32), [20, 50], SearchOptions()).tolist() == []
