"""The cache of transitions in the hands of a stranger: whatever lies there, nobody waits and nothing wrong is shown."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.blending.blender import Blender, open_blender
from engine.character.pack import CharacterPack
from engine.motion_graph.graph import Cut
from tango_rt.pipeline import transition_cache
from tango_rt.pipeline.ahead import TransitionPool
from tango_rt.pipeline.live import Step
from tango_rt.pipeline.pictures import PictureSource
from tango_rt.pipeline.transition_cache import TransitionCache
from tango_rt.pipeline.transitions import TransitionMaker, TransitionStore, cache_key
from tests.helpers.fakes import make_pack
from tests.helpers.stored_transitions import PICTURES, pack_at

CUT: Cut = (5, 12)
FADED = open_blender("crossfade")


def _cut_off(file: Path) -> None:
    os.truncate(file, 500)


def _flip(at: int) -> Callable[[Path], None]:
    def act(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[at] ^= 1
        file.write_bytes(data)

    return act


def _sparse(file: Path) -> None:
    os.truncate(file, 3 << 30)


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(file: Path) -> None:
        file.unlink()
        make(file)

    return act


def _linked(file: Path) -> None:
    file.rename(file.with_suffix(".elsewhere"))
    file.symlink_to(file.with_suffix(".elsewhere"))


HOSTILE: dict[str, Callable[[Path], None]] = {
    "empty": _instead(Path.touch),
    "cut off": _cut_off,
    "a FIFO": _instead(os.mkfifo),
    "a folder": _instead(Path.mkdir),
    "3 GiB of nothing": _sparse,
    "a link": _linked,
    "a link to itself": _instead(lambda file: file.symlink_to(file)),
    "an endless device": _instead(lambda file: file.symlink_to("/dev/zero")),
    "a byte of the hash": _flip(3),
    "a byte of a size": _flip(33),
    "a byte of a picture": _flip(200),
    "the last byte": _flip(-1),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_transition_counts_as_absent(kind: str, tmp_path: Path) -> None:
    cache = TransitionCache(pack_at(tmp_path), "key")
    cache.keep(CUT, PICTURES)
    assert cache.read(CUT) == PICTURES
    HOSTILE[kind](tmp_path / "transitions" / "key" / "5-12.gops")
    assert cache.read(CUT) is None


def test_pictures_of_another_cut_or_another_pack_count_as_absent(tmp_path: Path) -> None:
    cache = TransitionCache(pack_at(tmp_path), "key")
    cache.keep(CUT, PICTURES)
    folder = tmp_path / "transitions" / "key"
    shutil.copy(folder / "5-12.gops", folder / "5-13.gops")
    assert cache.read((5, 13)) is None
    assert TransitionCache(pack_at(tmp_path, "11" * 32), "key").read(CUT) is None


@pytest.mark.parametrize("pictures", [[b"garbage" * 20] * 8, [b"\0\0\0\1\x41" + bytes(90)] * 8, [b""] * 8])
def test_what_is_no_group_of_pictures_counts_as_absent(tmp_path: Path, pictures: list[bytes]) -> None:
    """Though its hash is right, which is no secret."""
    cache = TransitionCache(pack_at(tmp_path), "key")
    cache.keep(CUT, pictures)
    assert cache.read(CUT) is None


def test_nothing_is_written_into_what_a_stranger_put_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    folder = tmp_path / "pack" / "transitions" / "key"
    folder.mkdir(parents=True)
    monkeypatch.setattr(transition_cache.threading, "get_ident", lambda: 7)
    for cut, make in (((1, 2), os.mkfifo), ((3, 4), lambda planted: planted.symlink_to(outside))):
        make(folder / f"{cut[0]}-{cut[1]}.{os.getpid()}.7.partial")
        cache = TransitionCache(pack_at(tmp_path / "pack"), "key")
        cache.keep(cut, PICTURES)
        assert cache.read(cut) == PICTURES
    assert outside.read_bytes() == b"mine"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> CharacterPack:
    """Where every transition is a FIFO."""
    pack = make_pack(tmp_path_factory.mktemp("packs") / "anna.tango", (12, 8))
    for options in (FADED, open_blender("flow")):
        folder = pack.path / "transitions" / cache_key(pack, options)
        folder.mkdir(parents=True)
        for i in range(20):
            for j in range(20):
                os.mkfifo(folder / f"{i}-{j}.gops")
    return pack


def test_a_render_does_not_wait_for_a_fifo(pack: CharacterPack) -> None:
    assert TransitionStore(pack, FADED).packets(CUT) == TransitionMaker(pack, FADED).make(CUT)


def test_a_session_does_not_wait_for_a_fifo(pack: CharacterPack) -> None:
    pool = TransitionPool(1, 1 << 30)
    try:
        source = PictureSource(pack, open_blender("crossfade"), pool)
        drawn = [source.draw(step) for step in (Step(4, planned=(CUT,)), Step(5, cut_to=12), Step(12, cut_from=5))]
        pictures = [picture for one in drawn[1:] for picture in one.packets]
        assert pictures == TransitionMaker(pack, FADED).make(CUT)
    finally:
        pool.close()


def test_a_frame_never_waits_for_the_disk(pack: CharacterPack, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that hangs, a cut is late; it does not hold up the thread that many sessions share."""
    monkeypatch.setattr(TransitionCache, "read", lambda *_: pytest.fail("read by the thread of a session"))
    pool = _PoolThatHangs()
    source = PictureSource(pack, open_blender("crossfade"), pool)  # type: ignore[arg-type]
    source.draw(Step(4, planned=(CUT,)), 0.1)
    assert source.draw(Step(5, cut_to=12), 0.1).blender == "cut"


class _PoolThatHangs:
    def store(self, pack: CharacterPack, blender: str) -> TransitionStore:
        return TransitionStore(pack, FADED)

    def look_up(self, *_: object, **__: object) -> None: ...

    def request(self, *_: object) -> None: ...

    def request_fade(self, *_: object) -> None: ...

    def lookup_result(self, *_: object) -> None: ...

    def transition(self, *_: object) -> None: ...

    def first_half(self, *_: object) -> None: ...

    def fade(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("blender", "key"),
    [
        (open_blender("crossfade"), "crossfade-cd35685c786e"),
        (open_blender("cut"), "cut-9f94747a94d0"),
    ],
)
def test_packs_keep_the_transitions_that_earlier_versions_drew(tmp_path: Path, blender: Blender, key: str) -> None:
    assert cache_key(pack_at(tmp_path), blender) == key
