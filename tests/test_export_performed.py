"""One bundle, every back end that this machine has: a character performs the same path, rendered and served."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from engine.errors import ArtifactError  # noqa: E402
from engine.inference.backends import BACKENDS  # noqa: E402
from engine.inference.manifest import Bundle  # noqa: E402
from engine.inference.target import PRECISIONS  # noqa: E402
from export.bundle import write_bundle  # noqa: E402
from export.cli import main as export_main  # noqa: E402
from export.models.mini import AuMoMini, MiniConfig  # noqa: E402
from export.recipes.mini import make_recipe  # noqa: E402
from export.training.checkpoint import Checkpoint  # noqa: E402
from tango_rt.server.config import ServerConfig  # noqa: E402
from tango_rt.server.listening import GestureServer  # noqa: E402
from tango_rt.v1 import service_pb2, service_pb2_grpc  # noqa: E402
from tests.helpers.commands import run_json  # noqa: E402
from tests.helpers.fakes import make_pack  # noqa: E402
from tests.helpers.speech import write_speech  # noqa: E402

SETS = [
    (backend, precision)
    for backend in BACKENDS
    for precision in PRECISIONS
    if BACKENDS[backend].why_not_runnable() is None and BACKENDS[backend].why_no_precision(precision) is None
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, a character with its motion features, a speech."""
    folder = tmp_path_factory.mktemp("performed")
    torch.manual_seed(0)
    config = MiniConfig(width=16, dilations=(1, 3), high_dilations=(2,), low_dim=8, high_dim=8, heads=2)
    weights = AuMoMini(config).state_dict()
    write_bundle(make_recipe(Checkpoint(config, False, {}, [], 0, weights, weights, {})), folder / "mini")
    pack = make_pack(folder / "packs" / "anna.tango")
    write_speech(folder / "speech.wav", 6)
    from tango_rt.cli import main

    main(["character", "refresh", str(pack.path), "--bundle", str(folder / "mini")])
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "made"))


def compiled(folder: Path, backend: str, precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    agreement = ["--character", str(folder / "packs" / "anna.tango"), "--speech", str(folder / "speech.wav")]
    command = ["compile", str(folder / "mini"), "--backend", backend, "--precision", precision]
    export_main([*command, *agreement, "--json"])
    capsys.readouterr()


def rendered(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    pack, speech, out = folder / "packs" / "anna.tango", folder / "speech.wav", folder / "out.mp4"
    command = ("render", pack, speech, "-o", out, "--blender", "cut", "--jobs", 1, "--bundle", folder / "mini")
    return run_json(capsys, *command, *options)


@pytest.mark.parametrize(("backend", "precision"), SETS)
def test_the_same_path_on_every_back_end(
    folder: Path, backend: str, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = rendered(folder, capsys, "--backend", "onnxruntime", "--precision", "fp32")
    assert "ONNX" in expected["networks"]
    compiled(folder, backend, precision, capsys)
    found = rendered(folder, capsys, "--backend", backend, "--precision", precision)
    assert f"{backend} {precision}" in found["networks"] and "verified" in found["networks"]
    same = sum(a == b for a, b in zip(found["nodes"], expected["nodes"], strict=True))
    assert same >= 0.99 * len(expected["nodes"])
    alone = rendered(folder, capsys)
    assert "ms a pass" in alone["networks"], "auto says what it goes by"
    assert alone["nodes"] in (found["nodes"], expected["nodes"])


def test_a_server_tells_what_runs_its_networks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiled(folder, "onnxruntime", "fp32", capsys)
    report = next((folder / "mini" / "engines").rglob("report.json"))

    async def told(config: ServerConfig) -> Any:
        async with GestureServer(config) as server:
            await server.warm_up()
            async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
                stub = service_pb2_grpc.GestureServiceStub(channel)
                (bundle,) = (await stub.GetServerInfo(service_pb2.GetServerInfoRequest())).bundles
                return bundle

    asked = {"bundle": folder / "mini", "backend": "onnxruntime"}
    config = ServerConfig(folder / "packs", listen=("127.0.0.1:0",), **asked)
    with_engines = asyncio.run(told(config))
    assert (with_engines.backend, with_engines.precision, with_engines.profile) == ("onnxruntime", "fp32", "live")
    assert len(with_engines.engine_key) == len(with_engines.report_sha256) == 64
    assert with_engines.sha256 == Bundle.open(folder / "mini").sha256
    report.unlink()
    without = asyncio.run(told(config))
    assert (without.backend, without.engine_key, without.report_sha256) == ("onnxruntime", "", "")


def test_a_server_refuses_what_nothing_vouches_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend, precision = SETS[-1]
    if precision == "fp32":
        pytest.skip("no back end with a reduced precision is installed")
    compiled(folder, backend, precision, capsys)
    for report in (folder / "mini" / "engines").rglob("report.json"):
        report.unlink()
    asked = {"bundle": folder / "mini", "backend": backend, "precision": precision}
    with pytest.raises(ArtifactError, match="tango-export verify"):
        GestureServer(ServerConfig(folder / "packs", listen=("127.0.0.1:0",), **asked))
    server = GestureServer(ServerConfig(folder / "packs", listen=("127.0.0.1:0",), **asked, unverified=True))
    assert server.networks is not None and server.networks.report_sha256 == ""
