"""Bundles compiled: built once, then found; rebuilt for a reason that is told; every finished network stays."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from engine.errors import ArtifactError, BackendError, InputError
from engine.inference.backends import BACKENDS
from engine.inference.manifest import Bundle
from engine.inference.target import Precision, Target
from export import compilers
from export.compile import CompileOptions, compile_bundle, summarize
from tests.helpers.fakes_session import LINEAR, linear_onnx, write_fake_bundle
from tests.helpers.machine import replace_answers

PROFILES = {"usual": {"batch": (1, 1, 2), "frames": (1, 8, 64)}, "long": {"batch": (1, 1, 1), "frames": (1, 8, 640)}}
ORT = CompileOptions(Target("onnxruntime"), verify=False, progress=False)
RTX = pytest.mark.skipif(
    BACKENDS["tensorrt-rtx"].why_not_buildable() is not None, reason=str(BACKENDS["tensorrt-rtx"].why_not_buildable())
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Two networks, one of which is never computed in fp16 or bf16."""
    graphs = {
        "first": replace(LINEAR, file="first.onnx", profiles=PROFILES),
        "second": replace(LINEAR, file="second.onnx", profiles=PROFILES, keep_fp32=True),
    }
    return write_fake_bundle(tmp_path / "fake", {f"{name}.onnx": linear_onnx() for name in graphs}, graphs)


def done(result: dict[str, Any]) -> dict[str, str]:
    """Network -> why it was built, "" where it was there."""
    assert json.loads(json.dumps(result)) == result
    assert result["built"] == sum(bool(row["reason"]) for row in result["networks"].values())
    return {graph: row["reason"] for graph, row in result["networks"].items()}


def test_built_once_then_found(bundle: Bundle) -> None:
    new = compile_bundle(bundle.folder, ORT)
    assert done(new) == {"first": "not compiled yet", "second": "not compiled yet"}
    assert new["engines"] == str(bundle.folder / "engines" / "onnxruntime-fp32-usual") and new["report"] is None
    for row in new["networks"].values():
        assert row["peak_memory_bytes"] > 1 << 20 and row["bytes"] > 100 and row["onnx_bytes"] == len(linear_onnx())
    again = compile_bundle(bundle.folder, ORT)
    assert done(again) == {"first": "", "second": ""}
    for graph, row in again["networks"].items():
        assert row["digest"] == new["networks"][graph]["digest"]
        assert row["build_s"] == new["networks"][graph]["build_s"]  # of the build
    Bundle.open(bundle.folder).check()  # engines do not make it another bundle


def test_a_hit_imports_no_heavy_library(bundle: Bundle) -> None:
    pytest.importorskip("openvino")
    options = replace(ORT, target=Target("openvino"))
    compile_bundle(bundle.folder, options)
    code = (
        "import sys; from pathlib import Path; from engine.inference.target import Target\n"
        "from export.compile import CompileOptions, compile_bundle, summarize\n"
        "result = compile_bundle(Path(sys.argv[1]), CompileOptions(Target('openvino'), verify=False, progress=False))\n"
        "summarize(result)\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'polygraphy', 'transformers', 'scipy', 'numba'}\n"
        "print(result['built'], *sorted(heavy & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code, bundle.folder], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["0"]


def test_the_table(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    table = summarize(compile_bundle(bundle.folder, ORT)).splitlines()
    assert table[0].split() == ["network", "in", "done", "seconds", "MB"]
    assert table[1].split()[:3] == ["first", "fp32", "built"] and table[3].startswith("2 of 2 built, 0.0 MB")
    replace_answers(monkeypatch, "onnxruntime", build_options={"graph_optimization": "none"})
    table = summarize(compile_bundle(bundle.folder, ORT)).splitlines()
    assert 'rebuilt, stale: option graph_optimization "all" -> "none"' in table[1]
    assert "up to date" in summarize(compile_bundle(bundle.folder, ORT)).splitlines()[2]


def test_a_changed_engine_is_named_and_rebuilt(bundle: Bundle) -> None:
    old = compile_bundle(bundle.folder, ORT)
    engine = Path(old["engines"]) / "second.engine"
    engine.write_bytes(engine.read_bytes()[:-1] + b"!")
    new = compile_bundle(bundle.folder, ORT)
    assert done(new) == {"first": "", "second": "corrupt: second.engine was changed"}
    assert new["networks"]["second"]["bytes"] == old["networks"]["second"]["bytes"]


def test_precisions_and_profiles_lie_beside_each_other(bundle: Bundle, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere" / "engines"
    compile_bundle(bundle.folder, replace(ORT, output=place))
    result = compile_bundle(bundle.folder, replace(ORT, output=place, target=Target("onnxruntime", profile="long")))
    assert result["profile"] == "long" and done(result)["first"] == "not compiled yet"
    assert sorted(path.name for path in place.iterdir()) == ["onnxruntime-fp32-long", "onnxruntime-fp32-usual"]
    assert not (bundle.folder / "engines").exists()
    with pytest.raises(InputError, match="has no profile 'wide': it has usual, long"):
        compile_bundle(bundle.folder, replace(ORT, target=Target("onnxruntime", profile="wide")))


def test_an_interrupt_keeps_what_is_finished(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    build = compilers.COMPILERS["onnxruntime"]

    def interrupted(job: compilers.CompileJob) -> dict[str, Path]:
        if job.spec.name == "second":
            (job.folder / "second.engine").write_bytes(b"half of it")
            raise KeyboardInterrupt
        return build(job)

    monkeypatch.setitem(compilers.COMPILERS, "onnxruntime", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_bundle(bundle.folder, ORT)
    place = bundle.folder / "engines" / "onnxruntime-fp32-usual"
    assert sorted(path.name for path in place.iterdir()) == ["first.engine", "first.json"]
    monkeypatch.setitem(compilers.COMPILERS, "onnxruntime", build)
    assert done(compile_bundle(bundle.folder, ORT)) == {"first": "", "second": "not compiled yet"}


def test_a_bundle_without_profiles(tmp_path: Path) -> None:
    old = write_fake_bundle(tmp_path / "old", {"linear.onnx": linear_onnx()}, {"linear": LINEAR})
    with pytest.raises(ArtifactError, match=r"old has no shape profiles.* make it again with 'tango-export bundle'"):
        compile_bundle(old.folder, ORT)
    assert not (old.folder / "engines").exists()


def test_a_failure_leaves_no_folder(bundle: Bundle) -> None:
    compile_bundle(bundle.folder, ORT)
    with pytest.raises(BackendError, match="onnxruntime computes in fp32"):
        compile_bundle(bundle.folder, replace(ORT, target=Target("onnxruntime", "bf16")))
    assert [path.name for path in (bundle.folder / "engines").iterdir()] == ["onnxruntime-fp32-usual"]


def test_what_is_not_installed(bundle: Bundle) -> None:
    if BACKENDS["tensorrt"].why_not_buildable() is None:
        pytest.skip("TensorRT is installed here")
    with pytest.raises(BackendError, match=r"pip install 'tango-rt\[tensorrt\]'"):
        compile_bundle(bundle.folder, replace(ORT, target=Target("tensorrt")))
    assert not (bundle.folder / "engines").exists()


@pytest.mark.parametrize("found", [True, False])
def test_a_place_that_cannot_be_written(bundle: Bundle, tmp_path: Path, found: bool) -> None:
    """A file where a folder should be: also root cannot write there. What is found needs no writing."""
    place = tmp_path / "place"
    if not found:
        place.write_bytes(b"")
        with pytest.raises(InputError, match=r"place.* cannot be written .*make it writable or choose another folder"):
            compile_bundle(bundle.folder, replace(ORT, output=place))
        return
    compile_bundle(bundle.folder, replace(ORT, output=place))
    for folder in (place / "onnxruntime-fp32-usual", place):
        folder.chmod(0o555)
    try:
        assert done(compile_bundle(bundle.folder, replace(ORT, output=place))) == {"first": "", "second": ""}
    finally:
        for folder in (place, place / "onnxruntime-fp32-usual"):
            folder.chmod(0o755)


def test_a_bundle_that_was_edited_is_not_compiled(bundle: Bundle) -> None:
    compile_bundle(bundle.folder, ORT)
    model = bundle.folder / "second.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    for options in (
        ORT,
        replace(ORT, target=Target("onnxruntime", profile="long")),
    ):  # nothing would be built, all would be
        with pytest.raises(ArtifactError, match=r"second\.onnx was changed"):
            compile_bundle(bundle.folder, options)
    assert not (bundle.folder / "engines" / "onnxruntime-fp32-long").exists()


@RTX
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_networks_that_keep_float32_are_built_in_it(bundle: Bundle, precision: Precision) -> None:
    result = compile_bundle(bundle.folder, replace(ORT, target=Target("tensorrt-rtx", precision)))
    assert [row["precision"] for row in result["networks"].values()] == [precision, "fp32"]
    assert done(compile_bundle(bundle.folder, replace(ORT, target=Target("tensorrt-rtx", precision)))) == {
        "first": "",
        "second": "",
    }


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from export.bundle import write_bundle
    from export.models.mini import AuMoMini, MiniConfig
    from export.recipes.mini import make_recipe
    from export.training.checkpoint import Checkpoint

    torch.manual_seed(0)
    config = MiniConfig()
    weights = AuMoMini(config).state_dict()
    folder = tmp_path_factory.mktemp("bundle") / "mini"
    write_bundle(make_recipe(Checkpoint(config, False, {}, [], 0, weights, weights, {})), folder)
    return folder


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("onnxscript")
    from export.bundle import write_bundle
    from export.recipes.full import make_recipe
    from tests.helpers.fakes_full import small_full

    folder = tmp_path_factory.mktemp("bundle") / "full"
    write_bundle(make_recipe(small_full()), folder)
    return folder


SETS: list[tuple[str, Precision]] = [
    ("tensorrt-rtx", "fp32"),
    ("tensorrt-rtx", "fp16"),
    ("tensorrt-rtx", "bf16"),
    ("openvino", "fp32"),
    ("onnxruntime", "fp32"),
]


def compile_all(folder: Path, backend: str, precision: Precision) -> None:
    missing = BACKENDS[backend].why_not_buildable()
    if missing is not None:
        pytest.skip(missing)
    options = replace(ORT, target=Target(backend, precision))
    assert set(done(compile_bundle(folder, options)).values()) == {"not compiled yet"}
    assert set(done(compile_bundle(folder, options)).values()) == {""}


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "precision"), SETS)
def test_every_network_of_mini_compiles(mini: Path, backend: str, precision: Precision) -> None:
    compile_all(mini, backend, precision)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "precision"), SETS)
def test_every_network_of_full_compiles(full: Path, backend: str, precision: Precision) -> None:
    compile_all(full, backend, precision)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "precision"), SETS)
def test_every_network_of_acinterp_compiles(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, backend: str, precision: Precision
) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("onnxscript")
    from tests.helpers.fakes_acinterp import small_acinterp

    folder = tmp_path / "acinterp"  # the tests of a run share the bundle
    shutil.copytree(small_acinterp(tmp_path_factory), folder, ignore=shutil.ignore_patterns("engines"))
    compile_all(folder, backend, precision)


def test_verified_once(bundle: Bundle, tmp_path: Path) -> None:
    options = replace(ORT, verify=True)
    first = compile_bundle(bundle.folder, options)
    assert first["report"]["passed"] is True and set(first["report"]["networks"]) == {"first", "second"}
    report = Path(first["engines"]) / "report.json"
    written = report.stat().st_mtime_ns
    again = compile_bundle(bundle.folder, options)
    assert again["report"] == first["report"] and report.stat().st_mtime_ns == written
    assert "passed" in summarize(again)
    engine = Path(first["engines"]) / "first.engine"
    engine.write_bytes(b"another")  # built again, byte for byte as it was: the report still is about it
    assert compile_bundle(bundle.folder, options)["built"] == 1
    report.unlink()
    assert compile_bundle(bundle.folder, options)["report"]["passed"] is True and report.is_file()


@RTX
def test_what_cannot_run_here_is_not_verified_and_no_breach(bundle: Bundle) -> None:
    if BACKENDS["tensorrt-rtx"].why_not_runnable() is None:
        pytest.skip("there is a GPU here")
    result = compile_bundle(bundle.folder, replace(ORT, target=Target("tensorrt-rtx"), verify=True))
    assert result["report"]["passed"] is None and "GPU" in result["report"]["why"]
    assert "not verified" in summarize(result)
