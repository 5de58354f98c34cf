"""Who runs the networks of a bundle: only what somebody vouches for, and what is said about it."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ArtifactError, BackendError, InputError
from engine.inference.backends import BACKENDS
from engine.inference.engine_sets import find_profile, read_set
from engine.inference.engines import REPORT, engines_folder
from engine.inference.machine import Machine
from engine.inference.manifest import Bundle
from engine.inference.networks import NetworkOptions, Networks
from engine.inference.report import (
    Agreement,
    read_any_report,
    read_report,
    write_report,
)
from engine.inference.target import Precision, Target
from tests.helpers.fakes_session import LINEAR, linear, linear_onnx, write_fake_bundle
from tests.helpers.linear_bundles import (
    INPUTS,
    PARITY,
    REFERENCE_MS,
    REPORTED_MS,
    check_runs,
    compiled,
    make_bundle,
    opened,
    vouch,
)
from tests.helpers.machine import replace_answers


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", "onnxruntime", "openvino")


def test_the_onnx_files_run_where_the_manifest_vouches(bundle: Bundle) -> None:
    with opened(bundle, "onnxruntime") as networks:
        assert networks.target == Target("onnxruntime", "fp32", "live")
        assert networks.reason == "onnxruntime fp32 from ONNX"
        assert networks.engine_key == networks.report_sha256 == ""
        check_runs(networks)
        assert networks.session("linear") is networks.session("linear")
        session = networks.session("linear")
    with pytest.raises(ValueError, match="closed"):
        networks.run("linear", INPUTS)
    with pytest.raises(ValueError, match="closed"):
        session.run(INPUTS)
    with Networks.open(bundle.folder, NetworkOptions("openvino", n_threads=1)) as networks:
        assert networks.reason == "openvino fp32 from ONNX"
        check_runs(networks)


def test_a_bundle_that_says_nothing_is_unverified(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", "onnxruntime")
    with pytest.raises(ArtifactError, match=r"records no comparison with torch in openvino: make it again"):
        opened(bundle, "openvino")
    with opened(bundle, "openvino", unverified=True) as networks:
        check_runs(networks)
    with opened(make_bundle(tmp_path / "none"), "auto", unverified=True) as networks:
        assert networks.target.backend == "onnxruntime"
    with pytest.raises(ArtifactError, match="onnxruntime or openvino: make it again"):
        opened(make_bundle(tmp_path / "nothing"), "auto")


def test_verified_engines_are_run(bundle: Bundle) -> None:
    compiled(bundle, "openvino")
    report = vouch(bundle, "openvino")
    with opened(bundle, "openvino") as networks:
        assert networks.reason == "openvino fp32 live: compiled and verified for this machine"
        assert networks.report_sha256 == report.sha256 and len(networks.engine_key) == 64
        check_runs(networks)
        with pytest.raises(InputError, match="outside the profile"):
            networks.run("linear", {**INPUTS, "rows": np.zeros((1, 17, 4), np.float32)})
    with opened(bundle, "openvino", profile="wide") as networks:
        assert networks.engine_key == ""  # nothing is compiled for that


@pytest.mark.usefixtures("every_precision")
def test_networks_that_keep_fp32_do(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", "openvino", keep_fp32=True)
    folder = compiled(bundle, "openvino", "bf16")
    found = read_set(bundle, folder.parent, Target("openvino", "bf16", "live"))
    assert {graph: engine.key.precision for graph, engine in found.engines.items()} == {
        "linear": "bf16",
        "other": "fp32",
    }
    exact = linear(INPUTS["rows"], INPUTS["offset"])[0]
    for reported in (False, True):
        if reported:
            vouch(bundle, "openvino", "bf16")
        with opened(bundle, "openvino", "bf16", unverified=True) as networks:
            np.testing.assert_allclose(networks.run("other", INPUTS)["low"], exact, rtol=1e-6)
            np.testing.assert_allclose(networks.run("linear", INPUTS)["low"], exact, rtol=0.02)


@pytest.mark.usefixtures("every_precision")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("passed", [None, False])
def test_engines_nobody_vouches_for(bundle: Bundle, precision: Precision, passed: bool | None) -> None:
    compiled(bundle, "openvino", precision)
    vouch(bundle, "openvino", precision, passed=passed)
    state = "failed verification: linear: low is off" if passed is False else "not verified: linear: low is off"
    if precision == "fp32":  # there is something else to run
        with opened(bundle, "openvino") as networks:
            assert networks.reason == f"openvino fp32 from ONNX; its engines are not run ({state})"
            assert networks.engine_key == ""
    else:
        with pytest.raises(ArtifactError) as caught:
            opened(bundle, "openvino", precision)
        command = f"tango-export verify {bundle.folder} --backend openvino --precision bf16 --profile live"
        otherwise = f"run '{command}'" if passed is None else "use another precision or back end"
        assert f"({state}): {otherwise}" in str(caught.value) and "--unverified" in str(caught.value)
    with opened(bundle, "openvino", precision, unverified=True) as networks:
        assert networks.reason == f"openvino {precision} live: {state}, run because unverified engines were requested"
        assert networks.engine_key
        check_runs(networks, rtol=0.02)


def test_a_report_about_other_engines_is_none(bundle: Bundle) -> None:
    folder = compiled(bundle, "openvino")
    vouch(bundle, "openvino")
    found = read_set(bundle, folder.parent, Target("openvino", "fp32", "live"))
    assert found.verified
    other = {**found.engines, "linear": replace(found.engines["linear"], files={})}
    assert read_report(folder, other) is None
    assert read_report(folder, {"linear": found.engines["linear"]}) is None
    report = read_any_report(folder)
    assert report is not None
    write_report(folder, replace(report, bundle_sha256="0" * 64))
    assert read_set(bundle, folder.parent, Target("openvino", "fp32", "live")).state == "not verified"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"[" * 100_000, b"\xff", b" " * (5 << 20), b'{"schema": 1, "networks": 7}']
)
def test_reports_that_make_no_sense_vouch_for_nothing(bundle: Bundle, content: bytes) -> None:
    folder = compiled(bundle, "openvino")
    vouch(bundle, "openvino")
    (folder / REPORT).write_bytes(content)
    assert read_set(bundle, folder.parent, Target("openvino", "fp32", "live")).state == "not verified"


def test_a_linked_report_vouches_for_nothing(bundle: Bundle, tmp_path: Path) -> None:
    folder = compiled(bundle, "openvino")
    vouch(bundle, "openvino")
    (folder / REPORT).rename(tmp_path / REPORT)
    (folder / REPORT).symlink_to(tmp_path / REPORT)
    assert not read_set(bundle, folder.parent, Target("openvino", "fp32", "live")).verified


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], object], str]] = {
    "corrupt": (lambda folder, _: flip(folder / "other.engine"), "other: corrupt: other.engine was changed"),
    "half": (lambda folder, _: (folder / "other.json").unlink(), "other: not compiled yet"),
    "stale": (
        lambda _, patch: replace_answers(patch, "openvino", version=lambda: "9.9"),
        "stale: backend version",
    ),
    "foreign": (
        lambda _, patch: replace_answers(patch, "openvino", machine=lambda: Machine(cpu="Another CPU")),
        "foreign: built for CPU",
    ),
}


@pytest.mark.usefixtures("every_precision")
@pytest.mark.parametrize("unverified", [False, True])
@pytest.mark.parametrize("kind", DAMAGE)
def test_what_must_not_be_run_never_is(
    bundle: Bundle, kind: str, unverified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, reason = DAMAGE[kind]
    for precision in ("fp32", "bf16"):
        compiled(bundle, "openvino", precision)
        vouch(bundle, "openvino", precision)
    for precision in ("fp32", "bf16"):
        damage(engines_folder(bundle) / f"openvino-{precision}-live", monkeypatch)
    with opened(bundle, "openvino", unverified=unverified) as networks:
        assert networks.engine_key == ""
        assert networks.reason.startswith(f"openvino fp32 from ONNX; its engines are not run ({reason}")
        check_runs(networks)
    if unverified:
        with opened(bundle, "openvino", "bf16", unverified=True) as networks:
            assert networks.engine_key == ""
    else:
        with pytest.raises(ArtifactError) as caught:
            opened(bundle, "openvino", "bf16", engines=engines_folder(bundle))
        command = f"tango-export compile {bundle.folder} --backend openvino --precision bf16 --profile live -o "
        assert reason in str(caught.value) and command in str(caught.value)
        assert "\n" not in str(caught.value)
    with opened(bundle, "auto") as networks:
        assert networks.engine_key == ""
        assert f"passed over: openvino fp32 live ({reason}" in networks.reason


def test_a_bundle_edited_by_hand_runs_nothing(bundle: Bundle) -> None:
    flip(bundle.folder / "linear.onnx")
    with Networks.open(bundle) as networks, pytest.raises(ArtifactError, match=r"linear\.onnx was changed"):
        networks.session("linear")


@pytest.mark.usefixtures("every_precision")
def test_precisions_that_need_engines(bundle: Bundle) -> None:
    with pytest.raises(ArtifactError, match=r"tango-export compile .* --backend openvino --precision fp16"):
        opened(bundle, "openvino", "fp16")
    with opened(bundle, "openvino", "bf16", unverified=True) as networks:
        assert networks.reason == "openvino bf16 from ONNX"
        check_runs(networks, rtol=0.02)


@pytest.mark.usefixtures("float32_alone")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("unverified", [False, True])
def test_a_precision_that_the_machine_lacks(
    bundle: Bundle, backend: str, precision: Precision, unverified: bool
) -> None:
    """Nobody is sent to compile what cannot be compiled here."""
    with pytest.raises(BackendError, match=rf"^{backend} .*{precision}.* fp32$"):
        opened(bundle, backend, precision, unverified=unverified)
    with pytest.raises(BackendError, match=rf"^{backend} .*{precision}.* fp32$"):
        compiled(bundle, backend, precision)
    assert not engines_folder(bundle).exists()


def test_engines_in_a_precision_that_the_machine_has_lost(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """As after a move to another CPU of the same name."""
    with monkeypatch.context() as patch:
        replace_answers(patch, "openvino", why_no_precision=lambda precision: None)
        compiled(bundle, "openvino", "bf16")
        vouch(bundle, "openvino", "bf16", ms=0.1)
    request.getfixturevalue("float32_alone")
    with opened(bundle, "auto") as networks:
        assert networks.reason.startswith("onnxruntime fp32 from ONNX: no verified engines for this machine")
        assert "passed over: openvino bf16 (openvino does not compute in bf16 on this CPU" in networks.reason
    with pytest.raises(BackendError, match=r"^no installed back end computes in bf16 on this machine: use fp32$"):
        opened(bundle, "auto", "bf16")


@pytest.mark.usefixtures("every_precision")
def test_auto_takes_the_fastest_verified(bundle: Bundle) -> None:
    with opened(bundle, "auto") as networks:
        assert networks.reason == "onnxruntime fp32 from ONNX: no verified engines for this machine"
    compiled(bundle, "openvino")
    compiled(bundle, "onnxruntime")
    with opened(bundle, "auto") as networks:
        assert networks.engine_key == ""
        assert "passed over: onnxruntime fp32 live (not verified), openvino fp32 live (not ver" in networks.reason
    vouch(bundle, "onnxruntime", ms=2.5)
    vouch(bundle, "openvino", ms=2.0)
    with opened(bundle, "auto") as networks:
        assert (networks.target.backend, networks.target.precision) == ("openvino", "fp32")
        expected = "openvino fp32 live: the fastest of 2 verified, 2 ms a pass, onnxruntime fp32 3"
        assert networks.reason == expected
        check_runs(networks)
    compiled(bundle, "openvino", "bf16")
    vouch(bundle, "openvino", "bf16", ms=0.5)
    with opened(bundle, "auto") as networks:
        assert (networks.target.backend, networks.target.precision) == ("openvino", "bf16")
        assert networks.reason.startswith("openvino bf16 live: the fastest of 3 verified, 0.5 ms a pass")
    with opened(bundle, "auto", "fp32") as networks:
        assert (networks.target.backend, networks.target.precision) == ("openvino", "fp32")
    vouch(bundle, "openvino", "bf16", passed=False, ms=0.1)
    with opened(bundle, "auto") as networks:
        assert networks.target.precision == "fp32"
        assert "passed over: openvino bf16 live (failed verification: linear: low is off)" in networks.reason


def test_auto_leaves_engines_that_are_slower_than_the_onnx_files(bundle: Bundle) -> None:
    compiled(bundle, "openvino")
    vouch(bundle, "openvino", ms=3.5)
    with opened(bundle, "auto") as networks:
        assert networks.engine_key == ""
        assert networks.reason == "onnxruntime fp32 from ONNX: 3 ms a pass, openvino fp32 live takes 3.5"


def test_auto_passes_over_what_is_not_installed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    (engines_folder(bundle) / "tensorrt-fp16-live-nvidia-h100").mkdir(parents=True)
    with opened(bundle, "auto") as networks:
        assert "passed over: tensorrt (tensorrt is not installed" in networks.reason
    for name in BACKENDS.keys() - {"openvino"}:
        replace_answers(monkeypatch, name, why_not_runnable=lambda name=name: f"no {name}")
    with opened(bundle, "auto") as networks:
        assert networks.target.backend == "openvino"
    replace_answers(monkeypatch, "openvino", why_not_runnable=lambda: "no openvino")
    for backend in ("auto", "onnxruntime"):
        with pytest.raises(BackendError, match="no onnxruntime"):
            opened(bundle, backend)


@pytest.mark.usefixtures("every_precision")
def test_auto_with_a_precision_that_nothing_has(bundle: Bundle) -> None:
    compiled(bundle, "openvino", "bf16")
    with pytest.raises(ArtifactError) as caught:
        opened(bundle, "auto", "bf16")
    assert "has no verified bf16 engines for this machine; passed over: openvino bf16 live (not ver" in str(
        caught.value
    )
    with pytest.raises(
        ArtifactError, match=r"has no verified fp16 engines for this machine: compile them .* --backend .*openvino"
    ):
        opened(bundle, "auto", "fp16")


def test_engines_beside_the_bundle(bundle: Bundle, tmp_path: Path) -> None:
    compiled(bundle, "openvino")
    vouch(bundle, "openvino")
    (bundle.folder / "engines").rename(tmp_path / "elsewhere")
    with opened(bundle, "openvino") as networks:
        assert networks.engine_key == ""
    with opened(bundle, "openvino", engines=tmp_path / "elsewhere") as networks:
        assert networks.engine_key
    (bundle.folder / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is a link"):
        opened(bundle, "openvino")


def test_options_that_make_no_sense(bundle: Bundle) -> None:
    for backend, precision in (("cuda", None), ("onnxruntime", "float32")):
        with pytest.raises(InputError, match="is unknown: choose from"):
            NetworkOptions(backend, precision)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no profile 'tall': it has live, wide"):
        opened(bundle, "onnxruntime", profile="tall")
    with pytest.raises(ArtifactError, match="none called audio"):
        Networks.open(bundle).session("audio")
    assert find_profile(bundle, "wide") == "wide"


def test_bundles_without_profiles(tmp_path: Path) -> None:
    spec = replace(LINEAR, parity={"onnxruntime": PARITY})
    bundle = write_fake_bundle(tmp_path / "old", {"linear.onnx": linear_onnx()}, {"linear": spec})
    with Networks.open(bundle) as networks:
        assert networks.target.profile == ""
        check_runs(networks)


def test_threads_share_what_one_of_them_opened(bundle: Bundle) -> None:
    networks = Networks.open(bundle)
    sessions, start = [], threading.Barrier(8)

    def use() -> None:
        start.wait()
        check_runs(networks)
        sessions.append(networks.session("linear"))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions) == 8 and len(set(map(id, sessions))) == 1
    networks.close()
    networks.close()


def test_reports_survive_json(bundle: Bundle) -> None:
    folder = compiled(bundle, "openvino")
    report = vouch(bundle, "openvino")
    assert read_any_report(folder) == report
    assert (report.median_ms, report.reference_ms) == (REPORTED_MS, REFERENCE_MS)
    network = report.networks["linear"]
    off = replace(network, reached={"low": Agreement(np.nan, np.inf, np.nan, np.nan, 1.0)}, latency=None)
    write_report(folder, replace(report, networks={"linear": off}))
    again = read_any_report(folder)
    assert again is not None and not again.networks["linear"].passed
    assert again.median_ms is None
    assert os.listdir(folder).count(REPORT) == 1
