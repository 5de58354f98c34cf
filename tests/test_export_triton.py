"""Model repositories for Triton: its schema takes every config, what it would load computes what the bundle does."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("grpc_tools")
pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from engine.errors import ArtifactError, InputError  # noqa: E402
from engine.inference.backends import open_graph  # noqa: E402
from engine.inference.engines import current_key, set_folder, write_engine  # noqa: E402
from engine.inference.machine import Machine  # noqa: E402
from engine.inference.manifest import MANIFEST, Bundle, GraphSpec, TensorSpec, bundle_sha256, file_spec  # noqa: E402
from engine.inference.report import Report, write_report  # noqa: E402
from engine.inference.session import RunOptions  # noqa: E402
from engine.inference.target import Target  # noqa: E402
from export import triton  # noqa: E402
from export.triton import MARKER, write_triton  # noqa: E402
from tests.helpers.machine import replace_answers  # noqa: E402

# The part of Triton's public model_config.proto that we write, by its names and numbers.
SCHEMA = """
syntax = "proto3";
package inference;
enum DataType {
  TYPE_INVALID = 0; TYPE_BOOL = 1; TYPE_INT32 = 8; TYPE_INT64 = 9; TYPE_FP16 = 10; TYPE_FP32 = 11; TYPE_FP64 = 12;
}
message ModelTensorReshape { repeated int64 shape = 1; }
message ModelInput { string name = 1; DataType data_type = 2; repeated int64 dims = 4; ModelTensorReshape reshape = 5; }
message ModelOutput {
  string name = 1; DataType data_type = 2; repeated int64 dims = 3; ModelTensorReshape reshape = 5;
}
message ModelInstanceGroup {
  enum Kind { KIND_AUTO = 0; KIND_GPU = 1; KIND_CPU = 2; KIND_MODEL = 3; }
  string name = 1; Kind kind = 4; int32 count = 2; repeated int32 gpus = 3; repeated string profile = 5;
}
message ModelParameter { string string_value = 1; }
message ModelWarmup {
  message Input {
    DataType data_type = 1; repeated int64 dims = 2;
    oneof input_data_type { bool zero_data = 3; bool random_data = 4; string input_data_file = 5; }
  }
  string name = 1; uint32 batch_size = 2; map<string, Input> inputs = 3; uint32 count = 4;
}
message ModelConfig {
  string name = 1; string platform = 2; string backend = 17; int32 max_batch_size = 4;
  repeated ModelInput input = 5; repeated ModelOutput output = 6; repeated ModelInstanceGroup instance_group = 7;
  string default_model_filename = 8; map<string, ModelParameter> parameters = 14;
  repeated ModelWarmup model_warmup = 16;
}
"""
GPU = Machine(cpu="", gpu="NVIDIA A10G", compute_capability="8.6", cuda="13.0", driver="580.65.06")
PROFILES = {"short": {"frames": (4, 16, 32)}, "long": {"frames": (64, 64, 64)}}


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from grpc_tools import protoc

    folder = tmp_path_factory.mktemp("schema")
    (folder / "model_config.proto").write_text(SCHEMA)
    compiled = folder / "schema.bin"
    assert protoc.main(["", f"-I{folder}", f"--descriptor_set_out={compiled}", "model_config.proto"]) == 0
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has TensorRT."""
    replace_answers(monkeypatch, "tensorrt", machine=lambda: GPU, version=lambda: "10.13.2.6")


def write_bundle(folder: Path, keep_fp32: str = "", graphs: tuple[str, ...] = ("plain", "timed")) -> Bundle:
    """Two networks that share their weights: y = x * w, and y = x * w * t with a scalar t."""
    folder.mkdir()
    weights = np.arange(1, 5, dtype=np.float32)
    (folder / "shared.weights").write_bytes(weights.tobytes())
    specs = {}
    for name in graphs:
        inputs = [TensorSpec("rows", "float32", ("frames", 4)), TensorSpec("t", "int64", (), 1000)]
        inputs = inputs[: 2 if name == "timed" else 1]
        (folder / f"{name}.onnx").write_bytes(network(timed=name == "timed").SerializeToString())
        output = TensorSpec("low", "float32", ("frames", 4))
        specs[name] = GraphSpec(
            *(name, f"{name}.onnx", tuple(inputs), (output,), {}),
            weights=("shared.weights",),
            profiles=PROFILES,
            keep_fp32=name == keep_fp32,
        )
    files = {path.name: file_spec(path) for path in folder.iterdir()}
    written = Bundle(folder, "tiny", bundle_sha256(files, {}), {}, specs, files, "made for tests", {})
    (folder / MANIFEST).write_text(json.dumps(written.to_dict()))
    return Bundle.open(folder)


def network(timed: bool) -> Any:
    helper, kind = onnx.helper, onnx.TensorProto
    weights = kind(name="w", dims=[4], data_type=kind.FLOAT, data_location=kind.EXTERNAL)
    for key, value in (("location", "shared.weights"), ("offset", "0"), ("length", "16")):
        weights.external_data.add(key=key, value=value)
    inputs = [helper.make_tensor_value_info("rows", kind.FLOAT, ["frames", 4])]
    nodes = [helper.make_node("Mul", ["rows", "w"], ["scaled" if timed else "low"])]
    if timed:
        inputs.append(helper.make_tensor_value_info("t", kind.INT64, []))
        nodes.append(helper.make_node("Cast", ["t"], ["time"], to=kind.FLOAT))
        nodes.append(helper.make_node("Mul", ["scaled", "time"], ["low"]))
    outputs = [helper.make_tensor_value_info("low", kind.FLOAT, ["frames", 4])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [weights])
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def compile_fakes(bundle: Bundle, precision: Any = "fp16", profile: str = "short") -> dict[str, str]:
    """Engines of TensorRT in name only; digest by network."""
    folder = set_folder(bundle.folder / "engines", Target("tensorrt", precision, profile), GPU)
    digests = {}
    for graph in bundle.graphs:
        made = bundle.folder.parent / f"{graph}.made"
        made.write_bytes(f"engine of {graph}".encode())
        key = current_key(bundle, graph, Target("tensorrt", precision, profile))
        digests[graph] = write_engine(folder, key, {f"{graph}.engine": made}, {"seconds": 1.0}).digest
    return digests


def configs(repository: Path, schema: Any) -> dict[str, Any]:
    """Raises ParseError for anything that Triton's schema does not have."""
    files = sorted(repository.glob("*/config.pbtxt"))
    return {file.parent.name: text_format.Parse(file.read_text(), schema()) for file in files}


def parameters(config: Any) -> dict[str, str]:
    return {name: value.string_value for name, value in config.parameters.items()}


def test_config_of_onnx(bundle: Bundle, schema: Any, tmp_path: Path) -> None:
    summary = write_triton(bundle, tmp_path / "repository", Target("onnxruntime", profile="long"))
    found = configs(tmp_path / "repository", schema)
    assert list(found) == ["tiny_plain", "tiny_timed"] == list(summary["models"])
    config = found["tiny_timed"]
    assert (config.name, config.platform, config.max_batch_size) == ("tiny_timed", "onnxruntime_onnx", 0)
    rows, time = config.input
    assert (rows.name, list(rows.dims), time.name, list(time.dims)) == ("rows", [-1, 4], "t", [1])
    assert time.HasField("reshape") and not time.reshape.shape and not rows.HasField("reshape")
    assert [(output.name, list(output.dims)) for output in config.output] == [("low", [-1, 4])]
    (group,) = config.instance_group
    assert (group.count, group.kind, list(group.profile)) == (1, 0, [])
    told = parameters(config)
    assert told["network_sha256"] == bundle.graph_sha256("timed") and told["profile"] == "long"
    assert "engine_sha256" not in told
    kept = json.loads((tmp_path / "repository" / MARKER).read_text())
    assert kept == {key: value for key, value in summary.items() if key != "output"}


def test_warm_up_fits_the_network(bundle: Bundle, schema: Any, tmp_path: Path) -> None:
    write_triton(bundle, tmp_path / "repository", Target("onnxruntime"))
    (warmup,) = configs(tmp_path / "repository", schema)["tiny_timed"].model_warmup
    assert warmup.batch_size == 1
    rows, time = warmup.inputs["rows"], warmup.inputs["t"]
    assert list(rows.dims) == [16, 4] and rows.random_data  # the usual size of the first profile
    assert list(time.dims) == [1] and time.zero_data  # random integers may lie beyond their bound


def test_served_network_computes_the_same(bundle: Bundle, tmp_path: Path) -> None:
    write_triton(bundle, tmp_path / "repository", Target("onnxruntime"))
    inputs = {"rows": np.ones((5, 4), np.float32), "t": np.array(3, np.int64)}
    results = []
    for model in (bundle.model("timed"), tmp_path / "repository" / "tiny_timed" / "1" / "model.onnx"):
        with open_graph(model, bundle.graph("timed"), "onnxruntime", RunOptions()) as session:
            results.append(session.run(inputs)["low"])
    np.testing.assert_array_equal(results[1], np.tile(np.arange(1, 5, dtype=np.float32) * 3, (5, 1)))
    np.testing.assert_array_equal(*results)


@pytest.mark.usefixtures("on_gpu")
def test_engines(bundle: Bundle, schema: Any, tmp_path: Path) -> None:
    digests = compile_fakes(bundle)
    write_triton(bundle, tmp_path / "repository", Target("tensorrt", "fp16"))
    for graph, digest in digests.items():
        config = configs(tmp_path / "repository", schema)[f"tiny_{graph}"]
        assert config.platform == "tensorrt_plan"
        (group,) = config.instance_group
        assert (group.kind, list(group.profile)) == (1, ["0"])
        assert parameters(config)["engine_sha256"] == digest and parameters(config)["precision"] == "fp16"
        version = tmp_path / "repository" / f"tiny_{graph}" / "1"
        assert [file.name for file in version.iterdir()] == ["model.plan"]
        assert (version / "model.plan").read_text() == f"engine of {graph}"


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("passed", [True, None, False])
def test_report(bundle: Bundle, schema: Any, tmp_path: Path, passed: bool | None) -> None:
    digests = compile_fakes(bundle)
    target = Target("tensorrt", "fp16", "short")
    folder = set_folder(bundle.folder / "engines", target, GPU)
    report = Report(
        *("tiny", bundle.sha256, target, GPU, {}, digests, {}, None, None, ()),
        passed=passed,
        why="" if passed else "low of plain is too far off",
        seconds=1.0,
    )
    written = write_report(folder, report)
    if passed is False:
        with pytest.raises(ArtifactError, match="failed verification: low of plain is too far off"):
            write_triton(bundle.folder, tmp_path / "repository", Target("tensorrt", "fp16"))
        return
    write_triton(bundle.folder, tmp_path / "repository", Target("tensorrt", "fp16"))
    found = configs(tmp_path / "repository", schema)
    assert {parameters(config)["report_sha256"] for config in found.values()} == {written.sha256}


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize(
    ("breach", "reason"),
    [
        (lambda folder: None, "not compiled yet"),
        (lambda folder: (folder / "plain.engine").write_text("engine of plaim"), "plain.engine was changed"),
    ],
)
def test_engine_that_must_not_be_served(bundle: Bundle, tmp_path: Path, breach: Any, reason: str) -> None:
    if reason != "not compiled yet":
        compile_fakes(bundle)
        breach(set_folder(bundle.folder / "engines", Target("tensorrt", "fp16", "short"), GPU))
    with pytest.raises(ArtifactError, match=reason) as refused:
        write_triton(bundle, tmp_path / "repository", Target("tensorrt", "fp16"))
    assert "tango-export compile" in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "repository").exists()


def test_openvino_computes_in_bf16_only(schema: Any, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    bundle = write_bundle(tmp_path / "bundle", keep_fp32="timed")
    write_triton(bundle, tmp_path / "repository", Target("openvino", "bf16"))
    found = configs(tmp_path / "repository", schema)
    low, kept = found["tiny_plain"], found["tiny_timed"]
    assert (low.backend, low.default_model_filename, low.instance_group[0].kind) == ("openvino", "model.onnx", 2)
    assert parameters(low)["HINT_BF16"] == "YES"
    # what must stay in float32 is given to who keeps it there
    assert (kept.platform, parameters(kept)["precision"]) == ("onnxruntime_onnx", "fp32")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"backend": "tensorrt-rtx"}, "no back end for tensorrt-rtx"),
        ({"backend": "openvino"}, "cannot be restricted to fp32"),
        ({"backend": "openvino", "precision": "fp16"}, "cannot be restricted to fp16"),
        ({"backend": "openvino", "precision": "bf16"}, "takes no scalars, as input t of network timed"),
        ({"backend": "onnxruntime", "profile": "huge"}, "no profile 'huge'"),
    ],
)
def test_refused(bundle: Bundle, tmp_path: Path, asked: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        write_triton(bundle, tmp_path / "repository", Target(**asked))
    assert not (tmp_path / "repository").exists()


def test_all_or_nothing(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "place" / "repository"
    write_triton(bundle, output, Target("onnxruntime"))
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    def full(source: Path, place: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(triton.os, "link", full)
    monkeypatch.setattr(triton.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        write_triton(bundle, output, Target("onnxruntime", profile="long"))
    assert [path.name for path in output.parent.iterdir()] == ["repository"]
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_another_folder_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("one")
    with pytest.raises(InputError, match="not a Triton model repository of ours"):
        write_triton(bundle, tmp_path / "thesis", Target("onnxruntime"))


def test_copies_where_there_are_no_links(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, place: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(triton.os, "link", refuse)
    write_triton(bundle, tmp_path / "repository", Target("onnxruntime"))
    served = tmp_path / "repository" / "tiny_plain" / "1"
    assert (served / "shared.weights").read_bytes() == (bundle.folder / "shared.weights").read_bytes()
    assert os.stat(served / "shared.weights").st_nlink == 1


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back(schema: Any, text: str) -> None:
    written = triton._text(text)
    assert written.isascii() and "\n" not in written
    assert text_format.Parse(f"name: {written}", schema()).name == text
