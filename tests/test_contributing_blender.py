"""The recipe of CONTRIBUTING for a blender, followed: one class, one line in the table."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path

import numpy as np
import pytest

from engine.blending.blender import BLENDERS, TRANSITION_FRAMES, Blender, Take, open_blender
from engine.character.pack import CharacterPack
from engine.errors import InputError
from engine.motion_graph.graph import Cut
from tango_rt.pipeline.ahead import TransitionPool
from tango_rt.pipeline.drawers import draw_ahead
from tango_rt.pipeline.render import RenderOptions, render
from tango_rt.pipeline.transitions import TransitionStore, cache_key
from tango_rt.server.checks import blender_value
from tango_rt.v1 import media_pb2
from tango_rt.video.gop import GopDecoder
from tests.helpers.commands import run_json
from tests.helpers.fakes import HEIGHT, WIDTH, make_pack
from tests.helpers.speech import write_speech

CUTS: list[Cut] = [(5, 12), (9, 3), (14, 6), (7, 15)]


def shade_of_this_process() -> int:
    """Dark where the tests run, bright in a worker."""
    return 40 if parent_process() is None else 160


@dataclass(frozen=True)
class Wipe(Blender):
    """The new picture comes in from the left. Says which process drew it in the last column."""

    name = "wipe"
    version = 1
    settings = ""
    samples = "gap"
    pixels = "rgb"

    def draw(self, before: Take, after: Take) -> Iterator[np.ndarray]:
        frames = np.repeat(before.nodes[0][-1:], TRANSITION_FRAMES, axis=0)
        for k, frame in enumerate(frames):
            width = frame.shape[1] * (k + 1) // (TRANSITION_FRAMES + 1)
            frame[:, :width] = after.nodes[0][0][:, :width]
        frames[:, :, -16:] = shade_of_this_process()
        yield from np.split(frames, 2)


@pytest.fixture(autouse=True)
def in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BLENDERS, "wipe", "tests.test_contributing_blender:Wipe")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("made") / "anna.tango").path


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> CharacterPack:
    return CharacterPack.open(shutil.copytree(made, tmp_path / "anna.tango"))


def drawn_here(pack: CharacterPack, packets: list[bytes]) -> bool:
    frames = GopDecoder(pack.info.extradata, WIDTH, HEIGHT).decode(packets)
    return bool(abs(int(frames[0, 30, -4, 0]) - shade_of_this_process()) <= 3)


def test_render_draws_with_it(pack: CharacterPack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speech = write_speech(tmp_path / "speech.wav")
    arguments = (pack.path, speech, "-o", tmp_path / "out.mp4", "--jobs", 1)
    result = run_json(capsys, "render", *arguments, "--blender", "wipe")
    assert result["blender"] == "wipe" and result["n_transitions_computed"] > 0
    key = cache_key(pack, Wipe())
    assert [folder.name for folder in (pack.path / "transitions").iterdir()] == [key]
    assert key.startswith("wipe-") and key != cache_key(pack, open_blender("flow"))
    file = next((pack.path / "transitions" / key).glob("*.gops"))
    i, j = map(int, file.stem.split("-"))
    assert drawn_here(pack, TransitionStore(pack, Wipe()).packets((i, j)))
    again = render(pack, speech, tmp_path / "again.mp4", RenderOptions(blender="wipe"))
    assert again.n_transitions_computed == 0 and again.n_transitions_cached == result["n_transitions_computed"]


def test_worker_processes_draw_with_it(pack: CharacterPack) -> None:
    store = TransitionStore(pack, Wipe())
    assert list(draw_ahead(store, CUTS, 2)) == CUTS
    assert all(map(store.is_cached, CUTS)) and not drawn_here(pack, store.packets(CUTS[0]))


def test_the_pool_of_a_server_draws_with_it(pack: CharacterPack) -> None:
    pool = TransitionPool(1, 1 << 30)
    try:
        store = pool.store(pack, Wipe())
        pool.request(store, CUTS[0])
        drawn = pool.transition(store, CUTS[0], None)
        assert drawn is not None and TransitionStore(pack, Wipe()).get_cached(CUTS[0]) == drawn
        assert not drawn_here(pack, drawn)
    finally:
        pool.close()


def test_the_table_opens_what_it_names_and_refuses_the_rest() -> None:
    assert {name: open_blender(name).name for name in BLENDERS} == {name: name for name in BLENDERS}
    with pytest.raises(InputError, match="blender 'iris' is unknown: choose from flow, crossfade, cut, wipe"):
        open_blender("iris")


def test_the_protocol_knows_the_same_blenders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(BLENDERS, "wipe")
    known = set(media_pb2.Blender.values()) - {media_pb2.BLENDER_UNSPECIFIED}
    assert {blender_value(name) for name in BLENDERS} == known
