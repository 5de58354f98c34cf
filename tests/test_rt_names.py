"""Names: of characters in every script and spelling, and as long as names can be for whatever is written."""

import asyncio
import json
import os
import shutil
import time
import unicodedata
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.character.pack import CharacterPack
from engine.character.writer import PackWriter
from engine.errors import ArtifactError, InputError
from engine.names import MAX_NAME_BYTES, canonical, why_unfit
from tango_rt.client.options import SessionOptions
from tango_rt.pipeline.character import open_character
from tango_rt.pipeline.store import CharacterStore, UnknownCharacter
from tango_rt.server.config import ServerConfig
from tango_rt.server.warm import prepare
from tango_rt.v1 import service_pb2
from tests.helpers.commands import run_json
from tests.helpers.fakes import make_pack
from tests.helpers.live_server import FAST, audio, config, converse, end, live_server, speech
from tests.helpers.speech import write_speech
from tests.helpers.stores import looked

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "José Müller") for form in ("NFC", "NFD"))
NAMES = [
    "Anna Maria (2)",
    "[draft] anna, v1.2 & co.",
    'anna\'; "x" = 100%',
    COMPOSED,
    DECOMPOSED,
    "नमस्ते हिन्दी",
    "สวัสดีชื่อ",
    "காதல்",
    "עִבְרִית",
    "مرحبًا",
    "한국어 이름",
    "ベートーヴェン",
    "👩🏽‍🎤 🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "क्‍ष",
    "a\u00a0b",
    "x" * 238,
    "é" * 119,
]
UNFIT = {
    "": "is empty",
    "  ": "is empty",
    " anna": "begins or ends with a space",
    "anna\u2003": "begins or ends with a space",
    ".anna": "begins with '.'",
    "-anna": "begins with '-'",
    "anna\nbob": "a control character",
    "anna\x1b[31m": "a control character",
    "anna\x00": "a control character",
    "anna\x85bob": "a control character",
    "anna\u2028bob": "a line separator",
    "anna\u202egnp": "an invisible character",
    "anna\u200b": "an invisible character",
    "anna\ufeff": "an invisible character",
    "anna\udcff": "bytes that are not UTF-8",
    "x" * (MAX_NAME_BYTES + 1): "250 bytes",
    "é" * 125: "250 bytes",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("made") / "anna.tango", (20, 12)).path


def put(made: Path, folder: Path, *names: str) -> Path:
    """Packs of these names, as somebody may have copied them."""
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copytree(made, folder / f"{name}.tango")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_fit(name: str) -> None:
    assert why_unfit(name) is None


@pytest.mark.parametrize(("name", "reason"), UNFIT.items(), ids=map(ascii, UNFIT))
def test_unfit_is_said_before_anything_is_built(tmp_path: Path, name: str, reason: str) -> None:
    assert reason in str(why_unfit(name))
    if name.strip(".") and "\0" not in name:  # ".tango" has no name at all
        with pytest.raises(InputError) as refused:
            PackWriter(tmp_path / f"{name}.tango")
        assert reason in str(refused.value) and str(tmp_path) in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_without_a_suffix_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / ".tango", tmp_path / "anna"):
        with pytest.raises(InputError, match=r"must end in \.tango"):
            PackWriter(path)


def test_a_name_in_another_spelling_is_refused(tmp_path: Path) -> None:
    """Two that look the same would be two people to one who asks for one of them."""
    folder = tmp_path / "packs"
    pack = make_pack(folder / f"{DECOMPOSED}.tango", (20, 12))
    with pytest.raises(InputError, match="are the same name in two spellings") as refused:
        PackWriter(folder / f"{COMPOSED}.tango")
    assert "Jose\\u0301" in str(refused.value), "what looks the same is shown so that it can be told apart"
    assert [path.name for path in folder.iterdir()] == [pack.path.name]
    with PackWriter(pack.path):  # the same spelling replaces it
        pass


@pytest.mark.slow
def test_every_fit_name_is_served(made: Path, tmp_path: Path) -> None:
    names = [name for name in NAMES if name != DECOMPOSED]
    folder = put(made, tmp_path / "packs", *(name for name in names if name != COMPOSED), DECOMPOSED)
    prepare(open_character(made), ServerConfig(folder))  # compiles kernels, which may take longer than a session waits

    async def work() -> None:
        async with live_server(folder) as live:
            listed = (await live.stub.ListCharacters(service_pb2.ListCharactersRequest(page_size=5))).characters
            assert len(listed) == 5
            for name in [*names, DECOMPOSED]:
                found = await live.stub.GetCharacter(service_pb2.GetCharacterRequest(id=name))
                assert found.id == unicodedata.normalize("NFC", name)
            for name in (DECOMPOSED, COMPOSED, NAMES[5], NAMES[12]):
                heard = await converse(live, [config(character=name, **FAST), audio(speech(0.3)), end()])
                assert heard.code is grpc.StatusCode.OK and heard.frames and heard.accepted.config.character == name
            heard = await converse(live, [config(character="nobody\n👻", **FAST)])
            assert heard.code is grpc.StatusCode.NOT_FOUND and "'nobody\\n" in heard.text

    asyncio.run(work())
    assert list(CharacterStore(folder).listed) == sorted(names)


def test_unfit_packs_are_problems_of_theirs_alone(made: Path, tmp_path: Path) -> None:
    folder = put(made, tmp_path / "packs", "bob", "a\nb", "-x", "bad\udcff", " c")
    store = CharacterStore(folder)
    assert list(looked(store).listed) == ["bob"] and store.get("bob").id == "bob"
    problems = looked(store).problems
    assert len(problems) == 4 and all(problem.endswith("rename the pack") for problem in problems.values())
    assert all("\n" not in problem for problem in problems.values())
    for text in (*problems, *problems.values()):
        text.encode()  # a log can hold it
    for name in ("a\nb", "-x", "bad\udcff", " c"):
        with pytest.raises(UnknownCharacter):
            store.get(name)


def test_twins_are_told_apart_by_their_own_spelling(made: Path, tmp_path: Path) -> None:
    """Put there by hand: a build refuses the second."""
    store = CharacterStore(put(made, tmp_path / "packs", DECOMPOSED))
    assert list(looked(store).listed) == [COMPOSED] and store.get(COMPOSED) is store.get(DECOMPOSED)
    put(made, tmp_path / "packs", COMPOSED)
    assert sorted(looked(store).listed) == sorted((COMPOSED, DECOMPOSED))
    assert store.get(COMPOSED).pack.path.name == f"{COMPOSED}.tango"
    assert store.get(DECOMPOSED).pack.path.name == f"{DECOMPOSED}.tango"
    mixed = unicodedata.normalize("NFC", "José ") + unicodedata.normalize("NFD", "Müller")
    with pytest.raises(UnknownCharacter):
        store.get(mixed)
    shutil.rmtree(tmp_path / "packs" / f"{COMPOSED}.tango")
    assert list(looked(store).listed) == [COMPOSED] and store.get(mixed) is store.get(DECOMPOSED)


def test_a_pack_in_another_spelling_that_is_replaced_is_never_unknown(made: Path, tmp_path: Path) -> None:
    from engine.folders import replace_folder, sibling_folder

    folder = put(made, tmp_path / "packs", DECOMPOSED)
    store = CharacterStore(folder)
    first = store.get(COMPOSED)
    adjacent = sibling_folder(folder / f"{DECOMPOSED}.tango")
    shutil.copytree(made, adjacent, dirs_exist_ok=True)
    (adjacent / "pack.json").write_text((adjacent / "pack.json").read_text() + " ")
    replace_folder(folder / f"{DECOMPOSED}.tango", adjacent)
    assert store.get(COMPOSED).sha256 != first.sha256


def test_a_client_cannot_ask_for_what_is_no_text() -> None:
    with pytest.raises(InputError, match=r"the character name 'bad\\udcff' is not valid UTF-8"):
        SessionOptions("bad\udcff").to_config()


def long_name(suffix: str, n_bytes: int = 244) -> str:
    """A legal name of this many bytes, partly of a script with three a letter."""
    return "ह" * 20 + "x" * (n_bytes - 60 - len(suffix)) + suffix


@pytest.mark.parametrize("n_bytes", [244, 255])
def test_names_as_long_as_they_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], n_bytes: int) -> None:
    """Nothing that is written next to them has a longer one."""
    pack = make_pack(tmp_path / long_name(".tango", n_bytes), (20, 12))
    written = write_speech(tmp_path / long_name(".wav", n_bytes))
    out, plot = tmp_path / long_name(".mp4", n_bytes), tmp_path / long_name(".png", n_bytes)
    run_json(capsys, "render", pack.path, written, "-o", out, "--blender", "cut", "--jobs", 1, "--plot", plot)
    assert out.stat().st_size and plot.stat().st_size
    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in (pack.path, written, out, plot))
    assert CharacterPack.open(pack.path).info.name == pack.path.stem


@pytest.mark.parametrize("suffix", [".mp4", ".tango"])
def test_a_name_that_is_too_long_is_said_at_once(tmp_path: Path, suffix: str) -> None:
    from tango_rt.video.mp4 import Mp4Writer

    path = tmp_path / long_name(suffix, 256)
    with pytest.raises(InputError) as refused:
        _: Any = Mp4Writer(path, b"") if suffix == ".mp4" else PackWriter(path)
    assert path.name in str(refused.value) and list(tmp_path.iterdir()) == []


def test_errors_name_the_file_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the one that is written in its place until it is whole."""
    import av

    from tango_rt.video.mp4 import Mp4Writer

    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", "/somewhere/.tango-x.partial")

    monkeypatch.setattr(av, "open", refused)
    with pytest.raises(InputError, match=r"out\.mp4: cannot be written \(Permission denied\)$"):
        Mp4Writer(tmp_path / "out.mp4", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [7, None, "\ud800", "\x1b[31m", ["anna"]])
def test_damage_in_a_name_of_a_strangers_pack(made: Path, tmp_path: Path, name: object) -> None:
    """It stops neither the list nor the others."""
    folder = put(made, tmp_path / "packs", "anna", "bob")
    description = folder / "anna.tango" / "pack.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "name": name}))
    store = CharacterStore(folder)
    assert list(store.listed) == ["bob"] and "damaged" in store.problems["anna"]
    with pytest.raises(ArtifactError, match="damaged"):
        store.get("anna")


@pytest.mark.parametrize("marks", ["\u0f71\u0f72", "\u0301\u0327"])
def test_names_of_any_length_are_looked_at_in_no_time(marks: str) -> None:
    """Two marks out of order, again and again, are put in order in quadratic time."""
    name = "a" + marks * (1 << 19)
    began_s = time.monotonic()
    assert canonical(name) == name
    assert "bytes, at most" in str(why_unfit(name))
    assert time.monotonic() - began_s < 1


def test_every_name_that_fits_has_one_spelling() -> None:
    for letter in ("\u1ec7", "\ud55c", "\u1f82"):
        name = letter * (MAX_NAME_BYTES // len(letter.encode()))
        assert why_unfit(name) is None
        assert canonical(unicodedata.normalize("NFD", name)) == name
