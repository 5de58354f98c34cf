"""Engines that came with a folder: no library sees them unless the user trusts who made them."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("openvino")

import export.verify as verify_module
from engine.errors import ArtifactError
from engine.inference import networks as networks_module
from engine.inference.engine_sets import read_set
from engine.inference.engines import REPORT, UNTRUSTED, read_record
from engine.inference.manifest import Bundle
from engine.inference.networks import NetworkOptions
from engine.inference.target import Target
from export.cli import main
from export.compile import CompileOptions, compile_bundle
from export.inspect import engine_rows
from export.verify import verify
from tests.helpers.linear_bundles import check_runs, compiled, make_bundle, opened, vouch

Change = Callable[[Path], None]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", "onnxruntime", "openvino")


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Become another user of this machine, by a name."""

    def become(name: str) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / name))

    become("me")
    return become


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the compiled files that a library was given."""
    names: list[str] = []
    for module in (networks_module, verify_module):

        def note(file: Path, *rest: Any, open_graph: Any = module.open_graph) -> Any:
            if file.suffix == ".engine":
                names.append(file.name)
            return open_graph(file, *rest)

        monkeypatch.setattr(module, "open_graph", note)
    return names


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_an_edited_verdict_does_not_vouch(bundle: Bundle) -> None:
    folder = compiled(bundle, "openvino")
    vouch(bundle, "openvino", passed=False)
    edit(folder / REPORT, passed=True, why="")
    found = read_set(bundle, folder.parent, Target("openvino", "fp32", "live"))
    assert not found.verified and found.report is None and found.state == "not verified"
    with opened(bundle, "auto") as networks:
        assert networks.engine_key == "" and "openvino fp32 live (not verified)" in networks.reason


def test_figures_are_signed_too(bundle: Bundle) -> None:
    """They decide which engines are the fastest."""
    folder = compiled(bundle, "openvino")
    vouch(bundle, "openvino", ms=9.0)
    content = json.loads((folder / REPORT).read_text())
    content["networks"]["linear"]["latency"]["median_ms"] = 1e-6
    (folder / REPORT).write_text(json.dumps(content))
    assert not read_set(bundle, folder.parent, Target("openvino", "fp32", "live")).verified


def forge(folder: Path) -> None:
    """Another engine, with all hashes of it computed again: no secret is needed for those."""
    engine = folder / "linear.engine"
    content = bytearray(engine.read_bytes())
    content[-1] ^= 1
    engine.write_bytes(content)
    record = json.loads((folder / "linear.json").read_text())
    record["files"]["linear.engine"]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "linear.json").write_text(json.dumps(record))
    changed = read_record(folder, "linear")
    digests = json.loads((folder / REPORT).read_text())["engines"]
    edit(folder / REPORT, engines={**digests, "linear": changed.digest})


def test_a_forged_engine_is_not_loaded(bundle: Bundle, loaded: list[str]) -> None:
    folder = compiled(bundle, "openvino")
    vouch(bundle, "openvino")
    forge(folder)
    found = read_set(bundle, folder.parent, Target("openvino", "fp32", "live"))
    assert found.miss == f"linear: {UNTRUSTED}" and not found.verified
    for options in ({}, {"unverified": True}):
        with opened(bundle, "openvino", **options) as networks:
            check_runs(networks)
            reason = f"its engines are not run (linear: {UNTRUSTED}; compile it again, or use --trust-engines)"
            assert networks.reason == f"openvino fp32 from ONNX; {reason}"
    with pytest.raises(ArtifactError, match=r"cannot be verified \(linear: untrusted: .* --trust-engines\): run '"):
        verify(bundle, Target("openvino"))
    assert loaded == []


@pytest.mark.parametrize("change", [{"build": {"policy": "none"}}, {"more": 1}, {"signature": "0" * 64}])
def test_records_are_signed_as_a_whole(bundle: Bundle, change: dict[str, object]) -> None:
    folder = compiled(bundle, "openvino")
    assert read_record(folder, "linear").own
    edit(folder / "linear.json", **change)
    assert not read_record(folder, "linear").own


@pytest.mark.usefixtures("every_precision")
def test_engines_of_another_user_are_absent(bundle: Bundle, move: Callable[[str], None], loaded: list[str]) -> None:
    for precision in ("fp32", "bf16"):
        compiled(bundle, "openvino", precision)
        vouch(bundle, "openvino", precision, ms=0.1)
    move("another")
    with opened(bundle, "auto") as networks:
        check_runs(networks)
        assert f"openvino fp32 live ({UNTRUSTED}; compile it again, or use --trust-engines)" in networks.reason
    with pytest.raises(ArtifactError) as caught:
        opened(bundle, "openvino", "bf16")
    assert "--trust-engines" in str(caught.value) and "run 'tango-export compile " in str(caught.value)
    assert "\n" not in str(caught.value)
    rows = list(engine_rows(bundle))
    assert {row["state"] for row in rows} == {f"{UNTRUSTED}; compile it again, or use --trust-engines"}
    assert not any(row["verified"] or row["report"]["current"] for row in rows)
    assert loaded == []
    with opened(bundle, "auto", trust_engines=True) as networks:  # their report counts as well
        check_runs(networks, rtol=0.02)
        assert networks.reason.startswith("openvino fp32 live: the fastest of 2 verified") and networks.engine_key
    assert loaded == ["linear.engine"]


def test_a_report_of_another_user_is_none(bundle: Bundle, move: Callable[[str], None], tmp_path: Path) -> None:
    """Next to engines of this one."""
    folder = compiled(bundle, "openvino")
    move("another")
    compile_bundle(bundle.folder, CompileOptions(Target("openvino"), verify=False, progress=False))
    vouch(bundle, "openvino")
    theirs = (folder / REPORT).read_bytes()
    move("me")
    compile_bundle(bundle.folder, CompileOptions(Target("openvino"), verify=False, progress=False))
    (folder / REPORT).write_bytes(theirs)
    assert read_set(bundle, folder.parent, Target("openvino", "fp32", "live")).state == "not verified"


def test_trust_does_not_extend_to_what_is_damaged(bundle: Bundle, move: Callable[[str], None]) -> None:
    folder = compiled(bundle, "openvino")
    vouch(bundle, "openvino")
    move("another")
    content = (folder / "linear.engine").read_bytes()
    (folder / "linear.engine").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with opened(bundle, "openvino", trust_engines=True) as networks:
        assert "linear: corrupt: linear.engine was changed" in networks.reason and networks.engine_key == ""


def test_compile_makes_them_again(bundle: Bundle, move: Callable[[str], None], loaded: list[str]) -> None:
    options = CompileOptions(Target("openvino"), progress=False)
    compile_bundle(bundle.folder, options)
    assert compile_bundle(bundle.folder, options)["built"] == 0
    move("another")
    loaded.clear()
    again = compile_bundle(bundle.folder, options)
    assert {row["reason"] for row in again["networks"].values()} == {UNTRUSTED}
    assert again["report"]["passed"] and compile_bundle(bundle.folder, options)["built"] == 0
    with opened(bundle, "openvino") as networks:
        assert networks.reason == "openvino fp32 live: compiled and verified for this machine"


def test_verify_trusts_when_it_is_told_to(
    bundle: Bundle, move: Callable[[str], None], loaded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """And what it has verified is this user's own from then on."""
    compile_bundle(bundle.folder, CompileOptions(Target("openvino"), progress=False))
    move("another")
    loaded.clear()
    main_ok("verify", bundle.folder)
    assert f"openvino fp32 live: cannot be verified here ({UNTRUSTED}; compile it" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["verify", str(bundle.folder), "--backend", "openvino"])
    assert left.value.code == 2 and "--trust-engines" in capsys.readouterr().err
    assert loaded == []
    main_ok("verify", bundle.folder, "--trust-engines")
    assert "passed" in capsys.readouterr().out and loaded
    with opened(bundle, "openvino") as networks:
        assert networks.reason == "openvino fp32 live: compiled and verified for this machine"
    assert compile_bundle(bundle.folder, CompileOptions(Target("openvino"), progress=False))["built"] == 0
    move("me")
    assert read_set(bundle, bundle.folder / "engines", Target("openvino", "fp32", "live")).miss == UNTRUSTED


def main_ok(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def test_a_user_without_a_home_verifies_what_it_compiles(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In one command; the next one finds nothing of its own."""
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    made = compile_bundle(bundle.folder, CompileOptions(Target("openvino"), progress=False))
    assert made["report"]["passed"]
    assert not read_set(bundle, bundle.folder / "engines", Target("openvino", "fp32", "live")).miss
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", NEXT, bundle.folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [UNTRUSTED, "runs"], done.stderr


NEXT = """
import sys
from engine.inference.engine_sets import read_set
from engine.inference.manifest import Bundle
from engine.inference.target import Target
from tests.helpers.linear_bundles import opened
bundle = Bundle.open(sys.argv[1])
print(read_set(bundle, bundle.folder / "engines", Target("openvino", "fp32", "live")).miss)
with opened(bundle, "openvino", trust_engines=True) as networks:
    print("runs" if networks.engine_key else networks.reason)
"""


def test_what_the_builder_remembers_is_not_taken_from_a_bundle(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT believes its timing cache as it believes engines."""
    from export import compilers
    from export.compilers.tensorrt import _timing_cache

    jobs = []

    def build(job: compilers.CompileJob) -> dict[str, Path]:
        jobs.append(job)
        (job.folder / f"{job.spec.name}.engine").write_bytes(b"engine")
        return {f"{job.spec.name}.engine": job.folder / f"{job.spec.name}.engine"}

    monkeypatch.setitem(compilers.COMPILERS, "openvino", build)
    monkeypatch.setenv("TANGO_RT_CACHE", str(tmp_path / "cache"))
    planted = bundle.folder / "engines" / "timing-openvino.cache"
    planted.parent.mkdir()
    planted.write_bytes(b"planted")
    compile_bundle(bundle.folder, CompileOptions(Target("openvino"), verify=False, progress=False))
    assert {job.timing_cache for job in jobs} != {None} and len({job.timing_cache for job in jobs}) == 1
    cache = jobs[0].timing_cache
    assert cache.parent == tmp_path / "cache" / f"timings-{os.geteuid()}" and not cache.exists()
    assert cache.parent.stat().st_mode & 0o777 == 0o700
    assert _timing_cache(jobs[0]) is None  # not of a back end that times
    cache.parent.chmod(0o777)
    jobs.clear()
    compile_bundle(bundle.folder, CompileOptions(Target("openvino", profile="wide"), verify=False, progress=False))
    assert {job.timing_cache for job in jobs} == {None}


def test_the_option_is_everywhere() -> None:
    from tango_rt.server.config import from_sources

    assert NetworkOptions().trust_engines is False
    flags = {"characters": Path("packs")}
    assert from_sources(flags, {}).trust_engines is False
    assert from_sources(flags, {"TANGO_RT_TRUST_ENGINES": "1"}).trust_engines is True
