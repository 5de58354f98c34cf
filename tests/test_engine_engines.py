"""The engine cache: what was compiled is found again for the very same key, and for no other."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ArtifactError, InputError
from engine.inference.backends import BACKENDS
from engine.inference.engine_key import EngineKey, current_key, engine_precision
from engine.inference.engines import (
    NOT_COMPILED,
    Engine,
    EngineMiss,
    engines_folder,
    read_engine,
    set_folder,
    write_engine,
)
from engine.inference.machine import Machine
from engine.inference.manifest import Bundle
from engine.inference.target import Precision, Target
from tests.helpers.fakes_session import LINEAR, write_fake_bundle
from tests.helpers.machine import replace_answers

MACHINE = Machine(cpu="", gpu="NVIDIA H100", compute_capability="9.0", cuda="13.1", driver="570.1")
PROFILES = {"live": {"batch": (1, 1, 2), "frames": (4, 8, 16)}, "wide": {"batch": (1, 4, 8), "frames": (4, 8, 999)}}
KEY = EngineKey(
    graph="linear",
    onnx_sha256="a" * 64,
    backend="tensorrt",
    backend_version="10.1",
    machine=MACHINE,
    precision="fp16",
    policy="b" * 64,
    profile="live",
    shapes=PROFILES["live"],
    options=BACKENDS["tensorrt"].build_options,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "engines" / "set"


def write(folder: Path, key: EngineKey = KEY, **contents: bytes) -> Engine:
    """An engine of made-up files, GRAPH.engine among them."""
    parts = {"engine": b"compiled", **contents}
    made = folder.parent / "made"
    made.mkdir(parents=True, exist_ok=True)
    for suffix, content in parts.items():
        (made / suffix).write_bytes(content)
    files = {f"{key.graph}.{suffix}": made / suffix for suffix in parts}
    return write_engine(folder, key, files, {"seconds": 1.5})


def miss(folder: Path, key: EngineKey = KEY) -> str:
    with pytest.raises(EngineMiss) as caught:
        read_engine(folder, key)
    assert "\n" not in caught.value.reason
    return caught.value.reason


def test_what_was_written_is_read(folder: Path) -> None:
    assert miss(folder) == NOT_COMPILED
    written = write(folder, weights=b"more")
    found = read_engine(folder, KEY)
    assert found == written
    assert found.key == KEY and found.key.digest == KEY.digest
    assert found.file.read_bytes() == b"compiled"
    assert found.bytes == len(b"compiled") + len(b"more")
    assert found.build == {"seconds": 1.5}
    assert sorted(entry.name for entry in folder.iterdir()) == ["linear.engine", "linear.json", "linear.weights"]


def test_a_new_engine_replaces_the_old_and_all_its_files(folder: Path) -> None:
    old = write(folder, weights=b"more")
    newer = replace(KEY, backend_version="10.2")
    new = write(folder, newer, engine=b"compiled again")
    assert read_engine(folder, newer) == new
    assert new.digest != old.digest
    assert sorted(entry.name for entry in folder.iterdir()) == ["linear.engine", "linear.json"]
    assert miss(folder) == "stale: backend version 10.2 -> 10.1"


def changed(key: EngineKey) -> Mapping[str, tuple[EngineKey, str]]:
    """Every part of a key, changed: the other key and how the change is told from there to `key`."""
    keys: dict[str, tuple[EngineKey, str]] = {
        "graph": (replace(key, graph="other"), "graph other -> linear"),
        "onnx_sha256": (replace(key, onnx_sha256="c" * 64), f"onnx sha256 {'c' * 12} -> {'a' * 12}"),
        "backend": (replace(key, backend="tensorrt-rtx"), "backend tensorrt-rtx -> tensorrt"),
        "backend_version": (replace(key, backend_version="9.9"), "backend version 9.9 -> 10.1"),
        "precision": (replace(key, precision="bf16"), "precision bf16 -> fp16"),
        "policy": (replace(key, policy="d" * 64), f"policy {'d' * 12} -> {'b' * 12}"),
        "profile": (replace(key, profile="wide"), "profile wide -> live"),
    }
    for field in fields(Machine):
        old, words = getattr(key.machine, field.name), field.name.replace("_", " ")
        machine = replace(key.machine, **{field.name: "another"})
        keys[f"machine {field.name}"] = (replace(key, machine=machine), f"{words} another -> {old or 'none'}")
    for symbol, (least, usual, most) in key.shapes.items():
        for place, sizes in enumerate(((least + 1, usual, most), (least, usual + 1, most), (least, usual, most + 1))):
            told = f"size of {symbol} {'..'.join(map(str, sizes))} -> {least}..{usual}..{most}"
            keys[f"shapes {symbol} {place}"] = (replace(key, shapes={**key.shapes, symbol: sizes}), told)
    more = {**key.shapes, "more": (1, 2, 3)}
    keys["shapes, a symbol more"] = (replace(key, shapes=more), "size of more 1..2..3 -> none")
    for name, value in key.options.items():
        other = (not value) if isinstance(value, bool) else f"{value}x" if isinstance(value, str) else value + 1
        told = f"option {name} {json.dumps(other)} -> {json.dumps(value)}"
        keys[f"option {name}"] = (replace(key, options={**key.options, name: other}), told)
    fewer = dict(list(key.options.items())[1:])
    gone, value = next(iter(key.options.items()))
    keys["an option less"] = (replace(key, options=fewer), f"option {gone} none -> {json.dumps(value)}")
    return keys


def test_no_part_of_the_key_is_forgotten() -> None:
    parts = {name.split()[0].rstrip(",") for name in changed(KEY)} - {"option", "an"} | {"options"}
    assert parts == {field.name for field in fields(EngineKey)}


@pytest.mark.parametrize("part", changed(KEY))
def test_a_change_of_any_part_is_a_miss_told_by_name(folder: Path, part: str) -> None:
    other, told = changed(KEY)[part]
    assert other.differences(KEY) == [told]
    assert other.digest != KEY.digest
    write(folder, replace(other, graph=KEY.graph))
    if part == "graph":
        record = folder / "linear.json"
        content = json.loads(record.read_text())
        content["key"], content["digest"] = other.to_dict(), other.digest
        record.write_text(json.dumps(content))
    reason = miss(folder)
    if part in ("machine gpu", "machine cpu"):
        name = part.split()[1].upper()
        assert reason == f"foreign: built for {name} another, this machine has {told.split(' -> ')[1]}"
    else:
        assert reason == f"stale: {told}"


def test_several_changes_are_all_told() -> None:
    other = replace(KEY, backend_version="11.0", machine=replace(MACHINE, driver="580.2", cuda="13.2"))
    assert KEY.differences(other) == ["backend version 10.1 -> 11.0", "cuda 13.1 -> 13.2", "driver 570.1 -> 580.2"]
    assert KEY.differences(KEY) == []


def test_a_zero_is_no_false(folder: Path) -> None:
    """Python holds 0 and False for equal; a compiler may not."""
    zero = replace(KEY, options={"tf32": 0})
    write(folder, zero)
    assert miss(folder, replace(KEY, options={"tf32": False})) == "stale: option tf32 0 -> false"


TEXT = st.text(max_size=20)
KEYS = st.builds(
    EngineKey,
    graph=TEXT,
    onnx_sha256=TEXT,
    backend=st.sampled_from(tuple(BACKENDS)),
    backend_version=TEXT,
    machine=st.builds(Machine, **{field.name: TEXT for field in fields(Machine)}),
    precision=st.sampled_from(("fp32", "fp16", "bf16")),
    policy=TEXT,
    profile=TEXT,
    shapes=st.dictionaries(TEXT, st.tuples(*[st.integers(1, 9)] * 3), max_size=2),
    options=st.dictionaries(TEXT, TEXT | st.booleans() | st.integers(0, 9), max_size=2),
)


@given(KEYS, KEYS)
def test_keys_survive_json_and_differ_where_their_digests_do(one: EngineKey, other: EngineKey) -> None:
    again = EngineKey.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again == one and again.digest == one.digest
    same = json.dumps(one.to_dict(), sort_keys=True) == json.dumps(other.to_dict(), sort_keys=True)
    assert (one.digest == other.digest) == same


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def linked(path: Path) -> None:
    aside = path.with_name("aside")
    path.rename(aside)
    path.symlink_to(aside)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (lambda f: flip(f / "linear.engine", 3), "corrupt: linear.engine was changed"),
    "cut short": (lambda f: os.truncate(f / "linear.engine", 3), "corrupt: linear.engine was changed"),
    "empty": (lambda f: os.truncate(f / "linear.engine", 0), "corrupt: linear.engine was changed"),
    "gone": (lambda f: (f / "linear.engine").unlink(), "corrupt: linear.engine is missing"),
    "other file gone": (lambda f: (f / "linear.weights").unlink(), "corrupt: linear.weights is missing"),
    "linked": (lambda f: linked(f / "linear.engine"), "corrupt: linear.engine is a link"),
    "linked to nothing": (lambda f: dangling(f / "linear.engine"), "corrupt: linear.engine is a link"),
    "a pipe": (lambda f: pipe(f / "linear.engine"), "corrupt: linear.engine is not a regular file"),
    "a folder": (lambda f: folder_at(f / "linear.engine"), "corrupt: linear.engine is not a regular file"),
    "record gone": (lambda f: (f / "linear.json").unlink(), NOT_COMPILED),
    "record linked": (lambda f: linked(f / "linear.json"), "corrupt: linear.json: linear.json is a link"),
    "record linked to nothing": (lambda f: dangling(f / "linear.json"), "corrupt: linear.json: linear.json is a link"),
    "record a pipe": (lambda f: pipe(f / "linear.json"), "corrupt: linear.json: linear.json is not a regular file"),
    "set linked": (lambda f: linked(f), "corrupt: linear.json: set is a link"),
}


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder_at(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(folder: Path, kind: str) -> None:
    write(folder, weights=b"more")
    damage, reason = DAMAGE[kind]
    damage(folder)
    assert miss(folder) == reason
    if kind not in ("set linked", "a folder"):  # those are the user's to remove
        newer = write(folder)  # a rebuild mends it
        assert read_engine(folder, KEY) == newer


def test_a_linked_set_is_not_written_through(folder: Path) -> None:
    write(folder)
    linked(folder)
    with pytest.raises(InputError, match="is a link"):
        write(folder)


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no object": lambda c: [],
    "number": lambda c: 7,
    "null": lambda c: None,
    "no schema": lambda c: {k: v for k, v in c.items() if k != "schema"},
    "no key": lambda c: {k: v for k, v in c.items() if k != "key"},
    "no build": lambda c: {k: v for k, v in c.items() if k != "build"},
    "key is text": lambda c: {**c, "key": "x"},
    "key is a list": lambda c: {**c, "key": [1]},
    "key with more": lambda c: {**c, "key": {**c["key"], "more": 1}},
    "machine is text": lambda c: {**c, "key": {**c["key"], "machine": "x"}},
    "gpu is a list": lambda c: {**c, "key": {**c["key"], "machine": {**c["key"]["machine"], "gpu": ["x"]}}},
    "long text": lambda c: {**c, "key": {**c["key"], "backend_version": "x" * 10_000}},
    "unknown back end": lambda c: {**c, "key": {**c["key"], "backend": "cuda"}},
    "back end is a list": lambda c: {**c, "key": {**c["key"], "backend": ["tensorrt"]}},
    "shapes of text": lambda c: {**c, "key": {**c["key"], "shapes": {"frames": "abc"}}},
    "shapes of one": lambda c: {**c, "key": {**c["key"], "shapes": {"frames": [1]}}},
    "an option that is none": lambda c: {**c, "key": {**c["key"], "options": {"tf32": None}}},
    "another digest": lambda c: {**c, "digest": "0" * 64},
    "key changed, digest not": lambda c: {**c, "key": {**c["key"], "backend_version": "10.0"}},
    "no files": lambda c: {**c, "files": {}},
    "files is a list": lambda c: {**c, "files": ["linear.engine"]},
    "a path": lambda c: {**c, "files": {**c["files"], "../linear.engine": c["files"]["linear.engine"]}},
    "an absolute path": lambda c: {**c, "files": {**c["files"], "/etc/passwd": c["files"]["linear.engine"]}},
    "of another network": lambda c: {**c, "files": {**c["files"], "audio.engine": c["files"]["linear.engine"]}},
    "a dot path": lambda c: {**c, "files": {**c["files"], "linear./../x": c["files"]["linear.engine"]}},
    "itself": lambda c: {**c, "files": {**c["files"], "linear.json": c["files"]["linear.engine"]}},
    "many files": lambda c: {
        **c,
        "files": {**c["files"], **{f"linear.{n}": {"sha256": "a" * 64, "bytes": 1} for n in range(99)}},
    },
    "a sha of nothing": lambda c: {**c, "files": {"linear.engine": {"sha256": "", "bytes": 8}}},
    "bytes below 0": lambda c: {**c, "files": {"linear.engine": {"sha256": "a" * 64, "bytes": -1}}},
    "bytes of text": lambda c: {**c, "files": {"linear.engine": {"sha256": "a" * 64, "bytes": "8"}}},
    "bytes without end": lambda c: {**c, "files": {"linear.engine": {"sha256": "a" * 64, "bytes": 1e400}}},
    "a file with more": lambda c: {**c, "files": {"linear.engine": {**c["files"]["linear.engine"], "x": 1}}},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_records_are_named(folder: Path, kind: str) -> None:
    write(folder)
    record = folder / "linear.json"
    record.write_text(json.dumps(HOSTILE[kind](json.loads(record.read_text()))))
    assert miss(folder).startswith("corrupt: linear.json: ")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b" " * (2 << 20), b"{}", b'{"schema": NaN}']
)
def test_records_that_are_no_json(folder: Path, content: bytes) -> None:
    write(folder)
    (folder / "linear.json").write_bytes(content)
    assert miss(folder).startswith(("corrupt: linear.json: ", "stale: schema nan -> "))


def test_another_schema_is_stale(folder: Path) -> None:
    write(folder)
    record = folder / "linear.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "schema": 99}))
    assert miss(folder) == "stale: schema 99 -> 1"


@given(data=st.data())
def test_no_byte_of_an_engine_changes_unseen(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("bytes") / "set"
    engine = write(folder, engine=data.draw(st.binary(min_size=1, max_size=50)))
    flip(engine.file, data.draw(st.integers(0, engine.bytes - 1)))
    assert miss(folder) == "corrupt: linear.engine was changed"


def test_the_content_may_be_looked_at_later(folder: Path) -> None:
    write(folder)
    flip(folder / "linear.engine", 0)
    assert read_engine(folder, KEY, hashes=False).key == KEY
    os.truncate(folder / "linear.engine", 2)
    with pytest.raises(EngineMiss, match=r"corrupt: linear\.engine was changed"):
        read_engine(folder, KEY, hashes=False)


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, after: int) -> None:
    """os.replace fails from its call `after` on."""
    real, calls = os.replace, iter(range(99))

    def broken(source: Path, target: Path) -> None:
        if next(calls) >= after:
            raise error
        real(source, target)

    monkeypatch.setattr("engine.inference.engines.os.replace", broken)


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("older", [False, True])
def test_an_interrupt_leaves_no_half_of_an_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch, after: int, older: bool
) -> None:
    other = write(folder, replace(KEY, graph="finished"))
    if older:
        write(folder, replace(KEY, backend_version="9"), weights=b"old")
    with monkeypatch.context() as patch:
        failing(patch, KeyboardInterrupt(), after)
        with pytest.raises(KeyboardInterrupt):
            write(folder, weights=b"more")
    assert miss(folder) == NOT_COMPILED
    assert sorted(entry.name for entry in folder.iterdir()) == ["finished.engine", "finished.json"]
    assert read_engine(folder, other.key) == other
    again = write(folder)
    assert read_engine(folder, KEY) == again


def killed_at_its_second_file(folder: Path) -> None:
    """What another process does, which has time for nothing more."""
    real, calls = os.replace, iter(range(99))

    def replace_or_die(source: Path, target: Path) -> None:
        if next(calls):
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    os.replace = replace_or_die  # type: ignore[assignment]
    write(folder)


def test_a_killed_process_leaves_an_engine_or_none(folder: Path) -> None:
    """Nothing tidies up behind it; what lies there is still never taken for an engine."""
    write(folder, replace(KEY, backend_version="9"))
    process = multiprocessing.get_context("spawn").Process(target=killed_at_its_second_file, args=(folder,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (folder / "linear.engine").exists()
    assert miss(folder) == NOT_COMPILED
    left = [entry for entry in folder.iterdir() if entry.name.startswith(".")]
    assert left
    os.utime(left[0], (0, 0))
    write(folder)
    assert read_engine(folder, KEY)
    assert not [entry for entry in folder.iterdir() if entry.name.startswith(".")]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free some space or choose another folder"),
        (errno.EDQUOT, "free some space or choose another folder"),
        (errno.EROFS, "make it writable or choose another folder"),
        (errno.EACCES, "make it writable or choose another folder"),
    ],
)
def test_a_disk_that_refuses_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    older = write(folder)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("engine.inference.engines.shutil.move", refuse)
        with pytest.raises(InputError) as caught:
            write(folder, replace(KEY, backend_version="11"))
    assert str(caught.value) == f"{folder} cannot be written ({os.strerror(number)}): {words}"
    assert read_engine(folder, KEY) == older  # what failed next to it has not touched it


def test_other_failures_are_not_called_the_disk(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_engine(folder, KEY, {"linear.engine": folder / "nothing"}, {})


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("")
    (tmp_path / "made").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_engine(tmp_path / "set", KEY, {"linear.engine": tmp_path / "made"}, {})


@pytest.mark.parametrize("files", [{"linear.onnx"}, {"linear.engine", "audio.x"}, {"linear.engine", "linear.json"}])
def test_files_that_are_no_engine(folder: Path, tmp_path: Path, files: set[str]) -> None:
    made = {name: tmp_path / name for name in sorted(files)}
    for path in made.values():
        path.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"want linear\.engine|it names"):
        write_engine(folder, KEY, made, {})
    assert miss(folder) == NOT_COMPILED


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    graphs = {
        "linear": replace(LINEAR, profiles=PROFILES),
        "exact": replace(LINEAR, file="exact.onnx", profiles=PROFILES, keep_fp32=True),
    }
    return write_fake_bundle(tmp_path / "bundle", {"linear.onnx": b"network", "exact.onnx": b"other"}, graphs)


def test_keys_of_a_bundle(bundle: Bundle) -> None:
    key = current_key(bundle, "linear", Target("onnxruntime", "fp32", "live"))
    assert key == current_key(Bundle.open(bundle.folder), "linear", Target("onnxruntime", "fp32", "live"))
    assert key.onnx_sha256 == bundle.graph_sha256("linear")
    assert key.shapes == PROFILES["live"] and key.options == BACKENDS["onnxruntime"].build_options
    assert key.machine.cpu and key.backend_version
    wide = current_key(bundle, "linear", Target("onnxruntime", "fp32", "wide"))
    assert {line.split()[0] for line in key.differences(wide)} == {"profile", "size"}
    low = current_key(bundle, "linear", Target("openvino", "bf16", "live"))
    assert low.precision == "bf16" and low.policy != key.policy
    exact = current_key(bundle, "exact", Target("openvino", "bf16", "live"))
    assert exact.precision == engine_precision(bundle.graph("exact"), "bf16") == "fp32"
    with pytest.raises(ArtifactError, match="has no profile 'tall': it has live, wide"):
        current_key(bundle, "linear", Target("onnxruntime", "fp32", "tall"))


HERE = {"cpu": Machine(cpu="Some CPU @ 2.00GHz (avx2)"), "gpu": MACHINE}
GOLDEN = [  # digests of keys as they were before back ends were objects
    ("onnxruntime", "fp32", "cpu", "4db246c658832f9c8897b936e2b93a25f902e56c0b27c38c8d913df9aece1b9f"),
    ("openvino", "bf16", "cpu", "a8a684e48e5e7b524718204afa35e908d97280d3c30da4c8cd32b08b3aa1c94a"),
    ("tensorrt", "fp16", "gpu", "777a41250264ffeb91ab167e14af40fa1a46570204a89689d4c62d6a8a99e6fd"),
    ("tensorrt-rtx", "bf16", "gpu", "f56441bc840f31bf015580296bbd532abbf5f4705b8831ef5aae6a43e9d69aee"),
]


@pytest.mark.parametrize(("backend", "precision", "place", "digest"), GOLDEN)
def test_keys_are_what_they_were(
    bundle: Bundle, backend: str, precision: Precision, place: str, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines that are on disk stay valid."""
    replace_answers(monkeypatch, backend, machine=lambda: HERE[place], version=lambda: "1.2.3")
    assert current_key(bundle, "linear", Target(backend, precision, "live")).digest == digest


def test_places(bundle: Bundle, tmp_path: Path) -> None:
    root = engines_folder(bundle)
    assert root == bundle.folder / "engines"
    assert engines_folder(bundle, tmp_path) == tmp_path
    assert set_folder(root, Target("tensorrt", "fp16", "live"), MACHINE) == root / "tensorrt-fp16-live-nvidia-h100"
    assert set_folder(root, Target("openvino", "bf16", ""), Machine("x", "", "", "", "")) == root / "openvino-bf16"
    odd = replace(MACHINE, gpu="../../NVIDIA (R) / " + "x" * 300)
    assert set_folder(root, Target("tensorrt", "fp16", "live"), odd).parent == root
    shutil.rmtree(root, ignore_errors=True)
    root.symlink_to(tmp_path)
    with pytest.raises(ArtifactError, match="is a link"):
        engines_folder(bundle)
