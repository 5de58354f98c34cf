"""The drawn set of a pack: what is stored is read; damaged and foreign ones are refused in one line."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from engine.blending.blender import open_blender
from engine.character.drawn import FOLDER, write_drawn
from engine.character.pack import CharacterPack
from engine.errors import ArtifactError, InputError
from engine.motion_graph.graph import CONTINUE
from tango_rt.characters.install import install
from tango_rt.pipeline.transitions import TransitionMaker
from tests.helpers.drawn_sets import some_cuts, with_drawn
from tests.helpers.fakes import make_pack


@pytest.fixture
def pack(tmp_path: Path) -> CharacterPack:
    return with_drawn(make_pack(tmp_path / "anna.tango", (20, 12)))


def test_what_is_stored_is_read(pack: CharacterPack) -> None:
    drawn, cuts = pack.drawn, some_cuts(pack)
    assert drawn is not None and (drawn.blender, drawn.settings) == ("crossfade", open_blender("crossfade").settings)
    assert drawn.cuts.tolist() == [list(cut) for cut in cuts] and not drawn.cuts.flags.writeable
    maker = TransitionMaker(pack, open_blender("crossfade"))
    for cut in cuts[:3] + cuts[-3:]:
        assert cut in drawn and drawn.packets(cut) == maker.make(cut)
    assert (0, 1) not in drawn and drawn.packets((0, 1)) is None
    taken = drawn.graph.kind != CONTINUE
    assert list(zip(drawn.graph.sources[taken], drawn.graph.indices[taken], strict=True)) == cuts
    pack.verify()


def test_it_is_no_part_of_the_hash_of_the_pack_and_equal_ones_are_equal(pack: CharacterPack, tmp_path: Path) -> None:
    other = with_drawn(make_pack(tmp_path / "bert.tango", (20, 12)))
    plain = make_pack(tmp_path / "plain" / "anna.tango", (20, 12))
    assert plain.drawn is None and plain.sha256 == pack.sha256
    assert other.drawn is not None and pack.drawn is not None
    for name in ("cuts.npy", "sizes.npy", "half_sha256.npy", "live.h264"):
        assert (other.path / FOLDER / name).read_bytes() == (pack.path / FOLDER / name).read_bytes()


def test_an_open_one_is_read_to_its_end_while_another_replaces_it(pack: CharacterPack) -> None:
    assert pack.drawn is not None
    cut = some_cuts(pack)[0]
    before = pack.drawn.packets(cut)
    again = with_drawn(pack, "flow")
    assert again.drawn is not None and again.drawn.blender == "flow"
    assert pack.drawn.packets(cut) == before != again.drawn.packets(cut)


def test_it_is_installed_with_its_pack(pack: CharacterPack, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    installed = install(pack.path, tmp_path / "served")
    assert installed.drawn is not None and pack.drawn is not None and installed.drawn.sha256 == pack.drawn.sha256


def _array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    def act(folder: Path) -> None:
        np.save(folder / f"{name}.npy", change(np.load(folder / f"{name}.npy")))

    return act


def _record(**changes: object) -> Callable[[Path], object]:
    def act(folder: Path) -> None:
        record = {**json.loads((folder / "live.json").read_text()), **changes}
        (folder / "live.json").write_text(json.dumps({k: v for k, v in record.items() if v is not ...}))

    return act


def _sign(folder: Path) -> None:
    """As somebody does who changes it on purpose."""
    record = json.loads((folder / "live.json").read_text())
    for name in record["sha256"]:
        if (folder / f"{name}.npy").is_file():
            record["sha256"][name] = sha256((folder / f"{name}.npy").read_bytes()).hexdigest()
    (folder / "live.json").write_text(json.dumps(record))


def _linked(folder: Path) -> None:
    outside = folder.parent.parent / "outside"
    shutil.move(folder, outside)
    folder.symlink_to(outside)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "no cuts": lambda folder: (folder / "cuts.npy").unlink(),
    "no video": lambda folder: (folder / "live.h264").unlink(),
    "a shorter video": lambda folder: os.truncate(folder / "live.h264", 100),
    "a cut that is none": _array("cuts", lambda cuts: np.where(cuts == cuts[0], [0, 1], cuts).astype(np.int32)),
    "outside the graph": _array("cuts", lambda cuts: cuts + np.int32(1000)),
    "negative": _array("cuts", lambda cuts: -cuts),
    "twice": _array("cuts", lambda cuts: np.repeat(cuts[::2], 2, axis=0)[: len(cuts)]),
    "backwards": _array("cuts", lambda cuts: cuts[::-1]),
    "one column": _array("cuts", lambda cuts: cuts[:, :1]),
    "floats": _array("cuts", lambda cuts: cuts.astype(np.float32)),
    "empty pictures": _array("sizes", lambda sizes: sizes * np.int32(0)),
    "huge pictures": _array("sizes", lambda sizes: np.full_like(sizes, 2**31 - 1)),
    "negative pictures": _array("sizes", lambda sizes: -sizes),
    "fewer sizes": _array("sizes", lambda sizes: sizes[:-1]),
    "fewer hashes": _array("half_sha256", lambda hashes: hashes[:-1]),
    "no number of cuts": _record(n_cuts=...),
    "no cuts at all": _record(n_cuts=0),
    "a vast number": _record(n_cuts=2**62),
    "a number as text": _record(n_cuts="3"),
    "another pack": _record(pack="0" * 64),
    "hashes of something else": _record(sha256={"cuts": "0" * 64}),
    "no hash": _record(sha256={"cuts": 1, "sizes": 2, "half_sha256": 3}),
    "control characters": _record(blender="\x1b]0;gone\x07"),
    "unknown field": _record(more=1),
    "no json": lambda folder: (folder / "live.json").write_text("{"),
    "deep json": lambda folder: (folder / "live.json").write_text("[" * 10_000),
    "large json": lambda folder: (folder / "live.json").write_text(" " * (1 << 20)),
    "a FIFO": lambda folder: ((folder / "cuts.npy").unlink(), os.mkfifo(folder / "cuts.npy")),
    "a link": _linked,
}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", HOSTILE)
def test_damaged_ones_are_refused_in_one_line(kind: str, signed: bool, pack: CharacterPack) -> None:
    HOSTILE[kind](pack.path / FOLDER)
    if signed:
        with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
            _sign(pack.path / FOLDER)
    try:
        opened = CharacterPack.open(pack.path)
    except ArtifactError as error:
        assert "drawn transitions" in str(error) and "character warm" in str(error)
        assert "\n" not in str(error) and len(str(error)) < 600
    else:
        assert signed and kind in ("no hash", "hashes of something else") and opened.drawn is not None  # whole again


def test_a_dead_end_is_refused(pack: CharacterPack) -> None:
    last = int(pack["clip_start"][1]) - 1
    kept = [cut for cut in some_cuts(pack) if cut[0] < last - 4]
    maker = TransitionMaker(pack, open_blender("crossfade"))
    write_drawn(pack.path, pack.sha256, ("crossfade", 1, ""), kept, maker.make)
    with pytest.raises(ArtifactError, match="no way out"):
        CharacterPack.open(pack.path)


def test_changed_pictures_are_named(pack: CharacterPack) -> None:
    video = pack.path / FOLDER / "live.h264"
    content = bytearray(video.read_bytes())
    content[len(content) // 2] ^= 1
    video.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"live.h264: the pictures of half \d+ are damaged.*character warm"):
        CharacterPack.open(pack.path).verify()


def test_nothing_is_written_through_a_link(pack: CharacterPack, tmp_path: Path) -> None:
    cuts = some_cuts(pack)
    _linked(pack.path / FOLDER)
    before = {file.name: file.read_bytes() for file in (tmp_path / "outside").iterdir()}
    with pytest.raises(InputError, match="is a link"):
        write_drawn(pack.path, pack.sha256, ("flow", 1, ""), cuts, lambda _: [b"x"] * 8)
    assert {file.name: file.read_bytes() for file in (tmp_path / "outside").iterdir()} == before


def test_an_interrupt_while_writing_leaves_the_old_one(pack: CharacterPack) -> None:
    def interrupted(_: object) -> list[bytes]:
        raise KeyboardInterrupt

    before = pack.drawn
    with pytest.raises(KeyboardInterrupt):
        write_drawn(pack.path, pack.sha256, ("flow", 1, ""), some_cuts(pack), interrupted)
    after = CharacterPack.open(pack.path).drawn
    assert before is not None and after is not None and after.sha256 == before.sha256
    assert sorted(path.name for path in pack.path.glob(".*")) == []
