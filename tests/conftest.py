"""Where tests find data that is not part of the project, and the generator they share."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

from engine.folders import cache_folder
from engine.inference.target import PRECISIONS
from tango_rt.models.folder import MODELS_VARIABLE, models_folder

if TYPE_CHECKING:
    from engine.character.pack import CharacterPack

# channels that tests open themselves lead to servers of their own, on machines with a proxy too
os.environ.setdefault("no_grpc_proxy", "localhost,127.0.0.1,::1")

# how long an example takes depends on the machine, and on what else it does
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent

# tests import these libraries without engine.inference.backends.libraries, too, and shall report to nobody either
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# where they are without it: a test with a cache of its own that starts processes does not compile all kernels again
if (_kept := cache_folder()) is not None:
    os.environ.setdefault("NUMBA_CACHE_DIR", str(_kept))
# likewise, it does not fetch the networks once more
if (_networks := models_folder()) is not None:
    os.environ.setdefault(MODELS_VARIABLE, str(_networks))


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is compiled in tests is signed with a key of theirs: nothing is left in the home of who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


# sessions in real time, and workers that draw only while nobody else wants the core
ALONE = ("test_rt_server_", "test_rt_ahead", "test_rt_pictures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name.startswith(ALONE):
            item.add_marker(pytest.mark.alone)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one core: threads that wait for each other's core cost far more than they save."""
    import torch  # noqa: TID251

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def every_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU said to compute in every precision: for tests of what is kept and said, not of the numbers.

    Where it is not true, OpenVINO computes in float32 instead.
    """
    monkeypatch.setattr("engine.inference.backends.openvino.cpu_precisions", lambda: frozenset(PRECISIONS))


@pytest.fixture
def float32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU said to compute in float32 alone, and no GPU for ONNX Runtime."""
    monkeypatch.setattr("engine.inference.backends.openvino.cpu_precisions", lambda: frozenset({"fp32"}))
    monkeypatch.setattr("engine.inference.backends.onnxruntime.distribution_version", lambda _: "")


def _anna(folder: Path, clip_nodes: tuple[int, ...] = (40, 25)) -> Path:
    from tests.helpers.fakes import make_pack  # not before the settings above: it brings numba

    return make_pack(folder / "anna.tango", clip_nodes).path


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with anna.tango, for all tests of a module."""
    return _anna(tmp_path_factory.mktemp("characters")).parent


@pytest.fixture(scope="module")
def made_packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short anna.tango, to copy from."""
    return _anna(tmp_path_factory.mktemp("made"), (20, 12)).parent


@pytest.fixture
def packs(made_packs: Path, tmp_path: Path) -> Path:
    """A folder with a short anna.tango, for one test alone."""
    return Path(shutil.copytree(made_packs, tmp_path / "packs"))


@pytest.fixture(scope="module")
def made_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shortest anna.tango, to copy from."""
    return _anna(tmp_path_factory.mktemp("made"), (12, 8))


@pytest.fixture
def pack(made_pack: Path, tmp_path: Path) -> "CharacterPack":
    """The shortest anna.tango, for one test alone."""
    from engine.character.pack import CharacterPack

    return CharacterPack.open(shutil.copytree(made_pack, tmp_path / "anna.tango"))


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable, ROOT.parent / "shared" / default))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real clips, speech and motion; tests that need them skip where they are absent."""
    folder = _folder("TANGO_DATA_DIR", "data")
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent (set TANGO_DATA_DIR)")
    return folder
