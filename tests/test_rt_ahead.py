"""Transitions ahead of their time: newest first, a cache of bounded size, workers that may die."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from engine.blending.blender import open_blender
from engine.character.pack import CharacterPack
from engine.errors import ArtifactError
from engine.motion_graph.graph import Cut
from tango_rt.pipeline.ahead import FadePart, TransitionPool
from tango_rt.pipeline.lane import Lane
from tango_rt.pipeline.transition_cache import TransitionCache
from tango_rt.pipeline.transitions import TransitionMaker, TransitionStore, cache_key
from tests.helpers.deadly import Deadly
from tests.helpers.fakes import make_pack
from tests.helpers.stored_transitions import PICTURES, pack_at

CUTS: list[Cut] = [(5, 12), (9, 3), (14, 6), (7, 15)]
FLOW = open_blender("flow")


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


class Gate:
    """Work that waits until it is let through."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.open = threading.Event()
        self.half_open = threading.Event()

    def __call__(self, job: str, give: Callable[[str], None]) -> str:
        self.order.append(job)
        if job.startswith("long"):
            assert self.half_open.wait(30)
            give(job[:2])
        assert self.open.wait(30)
        if job.startswith("bad"):
            raise ArtifactError("bad")
        return job.upper()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()
    gate.half_open.set()


def test_the_newest_request_is_done_first_each_once_and_the_oldest_is_forgotten(gate: Gate) -> None:
    lane: Lane[str, str, str] = Lane("test", [gate], max_waiting=3, max_done=2)
    lane.request("a", "a", "kind")
    eventually(lambda: gate.order == ["a"])
    for key in ("b", "c", "d", "a", "c", "e"):  # a is under way, c comes again, b is one too many
        lane.request(key, key, "kind")
    assert lane.result("a") is None and lane.n_waiting == 4
    gate.open.set()
    eventually(lambda: lane.n_done == 4)
    assert gate.order == ["a", "e", "c", "d"]
    assert [lane.result(key) for key in "abcde"] == [None, None, "C", "D", None]  # two are kept
    lane.close()


def test_what_failed_is_remembered_and_the_rest_goes_on(gate: Gate) -> None:
    lane: Lane[str, str, str] = Lane("test", [gate], max_waiting=3, max_done=9)
    gate.open.set()
    lane.request("bad", "bad", "kind")
    eventually(lambda: lane.failed("bad"))
    lane.request("bad", "bad", "kind")
    lane.request("good", "good", "kind")
    assert lane.result("good", within_s=None) == "GOOD"
    assert lane.result("bad", within_s=None) is None
    assert gate.order == ["bad", "good"] and lane.n_failed == 1
    lane.close()
    lane.request("late", "late", "kind")
    assert lane.result("late", within_s=None) is None and lane.failed("late")


def test_nobody_waits_for_what_will_be_late(gate: Gate) -> None:
    lane: Lane[str, str, str] = Lane("test", [gate], max_waiting=9, max_done=9)
    lane.request("a", "a", "slow")
    start_s = time.monotonic()
    assert lane.result("a", within_s=20) is None  # nothing is known of its kind
    time.sleep(0.5)  # its thread may have begun later than we
    gate.open.set()
    assert lane.result("a", within_s=None) == "A"
    cost_s = lane.cost_s("slow")
    assert cost_s is not None and cost_s >= 0.3
    gate.open.clear()
    lane.request("b", "b", "slow")
    eventually(lambda: gate.order[-1] == "b")
    lane.request("c", "c", "slow")
    lane.request("d", "d", "slow")
    assert lane.result("c", within_s=20) is None  # another comes before it
    assert lane.result("b", within_s=0.01) is None
    assert time.monotonic() - start_s < 10
    threading.Timer(0.05, gate.open.set).start()
    assert lane.result("d", within_s=20) == "D"
    lane.close()


def test_a_part_is_there_before_the_whole(gate: Gate) -> None:
    lane: Lane[str, str, str] = Lane("test", [gate], max_waiting=3, max_done=9)
    lane.request("a", "long", "kind")
    assert lane.result("a", within_s=20, part=True) is None  # nothing is known of its kind
    threading.Timer(0.2, gate.half_open.set).start()
    assert lane.result("a", within_s=None, part=True) == "lo"
    assert lane.result("a") is None and lane.result("a", part=False, within_s=0.01) is None
    time.sleep(0.5)
    gate.open.set()
    assert lane.result("a", within_s=None) == "LONG" == lane.result("a", part=True)
    gate.open.clear()
    gate.half_open.clear()
    lane.request("b", "long", "kind")
    eventually(lambda: len(gate.order) == 2)
    threading.Timer(0.05, gate.half_open.set).start()
    cost_s = lane.cost_s("kind")
    assert cost_s is not None and cost_s > 0.6
    assert lane.result("b", within_s=5, part=True) == "lo"  # a part is learnt to take less than the whole
    assert lane.result("b", within_s=0.3) is None
    gate.open.set()
    lane.close()


def test_to_close_ends_what_is_under_way() -> None:
    cut_short = threading.Event()
    lane: Lane[str, str, str] = Lane("test", [lambda job, give: str(cut_short.wait(30))], max_waiting=9, max_done=9)
    lane.request("a", "a", "kind")
    lane.request("b", "b", "kind")
    waiter = threading.Thread(target=lane.result, args=("b", None))
    waiter.start()
    lane.close(cut_short.set)
    waiter.join(30)
    assert not waiter.is_alive()


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = TransitionCache(pack_at(tmp_path), "key", limit_bytes=10 * 864)
    for k in range(10):
        cache.keep((k, 0), PICTURES)
        os.utime(tmp_path / f"transitions/key/{k}-0.gops", (k, k))
    assert cache.read((0, 0)) == PICTURES  # used now
    cache.keep((10, 0), PICTURES)
    assert [k for k in range(11) if (k, 0) in cache] == [0, 3, 4, 5, 6, 7, 8, 9, 10]  # 1 and 2 went: 90 % are left


def test_the_limit_holds_over_keys_and_processes_and_remnants_go(tmp_path: Path) -> None:
    old = tmp_path / "transitions" / "older"
    old.mkdir(parents=True)
    for k in range(50):
        (old / f"{k}-1.gops").write_bytes(bytes(1000))
        os.utime(old / f"{k}-1.gops", (k, k))
    (old / "9-9.77.partial").write_bytes(b"half")
    os.utime(old / "9-9.77.partial", (1, 1))
    (old / "7-7.78.partial").write_bytes(b"half, but of now")
    caches = [TransitionCache(pack_at(tmp_path), "key", limit_bytes=20_000) for _ in range(3)]
    threads = [
        threading.Thread(target=lambda cache=cache: [cache.keep((k, 1), PICTURES) for k in range(30)])
        for cache in caches
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = [file for file in tmp_path.rglob("*.gops")]
    assert sum(file.stat().st_size for file in files) <= 20_000 + 30 * 864  # each knows of the others when it looks
    assert sorted(file.name for file in tmp_path.rglob("*.partial")) == ["7-7.78.partial"]
    assert all(file.parent.name == "key" or int(file.name.split("-")[0]) > 20 for file in files)


@pytest.mark.parametrize("trouble", ["read-only", "full disk", "no room"])
def test_what_cannot_be_written_is_kept_in_memory_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    if trouble == "read-only":
        (tmp_path / "transitions").write_text("in the way")
    elif trouble == "full disk":

        def full(descriptor: int, mode: str) -> NoReturn:
            os.write(descriptor, bytes(100))
            os.close(descriptor)
            raise OSError(errno.ENOSPC, "no space left on device")

        monkeypatch.setattr("tango_rt.pipeline.transition_cache.os.fdopen", full)
    limit_bytes = 0 if trouble == "no room" else 1 << 30
    cache = TransitionCache(pack_at(tmp_path), "key", limit_bytes, memory_bytes=5 * 800)
    for k in range(9):
        cache.keep((k, 0), PICTURES)
    assert [k for k in range(9) if (k, 0) in cache] == [4, 5, 6, 7, 8]
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "transitions"]


def test_a_deleted_pack_does_not_come_back(tmp_path: Path) -> None:
    cache = TransitionCache(pack_at(tmp_path / "anna.tango"), "key")
    cache.keep((1, 2), PICTURES)
    assert cache.read((1, 2)) == PICTURES and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def pool() -> Iterator[TransitionPool]:
    pool = TransitionPool(1, 1 << 30)
    yield pool
    pool.close()


def test_the_pool_draws_what_a_render_would_and_caches_it(pool: TransitionPool, pack: CharacterPack) -> None:
    store = pool.store(pack, FLOW)
    for cut in CUTS:
        pool.request(store, cut)
    maker = TransitionMaker(pack, FLOW)
    for cut in CUTS:
        expected = maker.make(cut)
        assert pool.transition(store, cut, None) == expected
        assert TransitionStore(pack, FLOW).get_cached(cut) == expected
    assert pool.transition(store, (1, 2)) is None and not pool.failed(store, (1, 2))


def test_a_first_half_is_out_before_the_second(pool: TransitionPool, pack: CharacterPack) -> None:
    store, made = pool.store(pack, FLOW), TransitionMaker(pack, FLOW).make(CUTS[1])
    pool.request(store, CUTS[1])
    first = pool.first_half(store, CUTS[1], None)
    assert first in (made[:4], made)  # the second may have followed already
    assert pool.transition(store, CUTS[1], None) == made == pool.first_half(store, CUTS[1])


def test_sessions_share_what_is_kept_in_memory(pool: TransitionPool, pack: CharacterPack) -> None:
    (pack.path / "transitions").write_text("in the way")
    store = pool.store(pack, FLOW)
    pool.request(store, CUTS[0])
    made = pool.transition(store, CUTS[0], None)
    assert made is not None and pool.store(CharacterPack.open(pack.path), FLOW).get_cached(CUTS[0]) == made
    assert pool.store(pack, open_blender("crossfade")).get_cached(CUTS[0]) is None


def test_parts_of_a_crossfade(pool: TransitionPool, pack: CharacterPack) -> None:
    store = pool.store(pack, FLOW)
    maker = TransitionMaker(pack, open_blender("crossfade"))
    for cut in CUTS:
        for part in FadePart:
            pool.request_fade(store, cut, part)
        halves = [pool.fade(store, cut, part, None) for part in (FadePart.FIRST, FadePart.SECOND)]
        assert [*(halves[0] or []), *(halves[1] or [])] == maker.make(cut)
        assert pool.fade(store, cut, FadePart.LATE, None) == maker.late_crossfade(cut)


def test_a_worker_that_dies_is_replaced_and_its_work_done_again(
    pool: TransitionPool, pack: CharacterPack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "deaths").write_text("1")
    store, lost = pool.store(pack, Deadly(tmp_path / "deaths")), pool.counts().n_workers_lost
    pool.request(store, CUTS[0])
    assert pool.transition(store, CUTS[0], None) == TransitionMaker(pack, FLOW).make(CUTS[0])
    assert pool.counts().n_workers_lost == lost + 1
    assert "died (exit code -9)" in caplog.text


def test_a_cut_that_kills_its_workers_is_remembered(pool: TransitionPool, pack: CharacterPack, tmp_path: Path) -> None:
    (tmp_path / "deaths").write_text("9")
    store, before = pool.store(pack, Deadly(tmp_path / "deaths")), pool.counts()
    pool.request(store, CUTS[1])
    assert pool.transition(store, CUTS[1], None) is None and pool.failed(store, CUTS[1])
    after = pool.counts()
    assert (after.n_failed, after.n_workers_lost) == (before.n_failed + 1, before.n_workers_lost + 2)
    (tmp_path / "deaths").write_text("0")
    pool.request(store, CUTS[1])  # not tried again
    pool.request(store, CUTS[2])
    assert pool.transition(store, CUTS[2], None) is not None
    assert pool.transition(store, CUTS[1], None) is None


def test_a_damaged_pack_fails_and_others_go_on(pool: TransitionPool, made_pack: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(made_pack, tmp_path / "bad.tango")
    joints = np.load(damaged / "joints.npy")
    np.save(damaged / "joints.npy", np.full_like(joints, np.nan))
    bad = pool.store(CharacterPack.open(damaged), FLOW)
    pool.request(bad, CUTS[0])
    assert pool.transition(bad, CUTS[0], None) is None and pool.failed(bad, CUTS[0])
    good = pool.store(CharacterPack.open(shutil.copytree(made_pack, tmp_path / "good.tango")), FLOW)
    pool.request(good, CUTS[0])
    assert pool.transition(good, CUTS[0], None) is not None


def test_a_pack_built_anew_is_not_mixed_up_with_its_predecessor(
    pool: TransitionPool, pack: CharacterPack, tmp_path: Path
) -> None:
    before = pool.store(pack, FLOW)
    shutil.rmtree(pack.path)
    successor = make_pack(pack.path, (12, 8), seed=7)
    assert cache_key(successor, FLOW) != cache_key(pack, FLOW)
    pool.request(before, CUTS[0])
    assert pool.transition(before, CUTS[0], None) is None and pool.failed(before, CUTS[0])
    after = pool.store(successor, FLOW)
    pool.request(after, CUTS[0])
    assert pool.transition(after, CUTS[0], None) == TransitionMaker(successor, FLOW).make(CUTS[0])


PARENT = """
import multiprocessing, time
from tango_rt.pipeline.ahead import TransitionPool
if __name__ == "__main__":
    pool = TransitionPool(2, 1 << 30)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _ignores_endings(pid: int) -> bool:
    ignored = Path(f"/proc/{pid}/status").read_text().partition("SigIgn:")[2].split()[0]
    return bool(int(ignored, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to see processes in")
def test_workers_end_with_their_parent_and_only_with_it(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        eventually(lambda: all(map(_ignores_endings, workers)))
        for pid in workers:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.3)
        assert len(workers) == 2 and all(map(_alive, workers))
        parent.kill()
    eventually(lambda: not any(map(_alive, workers)))
