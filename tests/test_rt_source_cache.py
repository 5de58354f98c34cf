"""What was tracked of a person, in a folder for caches that others may use as well."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from engine.features.appearance import N_CELLS
from tango_rt.characters.pose import MASK_ROWS
from tango_rt.characters.source import _Found, _load, _save

N_FRAMES = 2


def found() -> _Found:
    return _Found(
        body=np.ones((N_FRAMES, 33, 4), np.float32),
        hands=np.zeros((N_FRAMES, 2, 21, 3), np.float32),
        mouth=np.zeros((N_FRAMES, 2), np.float32),
        masks=np.zeros((N_FRAMES, MASK_ROWS), np.uint64),
        appearance=np.zeros((N_FRAMES, N_CELLS, 3), np.uint8),
        thumbnails=np.zeros((1, 24, 32, 3), np.uint8),
        shots=np.zeros(0, np.int64),
        notes=np.array(["a note"]),
    )


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # as a folder may be that TANGO_RT_CACHE names
    umask = os.umask(0)
    try:
        _save(tmp_path, "tracked.npz", found())
    finally:
        os.umask(umask)
    assert [file.name for file in tmp_path.iterdir()] == ["tracked.npz"]
    assert stat.S_IMODE((tmp_path / "tracked.npz").stat().st_mode) == 0o600
    again = _load(tmp_path / "tracked.npz", N_FRAMES)
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
    assert b"(2, 33, 4)" in content
    for damaged in (b"", b"hello", content[:-40], content.replace(b"(2, 33, 4)", b"(2, 33, 4 ")):
        file.write_bytes(damaged)
        assert _load(file, N_FRAMES) is None
    file.unlink()
    assert _load(file, N_FRAMES) is None
    os.mkfifo(file)
    assert _load(file, N_FRAMES) is None
