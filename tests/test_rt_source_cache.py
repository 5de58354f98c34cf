"""What was tracked of a person, in a folder for caches that others may use as well."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from tango_rt.characters.source import _Found, _load, _save


def found() -> _Found:
    return _Found(**dict.fromkeys(_Found.__dataclass_fields__, np.zeros((2, 3), np.float32)))


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # as a folder may be that TANGO_RT_CACHE names
    umask = os.umask(0)
    try:
        _save(tmp_path, "tracked.npz", found())
    finally:
        os.umask(umask)
    assert [file.name for file in tmp_path.iterdir()] == ["tracked.npz"]
    assert stat.S_IMODE((tmp_path / "tracked.npz").stat().st_mode) == 0o600
    again = _load(tmp_path / "tracked.npz")
    assert again is not None and np.array_equal(again.body, found().body)


def test_a_disk_that_refuses_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", refuse)
    _save(tmp_path, "tracked.npz", found())
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_archive_is_tracked_again(tmp_path: Path) -> None:
    file = tmp_path / "tracked.npz"
    _save(tmp_path, file.name, found())
    content = file.read_bytes()
    assert b"(2, 3)" in content
    for damaged in (b"", b"hello", content[:-40], content.replace(b"(2, 3)", b"(2, 3 ")):
        file.write_bytes(damaged)
        assert _load(file) is None
    file.unlink()
    assert _load(file) is None
    os.mkfifo(file)
    assert _load(file) is None
