"""Steps to pictures: from the pack, from the cache, in time or late."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from engine.blending.blender import Blender, open_blender
from engine.character.pack import CharacterPack
from engine.errors import ArtifactError
from engine.motion_graph.graph import Cut
from tango_rt.pipeline.ahead import FadePart, TransitionPool
from tango_rt.pipeline.live import Step
from tango_rt.pipeline.pictures import PictureSource
from tango_rt.pipeline.transitions import TransitionMaker, TransitionStore
from tango_rt.video.codecs import StepPictures
from tango_rt.video.gop import GopDecoder
from tests.helpers.fakes import HEIGHT, WIDTH

FLOW = open_blender("flow")
CUT: Cut = (5, 12)
OTHER: Cut = (14, 6)
FIRST = Step(5, cut_to=12)
SECOND = Step(12, cut_from=5)


class FakePool:
    """A pool without clock or processes: what is done is what the test says."""

    def __init__(self, pack: CharacterPack) -> None:
        self.maker = TransitionMaker(pack, open_blender("crossfade"))
        self.looked: dict[Cut, list[bytes]] = {}
        self.requested: list[Cut] = []
        self.faded: list[tuple[Cut, FadePart]] = []
        self.done: dict[Cut, list[bytes]] = {}
        self.half_done: dict[Cut, list[bytes]] = {}
        self.in_time: set[FadePart] = set()
        self.broken: set[Cut] = set()

    def store(self, pack: CharacterPack, blender: Blender) -> TransitionStore:
        return TransitionStore(pack, blender)

    def look_up(self, store: TransitionStore, cut: Cut, urgent: bool = False) -> None:
        self.looked[cut] = store.get_cached(cut) or []
        if not self.looked[cut]:
            self.request(store, cut)
            for part in (FadePart.SECOND, FadePart.FIRST) if urgent else ():
                self.request_fade(store, cut, part)

    def lookup_result(self, store: TransitionStore, cut: Cut, within_s: float | None = 0.0) -> list[bytes] | None:
        return self.looked.get(cut)

    def request(self, store: TransitionStore, cut: Cut) -> None:
        if cut not in self.requested:
            self.requested.append(cut)

    def transition(self, store: TransitionStore, cut: Cut, within_s: float | None = 0.0) -> list[bytes] | None:
        return self.done.get(cut)

    def first_half(self, store: TransitionStore, cut: Cut, within_s: float | None = 0.0) -> list[bytes] | None:
        return self.done.get(cut) or self.half_done.get(cut)

    def failed(self, store: TransitionStore, cut: Cut) -> bool:
        return cut in self.broken

    def request_fade(self, store: TransitionStore, cut: Cut, part: FadePart) -> None:
        self.faded.append((cut, part))

    def fade(self, store: TransitionStore, cut: Cut, part: FadePart, within_s: float | None) -> list[bytes] | None:
        if part not in self.in_time:
            return None
        assert (cut, part) in self.faded
        return self.maker.late_crossfade(cut) if part is FadePart.LATE else self.maker.crossfade(cut, part)


@pytest.fixture
def pool(pack: CharacterPack) -> FakePool:
    return FakePool(pack)


def source(pack: CharacterPack, pool: FakePool | None, blender: str = "flow") -> PictureSource:
    return PictureSource(pack, open_blender(blender), pool)  # type: ignore[arg-type]


@pytest.mark.parametrize("blender", ["flow", "crossfade"])
def test_without_a_pool_transitions_are_made_here_and_now(pack: CharacterPack, blender: str) -> None:
    pictures = source(pack, None, blender)
    steps = [Step(4), FIRST, SECOND, Step(13)]
    drawn = [pictures.draw(step) for step in steps]
    transition = TransitionMaker(pack, open_blender(blender)).make(CUT)
    assert [p for one in drawn for p in one.packets] == [*pack.packets(4), *transition, *pack.packets(13)]
    assert [one.blender for one in drawn] == [None, blender, blender, None]
    assert [one.computed for one in drawn] == [False, True, False, False] and not any(one.late for one in drawn)
    assert not source(pack, None, blender).draw(FIRST).computed


@pytest.mark.parametrize("with_pool", [False, True])
def test_a_hard_cut_copies_the_nodes(pack: CharacterPack, pool: FakePool, with_pool: bool) -> None:
    pictures = source(pack, pool if with_pool else None, "cut")
    for step in (replace(FIRST, planned=(OTHER,)), SECOND):
        assert pictures.draw(step, 1.0) == StepPictures(tuple(pack.packets(step.node)), "cut")
    assert not pool.requested and not pool.faded and not (pack.path / "transitions").exists()


def test_damage_is_raised_where_nobody_waits(pack: CharacterPack) -> None:
    np.save(pack.path / "joints.npy", np.full_like(pack["joints"], np.nan))
    with pytest.raises(ArtifactError, match="rebuild it"):
        source(CharacterPack.open(pack.path), None).draw(FIRST)


def test_what_is_planned_is_requested_the_nearest_before_all(pack: CharacterPack, pool: FakePool) -> None:
    pictures = source(pack, pool)
    pictures.draw(Step(3, planned=(CUT, OTHER, (7, 15), (1, 9), (2, 19))), 1.0)
    assert pool.requested == [(1, 9), (7, 15), OTHER, CUT]
    assert pool.faded == [(CUT, FadePart.SECOND), (CUT, FadePart.FIRST)]
    made = TransitionStore(pack, FLOW).packets(CUT)  # done meanwhile
    drawn = pictures.draw(FIRST, 0.0)
    assert drawn == StepPictures(tuple(made[:4]), "flow", computed=True)
    assert pictures.draw(SECOND, 0.0).packets == tuple(made[4:])
    assert CUT not in pool.requested[4:]


def test_what_is_planned_and_cached_is_read_ahead(pack: CharacterPack, pool: FakePool) -> None:
    made = TransitionStore(pack, FLOW).packets(CUT)
    pictures = source(pack, pool)
    pictures.draw(Step(4, planned=(CUT,)), 1.0)
    shutil.rmtree(pack.path / "transitions")
    assert pictures.draw(FIRST, 0.0) == StepPictures(tuple(made[:4]), "flow")
    assert not pool.requested


def test_drawn_in_time(pack: CharacterPack, pool: FakePool) -> None:
    pool.done[CUT] = TransitionMaker(pack, FLOW).make(CUT)
    pictures = source(pack, pool)
    assert pictures.draw(FIRST, 1.0) == StepPictures(tuple(pool.done[CUT][:4]), "flow", computed=True)
    assert pictures.draw(SECOND, 0.0) == StepPictures(tuple(pool.done[CUT][4:]), "flow")


@pytest.mark.parametrize("blender", ["flow", "crossfade"])
def test_a_first_half_needs_two_nodes_alone(pack: CharacterPack, monkeypatch: pytest.MonkeyPatch, blender: str) -> None:
    read: list[int] = []
    packets = CharacterPack.packets

    def counted(self: CharacterPack, node: int) -> list[bytes]:
        read.append(node)
        return packets(self, node)

    monkeypatch.setattr(CharacterPack, "packets", counted)
    maker = TransitionMaker(pack, open_blender(blender))
    halves = maker.halves(OTHER)  # 14 -> 6, real frames on both sides
    first = next(halves)
    assert read == [14, 5]
    second = next(halves)
    assert read == [14, 5, 15, 6] and next(halves, None) is None
    assert [*first, *second] == maker.make(OTHER) and len(first) == len(second) == 4


@pytest.mark.parametrize("blender", ["flow", "crossfade", "cut"])
def test_halves_at_the_ends_of_clips(pack: CharacterPack, blender: str) -> None:
    cut: Cut = (11, 3)  # node 12 is of another clip
    assert not pack.graph.has_sync(*cut)
    maker = TransitionMaker(pack, open_blender(blender))
    halves = list(maker.halves(cut))
    assert [len(half) for half in halves] == [4, 4] and [*halves[0], *halves[1]] == maker.make(cut)


def test_a_first_half_is_shown_before_the_second_is_drawn(pack: CharacterPack, pool: FakePool) -> None:
    made = TransitionMaker(pack, FLOW).make(CUT)
    pool.half_done[CUT] = made[:4]
    pictures = source(pack, pool)
    assert pictures.draw(FIRST, 0.1) == StepPictures(tuple(made[:4]), "flow", computed=True)
    pool.done[CUT] = made
    second = pictures.draw(SECOND, 0.1)
    assert second == StepPictures(tuple(made[4:]), "flow")
    pool.done.clear()
    assert pictures.draw(SECOND, 0.1) == second  # after take_back


def test_a_second_half_that_is_late_is_mixed(pack: CharacterPack, pool: FakePool) -> None:
    pool.half_done[CUT] = TransitionMaker(pack, FLOW).make(CUT)[:4]
    pool.in_time = {FadePart.SECOND}
    pictures = source(pack, pool)
    assert not pictures.draw(FIRST, 0.1).late
    mixed = pool.maker.crossfade(CUT, 1)
    assert pictures.draw(SECOND, 0.1) == StepPictures(tuple(mixed), "crossfade", late=True)


def test_a_late_one_becomes_a_crossfade(pack: CharacterPack, pool: FakePool) -> None:
    pool.in_time = {FadePart.FIRST, FadePart.SECOND}
    pictures = source(pack, pool)
    drawn = [pictures.draw(FIRST, 0.1), pictures.draw(SECOND, 0.1)]
    assert [(one.blender, one.late) for one in drawn] == [("crossfade", True)] * 2
    assert [p for one in drawn for p in one.packets] == pool.maker.make(CUT)
    assert pool.requested == [CUT]  # and is drawn for the next time
    pool.done[CUT] = TransitionMaker(pack, FLOW).make(CUT)
    pictures.draw(FIRST, 0.1)
    assert pictures.draw(SECOND, 0.1).blender == "flow"


def test_a_crossfade_that_was_asked_for_is_not_late(pack: CharacterPack, pool: FakePool) -> None:
    pool.in_time = {FadePart.FIRST, FadePart.SECOND}
    pictures = source(pack, pool, "crossfade")
    assert not pictures.draw(FIRST, 0.1).late and not pictures.draw(SECOND, 0.1).late


def test_later_still_only_the_second_half_is_mixed(pack: CharacterPack, pool: FakePool) -> None:
    pool.in_time = {FadePart.LATE}
    pictures = source(pack, pool)
    first, second = pictures.draw(FIRST, 0.0), pictures.draw(SECOND, 0.0)
    assert first == StepPictures(tuple(pack.packets(5)), "cut", late=True)
    assert second == StepPictures(tuple(pool.maker.late_crossfade(CUT)), "crossfade", late=True)
    assert not first.generated and second.generated


def test_latest_of_all_it_is_a_hard_cut(pack: CharacterPack, pool: FakePool) -> None:
    pictures = source(pack, pool)
    for step in (FIRST, SECOND):
        assert pictures.draw(step, -0.1) == StepPictures(tuple(pack.packets(step.node)), "cut", late=True)


def test_without_a_due_time_what_cannot_be_drawn_does_not_hold_anybody_up(pack: CharacterPack, pool: FakePool) -> None:
    pool.broken.add(CUT)
    assert source(pack, pool).draw(FIRST) == StepPictures(tuple(pack.packets(5)), "cut", late=True)


def test_the_second_half_follows_its_own_first(pack: CharacterPack, pool: FakePool) -> None:
    pool.done = {cut: TransitionMaker(pack, FLOW).make(cut) for cut in (CUT, OTHER)}
    pictures = source(pack, pool)
    pictures.draw(FIRST, 1.0)
    first_again = pictures.draw(FIRST, 1.0)  # after take_back
    assert first_again.packets == tuple(pool.done[CUT][:4])
    second = pictures.draw(SECOND, 1.0)
    assert pictures.draw(SECOND, 1.0) == second
    hard = StepPictures(tuple(pack.packets(6)), "cut", late=True)
    assert pictures.draw(Step(6, cut_from=14), 1.0) == hard  # of another cut
    pictures.draw(Step(14, cut_to=6), 1.0)
    assert pictures.draw(Step(9, hard=True), 1.0) == StepPictures(tuple(pack.packets(9)))
    assert pictures.draw(Step(6, cut_from=14), 1.0) == hard  # forgotten


def test_a_late_crossfade_leads_from_one_node_into_the_other(pack: CharacterPack) -> None:
    decoder = GopDecoder(pack.info.extradata, WIDTH, HEIGHT)
    maker = TransitionMaker(pack, open_blender("crossfade"))
    for cut in (CUT, (11, 3), (4, 12)):  # sync, and at the end and at the start of a clip
        mixed = decoder.decode_i420(maker.late_crossfade(cut)).astype(float)
        sync = pack.graph.has_sync(*cut)
        before = decoder.decode_i420(pack.packets(cut[0] + sync)).astype(float)
        after = decoder.decode_i420(pack.packets(cut[1])).astype(float)
        for k, weight in enumerate((0.2, 0.4, 0.6, 0.8)):
            wanted = (1 - weight) * before[k if sync else 3] + weight * after[k]
            assert np.abs(mixed[k] - wanted).mean() < 1.5


def test_with_a_real_pool(pack: CharacterPack) -> None:
    pool = TransitionPool(1, 1 << 30)
    try:
        pictures = PictureSource(pack, FLOW, pool)
        assert pictures.draw(FIRST, 0.0).late
        expected = TransitionMaker(pack, FLOW).make(CUT)
        drawn = [pictures.draw(step) for step in (FIRST, SECOND)]
        assert [p for one in drawn for p in one.packets] == expected
        assert not drawn[0].late
        again = PictureSource(pack, FLOW, pool)
        again.draw(Step(4, planned=(CUT,)), 1.0)
        pool.lookup_result(pool.store(pack, FLOW), CUT, None)  # in time until the next step
        assert again.draw(FIRST, 0.0) == StepPictures(tuple(expected[:4]), "flow")
    finally:
        pool.close()
    assert PictureSource(pack, FLOW, pool).draw(Step(14, cut_to=6)).blender == "cut"  # closed: nobody hangs
