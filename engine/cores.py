"""How many cores this process may use: those it is bound to, up to the quota of its container."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from engine.address_space import THREAD_BYTES, address_space

__all__ = ["limit_library_threads", "usable_cores"]

PROC = Path("/proc/self")
"""Where Linux tells a process of its control groups."""

_MAX_LEVELS = 64  # of nested groups
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def usable_cores() -> int:
    """At least 1. A quota of 1.5 cores counts as 2. Reads Linux control groups, version 1 and 2."""
    return min((_bound_cores(), *(-(-quota // period) for quota, period in _quotas(PROC))))


def limit_library_threads() -> None:
    """Set the number of threads of NumPy, OpenCV and torch; to be called before they are imported.

    By default they start one thread per core that the process is bound to, and ignore quotas and memory limits.
    Variables that the user has set are kept.
    """
    n_threads, limit = usable_cores(), address_space()
    if limit is not None:
        n_threads = max(1, min(n_threads, limit // THREAD_BYTES))
    if n_threads < _bound_cores():
        for name in _VARIABLES:
            os.environ.setdefault(name, str(n_threads))


def _bound_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(proc: Path) -> Iterator[tuple[int, int]]:
    """Quota and period in microseconds of every control group that this process is in, innermost first."""
    for folder in _groups(proc):
        # version 2: "150000 100000" or "max 100000"; version 1: two files, -1 for no limit
        words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")
        if len(words) == 2 and all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
            yield int(words[0]), int(words[1])


def _groups(proc: Path) -> Iterator[Path]:
    """Folders of the groups of this process, in every hierarchy that may limit it."""
    paths: dict[str, str] = {}  # "" for version 2, "cpu" for version 1
    for line in _lines(proc / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers or "cpu" in controllers.split(","):
            paths["cpu" if controllers else ""] = path
    for line in _lines(proc / "mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        version_2 = kind[0] == "cgroup2"
        here = paths.get("" if version_2 else "cpu")
        if here is not None and (version_2 or (kind[0] == "cgroup" and "cpu" in kind[2].split(","))):
            yield from _upwards(_unescaped(fields[3]), Path(_unescaped(fields[4])), here)


def _upwards(shown: str, mount: Path, path: str) -> Iterator[Path]:
    """The folder of a group and its parents up to the mount point, at which the subtree `shown` is mounted.

    Only the mount point for a group outside that subtree, which happens inside containers.
    """
    below = Path(os.path.relpath(path, shown)).parts
    inside = () if ".." in below else below[:_MAX_LEVELS]
    for level in range(len(inside), -1, -1):
        yield mount.joinpath(*inside[:level])


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def _words(*files: Path) -> list[str]:
    return [word for file in files for line in _lines(file) for word in line.split()]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
