"""What is shown of bundles and of what was compiled of them: the state of every set, in words."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from engine.errors import ArtifactError, BackendError, InputError
from engine.inference.engines import engines_folder, read_record, write_engine
from engine.inference.machine import Machine
from engine.inference.manifest import MANIFEST, Bundle
from engine.inference.target import Target
from export.compile import CompileOptions, compile_bundle
from export.inspect import compiled_sets, describe, engine_rows, list_bundles, summarize, summarize_list
from export.verify import verify
from tests.helpers.fakes_session import LINEAR, linear_onnx, write_fake_bundle
from tests.helpers.machine import replace_answers

PROFILES = {"live": {"batch": (1, 1, 1), "frames": (2, 8, 16)}, "wide": {"batch": (1, 1, 4), "frames": (2, 8, 64)}}


def make_bundle(folder: Path) -> Bundle:
    spec = replace(LINEAR, profiles=PROFILES)
    graphs = {"linear": spec, "exact": replace(spec, keep_fp32=True)}
    return write_fake_bundle(folder, {"linear.onnx": linear_onnx()}, graphs)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    (tmp_path / "models").mkdir()
    return make_bundle(tmp_path / "models" / "fake")


def compiled(bundle: Bundle, backend: str, precision: str = "fp32", profile: str = "live") -> Path:
    options = CompileOptions(Target(backend, precision, profile), verify=False, progress=False)  # type: ignore[arg-type]
    return Path(compile_bundle(bundle.folder, options)["engines"])


def states(bundle: Bundle) -> dict[str, str]:
    return {Path(row["folder"]).name: row["state"] for row in engine_rows(bundle)}


def test_a_bundle_before_anything_is_compiled(bundle: Bundle) -> None:
    text = summarize(bundle)
    assert "linear: rows float32[batch, frames, 4], offset float32[batch, 2] -> low float32[batch, frames, 2]" in text
    assert "  profile live: batch 1, frames 2..8..16" in text and "  profile wide: batch 1..1..4" in text
    assert "in fp16 or bf16: Conv, " in text and "always float32: exact" in text
    assert text.endswith(f"engines in {bundle.folder / 'engines'}: none")
    facts = describe(bundle)
    assert json.loads(json.dumps(facts))["graphs"]["linear"]["profiles"]["live"]["frames"] == [2, 8, 16]
    assert facts["policies"]["exact"]["bf16"]["words"].startswith("float32 throughout")
    assert facts["policies"]["exact"]["bf16"]["sha256"] == facts["policies"]["exact"]["fp32"]["sha256"]
    assert facts["policies"]["linear"]["bf16"]["sha256"] != facts["policies"]["linear"]["fp32"]["sha256"]
    assert facts["engines"] == [] and facts["bytes"] == len(linear_onnx())


@pytest.mark.usefixtures("every_precision")
def test_every_state_is_said(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    for backend, precision, profile in (
        ("onnxruntime", "fp32", "live"),
        ("openvino", "bf16", "live"),
        ("openvino", "fp32", "live"),
        ("openvino", "fp32", "wide"),
    ):
        compiled(bundle, backend, precision, profile)
    root = engines_folder(bundle)
    verify(bundle, Target("onnxruntime"))
    verify(bundle, Target("openvino", "bf16"))
    with (root / "openvino-fp32-live" / "linear.engine").open("r+b") as file:
        file.write(b"x")
    (root / "openvino-fp32-wide" / "exact.json").unlink()
    (root / ".building-x").mkdir()
    (root / "timing-tensorrt.cache").write_bytes(b"")
    (root / "left").mkdir()
    assert states(bundle) == {
        "left": "linear: not compiled yet",
        "onnxruntime-fp32-live": "verified",
        "openvino-bf16-live": "verified",
        "openvino-fp32-live": "linear: corrupt: linear.engine was changed",
        "openvino-fp32-wide": "exact: not compiled yet",
    }
    rows = {Path(row["folder"]).name: row for row in engine_rows(bundle)}
    row = rows["openvino-bf16-live"]
    assert (row["backend"], row["precision"], row["profile"], row["verified"]) == ("openvino", "bf16", "live", True)
    assert {graph: part["precision"] for graph, part in row["networks"].items()} == {"linear": "bf16", "exact": "fp32"}
    assert row["report"]["current"] and row["report"]["passed"] is True and row["report"]["median_ms"] > 0
    assert row["bytes"] == sum(part["bytes"] for part in row["networks"].values()) > 0
    assert json.loads(json.dumps(list(rows.values()))) == list(rows.values())
    text = summarize(bundle)
    assert re.search(r"^  openvino-bf16-live +0\.0 MB  ", text, re.MULTILINE)
    assert "MB  verified, " in text and " ms a pass (onnxruntime fp32 " in text
    with monkeypatch.context() as patch:
        replace_answers(patch, "openvino", version=lambda: "9.9")
        assert states(bundle)["openvino-bf16-live"].startswith("stale: backend version ")
    with monkeypatch.context() as patch:
        replace_answers(patch, "openvino", machine=lambda: Machine(cpu="Another"))
        assert states(bundle)["openvino-bf16-live"].startswith("foreign: built for CPU ")
    with monkeypatch.context() as patch:
        replace_answers(patch, "openvino", version=missing)
        assert states(bundle)["openvino-bf16-live"] == "not for this machine: it is not installed"
    request.getfixturevalue("float32_alone")
    assert states(bundle)["openvino-bf16-live"].startswith(
        "not for this machine: openvino does not compute in bf16 on "
    )


def missing() -> str:
    raise BackendError("it is not installed")


def test_sets_of_elsewhere(bundle: Bundle, tmp_path: Path) -> None:
    folder = compiled(bundle, "onnxruntime")
    engine = read_record(folder, "linear")
    key = replace(engine.key, machine=Machine(gpu="NVIDIA A100"))
    foreign = folder.with_name("onnxruntime-fp32-live-nvidia-a100")
    (tmp_path / "made").write_bytes(b"x")
    write_engine(foreign, key, {"linear.engine": tmp_path / "made"}, {})
    folder.rename(folder.with_name("misnamed"))
    assert states(bundle) == {
        "misnamed": "corrupt: it belongs in another folder",
        "onnxruntime-fp32-live-nvidia-a100": "foreign: built for GPU NVIDIA A100",
    }
    assert list(compiled_sets(bundle)) == []


def test_sets_of_another_bundle(bundle: Bundle) -> None:
    folder = compiled(bundle, "onnxruntime")
    compiled(bundle, "onnxruntime", profile="wide")
    verify(bundle, Target("onnxruntime"))
    fields = json.loads((bundle.folder / MANIFEST).read_text())
    for graph in fields["graphs"].values():
        del graph["profiles"]["wide"]
        graph["profiles"]["live"]["frames"] = [2, 8, 32]
    (bundle.folder / MANIFEST).write_text(json.dumps(fields))
    other = Bundle.open(bundle.folder)
    assert states(other) == {
        folder.name: "stale: size of frames 2..8..16 -> 2..8..32",
        "onnxruntime-fp32-wide": "stale: the bundle has no profile 'wide'",
    }


@pytest.mark.usefixtures("every_precision")
def test_sets_of_this_machine(bundle: Bundle) -> None:
    compiled(bundle, "openvino", "bf16")
    compiled(bundle, "onnxruntime", profile="wide")
    found = [(one.target, one.state) for one in compiled_sets(bundle)]
    assert found == [
        (Target("onnxruntime", "fp32", "wide"), "not verified"),
        (Target("openvino", "bf16", "live"), "not verified"),
    ]


def test_all_bundles_of_a_folder(bundle: Bundle, tmp_path: Path) -> None:
    compiled(bundle, "openvino")
    make_bundle(tmp_path / "models" / ".hidden")
    make_bundle(tmp_path / "another")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / MANIFEST).write_text("{")
    (tmp_path / "website").mkdir()
    (tmp_path / "website" / MANIFEST).write_text('{"name": "an application of the web"}')
    (tmp_path / "anna.tango").mkdir()
    rows = list_bundles(tmp_path)
    assert [Path(row["bundle"]).name for row in rows] == ["another", "broken", "fake"]
    assert "damaged or not a bundle" in rows[1]["error"]
    assert rows[2]["profiles"] == ["live", "wide"] and rows[2]["engines"][0]["state"] == "not verified"
    assert list_bundles(bundle.folder)[0]["sha256"] == bundle.sha256
    lines = summarize_list(rows).splitlines()
    assert lines[0] == f"{tmp_path / 'another'}: fake, 0.0 MB, profiles live, wide"
    assert lines[1] == rows[1]["error"]
    assert lines[3].split() == ["openvino-fp32-live", "0.0", "MB", "not", "verified"]
    assert summarize_list([]).startswith("no bundles here")
    with pytest.raises(InputError, match="no folder at"):
        list_bundles(tmp_path / "nowhere")


def test_linked_engines_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.folder / "engines").symlink_to(tmp_path)
    with pytest.raises(ArtifactError, match="is a link"):
        summarize(bundle)
    assert "is a link" in list_bundles(bundle.folder)[0]["error"]
    assert "engines in" in summarize(bundle, tmp_path / "elsewhere")
