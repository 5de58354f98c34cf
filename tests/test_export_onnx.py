"""Export to ONNX: named axes really change, equal weights give equal bytes, what cannot be exported is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402

from engine.errors import BackendError  # noqa: E402
from engine.inference.manifest import GraphSpec, TensorSpec  # noqa: E402
from export import onnx_export  # noqa: E402
from export.onnx_export import Graph, export_graph  # noqa: E402
from export.parity import compare  # noqa: E402
from export.shared_weights import SharedWeights  # noqa: E402
from tests.helpers.fakes_session import FunctionSession  # noqa: E402


class Tower(nn.Module):
    """Convolution, normalisation, attention, a pooled output: what our networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(6, 16, 5, padding=2)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.5)
        self.qkv = nn.Linear(16, 48)

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = nn.functional.gelu(self.norm(self.first(rows.transpose(1, 2)))).transpose(1, 2)
        q, k, v = self.qkv(self.drop(hidden)).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        hidden = hidden + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return nn.functional.normalize(hidden, dim=-1), hidden.mean(dim=1)


class Lookup(nn.Module):
    """Whole numbers in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 8)

    def forward(self, ids: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.words(ids) + rows
        return scores, scores.argmax(dim=-1)


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def tower(batch: int = 2) -> Graph:
    torch.manual_seed(0)
    return Graph(
        name="tower",
        module=Tower(),
        inputs={"rows": rows(batch, 40, 6)},
        outputs=("low", "high"),
        dynamic={"rows": {0: "batch", 1: "frames"}},
        trials=({"rows": rows(2, 40, 6)}, {"rows": rows(1, 17, 6)}, {"rows": rows(5, 128, 6)}),
    )


def lookup() -> Graph:
    torch.manual_seed(1)
    trials = tuple(
        {"ids": torch.arange(b * n).reshape(b, n) % 50, "rows": rows(b, n, 8)} for b, n in ((2, 9), (1, 1), (3, 30))
    )
    dynamic = {name: {0: "batch", 1: "tokens"} for name in ("ids", "rows")}
    return Graph("lookup", Lookup(), trials[0], ("scores", "best"), dynamic, trials)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GraphSpec]:
    path = tmp_path_factory.mktemp("onnx") / "tower.onnx"
    return path, export_graph(tower(), path)


def test_axes_are_named(exported: tuple[Path, GraphSpec]) -> None:
    path, spec = exported
    assert spec == GraphSpec(
        name="tower",
        file="tower.onnx",
        inputs=(TensorSpec("rows", "float32", ("batch", "frames", 6)),),
        outputs=(
            TensorSpec("low", "float32", ("batch", "frames", 16)),
            TensorSpec("high", "float32", ("batch", 16)),
        ),
        parity={},
    )
    assert [file.name for file in path.parent.iterdir()] == ["tower.onnx"]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_agrees_with_torch_in_every_shape(exported: tuple[Path, GraphSpec], backend: str) -> None:
    pytest.importorskip(backend)
    from engine.inference.backends import open_graph

    with open_graph(*exported, backend=backend) as session:  # type: ignore[arg-type]
        report = compare(session, tower())
    assert report.passed, report
    assert report.shapes == [{"rows": [2, 40, 6]}, {"rows": [1, 17, 6]}, {"rows": [5, 128, 6]}]
    assert all(0 < output.max_abs < 1e-4 for output in report.reached.values())


def test_equal_weights_equal_bytes(exported: tuple[Path, GraphSpec], tmp_path: Path) -> None:
    export_graph(tower(), tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == exported[0].read_bytes()


def test_nothing_of_this_machine_is_in_it(exported: tuple[Path, GraphSpec]) -> None:
    content = exported[0].read_bytes()
    for trace in (b".py", b"site-packages", b"stack_trace", str(Path.home()).encode(), b"pkg.torch"):
        assert trace not in content
    model = onnx.load(exported[0])
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_an_example_of_size_1_does_not_fix_the_axis(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from engine.inference.backends import open_graph

    graph = tower(batch=1)
    spec = export_graph(graph, tmp_path / "tower.onnx")
    assert spec.inputs[0].shape == ("batch", "frames", 6)
    with open_graph(tmp_path / "tower.onnx", spec, "onnxruntime") as session:
        assert compare(session, graph).passed


def test_whole_numbers(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from engine.inference.backends import open_graph

    spec = export_graph(lookup(), tmp_path / "lookup.onnx")
    assert spec.inputs[0] == TensorSpec("ids", "int64", ("batch", "tokens"))
    assert spec.outputs[1] == TensorSpec("best", "int64", ("batch", "tokens"))
    with open_graph(tmp_path / "lookup.onnx", spec, "onnxruntime") as session:
        assert compare(session, lookup()).passed


class Fixes(nn.Module):
    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor]:
        return (rows * 2 if rows.shape[0] == 2 else rows,)


def test_a_module_that_fixes_an_axis(tmp_path: Path) -> None:
    example = {"rows": rows(2, 5)}
    graph = Graph("fixes", Fixes(), example, ("low",), {"rows": {0: "batch"}}, (example,) * 3)
    with pytest.raises(BackendError, match="graph fixes ") as caught:
        export_graph(graph, tmp_path / "fixes.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_too_large_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 1000)
    with pytest.raises(BackendError, match="GiB of weights, but an ONNX file holds at most 2: let it share weights"):
        export_graph(tower(), tmp_path / "tower.onnx")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_weights_beside_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    pytest.importorskip(backend)
    from engine.inference.backends import open_graph

    monkeypatch.setattr(onnx_export, "MAX_BYTES", 1000)
    graph = replace(tower(), share_weights=True)
    spec = export_graph(graph, tmp_path / "tower.onnx")
    (file,) = spec.weights
    content = (tmp_path / file).read_bytes()
    model = onnx.load(tmp_path / "tower.onnx", load_external_data=False)
    outside = {tensor.name: tensor for tensor in model.graph.initializer if tensor.external_data}
    assert outside and all(tensor.name in outside or len(tensor.raw_data) < 1024 for tensor in model.graph.initializer)
    for tensor in outside.values():
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert place["location"] == file and int(place["offset"]) % 4096 == 0
        assert int(place["offset"]) + int(place["length"]) <= len(content)
    qkv = graph.module.qkv.weight.detach().numpy()
    assert qkv.tobytes() in content or qkv.T.tobytes() in content
    with open_graph(tmp_path / "tower.onnx", spec, backend) as session:  # type: ignore[arg-type]
        assert compare(session, graph).passed
    again = export_graph(graph, tmp_path / "again.onnx")
    assert again.weights == spec.weights
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "tower.onnx").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.onnx", "tower.onnx", file]


def test_an_interrupt_leaves_no_weights(tmp_path: Path) -> None:
    class Broken:
        dtype, nbytes = "float32", 5000

        def numpy(self) -> np.ndarray:
            raise KeyboardInterrupt

    exported = onnx_export._exported(tower())
    list(exported.graph.initializers.values())[-1].const_value = Broken()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        SharedWeights(tmp_path).move_out(exported)
    assert list(tmp_path.iterdir()) == []


def test_what_is_known_of_inputs_is_kept(tmp_path: Path) -> None:
    profiles = {"short": {"batch": (1, 1, 1), "tokens": (1, 9, 30)}}
    graph = replace(lookup(), below={"ids": 50}, profiles=profiles, keep_fp32=True)
    spec = export_graph(graph, tmp_path / "lookup.onnx")
    assert [tensor.below for tensor in spec.inputs] == [50, None]
    assert spec.profiles == profiles and spec.keep_fp32
    for symbols in ({"batch": (1, 1, 1)}, {**profiles["short"], "frames": (1, 1, 1)}):
        with pytest.raises(ValueError, match=r"profile short of graph lookup bounds .* wanted \['batch', 'tokens'\]"):
            export_graph(replace(graph, profiles={"short": symbols}), tmp_path / "lookup.onnx")


class Gathers(nn.Module):
    """A variable number of inputs, and an output called as one of the exporter's own values."""

    def forward(self, rows: torch.Tensor, *more: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.sigmoid(rows) + sum(part.mean(1, keepdim=True) for part in more),)


def test_a_variable_number_of_inputs(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from engine.inference.backends import open_graph

    trials = tuple({"rows": rows(n, 3), "a": rows(n, m), "b": rows(n, 2 * m)} for n, m in ((4, 3), (2, 5), (1, 1)))
    dynamic = {"rows": {0: "frames"}, "a": {0: "frames", 1: "width"}, "b": {0: "frames", 1: "height"}}
    graph = Graph("gathers", Gathers(), trials[0], ("sigmoid",), dynamic, trials)
    spec = export_graph(graph, tmp_path / "gathers.onnx")
    assert [tensor.shape for tensor in spec.inputs] == [("frames", 3), ("frames", "width"), ("frames", "height")]
    with open_graph(tmp_path / "gathers.onnx", spec, "onnxruntime") as session:
        assert compare(session, graph).passed


SPEC = GraphSpec(
    "tower",
    "tower.onnx",
    (TensorSpec("rows", "float32", ("batch", "frames", 6)),),
    (TensorSpec("low", "float32", ("batch", "frames", 6)),),
    {},
)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor]:
        return (rows / rows.abs().max() * self.factor,)


def scaled(factor: float) -> Graph:
    return replace(tower(), module=Times(factor), outputs=("low",))


@pytest.mark.parametrize(
    ("factor", "off", "passed"),
    [(1, 5e-5, True), (1, 2e-4, False), (100, 5e-3, True), (100, 2e-2, False), (1e-3, 2e-4, False), (1, np.nan, False)],
)
def test_tolerance_is_relative_beyond_1(factor: float, off: float, passed: bool) -> None:
    """One element off by a planted difference, in one trial."""
    graph = scaled(factor)

    def wrong(array: np.ndarray) -> tuple[np.ndarray]:
        out = graph.module(torch.from_numpy(array))[0].numpy().copy()
        out[0, 0, 0] += off if len(array) == 1 else 0
        return (out,)

    report = compare(FunctionSession(wrong, SPEC), graph)
    assert report.passed is passed
    if passed:
        assert report.reached["low"].max_abs == pytest.approx(off, rel=0.05)
        assert report.reached["low"].scale == pytest.approx(factor)


def test_cosine_is_asked_too() -> None:
    graph = scaled(1e-5)  # so small that any difference is within the absolute tolerance
    report = compare(FunctionSession(lambda array: (array * 0 + 1e-5,), SPEC), graph)
    assert report.reached["low"].max_abs < 1e-4 and not report.passed


def test_another_shape_or_dtype_is_refused() -> None:
    for wrong in (lambda array: (array[:, :-1],), lambda array: (array.astype(np.float64),)):
        with pytest.raises(BackendError, match="graph tower gives low as"):
            compare(FunctionSession(wrong, SPEC), scaled(1))


def test_three_shapes_are_wanted() -> None:
    graph = scaled(1)
    session = FunctionSession(lambda array: (array,), SPEC)
    with pytest.raises(ValueError, match="trials of 1 shapes, wanted 3"):
        compare(session, replace(graph, trials=(graph.trials[0],) * 5))
