"""Environments without a home, or without a place for temporary files."""

from pathlib import Path

import pytest


def unset_cache(monkeypatch: pytest.MonkeyPatch, home: Path | None, temporary: Path | None) -> None:
    """An environment with this home and this folder for temporary files, or with none that can be written to."""
    for name in ("TANGO_RT_CACHE", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: home or no_home())
    monkeypatch.setattr("engine.folders.TEMPORARY", () if temporary is None else (str(temporary),))


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")
