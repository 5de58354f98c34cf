"""Cues in a render: through the stretch if any way exists, with the whole speech and with a look-ahead."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.character.cues import TimedCue
from engine.character.pack import CharacterPack
from engine.errors import InputError
from tango_rt.api import Character
from tango_rt.cue_list import read_cue_list
from tests.helpers.commands import refusal, run_json
from tests.helpers.cues import stretches, with_cues
from tests.helpers.drawn_sets import with_drawn
from tests.helpers.fakes import make_pack
from tests.helpers.speech import write_speech


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> CharacterPack:
    drawn = with_drawn(make_pack(tmp_path_factory.mktemp("cues") / "anna.tango"))
    starts = stretches(drawn, 10)
    return with_cues(drawn, wave=(starts[6], 10), nod=(starts[-4], 4))


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech") / "speech.wav", 8.0)


def asked(place: Path, *cues: dict[str, Any]) -> Path:
    place.write_text(json.dumps(cues))
    return place


@pytest.mark.parametrize("how", [(), ("--lookahead", 2), ("--seed", 3), ("--lookahead", 0)])
def test_the_path_goes_through_the_stretches(
    pack: CharacterPack, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: tuple[object, ...]
) -> None:
    cues = asked(
        tmp_path / "cues.json",
        {"name": "nod", "at": 6.5, "within": 2.0},
        {"name": "wave", "at": 3.2, "within": 0},
        {"name": "wave", "at": 3.4, "within": 0.5},
        {"name": "bow", "at": 1},
        {"name": "nod", "at": 7.9},
    )
    options = ["-o", tmp_path / "o.mp4", "--blender", "cut", "--cues", cues, *how]
    result = run_json(capsys, "render", pack.path, speech, *options)
    outcomes = [(one["name"], one["asked_s"], one["played_s"]) for one in result["cues"]]
    names = [("bow", 1.0), ("wave", 3.2), ("wave", 3.4), ("nod", 6.5), ("nod", 7.9)]
    assert [one[:2] for one in outcomes] == names
    # the last would go on beyond the speech: a live object begins it, and it is told that it was cut off
    assert [one[2] is not None for one in outcomes] == [False, True, False, True, "--lookahead" in how]
    for name, asked_s, played_s in outcomes[:4]:
        if played_s is not None:
            step = round(played_s * 30) // 4
            cue = pack.cues.by_name[name]
            assert result["nodes"][step : step + cue.n_nodes] == list(cue.nodes)
            assert asked_s - 0.134 < played_s <= asked_s + 2.0
    assert outcomes[1][2] == 3.2
    told = [text for text in result["warnings"] if "cue " in text]
    assert len(told) == 3 and "bow at 1 s was not played: the character has no cue" in told[0]


def test_without_the_drawn_set_and_without_cues(pack: CharacterPack, speech: Path, tmp_path: Path) -> None:
    character = Character(pack)
    plain = character.render(speech, tmp_path / "a.mp4", blender="cut")
    none = character.render(speech, tmp_path / "b.mp4", blender="cut", cues=[TimedCue("bow", 1.0, 1.0)])
    assert plain.nodes == none.nodes and plain.cost == none.cost and plain.cues == []
    some = character.render(speech, tmp_path / "c.mp4", blender="cut", cues=[TimedCue("wave", 2.0, 0.0)])
    assert some.nodes != plain.nodes and some.cost is not None and plain.cost is not None
    assert np.isfinite(some.cost) and some.cost >= plain.cost - 1e-3
    shown = [frame.node for frame in character.frames(speech, blender="cut", cues=[TimedCue("wave", 2.0, 0.0)])]
    assert shown[::4] == some.nodes


def test_the_official_search_takes_none(pack: CharacterPack, speech: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exact search"):
        cues = [TimedCue("wave", 2.0, 0.0)]
        Character(pack).render(speech, tmp_path / "a.mp4", search="official", cues=cues)


HOSTILE = {
    "no list": "{}",
    "no JSON": "[",
    "very deep": "[" * 100_000,
    "no cue": "[3]",
    "no time": '[{"name": "wave"}]',
    "something more": '[{"name": "wave", "at": 1, "when": 2}]',
    "no name": '[{"name": "", "at": 1}]',
    "a name that is a number": '[{"name": 3, "at": 1}]',
    "a long name": json.dumps([{"name": "w" * 65, "at": 1}]),
    "a name for a terminal": json.dumps([{"name": "\x1b]0;x\x07", "at": 1}]),
    "not a time": '[{"name": "wave", "at": "now"}]',
    "true": '[{"name": "wave", "at": true}]',
    "not a number": '[{"name": "wave", "at": NaN}]',
    "infinite": '[{"name": "wave", "at": 1e999}]',
    "too large for a float": '[{"name": "wave", "at": 1' + "0" * 400 + "}]",
    "before the speech": '[{"name": "wave", "at": -1}]',
    "within an hour": '[{"name": "wave", "at": 1, "within": 3600}]',
    "too many": json.dumps([{"name": "wave", "at": 1}] * 1001),
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_list_of_cues_is_refused_in_one_line(
    name: str, pack: CharacterPack, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = HOSTILE[name]
    place = tmp_path / "cues.json"
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refusal(capsys, "render", pack.path, speech, "-o", tmp_path / "o.mp4", "--cues", place)
    assert "cues.json" in line and line.isprintable() and not (tmp_path / "o.mp4").exists()


def test_a_list_is_in_order_and_has_defaults(tmp_path: Path) -> None:
    place = asked(tmp_path / "cues.json", {"name": "b", "at": 2}, {"name": "cafe\u0301", "at": 1, "within": 0})
    assert read_cue_list(place) == (TimedCue("caf\u00e9", 1.0, 0.0), TimedCue("b", 2.0, 1.0))
