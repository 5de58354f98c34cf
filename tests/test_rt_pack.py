"""Packs: what is written is read, hostile ones are refused with one line, nothing half-written stays."""

import base64
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from engine.blending.blender import open_blender
from engine.character.pack import CharacterPack
from engine.character.perform import PerformOptions, perform
from engine.character.writer import PackWriter
from engine.errors import ArtifactError, InputError
from engine.motion_graph.graph import CONTINUE
from tango_rt.characters.inspect import describe, summarize
from tango_rt.pipeline.transitions import TransitionMaker
from tango_rt.video.codecs import FrameCoder, StepPictures
from tango_rt.video.gop import GopDecoder
from tests.helpers.fakes import HEIGHT, WIDTH, fake_frames, fake_joints, make_pack
from tests.helpers.fakes_damage import sign, sign_video


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


def _edit_first(folder: Path, field: str, **changes: object) -> None:
    first, *others = json.loads((folder / "pack.json").read_text())[field]
    _edit(folder, **{field: [{**first, **changes}, *others]})


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


def _byte(file: Path, old: bytes, new: bytes) -> None:
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new, 1))


def _stretch(folder: Path, n_bytes: int) -> None:
    """The pictures of the last node become so large; all of it a hole in the file."""
    starts = np.load(folder / "packet_start.npy")
    starts[-1] += n_bytes
    np.save(folder / "packet_start.npy", starts)
    os.truncate(folder / "video.h264", int(starts[-1]))


def _first_cut_to_continue(kinds: np.ndarray) -> np.ndarray:
    return _put(CONTINUE, int(np.flatnonzero(kinds != CONTINUE)[0]))(kinds)


def _row_of_two(folder: Path) -> tuple[np.ndarray, int]:
    indptr, targets = (np.load(folder / f"graph_{name}.npy") for name in ("indptr", "indices"))
    return targets, int(indptr[np.flatnonzero(np.diff(indptr) > 1)[0]])


def _swap_targets(folder: Path) -> None:
    targets, k = _row_of_two(folder)
    targets[[k, k + 1]] = targets[[k + 1, k]]
    np.save(folder / "graph_indices.npy", targets)


def _double_target(folder: Path) -> None:
    targets, k = _row_of_two(folder)
    targets[k + 1] = targets[k]
    np.save(folder / "graph_indices.npy", targets)


def _without_edges(lost: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Takes the edges away for which `lost` (source, target) holds."""

    def act(folder: Path) -> None:
        graph = {name: np.load(folder / f"graph_{name}.npy") for name in ("indptr", "indices", "kind", "distance")}
        source = np.repeat(np.arange(len(graph["indptr"]) - 1), np.diff(graph["indptr"]))
        stays = ~lost(source, graph["indices"])
        graph["indptr"] = np.concatenate([[0], np.cumsum(np.bincount(source[stays], minlength=65))])
        for name, array in graph.items():
            np.save(folder / f"graph_{name}.npy", array if name == "indptr" else array[stays])

    return act


def _cut_into_the_end(folder: Path) -> None:
    """A cut to the last node of all, from where no cut may follow as yet."""
    indptr, targets = (np.load(folder / f"graph_{name}.npy") for name in ("indptr", "indices"))
    last = int(np.flatnonzero(np.load(folder / "graph_kept.npy"))[-1])
    node = next(n for n in range(last - 1) if indptr[n + 1] > indptr[n] and targets[indptr[n + 1] - 1] > n + 1)
    targets[indptr[node + 1] - 1] = last
    np.save(folder / "graph_indices.npy", targets)


HOSTILE: dict[str, Callable[[Path], object]] = {
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
    "a pack.json that never ends": lambda f: ((f / "pack.json").unlink(), os.mkfifo(f / "pack.json")),
    "a header that goes on into the numbers": lambda f: _byte(f / "rest.npy", b"\x76\x00", b"\xff\x00"),
    "a FIFO for an array": lambda f: ((f / "joints.npy").unlink(), os.mkfifo(f / "joints.npy")),
    "a FIFO for a video": lambda f: ((f / "video.h264").unlink(), os.mkfifo(f / "video.h264")),
    "an archive for an array": lambda f: (f / "rest.npy").write_bytes(b"PK" + (f / "rest.npy").read_bytes()[2:]),
    "an unbalanced header": lambda f: _byte(f / "rest.npy", b")", b" "),
    "a name that is a number": lambda f: _edit(f, name=5),
    "half a character": lambda f: _edit(f, name="\ud800"),
    "control characters in a warning": lambda f: _edit(f, report={"warnings": ["\x1b]0;gone\x07"]}),
    "no list of warnings": lambda f: _edit(f, report={"warnings": None}),
    "a width that is true": lambda f: _edit(f, width=True),
    "a source without a name": lambda f: _edit(f, sources=[{"sha256": "0" * 64, "n_frames": 260}]),
    "a source of another kind": lambda f: _edit(f, sources=[{"name": [], "sha256": "0" * 64, "n_frames": 260}]),
    "an odd width": lambda f: _edit(f, width=WIDTH - 1),
    "a clip beyond its source": lambda f: _edit_first(f, "clips", first_frame=1 << 63),
    "a source without an end": lambda f: _edit_first(f, "sources", n_frames=1 << 63),
    "infinite shoulders": lambda f: _edit(f, shoulder_px=float("inf")),
    "no parameter sets": lambda f: _edit(f, extradata=""),
    "8 MB of parameter sets": lambda f: _edit(f, extradata=base64.b64encode(b"\0\0\0\1" + bytes(8 << 20)).decode()),
    "a node of 100 MB": lambda f: _stretch(f, 100 << 20),
    "true that is 2": lambda f: _byte(f / "graph_kept.npy", b"\x01" * 8, b"\x01\x02" * 4),
    "a continue edge that leads elsewhere": _replace("graph_kind", _first_cut_to_continue),
    "two ways to go on": _replace("graph_kind", np.zeros_like),
    "an unknown kind": _replace("graph_kind", _put(7, 3)),
    "a continue edge out of the last node": _replace("graph_kind", _put(CONTINUE, -1)),
    "edges that do not ascend": _swap_targets,
    "an edge twice": _double_target,
    "a target that is not kept": _replace("graph_kept", _put(False, 20)),
    "a negative distance": _replace("graph_distance", _put(-1, 3)),
    "an endless distance": _replace("graph_distance", _put(1e30, 3)),
    "far from rest": _replace("rest", _put(1e30, 3)),
    "level below zero": _replace("motion_level", _put(-1, 3)),
    "not a number": _replace("graph_distance", _put(np.nan, 5)),
    "a node without a way out": _without_edges(lambda source, target: source == 30),
    "a cut that leads to a dead end": _cut_into_the_end,
    "a long name": lambda f: _edit(f, name="a" * 2000),
    "a long text": lambda f: _edit(f, report={"warnings": ["a" * 5000]}),
    "no node kept": _replace("graph_kept", np.zeros_like),
}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pack_is_refused_in_one_line(name: str, signed: bool, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy.tango"
    shutil.copytree(whole, folder)
    HOSTILE[name](folder)
    if signed:
        with suppress(OSError, ValueError, TypeError, RecursionError):  # where there is a record to write them in
            sign(folder)
    with pytest.raises(ArtifactError) as caught:
        CharacterPack.open(folder)
    line = str(caught.value)
    assert str(folder) in line and line.isprintable() and len(line) < 600


def test_damaged_words_are_those_of_the_pack(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy.tango"
    shutil.copytree(whole, folder)
    _edit(folder, words='[{"word": 7}]')
    with pytest.raises(ArtifactError, match=r"copy\.tango is damaged \(word 0 .*build it again"):
        perform(CharacterPack.open(folder), np.zeros(8000, np.float32), PerformOptions(words="[]"))


def test_pictures_that_do_not_decode_are_those_of_the_pack(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy.tango"
    shutil.copytree(whole, folder)
    video = bytearray((folder / "video.h264").read_bytes())
    video[30:200] = bytes(170)
    (folder / "video.h264").write_bytes(video)
    sign_video(folder)
    sign(folder)
    pack = CharacterPack.open(folder)
    with pytest.raises(ArtifactError, match=r"the video of .*copy\.tango is damaged"):
        TransitionMaker(pack, open_blender("flow")).make((0, 30))
    with pytest.raises(ArtifactError, match="the video of 'anna' is damaged"):
        FrameCoder("jpeg", pack.info).encode(StepPictures(tuple(pack.packets(0))))


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
