"""pip as users run it: wheels of this checkout, throw-away environments, what an index resolves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "integrations" / "client"
PATIENCE_S = 600


def run(*words: object, cwd: Path = Path("/"), text: str = "") -> subprocess.CompletedProcess[str]:
    """A command outside of this checkout, which Python is not told of, with text on its standard input."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(word) for word in words]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=PATIENCE_S, env=environment, cwd=cwd
    )


def pip(*words: object, python: object = sys.executable) -> subprocess.CompletedProcess[str]:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input", "--retries", 1, "--timeout", 20)
    return run(sys.executable, "-m", "pip", "--python", python, words[0], *quiet, *words[1:])


def skip_without_index() -> None:
    """Skip the test where pip finds no index that has what builds wheels."""
    if run(sys.executable, "-m", "pip", "--version").returncode:
        pytest.skip("this environment has no pip")
    asked = pip("install", "--dry-run", "--ignore-installed", "--no-deps", "hatchling")
    if asked.returncode:
        pytest.skip(f"no package index is reached with pip: {asked.stderr.strip().splitlines()[-1]}")


def built_wheel(project: Path, folder: Path) -> Path:
    """The wheel of a project, built as pip builds it: by the hatchling of this environment, else of the index."""
    try:
        import hatchling  # noqa: F401

        build = ["--no-build-isolation"]
    except ModuleNotFoundError:
        skip_without_index()
        build = []
    done = pip("wheel", "--no-deps", *build, "--wheel-dir", folder, project)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment(folder: Path, python: object = sys.executable) -> Path:
    """A new virtual environment without pip; its interpreter."""
    done = run(python, "-m", "venv", "--without-pip", folder)
    assert done.returncode == 0, done.stderr
    return folder / "bin" / "python"
