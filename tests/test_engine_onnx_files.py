"""Which files an ONNX file refers to: every place in which it could hide a tensor, and nothing that is no ONNX."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
from onnx import ModelProto, TensorProto, helper  # noqa: E402

from engine.inference import onnx_files  # noqa: E402
from engine.inference.onnx_files import external_files  # noqa: E402
from tests.helpers.fakes_session import linear_onnx  # noqa: E402


def hidden(name: str = ".w.bin") -> TensorProto:
    tensor = TensorProto(name="hidden", dims=[2], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", name), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def node(**attributes: object) -> onnx.NodeProto:
    return helper.make_node("If", ["x"], ["y"], name="a node", **attributes)


def graph(*nodes: onnx.NodeProto, tensors: list[TensorProto] | None = None) -> onnx.GraphProto:
    return helper.make_graph([*nodes], "graph", [], [], tensors or [])


def model(*nodes: onnx.NodeProto, tensors: list[TensorProto] | None = None) -> ModelProto:
    return helper.make_model(graph(*nodes, tensors=tensors))


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[4])


def with_sparse_initializer() -> ModelProto:
    found = model()
    found.graph.sparse_initializer.append(sparse(TensorProto(), hidden()))
    return found


def with_sparse_attributes() -> ModelProto:
    attribute = onnx.AttributeProto(name="sparse", type=onnx.AttributeProto.SPARSE_TENSORS)
    attribute.sparse_tensors.append(sparse(hidden(), TensorProto()))
    found = model(node())
    found.graph.node[0].attribute.append(attribute)
    return found


def with_function() -> ModelProto:
    found = model()
    function = helper.make_function("d", "f", ["x"], ["y"], [node(value=hidden())], [])
    found.functions.append(function)
    return found


def with_function_default() -> ModelProto:
    found = model()
    function = helper.make_function("d", "f", ["x"], ["y"], [], [])
    function.attribute_proto.append(helper.make_attribute("default", hidden()))
    found.functions.append(function)
    return found


def with_training(algorithm: bool) -> ModelProto:
    found = model()
    training = found.training_info.add()
    (training.algorithm if algorithm else training.initialization).CopyFrom(graph(tensors=[hidden()]))
    return found


HIDING: dict[str, Callable[[], ModelProto]] = {
    "initializer": lambda: model(tensors=[hidden()]),
    "sparse initializer": with_sparse_initializer,
    "constant": lambda: model(node(value=hidden())),
    "constants": lambda: model(node(values=[TensorProto(name="plain"), hidden()])),
    "sparse constants": with_sparse_attributes,
    "branch": lambda: model(node(then_branch=graph(node(else_branch=graph(tensors=[hidden()]))))),
    "branches": lambda: model(node(branches=[graph(), graph(node(value=hidden()))])),
    "function": with_function,
    "default of a function": with_function_default,
    "initialisation of training": lambda: with_training(False),
    "algorithm of training": lambda: with_training(True),
}


def found_in(tmp_path: Path, content: bytes) -> frozenset[str]:
    (tmp_path / "model.onnx").write_bytes(content)
    return external_files(tmp_path / "model.onnx")


@pytest.mark.parametrize("place", HIDING)
def test_no_place_is_forgotten(tmp_path: Path, place: str) -> None:
    assert found_in(tmp_path, HIDING[place]().SerializeToString()) == {".w.bin"}


def test_every_field_that_can_lead_to_a_tensor_is_walked() -> None:
    """By the definition of ONNX that is installed: a newer one may have more of them."""
    message = {"External": "StringStringEntry"}

    def of(kind: str) -> object:
        return getattr(onnx, f"{message.get(kind, kind)}Proto").DESCRIPTOR

    def leads(descriptor: object, seen: frozenset[str] = frozenset()) -> bool:
        if descriptor.name == "TensorProto":
            return True
        return descriptor.name not in seen and any(
            field.message_type is not None and leads(field.message_type, seen | {descriptor.name})
            for field in descriptor.fields
        )

    for kind, walked in onnx_files._MESSAGES.items():
        if kind in ("Tensor", "External"):
            continue
        leading = {field.number for field in of(kind).fields if field.message_type and leads(field.message_type)}
        assert leading == set(walked), kind


def test_networks_of_ours_refer_to_nothing(tmp_path: Path) -> None:
    assert found_in(tmp_path, linear_onnx()) == set()
    assert found_in(tmp_path, b"") == set()  # no network either, but that is for others to say


def test_all_names_are_given(tmp_path: Path) -> None:
    names = ["w.bin", "../w", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", "Grüße", ""]
    assert found_in(tmp_path, model(tensors=[hidden(name) for name in names]).SerializeToString()) == set(names)


def test_large_tensors_are_not_read(tmp_path: Path) -> None:
    """A sparse file: 1 GiB that would take a second to read, and as much memory."""
    size = 1 << 30
    name = b"".join((bytes([0x42, 1]), b"t"))  # TensorProto.name
    raw = bytes([0x4A]) + varint(size)  # raw_data
    tensor = varint(len(raw) + size + len(name))
    graph = bytes([0x2A]) + tensor + raw
    total = len(graph) + size + len(name)
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.write(bytes([0x3A]) + varint(total) + graph)
        file.seek(size, os.SEEK_CUR)
        file.write(name)
        file.write(model(tensors=[hidden()]).SerializeToString())  # merged by protobuf with what came before
    started = time.perf_counter()
    assert external_files(path) == {".w.bin"}
    assert time.perf_counter() - started < 0.5


def varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def entry(*fields: tuple[int, bytes]) -> bytes:
    """A model with one tensor, one entry of external_data of which has these fields."""
    content = b"".join(part(number, text) for number, text in fields)
    for number in (13, 5, 7):
        content = part(number, content)
    return content


def part(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


MALFORMED = {
    "text": b"this is no network\n" * 20,
    "half": linear_onnx()[:-20],
    "a group": bytes([0x3B, 0x3C]),
    "field 0": bytes([0x02, 0x00]),
    "an endless number": b"\xff" * 20,
    "beyond its end": bytes([0x3A, 5, 0x2A, 9, 0, 0, 0]),
    "two values": entry((1, b"location"), (2, b"w.bin"), (2, b".w.bin")),
    "two keys": entry((1, b"offset"), (2, b".w.bin"), (1, b"location")),
    "a name without end": entry((1, b"location"), (2, b"w" * 5000)),
    "a name that is no text": entry((1, b"location"), (2, b"\xff")),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_no_plain_onnx(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError):
        found_in(tmp_path, MALFORMED[kind])


def test_depth_and_length_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = graph(tensors=[hidden()]).SerializeToString()
    for _ in range(40):
        for number in (6, 5, 1):  # a graph in an attribute of a node of a graph
            deep = part(number, deep)
    with pytest.raises(ValueError, match="deep"):
        found_in(tmp_path, part(7, deep))
    monkeypatch.setattr(onnx_files, "MAX_FIELDS", 20)
    with pytest.raises(ValueError, match="over 20 fields"):
        found_in(tmp_path, linear_onnx())


def test_pipes_and_links_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "link.onnx").symlink_to("model.onnx")
    (tmp_path / "model.onnx").write_bytes(linear_onnx())
    for name in ("pipe.onnx", "link.onnx", "absent.onnx"):
        with pytest.raises(OSError):
            external_files(tmp_path / name)


@given(st.data())
def test_damage_hides_nothing(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever onnx still reads from a damaged file, its references were found."""
    content = bytearray(HIDING[data.draw(st.sampled_from(sorted(HIDING)))]().SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "model.onnx"
    path.write_bytes(content)
    try:
        known = onnx.load(path, load_external_data=False)
    except Exception:  # whatever protobuf raises
        return
    wanted = {entry.value for tensor in tensors(known) for entry in tensor.external_data if entry.key == "location"}
    try:
        assert external_files(path) >= wanted
    except ValueError:
        return


def tensors(message: object) -> list[TensorProto]:
    """All in a message, by its own description."""
    if isinstance(message, TensorProto):
        return [message]
    found = []
    for field, value in message.ListFields():
        if field.message_type is not None:
            parts = [value] if hasattr(value, "ListFields") else value
            found += [tensor for part in parts if hasattr(part, "ListFields") for tensor in tensors(part)]
    return found
