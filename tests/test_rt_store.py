"""Characters of a folder: packs come, change and go; damaged ones never stop others; ids never lead out of it."""

import os
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ArtifactError, BackendError, InputError
from engine.folders import replace_folder, sibling_folder
from tango_rt.pipeline.character import Character, open_character
from tango_rt.pipeline.store import CharacterStore, UnknownCharacter
from tests.helpers.fakes import make_pack
from tests.helpers.stores import looked


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two packs to copy from."""
    folder = tmp_path_factory.mktemp("made")
    make_pack(folder / "anna.tango", (20, 12))
    make_pack(folder / "bob.tango", (16, 12), seed=1)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "packs")
    return tmp_path / "packs"


def test_characters_are_opened_once(folder: Path) -> None:
    store = CharacterStore(folder)
    assert list(looked(store).listed) == ["anna", "bob"]
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(store.get, ["anna"] * 16))
    assert len(set(map(id, opened))) == 1
    assert (opened[0].id, store.get("bob").pack.info.name) == ("anna", "bob")
    assert looked(store).problems == {}


def test_packs_come_and_go(folder: Path, made: Path) -> None:
    store = CharacterStore(folder)
    held = store.get("anna")
    before = held.pack.packets(3)
    shutil.rmtree(folder / "anna.tango")
    assert list(looked(store).listed) == ["bob"]
    with pytest.raises(UnknownCharacter, match="no character 'anna'; available: bob"):
        store.get("anna")
    assert held.pack.packets(3) == before  # a session goes on with what it holds
    shutil.copytree(made / "bob.tango", folder / "carl.tango")
    assert list(looked(store).listed) == ["bob", "carl"]
    assert store.get("carl").id == "carl"


def test_a_pack_that_was_replaced_is_opened_anew(folder: Path, made: Path) -> None:
    store = CharacterStore(folder)
    first = store.get("anna")
    (first.pack.path / "transitions").mkdir()
    (first.pack.path / "transitions" / "new").write_bytes(b"cached")
    assert store.get("anna") is first  # the cache of transitions is no part of what it is
    adjacent = sibling_folder(folder / "anna.tango")
    shutil.copytree(made / "bob.tango", adjacent, dirs_exist_ok=True)
    assert list(looked(store).listed) == ["anna", "bob"]  # not what is being written
    replace_folder(folder / "anna.tango", adjacent)
    second = store.get("anna")
    assert second is not first and second.sha256 != first.sha256
    (folder / "anna.tango" / "embeddings" / "onset" / "low.npy").touch()
    assert store.get("anna") is not second


def test_sessions_do_not_notice_that_a_pack_is_replaced(folder: Path, made: Path) -> None:
    store = CharacterStore(folder)
    store.get("anna")

    def replace_often() -> None:
        for _ in range(20):
            adjacent = sibling_folder(folder / "anna.tango")
            shutil.copytree(made / "anna.tango", adjacent, dirs_exist_ok=True)
            replace_folder(folder / "anna.tango", adjacent)

    with ThreadPoolExecutor(1) as thread:
        replacing = thread.submit(replace_often)
        while not replacing.done():
            assert store.get("anna").id == "anna"
        replacing.result()


def test_a_damaged_pack_stops_no_other(folder: Path, made: Path) -> None:
    video = folder / "anna.tango" / "video.h264"
    whole = video.read_bytes()
    video.write_bytes(whole[:-100])  # half copied
    (folder / "empty.tango").mkdir()
    (folder / "not\nplain.tango").mkdir()
    (folder / "file.tango").write_text("no folder")
    store = CharacterStore(folder)
    for name in ("anna", "empty"):
        with pytest.raises(ArtifactError, match="damaged"):
            store.get(name)
    assert store.get("bob").id == "bob"
    assert list(looked(store).listed) == ["bob"]
    assert sorted(looked(store).problems) == ["anna", "empty", "not\\nplain"]
    assert all("\n" not in problem for problem in looked(store).problems.values())
    video.write_bytes(whole)
    assert "anna" in looked(store).listed and "anna" not in looked(store).problems
    assert store.get("anna").id == "anna"


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for absent in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(InputError, match="not a folder of characters"):
            CharacterStore(absent)


def test_folder_that_is_taken_away(folder: Path) -> None:
    store = CharacterStore(folder)
    store.get("anna")
    folder.rename(folder.with_name("elsewhere"))
    assert list(looked(store).listed) == []
    with pytest.raises(UnknownCharacter):
        store.get("anna")


@given(
    st.text(max_size=120)
    | st.sampled_from(["../secret", "a/../../secret", "/secret", "..", ".", "", "secret\0", "a\n", ".hidden", "anna/"])
)
def test_no_id_leads_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, character_id: str) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "packs").mkdir()
    (outside / "secret.tango").mkdir()
    store = CharacterStore(outside / "packs")
    with pytest.raises(UnknownCharacter) as refused:
        store.get(character_id)
    assert len(str(refused.value)) < 1000


def test_only_so_many_stay_open_and_all_are_told_of(folder: Path, made: Path) -> None:
    for name in ("carl", "dora"):
        shutil.copytree(made / "bob.tango", folder / f"{name}.tango")
    store = CharacterStore(folder, max_open=2)
    before = n_descriptors()
    store.look()
    assert list(store.listed) == ["anna", "bob", "carl", "dora"]
    assert n_descriptors() == before + 2
    anna, carl = store.get("anna"), store.get("carl")
    assert store.get("anna") is anna and store.get("carl") is carl
    assert store.get("bob").pack.info.name == "bob"  # in the place of the one used last
    assert store.get("anna") is not anna and anna.pack.packets(3) == store.get("anna").pack.packets(3)


def test_a_look_opens_only_what_has_changed(folder: Path, made: Path) -> None:
    store = CharacterStore(folder, max_open=1)
    opened: list[str] = []
    for _ in range(2):
        store.look(lambda character: opened.append(character.id))
    assert opened == ["anna", "bob"]
    adjacent = sibling_folder(folder / "anna.tango")
    shutil.copytree(made / "bob.tango", adjacent, dirs_exist_ok=True)
    replace_folder(folder / "anna.tango", adjacent)
    store.look(lambda character: opened.append(character.id))
    assert opened == ["anna", "bob", "anna"]


def test_a_process_without_descriptors_blames_no_pack(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it remember: as soon as there are descriptors again, the pack is opened."""
    store = CharacterStore(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (n_descriptors() + 3, hard))
        with pytest.raises(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        os.close(held.pop())  # enough to look into folders
        with pytest.raises(BackendError, match=r"too many files open, see 'ulimit -n'"):
            while True:
                store.get("anna")
                held.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert store.get("anna").id == "anna" and looked(store).problems == {}


def test_damage_that_opening_does_not_see_is_found_by_verifying(folder: Path) -> None:
    video = folder / "anna.tango" / "video.h264"
    data = bytearray(video.read_bytes())
    data[-5] ^= 1
    video.write_bytes(data)
    store = CharacterStore(folder)
    assert list(store.listed) == ["anna", "bob"]
    store.verify("bob")
    with pytest.raises(ArtifactError, match="pictures of node 31 are damaged"):
        store.verify("anna")
    assert list(looked(store).listed) == ["bob"] and "node 31" in store.problems["anna"]
    with pytest.raises(ArtifactError, match="node 31"):
        store.get("anna")


def test_a_fault_of_ours_stops_no_other_pack(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opening(path: Path) -> Character:
        if path.name == "anna.tango":
            raise ZeroDivisionError
        return open_character(path)

    monkeypatch.setattr("tango_rt.pipeline.store.open_character", opening)
    store = CharacterStore(folder)
    assert list(store.listed) == ["bob"] and "cannot be opened (ZeroDivisionError)" in store.problems["anna"]


def test_pictures_written_over_end_who_performs_them(folder: Path, made: Path) -> None:
    """Whatever is copied over a pack in use, shorter or longer: an error, no signal, and never another's pictures."""
    held = CharacterStore(folder).get("anna").pack
    for name in ("video.h264", "joints.npy"):
        shutil.copyfile(made / "bob.tango" / name, folder / "anna.tango" / name)
    for node in range(held.info.n_nodes):
        with pytest.raises(ArtifactError, match=r"overwritten.*character install"):
            held.packets(node)
    with pytest.raises(ArtifactError, match="damaged"):
        held["joints"]


def n_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
