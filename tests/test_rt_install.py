"""Packs are put where a server finds them whole, checked, and next to sessions that perform the one before."""

import os
import shutil
from pathlib import Path

import pytest

from engine.blending.blender import open_blender
from engine.character.pack import CharacterPack
from engine.errors import ArtifactError, InputError
from tango_rt.characters.install import install
from tango_rt.cli import main
from tango_rt.pipeline.store import CharacterStore
from tango_rt.pipeline.transitions import TransitionStore
from tests.helpers.commands import run_json
from tests.helpers.fakes import make_pack

CUT = (5, 12)
FADED = open_blender("crossfade")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_pack(folder / "one" / "anna.tango", (12, 8))
    make_pack(folder / "two" / "anna.tango", (16, 12), seed=1)
    return folder


def test_what_was_held_goes_on_and_what_comes_is_new(made: Path, tmp_path: Path) -> None:
    install(made / "one" / "anna.tango", tmp_path / "packs")
    store = CharacterStore(tmp_path / "packs")
    held = store.get("anna")
    before = [held.pack.packets(node) for node in range(20)]
    assert install(made / "two" / "anna.tango", tmp_path / "packs").info.n_nodes == 28
    assert [held.pack.packets(node) for node in range(20)] == before
    assert store.get("anna").pack.info.n_nodes == 28
    assert os.listdir(tmp_path / "packs") == ["anna.tango"]


def test_features_and_transitions_come_along_and_nothing_else(made: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(made / "one" / "anna.tango", tmp_path / "anna.tango"))
    pictures = TransitionStore(CharacterPack.open(source), FADED).packets(CUT)
    (source / "notes.txt").write_text("private")
    (source / "transitions" / "link").symlink_to("/etc")
    os.mkfifo(source / "embeddings" / "onset" / "pipe")
    pack = install(source, tmp_path / "packs")
    assert TransitionStore(pack, FADED).get_cached(CUT) == pictures
    assert sorted(os.listdir(pack.path)) == sorted(name for name in os.listdir(source) if name != "notes.txt")
    assert os.listdir(pack.path / "embeddings" / "onset") != [] and not (pack.path / "embeddings/onset/pipe").exists()
    assert not (pack.path / "transitions" / "link").exists()
    assert CharacterStore(tmp_path / "packs").get("anna").sha256 == CharacterStore(tmp_path).get("anna").sha256


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["video.h264", "joints.npy", "audio.npy", "graph_kind.npy"])
def test_damage_replaces_nothing(made: Path, tmp_path: Path, name: str) -> None:
    install(made / "one" / "anna.tango", tmp_path / "packs")
    damaged = Path(shutil.copytree(made / "two" / "anna.tango", tmp_path / "anna.tango"))
    _flip(damaged / name)
    with pytest.raises(ArtifactError, match="damaged"):
        install(damaged, tmp_path / "packs")
    assert os.listdir(tmp_path / "packs") == ["anna.tango"]
    assert CharacterPack.open(tmp_path / "packs" / "anna.tango").info.n_nodes == 20


def test_places_that_do_not_do(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already in this folder"):
        install(made / "one" / "anna.tango", made / "one")
    (tmp_path / "anna.tango").mkdir()
    (tmp_path / "anna.tango" / "letters.txt").write_text("dear")
    with pytest.raises(InputError, match="choose another name"):
        install(made / "one" / "anna.tango", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        install(made / "one" / "anna.tango", tmp_path / "file")


def test_command(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run_json(capsys, "character", "install", made / "one" / "anna.tango", tmp_path / "packs")
    assert told["character"] == str(tmp_path / "packs" / "anna.tango")
    assert told["sha256"] == CharacterPack.open(tmp_path / "packs" / "anna.tango").sha256


def test_inspect_names_damage_that_opening_does_not_see(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path(shutil.copytree(made / "two" / "anna.tango", tmp_path / "anna.tango"))
    _flip(damaged / "video.h264")
    CharacterPack.open(damaged)
    with pytest.raises(SystemExit, match="2"):
        main(["character", "inspect", str(damaged)])
    told = capsys.readouterr().err
    assert "pictures of node" in told and told.count("\n") == 1
