"""tango-export as a user meets it: figures as JSON, one line for every error, help that costs nothing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine.inference.manifest import Bundle
from export.cli import main
from tests.helpers.fakes_session import LINEAR, write_fake_bundle
from tests.helpers.json_keys import check_keys

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = [
    *([], ["bundle"], ["bundle", "mini"], ["bundle", "full"], ["train"], ["train", "aumoclip"], ["adapt"]),
    *(["evaluate"], ["evaluate", "aumoclip"], ["inspect"]),
]


def refusal(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """The one line of a command that ends with this exit code."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    lines = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == code, lines
    assert len(lines) == 1 and lines[0].startswith("tango-export: "), lines
    return lines[0]


def run_alone(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    help_text = capsys.readouterr().out
    assert f"tango-export {' '.join(command)}".strip() in help_text.partition("examples:")[2]


def test_help_and_inspect_need_no_torch(tmp_path: Path) -> None:
    write_fake_bundle(tmp_path / "mini", {"linear.onnx": b"x"}, {"linear": LINEAR})
    code = (
        "import sys\nfrom export.cli import main\n"
        f"main(['inspect', {str(tmp_path / 'mini')!r}])\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'scipy', 'numba') if name in sys.modules])"
    )
    assert run_alone(code).strip().endswith("[]")


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_fake_bundle(tmp_path / "mini", {"linear.onnx": b"x" * 10}, {"linear": LINEAR}, {"hop_frames": 4})
    main(["inspect", str(tmp_path / "mini"), "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert (figures["sha256"], figures["bytes"], figures["config"]) == (bundle.sha256, 10, {"hop_frames": 4})
    main(["inspect", str(tmp_path / "mini")])
    text = capsys.readouterr().out
    assert "linear: rows float32[batch, frames, 4], offset float32[batch, 2] -> low float32[batch, frames, 2]" in text
    assert "no bundle at" in refusal(capsys, 2, "inspect", tmp_path / "nowhere")
    assert "manifest.json is missing" in refusal(capsys, 2, "inspect", tmp_path)


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """In place of the recipe of the published network, which takes minutes."""
    module = ModuleType("export.recipes.full")
    module.full_recipe = module.random_full = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "export.recipes.full", module)
    return module


def test_bundle(recipes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from tests.helpers.small_recipes import recipe

    recipes.random_full = recipe
    main(["bundle", "full", "--random", "3", "-o", str(tmp_path / "full"), "--json"])
    result = json.loads(capsys.readouterr().out)
    check_keys("tango-export", ("bundle", "full"), result)
    assert result["sha256"] == Bundle.open(tmp_path / "full").sha256
    assert result["graphs"]["layer0"]["parity"]["onnxruntime"]["reached"]["low"]["cosine"] > 0.99999
    main(["inspect", str(tmp_path / "full")])
    assert "onnxruntime against torch: max abs" in capsys.readouterr().out


def test_what_the_published_network_wants(recipes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "full"
    assert "or --random SEED" in refusal(capsys, 2, "bundle", "full", "-o", out)
    assert "or --random SEED" in refusal(capsys, 2, "bundle", "full", "ckpt", "--random", 1, "-o", out)
    assert "--speech DIR --text DIR" in refusal(capsys, 2, "bundle", "full", "ckpt", "-o", out)
    told = []
    recipes.full_recipe = lambda *arguments: told.append(arguments) or _raise(RuntimeError("a\nb"))
    given = ("bundle", "full", "ckpt", "--speech", "s", "--text", "t", "-o", out)
    assert "internal error, please report it: RuntimeError: a b (--debug shows where)" in refusal(capsys, 1, *given)
    assert told == [(Path("ckpt"), "s", "t", False)]
    with pytest.raises(RuntimeError):
        main([str(argument) for argument in (*given, "--debug")])
    assert list(tmp_path.iterdir()) == []


def _raise(error: BaseException) -> Any:
    raise error


def test_interrupted(recipes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from export.bundle import Recipe
    from tests.helpers.small_recipes import layer

    def graphs() -> Iterator[Any]:
        yield layer("layer0", 0)
        raise KeyboardInterrupt

    recipes.random_full = lambda seed: Recipe("full", graphs(), {})
    assert "interrupted" in refusal(capsys, 130, "bundle", "full", "--random", 0, "-o", tmp_path / "full")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_without_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("export.") and name != "export.cli"]:
        monkeypatch.delitem(sys.modules, name)
    recipes = ModuleType("export.recipes.full")
    recipes.full_recipe = recipes.random_full = lambda seed: __import__(package)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "export.recipes.full", recipes)
    monkeypatch.setitem(sys.modules, package, None)
    said = refusal(capsys, 1, "bundle", "full", "--random", 0, "-o", tmp_path / "full")
    assert said == f"tango-export: {package} is not installed: pip install 'tango-rt[export]'"


def test_training_options_arrive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    run = pytest.importorskip("export.training.run")
    calls: list[Any] = []
    monkeypatch.setattr(run, "train", lambda *arguments: calls.append(arguments) or {"steps": 1, "checkpoint": "x"})
    given = ["train", "aumoclip", "a.tango", "data", "-o", "mini.ckpt"]
    main(given)
    assert capsys.readouterr().out == "steps       1\ncheckpoint  x\n"
    assert calls.pop() == ([Path("a.tango"), Path("data")], Path("mini.ckpt"), run.TrainOptions())
    more = "--steps 7 --seed 3 --held-out ben* cem --no-bf16 --levels low --no-stop-gradient --resume --mouth --json"
    main([*given, *more.split()])
    assert json.loads(capsys.readouterr().out) == {"steps": 1, "checkpoint": "x"}
    options = calls.pop()[2]
    assert (options.steps, options.seed, options.held_out) == (7, 3, ("ben*", "cem"))
    assert (options.bf16, options.resume, options.mouth) == (False, True, True)
    assert (options.model.levels, options.model.stop_gradient, options.model.pooling) == ("low", False, "token")
    monkeypatch.undo()
    assert "does not exist" in refusal(capsys, 2, "train", "aumoclip", tmp_path / "no", "-o", tmp_path / "mini.ckpt")
