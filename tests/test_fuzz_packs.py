"""Hundreds of packs that strangers might make, through all that reads packs, with Numba's bounds checks.

In processes of their own: what is looked for would take this one with it. More, by hand:
python -m tests.helpers.pack_fuzzer.
"""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

RUNS = {"listed": ["--n", "180", "--seed", "11"], "drawn": ["--n", "125", "--seed", "12", "--random"]}
MAX_S = 400


@pytest.fixture(scope="module")
def fuzzers() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """All of them at once: one a core."""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.pack_fuzzer", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, arguments in RUNS.items()
    }
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_pack_is_taken_or_refused_in_one_line(name: str, fuzzers: dict[str, subprocess.Popen[str]]) -> None:
    told, _ = fuzzers[name].communicate(timeout=MAX_S)
    assert fuzzers[name].returncode == 0, "\n".join(told.splitlines()[-40:])
    assert f"{RUNS[name][1]} mutations in" in told.splitlines()[-1]
