"""The precision policy as a part of the key of an engine: what changes it, and what must not."""

import subprocess
import sys
from dataclasses import replace

import pytest

from engine.inference import precision
from engine.inference.precision import FLOWING_OPS, LOW_OPS, TYPE_BLIND_OPS, describe, policy_digest
from tests.helpers.fakes_session import LINEAR

KEPT = replace(LINEAR, keep_fp32=True)


def test_every_operator_has_one_place() -> None:
    lists = [*LOW_OPS, *FLOWING_OPS, *TYPE_BLIND_OPS]
    assert len(set(lists)) == len(lists)
    assert list(FLOWING_OPS) == sorted(FLOWING_OPS) and list(LOW_OPS) == sorted(LOW_OPS)


NORMALISATIONS = ("Batch", "Group", "Instance", "Layer", "Lp", "RMS")
KEPT_OPS = """CumSum Cos Exp GlobalAveragePool Log LogSoftmax Pow Range Reciprocal ReduceL2 ReduceMean ReduceSum Sin
Softmax Softplus Sqrt"""


def test_what_needs_float32_is_in_no_list() -> None:
    kept = {*KEPT_OPS.split(), *(f"{name}Normalization" for name in NORMALISATIONS)}
    assert not kept & {*LOW_OPS, *FLOWING_OPS, *TYPE_BLIND_OPS}


def test_float32_is_not_a_matter_of_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    before = policy_digest(LINEAR, "fp32")
    kept = policy_digest(KEPT, "fp16")
    monkeypatch.setattr(precision, "POLICY_VERSION", 10)
    assert policy_digest(LINEAR, "fp32") == before == kept == policy_digest(KEPT, "bf16")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POLICY_VERSION", 10),
        ("LOW_OPS", ("MatMul",)),
        ("FLOWING_OPS", ("Add",)),
        ("SINUSOIDS", ("Sin",)),
        ("MAX_CONSTANT", {"fp16": 1.0}),
        ("MIN_SCALAR", {"fp16": 1.0}),
        ("_RULES", ()),
    ],
)
def test_a_change_of_the_policy_changes_its_digest(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    before = policy_digest(LINEAR, "fp16")
    assert before == policy_digest(LINEAR, "fp16") != policy_digest(LINEAR, "bf16")
    monkeypatch.setattr(precision, name, value)
    assert policy_digest(LINEAR, "fp16") != before


def test_description() -> None:
    assert describe(LINEAR, "fp32") == "float32 throughout"
    assert "MatMul in bf16" in describe(LINEAR, "bf16") and "all other operators in float32" in describe(LINEAR, "bf16")
    assert describe(KEPT, "fp16") == "float32 throughout: this network is never computed in fp16"


def test_keys_are_made_without_heavy_libraries() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "openvino"}
    code = f"import sys, engine.inference.precision; print(*{heavy!r} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
