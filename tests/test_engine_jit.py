"""What Numba has compiled is kept where it is safe, found again, and never worth a failure."""

import logging
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import jit
from engine.jit import njit
from engine.warn import warn_once
from tests.helpers.surroundings import unset_cache

OWN = f"kernels-{os.geteuid()}"


def doubled(x: int) -> int:
    return x + x


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where kernels are kept in a test."""
    place = tmp_path / "kernels"
    place.mkdir(mode=0o700)
    monkeypatch.setattr(jit, "kernel_folder", lambda: place)
    warn_once.cache_clear()
    yield place
    warn_once.cache_clear()


def compiled() -> Any:
    """A kernel as a new process has it: run once, found or compiled."""
    kernel = njit()(doubled)
    assert kernel(21) == 42
    return kernel


def was_found() -> bool:
    return sum(compiled().stats.cache_hits.values()) == 1


def files(folder: Path, suffix: str) -> list[Path]:
    return list(folder.rglob(f"*{suffix}"))


def test_kernels_are_found_again(folder: Path) -> None:
    assert not was_found() and was_found()
    assert [stat.S_IMODE(place.stat().st_mode) for place in folder.iterdir()] == [0o700]


FOUND = """
from engine.jit import njit

def doubled(x):
    return x + x

kernel = njit()(doubled)
assert kernel(21) == 42
print(sum(kernel.stats.cache_hits.values()))
"""


def test_a_change_anywhere_compiles_anew(tmp_path: Path) -> None:
    """A kernel holds what it calls in other files; Numba itself looks at its own alone."""
    shutil.copytree(Path(jit.__file__).parent, tmp_path / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "program.py").write_text(FOUND)
    (tmp_path / "kept").mkdir(mode=0o700)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}

    def found() -> bool:
        command = [sys.executable, tmp_path / "program.py"]
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout == b"1\n"

    assert not found()
    with next((tmp_path / "engine").rglob("kernels/*.py")).open("a") as another:
        another.write("# a word more\n")
    assert not found() and found()
    assert len(files(tmp_path / "kept", ".nbc")) == 1, "what is stale is replaced"


def beyond(values: np.ndarray) -> float:
    return values[3]


def test_code_with_bounds_checks_is_kept_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three = np.zeros(3)
    njit()(beyond)(np.zeros(9))
    with monkeypatch.context() as patch:
        patch.setattr("numba.config.BOUNDSCHECK", 1)
        for _ in range(2):
            kernel = njit()(beyond)
            with pytest.raises(IndexError):
                kernel(three)
        assert sum(kernel.stats.cache_hits.values()) == 1
    kernel = njit()(beyond)
    kernel(np.zeros(9))
    assert sum(kernel.stats.cache_hits.values()) == 1, "the other is still there"


def test_every_kernel_lives_among_kernels() -> None:
    """The digest is of these files, with the tuples that they are given."""
    with_kernels = [file for file in jit._PACKAGE.rglob("*.py") if b"\n@njit(" in file.read_bytes()]
    assert len(with_kernels) > 10 and {file.parent.name for file in with_kernels} == {"kernels"}
    assert len(jit._sources_digest()) == 64


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", ["empty", "noise", "half", "absent"])
def test_damage_is_mended(folder: Path, suffix: str, damage: str) -> None:
    compiled()
    (file,) = files(folder, suffix)
    content = file.read_bytes()
    if damage == "absent":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "noise": b"noise" * 99, "half": content[: len(content) // 2]}[damage])
    assert not was_found() and was_found()


@pytest.mark.parametrize("kind", ["gone", "full"])
def test_what_cannot_be_kept_is_said_once(
    folder: Path, kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = njit()(doubled)
    if kind == "gone":
        shutil.rmtree(folder)
    else:
        monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", full)
    with caplog.at_level(logging.WARNING):
        assert kernel(21) == 42 and kernel(2.5) == 5.0
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("compiled kernels are not cached, every start")


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def chosen(caplog: pytest.LogCaptureFixture) -> tuple[Path | None, list[str]]:
    """The folder that a new process would choose, and what it would say."""
    caplog.clear()
    warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        found = jit.kernel_folder.__wrapped__()
    return found, caplog.messages


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    home, temporary, numba = tmp_path / "home", tmp_path / "tmp", tmp_path / "numba"
    for place in (home, temporary, numba):
        place.mkdir()
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    unset_cache(monkeypatch, home, temporary)
    assert chosen(caplog) == (home / ".cache" / "tango-rt" / OWN, [])
    unset_cache(monkeypatch, None, temporary)
    assert chosen(caplog) == (temporary / f"tango-rt-{os.geteuid()}" / OWN, [])
    monkeypatch.setenv("TANGO_RT_CACHE", str(tmp_path / "given"))
    assert chosen(caplog) == (tmp_path / "given" / OWN, [])
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(numba))
    assert chosen(caplog) == (numba / OWN, [])


def test_places_that_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    unset_cache(monkeypatch, tmp_path, None)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    found, said = chosen(caplog)
    assert found == tmp_path / ".cache" / "tango-rt" / OWN
    assert len(said) == 1 and said[0].startswith(f"NUMBA_CACHE_DIR {tmp_path / 'file'} is another user's or cannot be")
    found.chmod(0o770)  # others may have changed what is in it
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    found, said = chosen(caplog)
    assert found is None and len(said) == 1 and "compiled kernels are not cached" in said[0]
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    assert chosen(caplog) == (None, []), "a worker says nothing: who started it has"


def test_without_a_place_and_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "kernel_folder", lambda: None)
    assert compiled().stats.cache_hits == {}

    def uncompiled(**_: Any) -> Callable[[Any], Any]:
        return lambda function: function  # as with NUMBA_DISABLE_JIT

    monkeypatch.setattr(jit, "kernel_folder", lambda: Path("/nonexistent"))
    monkeypatch.setattr(jit.numba, "njit", uncompiled)
    assert njit()(doubled) is doubled
