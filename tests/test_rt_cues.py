"""Cues of a pack: marked by their times in the video, kept with the pack, and refused in one line when damaged."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.character.cues import MAX_CUES, Cue, write_cues
from engine.character.pack import CharacterPack
from engine.errors import ArtifactError, InputError
from tango_rt.api import Character
from tango_rt.characters.cues import carried_cues, mark_cue
from tango_rt.characters.gestures import find_gestures
from tango_rt.characters.install import install
from tango_rt.cli import main
from tango_rt.pipeline.character import open_character
from tango_rt.pipeline.store import CharacterStore
from tango_rt.server.listing import list_characters
from tango_rt.v1 import service_pb2
from tests.helpers.commands import refusal, run_json
from tests.helpers.cues import stretches, with_cues
from tests.helpers.fakes import make_pack


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("made") / "anna.tango").path


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> CharacterPack:
    """Clips of 40 and 25 nodes: the second begins at 5.33 s of the video."""
    return CharacterPack.open(shutil.copytree(made, tmp_path / "anna.tango"))


def test_a_cue_is_marked_listed_replaced_and_removed(pack: CharacterPack, capsys: pytest.CaptureFixture[str]) -> None:
    place = pack.path
    assert run_json(capsys, "character", "mark", place)["cues"] == []
    run_json(capsys, "character", "mark", place, "--cue", "wave", "--from", 0.4, "--to", 1.2)
    found = run_json(capsys, "character", "mark", place, "--cue", "point left", "--from", 6.0, "--to", 7.1)["cues"]
    nodes = {one["name"]: one["nodes"] for one in found}
    assert nodes == {"wave": list(range(3, 9)), "point left": list(range(45, 53))}
    assert [(one["from_s"], one["to_s"], one["source"]) for one in found] == [
        (6.0, 7.067, "fake.mp4"),
        (0.4, 1.2, "fake.mp4"),
    ]
    run_json(capsys, "character", "mark", place, "--cue", "wave", "--from", 2, "--to", 3)
    assert list(CharacterPack.open(place).cues.by_name["wave"].nodes) == list(range(15, 23))
    assert run_json(capsys, "character", "inspect", place)["cues"] == ["point left", "wave"]
    main(["character", "inspect", str(place)])
    assert "cues: point left, wave\n" in capsys.readouterr().out
    run_json(capsys, "character", "mark", place, "--remove", "wave")
    assert list(CharacterPack.open(place).cues.by_name) == ["point left"]
    run_json(capsys, "character", "mark", place, "--remove", "point left")
    assert not (place / "cues.json").exists() and CharacterPack.open(place).cues.sha256 == ""


WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "across clips": (("--cue", "a", "--from", 4, "--to", 7), "0.0 to 5.3, 5.3 to 8.7"),
    "beyond the end": (("--cue", "a", "--from", 8, "--to", 20), "0.0 to 5.3"),
    "before the beginning": (("--cue", "a", "--from", -3, "--to", 1), "two times"),
    "no time": (("--cue", "a", "--from", "nan", "--to", 1), "two times"),
    "backwards": (("--cue", "a", "--from", 2, "--to", 1), "two times"),
    "too short": (("--cue", "a", "--from", 2, "--to", 2.1), "at least 2"),
    "no end": (("--cue", "a", "--from", 2), "--to SECONDS"),
    "no name": (("--from", 2, "--to", 3), "--cue NAME"),
    "an empty name": (("--cue", "", "--from", 2, "--to", 3), "is empty"),
    "a long name": (("--cue", "w" * 65, "--from", 2, "--to", 3), "64"),
    "a name for a terminal": (("--cue", "\x1b]0;x\x07", "--from", 2, "--to", 3), "printed"),
    "another source": (("--cue", "a", "--from", 2, "--to", 3, "--source", "b.mp4"), "fake.mp4"),
    "a source alone": (("--source", "b.mp4"), "--source"),
    "an unknown cue": (("--remove", "a"), "no cue a; there are: none"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_marked(name: str, pack: CharacterPack, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, said = WRONG[name]
    line = refusal(capsys, "character", "mark", pack.path, *arguments)
    assert said in line and line.isprintable()
    assert not (pack.path / "cues.json").exists()


def test_one_of_several_sources_must_be_named(pack: CharacterPack) -> None:
    info = pack.info
    second = replace(info.sources[0], name="other.mp4")
    pack.info = replace(
        info,
        sources=(*info.sources, second),
        clips=(info.clips[0], replace(info.clips[1], source=1, first_frame=300)),
    )
    with pytest.raises(InputError, match=r"fake.mp4, other.mp4 \(--source\)"):
        mark_cue(pack, "wave", 11.0, 12.0)
    marked = mark_cue(pack, "wave", 11.0, 12.0, "other.mp4")
    assert marked.nodes[0] == 40 + 8 and marked.source == "other.mp4"
    with pytest.raises(InputError, match=r"10\.0 to 13\.3"):
        mark_cue(pack, "wave", 1.0, 2.0, "other.mp4")


def test_a_new_build_keeps_those_that_have_a_place(pack: CharacterPack, tmp_path: Path) -> None:
    mark_cue(pack, "wave", 0.4, 1.2)  # nodes 3 to 8
    mark_cue(CharacterPack.open(pack.path), "late", 6.0, 7.0)
    before = CharacterPack.open(pack.path)
    shorter = make_pack(tmp_path / "bert.tango", (38,))  # begins 2 nodes later, ends before the second clip
    info = replace(shorter.info, clips=(replace(shorter.info.clips[0], first_frame=8),))
    cues, warnings = carried_cues(before, info, shorter.graph)
    assert [(cue.name, cue.nodes) for cue in cues] == [("wave", range(1, 7))]
    assert len(warnings) == 1 and "the cue late, 6 to 7.067 s of fake.mp4, is lost: " in warnings[0]
    other = replace(info, sources=(replace(info.sources[0], sha256="1" * 64),))
    assert [len(found) for found in carried_cues(before, other, shorter.graph)] == [0, 2]


def test_in_python(pack: CharacterPack) -> None:
    character = Character(pack)
    marked = character.mark("cafe\u0301", 1.0, 2.0)
    assert character.cues == [marked] and marked.name == "caf\u00e9"
    assert character.pack.cues.find("cafe\u0301") is character.pack.cues.find("caf\u00e9") is not None
    character.unmark("cafe\u0301")
    assert character.cues == []


def test_a_server_sees_that_they_changed(pack: CharacterPack, tmp_path: Path) -> None:
    store = CharacterStore(tmp_path)
    store.look()
    before = store.get("anna")
    with_cues(pack, wave=(4, 5))
    store.look()
    assert store.listed["anna"].cues == ("wave",) and store.get("anna").sha256 != before.sha256
    (tmp_path / "served").mkdir()
    installed = install(pack.path, tmp_path / "served")
    assert installed.cues == store.get("anna").pack.cues
    assert open_character(installed.path).sha256 == store.get("anna").sha256


def test_a_page_of_characters_with_many_cues_fits_into_a_message(pack: CharacterPack, tmp_path: Path) -> None:
    names = {60 * "\U0001f44b" + f"{number:04}": (4, 5) for number in range(MAX_CUES)}
    with_cues(pack, **names)
    for number in range(20):
        shutil.copytree(pack.path, tmp_path / f"b{number:02}.tango")
    store = CharacterStore(tmp_path)
    seen, token = [], ""
    while True:
        page = list_characters(store, service_pb2.ListCharactersRequest(page_size=1000, page_token=token))
        assert page.ByteSize() < 4 << 20
        seen += [one.id for one in page.characters]
        if not (token := page.next_page_token):
            break
    assert seen == ["anna", *(f"b{number:02}" for number in range(20))]
    with pytest.raises(InputError, match="at most 1000"):
        write_cues(pack.path, pack.sha256, [*(Cue(name, 4, 5) for name in names), Cue("one", 4, 5)], pack.graph)


def _record(change: Callable[[dict[str, Any]], object], signed: bool = True) -> Callable[[Path], object]:
    def act(place: Path) -> None:
        record = json.loads(place.read_text())
        change(record)
        if signed:
            record["sha256"] = sha256(json.dumps(record["cues"], sort_keys=True).encode()).hexdigest()
        place.write_text(json.dumps(record))

    return act


def _cue(**fields: object) -> Callable[[Path], object]:
    return _record(lambda record: record["cues"][0].update(fields))


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "another pack": (_record(lambda record: record.update(pack="0" * 64)), "another pack"),
    "changed": (_record(lambda record: record["cues"][0].update(first_node=5), signed=False), "sha256 differs"),
    "no list": (_record(lambda record: record.update(cues={})), "a list of cues"),
    "more": (_record(lambda record: record.update(x=1)), "wanted pack"),
    "too many": (_record(lambda record: record.update(cues=record["cues"] * 1001)), "at most 1000"),
    "twice": (_record(lambda record: record.update(cues=record["cues"] * 2)), "two cues"),
    "no fields": (_record(lambda record: record.update(cues=[3])), "fields of a Cue"),
    "no name": (_cue(name=""), "is empty"),
    "a long name": (_cue(name="w" * 65), "64"),
    "a name for a terminal": (_cue(name="\x1b]0;x"), "printed"),
    "not normal": (_cue(name="cafe\u0301"), "NFC"),
    "half a character": (_cue(name="\ud800"), "printed"),
    "a node below 0": (_cue(first_node=-1), "outside"),
    "a node beyond": (_cue(first_node=64), "outside"),
    "a huge node": (_cue(first_node=2**70), "outside"),
    "a node that is a text": (_cue(first_node="4"), "expected int"),
    "true": (_cue(n_nodes=True), "expected int"),
    "no nodes": (_cue(n_nodes=0), "at least 2"),
    "negative": (_cue(n_nodes=-5), "at least 2"),
    "across clips": (_cue(first_node=38, n_nodes=4), "interrupted"),
    "no JSON": (lambda place: place.write_text("{"), "not JSON"),
    "very deep": (lambda place: place.write_text("[" * 100_000), "RecursionError|recursion|not"),
    "large": (lambda place: place.write_text(" " * (1 << 21)), "bytes"),
    "a link": (lambda place: (place.rename(place.with_name("x")), place.symlink_to("x")), "link"),
    "a link to nothing": (lambda place: (place.unlink(), place.symlink_to("nothing")), "link"),
    "a folder": (lambda place: (place.unlink(), place.mkdir()), "regular"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_content_is_refused_in_one_line(name: str, pack: CharacterPack) -> None:
    act, said = HOSTILE[name]
    with_cues(pack, wave=(stretches(pack, 5)[2], 5))
    act(pack.path / "cues.json")
    with pytest.raises(ArtifactError, match=said) as refused:
        CharacterPack.open(pack.path)
    line = str(refused.value)
    assert line.isprintable() and "cues" in line and "mark them again" in line and len(line) < 600


def test_a_node_that_is_not_kept_is_no_part_of_a_cue(pack: CharacterPack) -> None:
    graph = pack.graph
    kept = graph.kept.copy()
    kept[6] = False
    with pytest.raises(ValueError, match="no path can show"):
        write_cues(pack.path, pack.sha256, [Cue("wave", 4, 5)], replace(graph, kept=kept))


def test_gestures_are_found_and_shown(pack: CharacterPack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = find_gestures(pack)
    assert found
    shown = [node for one in found for node in one.cue.nodes]
    assert len(shown) == len(set(shown)) and shown == sorted(shown)
    assert all(8 <= one.cue.n_nodes <= 22 for one in found)
    result = run_json(capsys, "character", "mark", pack.path, "--suggest", tmp_path / "sheet")
    assert [one["nodes"] for one in result["suggestions"]] == [list(one.cue.nodes) for one in found]
    sheet = cv2.imread(result["output"])
    assert sheet is not None and sheet.shape[0] == 180 * len(found)
    for one in result["suggestions"]:  # the lines that it prints mark what is shown
        options = ("--cue", one["name"], "--from", f"{one['from_s']:g}", "--to", f"{one['to_s']:g}")
        run_json(capsys, "character", "mark", pack.path, *options)
        assert list(CharacterPack.open(pack.path).cues.by_name[one["name"]].nodes) == one["nodes"]


class Posed:
    """A pack with another person in it."""

    def __init__(self, pack: CharacterPack, arrays: dict[str, np.ndarray]) -> None:
        self.info, self.graph = pack.info, pack.graph
        self._pack, self._other = pack, arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self._other[name] if name in self._other else self._pack[name]


def test_planted_gestures(pack: CharacterPack) -> None:
    """A hand raised to the left, another to the right, the first again: two are suggested, and nothing at rest."""
    n_frames = pack.info.n_frames
    joints = np.repeat(pack["joints"][:1], n_frames, axis=0).copy()
    rest = np.zeros(n_frames // 4, np.float32)
    for node, side in ((8, -3.0), (22, 3.0), (50, -3.0)):
        rise = np.sin(np.linspace(0, np.pi, 40))
        for frame, up in enumerate(rise, 4 * node - 20):
            joints[frame, 33:54, 0] += side * up * pack.info.shoulder_px
            joints[frame, 33:54, 1] -= 2 * up * pack.info.shoulder_px
        rest[node - 5 : node + 5] = rise.reshape(-1, 4).mean(axis=1)
    found = find_gestures(Posed(pack, {"joints": joints, "rest": rest}))  # type: ignore[arg-type]
    assert len(found) == 2
    for one, node in zip(found, (8, 22), strict=True):
        assert abs((one.cue.nodes[0] + one.cue.nodes[-1]) / 2 - node) <= 2
