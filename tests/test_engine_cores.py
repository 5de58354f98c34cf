"""Cores that may be used: bound to, and paid for by quotas of control groups, in trees as containers show them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import cores
from engine.cores import limit_library_threads, usable_cores
from tests.helpers.fakes import make_pack

ROOT = Path(__file__).resolve().parent.parent

V2 = "31 23 0:28 {root} {mount} rw,nosuid - cgroup2 cgroup2 rw"
V1 = "32 31 0:29 {root} {mount} rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"
OTHER_V1 = "33 31 0:30 / {mount} rw - cgroup cgroup rw,memory"


@pytest.fixture(autouse=True)
def eight_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "PROC", tmp_path / "proc")


def limit(folder: Path, quota: str, period: str = "100000", version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (folder / "cpu.max").write_text(f"{quota} {period}\n")
    else:
        (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (folder / "cpu.cfs_period_us").write_text(f"{period}\n")


def tell(tmp_path: Path, groups: str, *mounts: str, root: str = "/") -> Path:
    """What /proc/self says; returns where the hierarchy is mounted."""
    mount = tmp_path / "sys fs" / "cgroup"  # with a blank, which is escaped
    (tmp_path / "proc").mkdir(exist_ok=True)
    (tmp_path / "proc" / "cgroup").write_text(groups)
    shown = str(mount).replace(" ", "\\040")
    (tmp_path / "proc" / "mountinfo").write_text("\n".join(line.format(mount=shown, root=root) for line in mounts))
    mount.mkdir(parents=True, exist_ok=True)
    return mount


def test_without_control_groups() -> None:
    assert usable_cores() == 8


def test_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    for count in (None, 1):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert usable_cores() == 1


@pytest.mark.parametrize(
    ("quota", "wanted"),
    [("200000", 2), ("150000", 2), ("100000", 1), ("20000", 1), ("max", 8), ("6400000", 8), ("", 8), ("odd", 8)],
)
def test_a_quota(tmp_path: Path, quota: str, wanted: int) -> None:
    mount = tell(tmp_path, "0::/\n", V2)
    limit(mount, quota)
    assert usable_cores() == wanted


def test_the_tightest_of_all_groups_above_counts(tmp_path: Path) -> None:
    mount = tell(tmp_path, "0::/pods/pod1/box\n", V2)
    limit(mount / "pods" / "pod1" / "box", "max")
    limit(mount / "pods" / "pod1", "300000")
    limit(mount / "pods", "500000")
    assert usable_cores() == 3
    limit(mount.parent, "100000")  # above the mount: not of this hierarchy
    assert usable_cores() == 3


def test_version_1_and_a_hybrid(tmp_path: Path) -> None:
    mount = tell(tmp_path, "9:memory:/x\n4:cpu,cpuacct:/box\n0::/box\n", V1, OTHER_V1, V2)
    limit(mount / "box", "-1", version=1)
    assert usable_cores() == 8
    limit(mount, "250000", "50000", version=1)
    assert usable_cores() == 5


@pytest.mark.parametrize("path", ["/docker/4711", "/docker/4711/inner", "/../..", "/elsewhere"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_container_that_sees_a_part_of_the_hierarchy(tmp_path: Path, path: str, version: int) -> None:
    """As Docker without a namespace of its own: the mount begins where the container does."""
    groups = f"0::{path}\n" if version == 2 else f"3:cpu:{path}\n"
    mount = tell(tmp_path, groups, V2 if version == 2 else V1, root="/docker/4711")
    limit(mount, "400000", version=version)
    assert usable_cores() == 4


def test_nonsense_is_no_limit(tmp_path: Path) -> None:
    mount = tell(tmp_path, "\n:::\n0\n0::/../" + "a/" * 2000 + "\n", "- cgroup2", "1 2 3 4 - x", V2)
    limit(mount, "0")
    assert usable_cores() == 8


def test_libraries_hear_of_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "5"})
    limit_library_threads()
    assert os.environ == {"OMP_NUM_THREADS": "5"}, "nothing is limited"
    limit(tell(tmp_path, "0::/\n", V2), "200000")
    limit_library_threads()
    assert os.environ["OMP_NUM_THREADS"] == "5" and os.environ["OPENCV_FOR_THREADS_NUM"] == "2"


def test_libraries_hear_of_a_limit_of_what_may_be_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, n_threads in ((2_000_000_000, "4"), (2_800_000_000, "5"), (1, "1")):
        monkeypatch.setattr(os, "environ", {})
        monkeypatch.setattr(cores, "address_space", lambda limit=limit: limit)
        limit_library_threads()
        assert os.environ["OPENBLAS_NUM_THREADS"] == n_threads
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(cores, "address_space", lambda: 64_000_000_000)
    limit_library_threads()
    assert os.environ == {}


MAIN = "import sys; from {}.cli import main; main()"


@pytest.mark.parametrize("room", ["tango_rt", "export"])
@pytest.mark.parametrize("kilobytes", [250_000, 700_000, 1_900_000])
def test_where_too_little_may_be_mapped_it_is_said_at_once(tmp_path: Path, room: str, kilobytes: int) -> None:
    """OpenBLAS would try for ever, deaf to signals."""
    command = {"tango_rt": ["character", "build", "talk.mp4", "-o", "anna.tango"], "export": ["list"]}[room]
    limited = ["sh", "-c", f'ulimit -v {kilobytes} && exec "$@"', "-", sys.executable, "-c", MAIN.format(room)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*limited, *command], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "may map" in done.stderr and "allow 2 GB" in done.stderr


def test_enough_may_be_mapped(tmp_path: Path) -> None:
    make_pack(tmp_path / "anna.tango", (20, 12))
    code = MAIN.format("tango_rt")
    command = ["sh", "-c", 'ulimit -v 2000000 && exec "$@"', "-", sys.executable, "-c", code, "character", "inspect"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, str(tmp_path / "anna.tango")], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_servers_and_commands_go_by_it(tmp_path: Path) -> None:
    from tango_rt.cli import _parser
    from tango_rt.server.config import ServerConfig
    from tango_rt.server.listing import server_info

    limit(tell(tmp_path, "0::/\n", V2), "300000")
    assert server_info(ServerConfig(tmp_path), 0, None).machine.endswith(", 3 cores")
    assert _parser().parse_args(["render", "anna.tango", "speech.wav", "-o", "out.mp4"]).jobs == 3


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
