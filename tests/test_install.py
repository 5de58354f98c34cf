"""On every Python, and next to the frameworks that people use it with: what the index has, and by hand what installs.

    TANGO_RT_INSTALL=python3.10:/opt/python3.13/bin/python3 pytest tests/test_install.py

installs in throw-away environments of these interpreters (megabytes to gigabytes of downloads), and imports and runs.
"""

import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.helpers.installing import CLIENT, ROOT, built_wheel, environment, pip, run, skip_without_index
from tests.helpers.live_server import speech as noise
from tests.helpers.real_server import real_server

FRAMEWORKS = {"livekit": "livekit.rtc", "livekit-agents": "livekit.agents", "pipecat-ai": "pipecat", "ray": "ray"}
MAX_CLIENT_MB = 60
PYTHONS = [python for python in os.environ.get("TANGO_RT_INSTALL", "").split(os.pathsep) if python]

by_hand = pytest.mark.skipif(not PYTHONS, reason="TANGO_RT_INSTALL names no interpreters to install into")
every_python = pytest.mark.parametrize("python", PYTHONS or [""])
every_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))


def dependencies() -> list[str]:
    """Of both distributions."""
    return [
        *project(ROOT)["project"]["dependencies"],
        *project(CLIENT)["tool"]["hatch"]["metadata"]["hooks"]["custom"]["own"],
    ]


def client_dependencies() -> list[str]:
    hook = project(CLIENT)["tool"]["hatch"]["metadata"]["hooks"]["custom"]
    return [wanted for wanted in dependencies() if Requirement(wanted).name in hook["shared"]] + hook["own"]


def resolved(wanted: Iterable[str], python: str, *options: str) -> dict[str, str]:
    """Name and version of each package; AssertionError where they do not agree. By uv: pip takes minutes for it all."""
    uv = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-config"]
    done = run(*uv, "--python", sys.executable, "--python-version", python, *options, "-", text="\n".join(wanted))
    if done.returncode and re.search("No module named uv|dns error|Failed to fetch|error sending request", done.stderr):
        pytest.skip(f"no package index is reached with uv: {done.stderr.strip().splitlines()[-1].strip()}")
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^([^\s#=]+)==(\S+)", done.stdout, re.MULTILINE))


def newest(framework: str, python: str) -> str:
    """Resolvers would rather take one of last year than say that two do not agree."""
    return f"{framework}=={resolved([framework], python, '--no-deps')[framework]}"


def pythons(folder: Path) -> list[str]:
    allowed = SpecifierSet(project(folder)["project"]["requires-python"])
    return [version for version in ("3.10", "3.11", "3.12", "3.13", "3.14") if version in allowed]


@pytest.mark.slow
@every_framework
def test_one_environment_for_both_resolves(framework: str) -> None:
    here = "{}.{}".format(*sys.version_info)
    resolved([*dependencies(), newest(framework, here)], here)


@pytest.mark.slow
@pytest.mark.parametrize("python", pythons(ROOT))
def test_there_are_wheels_for_every_python(python: str) -> None:
    resolved(dependencies(), python, "--only-binary", ":all:")


@pytest.mark.slow
@pytest.mark.parametrize("python", pythons(CLIENT))
def test_there_are_wheels_of_the_client_alone_for_every_python(python: str) -> None:
    found = resolved(client_dependencies(), python, "--only-binary", ":all:")
    assert set(found) == {"grpcio", "protobuf", "googleapis-common-protos", "typing-extensions"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    skip_without_index()
    return {
        name: built_wheel(project, tmp_path_factory.mktemp("wheels"))
        for name, project in (("tango-rt", ROOT), ("tango-rt-client", CLIENT))
    }


@pytest.fixture(scope="module")
def server(characters: Path) -> Iterator[str]:
    with real_server(characters) as target:
        yield target


def installed(folder: Path, python: str, *wanted: object) -> Path:
    """The interpreter of a new environment that holds what is wanted, without contradictions."""
    inside = environment(folder, shutil.which(python) or python)
    done = pip("install", *wanted, python=inside)
    assert done.returncode == 0, done.stderr
    checked = pip("check", python=inside)
    assert checked.returncode == 0, checked.stdout
    return inside


def megabytes(inside: Path) -> float:
    return sum(file.stat().st_size for file in inside.parents[1].rglob("site-packages/**/*") if file.is_file()) / 1e6


@by_hand
@every_python
@pytest.mark.parametrize("extra", ["", "[numpy]"], ids=["bytes", "numpy"])
def test_the_client_alone(
    python: str, extra: str, wheels: dict[str, Path], server: str, tmp_path: Path, capsys: Any
) -> None:
    inside = installed(tmp_path / "venv", python, f"{wheels['tango-rt-client']}{extra}")
    speech = tmp_path / "speech.raw"
    speech.write_bytes(noise(1.3))
    done = run(inside, ROOT / "tests" / "helpers" / "small_session.py", server, "anna", speech)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["same"] and told["echo"] and len(told["frames"]) == 39
    info = run(inside.with_name("tango-rt-client"), "info", server)
    assert info.returncode == 0 and "anna" in info.stdout, info.stderr
    size = megabytes(inside)
    with capsys.disabled():
        print(f"\n{run(inside, '--version').stdout.strip()}: tango-rt-client{extra} and all it needs: {size:.1f} MB")
    assert extra or size < MAX_CLIENT_MB


@by_hand
@every_python
@every_framework
@pytest.mark.parametrize("ours", ["tango-rt", "tango-rt-client"])
def test_both_install_and_import(
    python: str, framework: str, ours: str, wheels: dict[str, Path], tmp_path: Path
) -> None:
    inside = installed(tmp_path / "venv", python, wheels[ours], framework)
    modules = ["tango_rt.client.aio", "tango_rt.client.plain", FRAMEWORKS[framework]]
    if ours == "tango-rt":
        modules += ["tango_rt.cli", "tango_rt.server.listening", "tango_rt.characters.build"]
    for order in (modules, modules[::-1]):
        done = run(inside, "-c", f"import {', '.join(order)}")
        assert done.returncode == 0, done.stderr
