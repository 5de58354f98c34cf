"""ACInterp at small width, exported once in a test run because that takes a while."""

from pathlib import Path

import pytest

from export.bundle import BundleOptions, write_bundle
from export.recipes.acinterp import random_recipe

__all__ = ["small_acinterp"]

_WRITTEN: list[Path] = []


def small_acinterp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, which is shared by all tests of a run: copy it to change it."""
    if not _WRITTEN:
        folder = tmp_path_factory.mktemp("acinterp") / "acinterp"
        write_bundle(random_recipe(0, "small"), folder, BundleOptions(progress=False))
        _WRITTEN.append(folder)
    return _WRITTEN[0]
