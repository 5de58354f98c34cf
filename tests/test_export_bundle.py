"""Writing bundles: a round trip, and nothing left behind by whatever goes wrong."""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402

from engine.errors import ArtifactError, BackendError, InputError  # noqa: E402
from engine.inference.backends import open_graph  # noqa: E402
from engine.inference.manifest import Bundle  # noqa: E402
from engine.inference.report import Gate  # noqa: E402
from export.bundle import BundleOptions, Recipe, write_bundle  # noqa: E402
from export.onnx_export import Graph  # noqa: E402
from tests.helpers.small_recipes import Layer, layer, recipe  # noqa: E402

IMPOSSIBLE = BundleOptions(Gate(max_abs=0.0, cosine=1.1))


def test_round_trip(tmp_path: Path) -> None:
    written = []

    def graphs() -> Iterator[Graph]:
        for seed in (0, 1):
            written.append([file.name for file in tmp_path.glob("new/.tango-*/*")])
            yield layer(f"layer{seed}", seed)

    summary = write_bundle(replace(recipe(), graphs=graphs()), tmp_path / "new" / "mini")
    assert written == [[], ["layer0.onnx"]]  # one at a time: they may be large
    bundle = Bundle.open(tmp_path / "new" / "mini")
    assert (bundle.name, bundle.licence) == ("mini", "made for tests")
    assert bundle.config == {"hop_frames": 4, "names": ["a", "b"]}
    assert bundle.file("vocab.txt").read_bytes() == b"a\nb\n"
    assert set(bundle.files) == {"layer0.onnx", "layer1.onnx", "vocab.txt"}
    assert bundle.versions["torch"] == torch.__version__
    assert json.loads(json.dumps(summary))["sha256"] == bundle.sha256
    graph = layer("layer1", 1)
    with open_graph(bundle.model("layer1"), bundle.graph("layer1"), "onnxruntime") as session:
        found = session.run({"rows": graph.trials[2]["rows"].numpy()})["low"]
    np.testing.assert_allclose(found, graph.module(graph.trials[2]["rows"])[0].detach().numpy(), atol=1e-5)
    assert set(bundle.graph("layer1").parity) == {"onnxruntime", *(["openvino"] if find_spec("openvino") else [])}
    parity = bundle.graph("layer1").parity["onnxruntime"]
    assert parity["asked"] == {"max_abs": 1e-4, "cosine": 0.99999}
    assert parity["reached"]["low"]["max_abs"] <= 1e-4
    assert parity["shapes"] == [{"rows": [2, 3]}, {"rows": [1, 3]}, {"rows": [40, 3]}]
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["mini"]


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    write_bundle(recipe(0), tmp_path / "mini")
    model = tmp_path / "mini" / "layer0.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"layer0\.onnx was changed"):
        Bundle.open(tmp_path / "mini").check()


def test_a_new_bundle_replaces_an_old_one_only_when_whole(tmp_path: Path) -> None:
    place = tmp_path / "mini"
    old = write_bundle(recipe(0), place)["sha256"]
    with pytest.raises(BackendError, match=r"graph layer0 does not agree with torch .*low: max abs .* cosine"):
        write_bundle(recipe(1), place, IMPOSSIBLE)
    assert Bundle.open(place).sha256 == old
    new = write_bundle(recipe(1), place)["sha256"]
    assert Bundle.open(place).sha256 == new != old
    assert write_bundle(recipe(0), place)["sha256"] == old  # equal weights, equal identity
    assert [entry.name for entry in tmp_path.iterdir()] == ["mini"]


class Wide(Layer):
    """With weights that are too large for the network's own file, and the same for every seed."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 300)
        with torch.no_grad():
            self.hidden.weight.copy_(torch.arange(1200.0).reshape(300, 4).sin())

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.hidden(super().forward(rows)[0]),)


def wide(name: str, seed: int, **changes: Any) -> Graph:
    torch.manual_seed(seed)
    return replace(layer(name, seed), module=Wide(), share_weights=True, **changes)


def test_weights_that_networks_share_are_there_once(tmp_path: Path) -> None:
    profiles = {"live": {"frames": (1, 2, 9)}, "long": {"frames": (9, 99, 999)}}
    graphs = (wide(f"wide{seed}", seed, profiles=profiles, keep_fp32=seed == 1) for seed in (0, 1))
    summary = write_bundle(Recipe("wide", graphs, {}), tmp_path / "wide")
    bundle = Bundle.open(tmp_path / "wide")
    one, other = bundle.graph("wide0"), bundle.graph("wide1")
    assert bundle.profile_names == ("live", "long") and one.profiles == profiles
    assert (one.keep_fp32, other.keep_fp32) == (False, True)
    # the bias is its own, the matrix is shared
    assert len(one.weights) == 1 and len(other.weights) == 2 and set(one.weights) < set(other.weights)
    sizes = {name: spec.bytes for name, spec in bundle.files.items()}
    assert sizes[one.weights[0]] == 4096 * 2 + 1200 and sum(sizes.values()) == summary["bytes"]
    assert summary["graphs"]["wide0"]["bytes"] == sizes["wide0.onnx"] + sizes[one.weights[0]]
    assert all(set(graph.parity) >= {"onnxruntime"} for graph in (one, other))
    again = write_bundle(Recipe("wide", (wide("wide0", 0), wide("wide1", 1)), {}), tmp_path / "again")
    assert again["sha256"] == summary["sha256"]  # equal weights, equal names and bytes
    (tmp_path / "wide" / one.weights[0]).write_bytes(b"\0" * sizes[one.weights[0]])
    with pytest.raises(ArtifactError, match=r"weights-[0-9a-f]{16}\.bin was changed"):
        Bundle.open(tmp_path / "wide").model("wide1")


def _interrupted() -> Iterator[Graph]:
    yield layer("layer0", 0)
    raise KeyboardInterrupt


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_bundle(Recipe("mini", _interrupted(), {}), tmp_path / "mini")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BackendError):
        write_bundle(recipe(0), tmp_path / "mini", IMPOSSIBLE)
    with pytest.raises(ValueError, match="two things called layer0"):
        write_bundle(Recipe("mini", (layer("layer0", 0), layer("layer0", 1)), {}), tmp_path / "mini")
    with pytest.raises(ValueError, match="JSON"):
        write_bundle(Recipe("mini", (layer("layer0", 0),), {"loss": float("nan")}), tmp_path / "mini")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_bytes(b"irreplaceable")
    with pytest.raises(InputError, match="holiday exists and is not a bundle"):
        write_bundle(recipe(0), tmp_path / "holiday")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"file/mini: cannot be written|not a bundle"):
        write_bundle(recipe(0), tmp_path / "file" / "mini")
    assert (tmp_path / "holiday" / "photo.jpg").read_bytes() == b"irreplaceable"
