"""tango-export compile, verify, inspect, list as a user types them: tables, JSON, exit codes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from engine.inference.backends import BACKENDS
from engine.inference.engines import set_folder, write_engine
from engine.inference.manifest import Bundle
from engine.inference.target import Target
from export.cli import main
from tests.helpers.fakes_session import LINEAR, linear_onnx, write_fake_bundle
from tests.helpers.json_keys import check_keys

PROFILES = {"live": {"batch": (1, 1, 2), "frames": (1, 8, 64)}}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    graphs = {"linear": replace(LINEAR, profiles=PROFILES)}
    return write_fake_bundle(tmp_path / "fake", {"linear.onnx": linear_onnx()}, graphs)


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def told_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    printed = json.loads(told(capsys, *arguments, "--json"))
    check_keys("tango-export", arguments, printed)
    return dict(printed)


def refusal(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> tuple[str, str]:
    """What was printed before, and the one line of the error."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert left.value.code == code, said.err
    (line,) = said.err.strip().splitlines()
    return said.out, line


@pytest.mark.parametrize("command", ["compile", "verify", "inspect", "list"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"tango-export {command}" in capsys.readouterr().out.split("examples:")[1]


def test_one_command_makes_verified_engines(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    table = told(capsys, "compile", bundle.folder, "--backend", "onnxruntime")
    assert re.search(r"^linear +fp32 +built", table, re.MULTILINE) and "passed" in table
    again = told_json(capsys, "compile", bundle.folder, "--backend", "onnxruntime")
    assert again["built"] == 0 and again["report"]["passed"] is True
    listed = told(capsys, "list", bundle.folder.parent)
    assert "fake" in listed and "onnxruntime-fp32-live" in listed and "verified" in listed
    (row,) = told_json(capsys, "list", bundle.folder.parent)["bundles"]
    assert row["engines"][0]["verified"] is True
    inspected = told_json(capsys, "inspect", bundle.folder)
    assert inspected["graphs"]["linear"]["profiles"] == {"live": {"batch": [1, 1, 2], "frames": [1, 8, 64]}}
    assert "onnxruntime-fp32-live" in told(capsys, "inspect", bundle.folder)


def test_verify_takes_every_set(bundle: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no engines" in told(capsys, "verify", bundle.folder)
    place = tmp_path / "elsewhere"
    main(["compile", str(bundle.folder), "--backend", "onnxruntime", "--no-verify", "-o", str(place), "--json"])
    assert json.loads(capsys.readouterr().out)["report"] is None
    result = told_json(capsys, "verify", bundle.folder, "--engines", place)
    assert [report["passed"] for report in result["reports"]] == [True]
    assert "passed" in told(capsys, "verify", bundle.folder, "--backend", "onnxruntime", "--engines", place)
    _, line = refusal(capsys, 2, "verify", bundle.folder, "--backend", "onnxruntime")
    assert "not compiled yet" in line and "tango-export compile" in line


def test_a_breach_is_an_exit_code(bundle: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from onnx import load, numpy_helper

    told(capsys, "compile", bundle.folder, "--backend", "onnxruntime", "--no-verify")
    model = load(str(bundle.model("linear")))
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.01, "weight"))
    (tmp_path / "wrong").write_bytes(model.SerializeToString())
    folder = set_folder(
        bundle.folder / "engines", Target("onnxruntime", "fp32", "live"), BACKENDS["onnxruntime"].machine()
    )
    key = json.loads((folder / "linear.json").read_text())["key"]
    from engine.inference.engine_key import EngineKey

    write_engine(folder, EngineKey.from_dict(key), {"linear.engine": tmp_path / "wrong"}, {})
    for command in ("compile", "verify"):
        table, line = refusal(capsys, 1, command, bundle.folder, "--backend", "onnxruntime")
        assert "FAILED" in table and "verification failed" in line


def test_what_was_edited_is_named(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "compile", bundle.folder, "--backend", "onnxruntime")
    model = bundle.folder / "linear.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    for command in (("compile", "--backend", "onnxruntime"), ("verify",), ("inspect",)):
        _, line = refusal(capsys, 2, command[0], bundle.folder, *command[1:])
        assert "linear.onnx was changed" in line


def test_options_that_belong_together(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("compile", bundle.folder, "--backend", "onnxruntime")
    assert "give both" in refusal(capsys, 2, *command, "--speech", "talk.wav")[1]
    assert "-o DIR" in refusal(capsys, 2, *command, "--layout", "triton")[1]
    assert "has no profile 'wide'" in refusal(capsys, 2, *command, "--profile", "wide")[1]
    assert "no bundle at" in refusal(capsys, 2, "compile", "nowhere", "--backend", "onnxruntime")[1]
    assert "no folder at" in refusal(capsys, 2, "list", "nowhere")[1]
    assert "fp32" in refusal(capsys, 1, *command, "--precision", "bf16")[1]


def test_a_triton_repository(bundle: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = tmp_path / "models"
    said = told(capsys, "compile", bundle.folder, "--backend", "onnxruntime", "--layout", "triton", "-o", place)
    assert f"Triton model repository: {place}" in said
    (config,) = place.rglob("config.pbtxt")
    assert (config.parent / "1" / "model.onnx").is_file()
    assert (bundle.folder / "engines").is_dir(), "engines are kept with the bundle"
