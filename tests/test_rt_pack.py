"""Packs: what is written is read, hostile ones are refused with one line, nothing half-written stays."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ArtifactError, InputError
from engine.graph import CONTINUE
from engine.pack import CharacterPack, PackWriter
from tango_rt.characters.inspect import describe, summarize
from tango_rt.video.gop import GopDecoder
from tests.fakes import HEIGHT, WIDTH, fake_frames, fake_joints, make_pack


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packs") / "anna.tango"
    make_pack(path)
    return path


def test_round_trip(whole: Path) -> None:
    pack = CharacterPack.open(whole)
    frames = GopDecoder(pack.info.extradata, WIDTH, HEIGHT).decode(pack.packets(7))
    drawn = fake_frames(fake_joints(pack.info.n_frames))[28:32]
    assert np.abs(frames.astype(int) - drawn).mean() < 4
    assert pack.graph.n_nodes == 65
    assert pack["joints"].shape == (260, 75, 3)


def test_description(whole: Path) -> None:
    figures = describe(CharacterPack.open(whole))
    assert (figures["n_frames"], figures["n_nodes"], figures["n_clips"]) == (260, 65, 2)
    n_continues = int((CharacterPack.open(whole)["graph_kind"] == CONTINUE).sum())
    assert figures["n_edges"] == figures["n_cut_edges"] + n_continues
    assert figures["n_relaxed_edges"] <= figures["n_cut_edges"]
    assert figures["bytes"] > 0
    json.dumps(figures)
    assert "65" in summarize(figures)


def _edit(folder: Path, **changes: object) -> None:
    file = folder / "pack.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _replace(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        array = np.load(folder / f"{name}.npy")
        np.save(folder / f"{name}.npy", change(array))

    return act


def _huge_header(folder: Path) -> None:
    """An array that claims 4 TB in a file of a few bytes."""
    with (folder / "joints.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (260, 75, 3 << 40)}
        )


def _pickle(folder: Path) -> None:
    np.save(folder / "rest.npy", np.array([{"a": 1}] * 65, dtype=object), allow_pickle=True)


def _link_out(folder: Path) -> None:
    outside = folder.parent / "outside.npy"
    shutil.move(folder / "rest.npy", outside)
    (folder / "rest.npy").symlink_to(outside)


def _put(value: float, at: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[at] = value
        return array

    return change


HOSTILE: dict[str, Callable[[Path], None]] = {
    "truncated video": lambda f: os.truncate(f / "video.h264", 100),
    "truncated array": lambda f: os.truncate(f / "joints.npy", 1000),
    "empty array file": lambda f: os.truncate(f / "joints.npy", 0),
    "missing array": lambda f: (f / "rest.npy").unlink(),
    "not json": lambda f: (f / "pack.json").write_text("{"),
    "json of another kind": lambda f: (f / "pack.json").write_text("[1, 2]"),
    "deep json": lambda f: (f / "pack.json").write_text("[" * 100_000),
    "unknown field": lambda f: _edit(f, command="rm"),
    "negative size": lambda f: _edit(f, width=-2),
    "oversized frame count": lambda f: _edit(f, n_frames=1 << 40),
    "frame count of another pack": lambda f: _edit(f, n_frames=264),
    "path as clip source": lambda f: _edit(
        f, clips=[{"source": 9, "first_frame": 0, "n_frames": 160}, {"source": 0, "first_frame": 160, "n_frames": 100}]
    ),
    "oversized array": _huge_header,
    "pickle": _pickle,
    "link that leaves the folder": _link_out,
    "wrong dtype": _replace("rest", lambda a: a.astype(np.float64)),
    "wrong shape": _replace("rest", lambda a: a[:-1]),
    "edge out of range": _replace("graph_indices", _put(10_000, 3)),
    "negative edge": _replace("graph_indices", _put(-5, 3)),
    "descending offsets": _replace("packet_start", _put(0, 5)),
    "descending rows": _replace("graph_indptr", _put(10_000, 5)),
    "not a number": _replace("graph_distance", _put(np.nan, 5)),
    "no node kept": _replace("graph_kept", np.zeros_like),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pack_is_refused_in_one_line(name: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy.tango"
    shutil.copytree(whole, folder)
    HOSTILE[name](folder)
    with pytest.raises(ArtifactError) as caught:
        CharacterPack.open(folder)
    assert str(folder) in str(caught.value)


def test_another_version_names_the_remedy(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old.tango"
    shutil.copytree(whole, folder)
    _edit(folder, schema=99)
    with pytest.raises(ArtifactError, match=r"schema 99.*rebuild"):
        CharacterPack.open(folder)


def test_missing_pack(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no character"):
        CharacterPack.open(tmp_path / "nobody.tango")


def test_writer_leaves_nothing_behind_on_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), PackWriter(tmp_path / "anna.tango") as writer:
        writer.add_packets([b"abc"])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_writer_does_not_replace_what_is_not_a_pack(tmp_path: Path) -> None:
    (tmp_path / "anna.tango").mkdir()
    (tmp_path / "anna.tango" / "letters.txt").write_text("dear")
    with pytest.raises(InputError, match="not a character pack"):
        PackWriter(tmp_path / "anna.tango")
    with pytest.raises(InputError, match="must end in"):
        PackWriter(tmp_path / "anna.txt")


def test_rebuilding_replaces_the_pack(tmp_path: Path) -> None:
    make_pack(tmp_path / "anna.tango", (20,))
    pack = make_pack(tmp_path / "anna.tango", (24,))
    assert pack.info.n_nodes == 24
    assert [entry.name for entry in tmp_path.iterdir()] == ["anna.tango"]
