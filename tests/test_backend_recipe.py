"""Another back end: an object in the table of back ends, a function in that of compilers, and all commands know it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from engine.errors import ArtifactError, BackendError
from engine.inference.backends import BACKENDS
from engine.inference.choice import NetworkOptions
from engine.inference.machine import Machine, this_cpu
from engine.inference.manifest import Bundle, GraphSpec
from engine.inference.networks import Networks
from engine.inference.session import RunOptions, Session
from engine.inference.target import Precision, Target
from export.cli import main
from export.compilers import COMPILERS, CompileJob
from export.triton import write_triton
from tango_rt.server.config import ServerConfig
from tango_rt.server.listing import server_info
from tests.helpers.fakes_session import LINEAR, FunctionSession, linear, linear_onnx, write_fake_bundle

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PROFILES = {"live": {"batch": (1, 1, 2), "frames": (1, 8, 16)}}
INPUTS = {"rows": np.ones((1, 8, 4), np.float32), "offset": np.full((1, 2), 3, np.float32)}


class Matrices:
    """Networks of one matrix, by NumPy; satisfies engine.inference.backends.Backend."""

    name = extra = "matrices"
    onnx_precisions: tuple[Precision, ...] = ()
    build_options: Mapping[str, str | int | bool] = MappingProxyType({"order": "C"})

    def version(self) -> str:
        return np.__version__

    def machine(self) -> Machine:
        return this_cpu()

    def why_not_runnable(self) -> str | None:
        return None

    def why_not_buildable(self) -> str | None:
        return None

    def why_no_precision(self, precision: Precision) -> str | None:
        return None if precision == "fp32" else f"matrices does not compute in {precision}: take fp32"

    def open(self, file: Path, spec: GraphSpec, options: RunOptions) -> Session:
        weight = np.load(file)

        def run(rows: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, ...]:
            low = rows @ weight + offset[:, None]
            return low, low.sum(axis=1)

        return FunctionSession(run, spec)


def compile_matrices(job: CompileJob) -> dict[str, Path]:
    graph = onnx.load(job.source).graph
    (weight,) = (onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == "weight")
    engine = job.folder / f"{job.spec.name}.engine"
    with engine.open("wb") as file:
        np.save(file, weight)
    return {engine.name: engine}


@pytest.fixture(autouse=True)
def matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two lines."""
    monkeypatch.setitem(BACKENDS, "matrices", Matrices())
    monkeypatch.setitem(COMPILERS, "matrices", compile_matrices)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    graphs = {"linear": replace(LINEAR, profiles=PROFILES)}
    return write_fake_bundle(tmp_path / "fake", {"linear.onnx": linear_onnx()}, graphs)


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    main([*map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


def test_it_is_compiled_verified_listed_and_run(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = told(capsys, "compile", bundle.folder, "--backend", "matrices")
    assert compiled["built"] == 1 and Path(compiled["engines"]).name == "matrices-fp32-live"
    assert compiled["report"]["passed"] is True and compiled["report"]["versions"]["matrices"] == np.__version__
    assert told(capsys, "compile", bundle.folder, "--backend", "matrices")["built"] == 0
    (listed,) = told(capsys, "list", bundle.folder)["bundles"]
    assert [(row["backend"], row["state"]) for row in listed["engines"]] == [("matrices", "verified")]
    assert told(capsys, "verify", bundle.folder)["reports"][0]["backend"] == "matrices"
    with Networks.open(bundle, NetworkOptions("matrices")) as networks:
        assert networks.target == Target("matrices", "fp32", "live")
        assert networks.reason == "matrices fp32 live: compiled and verified for this machine"
        for name, expected in zip(("low", "total"), linear(**INPUTS), strict=True):
            np.testing.assert_allclose(networks.run("linear", INPUTS)[name], expected)
        info = server_info(ServerConfig(characters=Path("packs")), 0, networks)
    assert "matrices" in info.backends and info.bundles[0].backend == "matrices"
    assert Networks.open(bundle).reason.startswith("matrices fp32 live: verified, ")  # unasked, too


def test_what_its_object_says_is_what_users_read(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"^matrices does not compute in bf16: take fp32$"):
        Networks.open(bundle, NetworkOptions("matrices", "bf16"))
    with pytest.raises(ArtifactError, match=r"not compiled yet.* --backend matrices --precision fp32"):
        Networks.open(bundle, NetworkOptions("matrices", unverified=True))  # it opens no ONNX files
    with pytest.raises(Exception, match="Triton has no back end for matrices: --backend onnxruntime, openvino or"):
        write_triton(bundle, tmp_path / "repository", Target("matrices"))


def test_without_a_compiler_it_compiles_nothing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(COMPILERS, "matrices")
    with pytest.raises(SystemExit) as left:
        main(["compile", str(bundle.folder), "--backend", "matrices"])
    assert left.value.code == 1 and "matrices has no compiler" in capsys.readouterr().err


def test_the_commands_offer_it(capsys: pytest.CaptureFixture[str]) -> None:
    from tango_rt.cli import main as run_time

    for command, line in ((main, ["compile", "--help"]), (run_time, ["render", "--help"])):
        with pytest.raises(SystemExit):
            command(line)
        assert "matrices" in capsys.readouterr().out
