"""Bundles: what was written is what is opened, and nothing else is."""

import copy
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ArtifactError, InputError
from engine.inference.backends import BACKENDS
from engine.inference.manifest import MANIFEST, Bundle, FileSpec, bundle_sha256
from engine.inference.networks import NetworkOptions, Networks
from tests.helpers.fakes_session import LINEAR, linear_onnx, write_fake_bundle, write_manifest

# a network without any graph: what is asked of it here is that it refers to no other file
FILES = {"linear.onnx": b"\x08\x0a\x12\x03abc", "vocab.txt": b"a\nb\n"}
CONFIG = {"hop_frames": 4, "names": ["a", "b"]}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_fake_bundle(tmp_path / "mini", FILES, {"linear": LINEAR}, CONFIG)


def refusal(folder: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        Bundle.open(folder)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message and "tango-export bundle" in message
    return message


def test_what_was_written_is_opened(bundle: Bundle) -> None:
    assert bundle.name == "fake"
    assert bundle.config == CONFIG
    assert bundle.graph("linear") == LINEAR
    assert bundle.file("vocab.txt").read_bytes() == FILES["vocab.txt"]
    assert bundle.files["vocab.txt"] == FileSpec(hashlib.sha256(FILES["vocab.txt"]).hexdigest(), 4)
    assert Bundle.open(bundle.folder) == bundle
    (bundle.folder / ".DS_Store").write_bytes(b"desktops leave such things about")
    assert Bundle.open(bundle.folder) == bundle


def test_identity_is_files_and_config(bundle: Bundle, tmp_path: Path) -> None:
    same = write_fake_bundle(tmp_path / "same", dict(reversed(FILES.items())), {"linear": LINEAR}, CONFIG)
    assert same.sha256 == bundle.sha256
    for files, config in (
        ({**FILES, "vocab.txt": b"a\nc\n"}, CONFIG),
        ({**FILES, "more": b""}, CONFIG),
        (FILES, {**CONFIG, "hop_frames": 5}),
    ):
        other = write_fake_bundle(tmp_path / f"other{len(os.listdir(tmp_path))}", files, {"linear": LINEAR}, config)
        assert other.sha256 != bundle.sha256


def test_names_that_it_lacks(bundle: Bundle) -> None:
    with pytest.raises(ArtifactError, match=r"without merges\.txt"):
        bundle.file("merges.txt")
    with pytest.raises(ArtifactError, match="graphs linear, but none called audio"):
        bundle.graph("audio")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no bundle at .*nowhere"):
        Bundle.open(tmp_path / "nowhere")
    assert "manifest.json is missing" in refusal(tmp_path)


@given(at=st.integers(0, 6), bit=st.integers(0, 7))
@settings(max_examples=20, deadline=None)
def test_any_changed_bit_is_found(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    bundle = write_fake_bundle(tmp_path_factory.mktemp("b") / "mini", FILES, {"linear": LINEAR}, CONFIG)
    content = bytearray(FILES["linear.onnx"])
    content[at] ^= 1 << bit
    assert bundle.model("linear").name == "linear.onnx"
    (bundle.folder / "linear.onnx").write_bytes(content)
    opened = Bundle.open(bundle.folder)
    assert opened.file("vocab.txt").read_bytes() == FILES["vocab.txt"]  # what is not asked for is not read
    for check in (opened.check, lambda: opened.model("linear"), lambda: opened.file("linear.onnx")):
        with pytest.raises(ArtifactError, match=r"linear\.onnx was changed") as caught:
            check()
        assert "\n" not in str(caught.value) and "tango-export bundle" in str(caught.value)


def test_files_missing_longer_linked_unknown(bundle: Bundle, tmp_path: Path) -> None:
    model = bundle.folder / "linear.onnx"
    model.unlink()
    assert "linear.onnx is missing" in refusal(bundle.folder)
    outside = tmp_path / "outside"
    outside.write_bytes(FILES["linear.onnx"])
    model.symlink_to(outside)
    assert "linear.onnx is missing or not a plain file" in refusal(bundle.folder)
    model.unlink()
    model.write_bytes(FILES["linear.onnx"] + b"!")
    assert "8 bytes, expected 7" in refusal(bundle.folder)
    model.write_bytes(FILES["linear.onnx"])
    (bundle.folder / "linear.data").write_bytes(b"weights of nobody knows whom")
    assert "linear.data is not in its manifest" in refusal(bundle.folder)


PROFILES = {"live": {"batch": (1, 1, 2), "frames": (1, 8, 128)}, "long": {"batch": (1, 1, 1), "frames": (8, 8, 8)}}


def test_profiles_and_weights(tmp_path: Path) -> None:
    graph = replace(LINEAR, weights=("linear.weights",), profiles=PROFILES, keep_fp32=True)
    ids = replace(graph.inputs[0], dtype="int64", below=30_522)
    graph = replace(graph, inputs=(ids, *graph.inputs[1:]))
    files = {**FILES, "linear.weights": b"numbers"}
    bundle = write_fake_bundle(tmp_path / "mini", files, {"linear": graph})
    assert bundle.graph("linear") == graph
    assert bundle.profile_names == ("live", "long")
    (bundle.folder / "engines").mkdir()
    (bundle.folder / "engines" / "anything").write_bytes(b"")
    assert Bundle.open(bundle.folder) == bundle
    sha256 = bundle.graph_sha256("linear")
    (bundle.folder / "linear.weights").write_bytes(b"Numbers")
    assert Bundle.open(bundle.folder).graph_sha256("linear") == sha256  # by the manifest, without reading
    with pytest.raises(ArtifactError, match=r"linear\.weights was changed"):
        Bundle.open(bundle.folder).model("linear")
    other = write_fake_bundle(tmp_path / "other", {**files, "linear.weights": b"Numbers"}, {"linear": graph})
    assert other.graph_sha256("linear") != sha256


def test_an_old_bundle_has_no_profiles(bundle: Bundle) -> None:
    fields = bundle.to_dict()
    for name in ("weights", "profiles", "keep_fp32"):
        del fields["graphs"]["linear"][name]
    for tensor in fields["graphs"]["linear"]["inputs"]:
        del tensor["below"]
    write_manifest(bundle.folder, fields)
    assert Bundle.open(bundle.folder) == bundle
    assert bundle.profile_names == ()


def _set(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(fields: dict[str, Any]) -> None:
        for key in path[:-1]:
            fields = fields[key]
        fields[path[-1]] = to

    return change


def _rename_file(name: str) -> Callable[[dict[str, Any]], None]:
    def change(fields: dict[str, Any]) -> None:
        fields["files"][name] = fields["files"].pop("vocab.txt")

    return change


TENSOR = {"name": "rows", "dtype": "float32", "shape": ["batch", 4]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("schema", to=2), "bundle schema 2, this version reads 1"),
        (_set("schema", to="x" * 10_000), "bundle schema"),
        (_set("config", "hop_frames", to=5), "sha256 does not match"),
        (_set("config", to=[1]), "config"),
        (_set("config", "loss", to=float("nan")), "damaged"),
        (_set("name", to="../mini"), "not a plain name"),
        (_set("licence", to=3), "licence"),
        (_set("versions", to={"torch": 2}), "versions"),
        (_set("files", "vocab.txt", "bytes", to=1 << 60), "bytes"),
        (_set("files", "vocab.txt", "bytes", to=True), "bytes"),
        (_set("files", "vocab.txt", "sha256", to="0"), "sha256"),
        (_set("files", to={f"f{n}": {} for n in range(10_000)}), "10000 files"),
        (_set("graphs", "linear", "file", to="other.onnx"), "not listed"),
        (_set("graphs", "linear", "file", to="../linear.onnx"), "not a plain name"),
        (_set("graphs", "linear", "weights", to=["w"]), "not listed"),
        (_set("graphs", "linear", "weights", to=["../w"]), "not a plain name"),
        (_set("graphs", "linear", "weights", to="w"), "invalid weights"),
        (_set("graphs", "linear", "keep_fp32", to="no"), "keep_fp32"),
        (_set("graphs", "linear", "inputs", 0, "below", to=0), "integers below 0"),
        (_set("graphs", "linear", "profiles", to={"live": {"batch": [1, 1, 1]}}), "the symbols of its inputs"),
        (
            _set("graphs", "linear", "profiles", to={"live": {"batch": [1, 1, 1], "frames": [2, 1, 3]}}),
            "ascending order",
        ),
        (
            _set("graphs", "linear", "profiles", to={"live": {"batch": [1, 1, 1], "frames": [0, 1, 3]}}),
            "ascending order",
        ),
        (_set("graphs", "linear", "profiles", to={"live": {"batch": [1, 1, 1], "frames": [1, 2]}}), "damaged"),
        (
            _set("graphs", "linear", "profiles", to={"../x": {"batch": [1, 1, 1], "frames": [1, 1, 1]}}),
            "not a plain name",
        ),
        (_set("graphs", "linear", "profiles", to={f"p{n}": {} for n in range(99)}), "99 profiles"),
        (_set("graphs", "linear", "inputs", to=[]), "inputs"),
        (_set("graphs", "linear", "inputs", to=[TENSOR, TENSOR]), "inputs"),
        (_set("graphs", "linear", "inputs", to=[{**TENSOR, "name": f"i{n}"} for n in range(99)]), "inputs"),
        (_set("graphs", "linear", "inputs", 0, "dtype", to="object"), "dtype 'object'"),
        (_set("graphs", "linear", "inputs", 0, "shape", to=[1] * 99), "99 axes"),
        (_set("graphs", "linear", "inputs", 0, "shape", to=[-1]), "size -1"),
        (_set("graphs", "linear", "inputs", 0, "shape", to=[1.5]), "size 1.5"),
        (_set("graphs", "linear", "inputs", 0, "shape", to=7), "damaged"),
        (_set("graphs", "linear", "parity", to=None), "damaged"),
        (_set("graphs", "linear", "parity", to={"onnxruntime": {}}), "no 'reached'"),
        (_set("graphs", "linear", "parity", to={"x": {"reached": {"low": {"max_abs": "1"}}}}), "no 'mean_abs'"),
        (_set("graphs", to=[]), "damaged"),
        (_rename_file("../../vocab.txt"), "not a plain name"),
        (_rename_file("/etc/passwd"), "not a plain name"),
        (_rename_file(".vocab"), "not a plain name"),
        (_rename_file("manifest.JSON"), "not a plain name"),
        (_rename_file("a" * 200), "not a plain name"),
        (lambda fields: fields.pop("licence"), "no 'licence'"),
    ],
)
def test_hostile_manifests(bundle: Bundle, change: Callable[[dict[str, Any]], None], reason: str) -> None:
    fields = copy.deepcopy(bundle.to_dict())
    change(fields)
    write_manifest(bundle.folder, json.loads(json.dumps(fields)))
    message = refusal(bundle.folder)
    assert reason in message
    assert len(message) < 500


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, '{"schema": 1}', "\ud800", "1" * 10_000])
def test_a_manifest_that_is_none(bundle: Bundle, text: str) -> None:
    (bundle.folder / MANIFEST).write_bytes(text.encode("utf-8", "surrogatepass"))
    refusal(bundle.folder)


def test_a_huge_manifest_is_not_read(bundle: Bundle) -> None:
    with (bundle.folder / MANIFEST).open("r+b") as file:
        file.truncate(1 << 40)  # sparse: costs no disk
    assert "manifest.json has over" in refusal(bundle.folder)


def test_bundle_sha256_knows_names_from_contents() -> None:
    a, b = FileSpec("a" * 64, 1), FileSpec("b" * 64, 1)
    hashes = {bundle_sha256(files, {}) for files in ({"x": a, "y": b}, {"x": b, "y": a}, {"x": a}, {"x": a, "z": b})}
    assert len(hashes) == 4


def external(*places: str) -> bytes:
    """A network whose tensors lie in these files."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(linear_onnx())
    for place in places:
        tensor = model.graph.initializer.add(name=f"in {place}", dims=[2], data_type=1, data_location=1)
        tensor.external_data.add(key="location", value=place)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    "place", [".w.bin", "../w.bin", "absolute", "vocab.txt", "engines/w.bin", "linear.weights/.", ""]
)
def test_tensors_in_files_that_were_not_checked(tmp_path: Path, place: str, backend: str) -> None:
    """Whatever a library would make of the name: it never sees the network."""
    place = str(tmp_path / "w.bin") if place == "absolute" else place
    files = {"linear.onnx": external("linear.weights", place), "linear.weights": bytes(8), "vocab.txt": bytes(8)}
    parity = {backend: {"reached": {"low": {"max_abs": 1e-7, "mean_abs": 1e-8, "cosine": 1.0}}}}
    graph = replace(LINEAR, weights=("linear.weights",), parity=parity)
    bundle = write_fake_bundle(tmp_path / "mini", files, {"linear": graph})
    (bundle.folder / "engines").mkdir()
    for hidden in (bundle.folder / ".w.bin", tmp_path / "w.bin", bundle.folder / "engines" / "w.bin"):
        hidden.write_bytes(bytes(8))
    with pytest.raises(ArtifactError, match=r"linear\.onnx has tensors in '.*', not one of its weights") as caught:
        Bundle.open(bundle.folder).model("linear")
    assert "\n" not in str(caught.value)
    if BACKENDS[backend].why_not_runnable() is None:
        networks = Networks.open(bundle, NetworkOptions(backend, n_threads=1))
        with pytest.raises(ArtifactError, match="not one of its weights"):
            networks.session("linear")


def test_tensors_in_the_weights_are_in_place(tmp_path: Path) -> None:
    files = {"linear.onnx": external("linear.weights"), "linear.weights": bytes(8)}
    bundle = write_fake_bundle(tmp_path / "mini", files, {"linear": replace(LINEAR, weights=("linear.weights",))})
    assert bundle.model("linear") == bundle.folder / "linear.onnx"


def test_a_network_is_onnx_by_its_name_too(bundle: Bundle) -> None:
    """ONNX Runtime reads another format from files that end with .ort."""
    fields = bundle.to_dict()
    fields["files"]["linear.ort"] = fields["files"].pop("linear.onnx")
    fields["graphs"]["linear"]["file"] = "linear.ort"
    (bundle.folder / "linear.onnx").rename(bundle.folder / "linear.ort")
    write_manifest(bundle.folder, json.loads(json.dumps(fields)))
    assert "graph linear is in linear.ort, not in an .onnx file" in refusal(bundle.folder)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_pipes_hold_nobody_up(bundle: Bundle, name: str) -> None:
    (bundle.folder / name).unlink()
    os.mkfifo(bundle.folder / name)
    assert f"{name} is missing or not a plain file" in refusal(bundle.folder)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_pipes_that_come_after_the_look_hold_nobody_up(
    bundle: Bundle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def late(path: Path, *flags: int) -> int:
        """The file becomes a pipe in the very moment in which it is opened."""
        if path == bundle.folder / name:
            path.unlink()
            os.mkfifo(path)
        return real(path, *flags)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(ArtifactError, match="not a regular file"):
        Bundle.open(bundle.folder).file(name)
