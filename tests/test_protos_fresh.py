"""The committed code of the protocol is what its definition gives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")


def _code(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text("utf-8") for pattern in GENERATED for file in folder.glob(pattern)}


def test_generated_code_is_committed(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    subprocess.run(
        ["bash", str(ROOT / "protos" / "generate.sh"), str(tmp_path)],
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
    )
    fresh, committed = _code(tmp_path / "tango_rt" / "v1"), _code(ROOT / "tango_rt" / "v1")
    assert len(fresh) == 9
    stale = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    assert not stale, "run protos/generate.sh"


def test_every_definition_is_generated() -> None:
    defined = {file.stem for file in (ROOT / "protos" / "tango_rt" / "v1").glob("*.proto")}
    assert defined == {
        name.removesuffix("_pb2.py") for name in _code(ROOT / "tango_rt" / "v1") if name.endswith("_pb2.py")
    }
