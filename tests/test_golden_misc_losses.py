"""Contrastive losses against what the research release computed."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from export.losses import global_loss, local_loss  # noqa: E402

GOLDEN = Path(os.environ.get("TANGO_GOLDEN_DIR", Path(__file__).parents[2] / "shared" / "golden"))
FILES = sorted((GOLDEN / "misc").glob("losses*.npz"))
pytestmark = pytest.mark.skipif(not FILES, reason=f"no golden losses in {GOLDEN}")


def _cases() -> Iterator[tuple[Path, str]]:
    for file in FILES:
        with np.load(file) as data:
            for key in sorted({name.split("/")[0] for name in data.files}):
                yield file, key


CASES = list(_cases())
IDS = [f"{file.stem}-{key}" for file, key in CASES]


def _load(file: Path, case: str) -> dict[str, np.ndarray]:
    with np.load(file) as data:
        return {name.split("/")[1]: data[name] for name in data.files if name.startswith(case + "/")}


@pytest.mark.parametrize(("file", "case"), CASES, ids=IDS)
def test_local_loss_accuracy_and_gradients(file: Path, case: str) -> None:
    golden = _load(file, case)
    first = torch.from_numpy(golden["first"].astype(np.float32)).requires_grad_()
    second = torch.from_numpy(golden["second"].astype(np.float32)).requires_grad_()
    loss, accuracy = local_loss(first, second)
    loss.backward()
    assert loss.item() == pytest.approx(float(golden["local_loss"]), rel=1e-5, abs=1e-7)
    assert accuracy.item() == pytest.approx(float(golden["local_acc"]), abs=1e-6)
    assert first.grad.norm().item() == pytest.approx(float(golden["grad_first_norm"]), rel=1e-4)
    assert second.grad.norm().item() == pytest.approx(float(golden["grad_second_norm"]), rel=1e-4)
    swapped, _ = local_loss(second, first)
    assert swapped.item() == pytest.approx(float(golden["local_loss_swapped"]), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("file", "case"), CASES, ids=IDS)
def test_global_loss_and_accuracy(file: Path, case: str) -> None:
    golden = _load(file, case)
    audio, motion = (torch.from_numpy(golden[name].astype(np.float32)) for name in ("g1", "g2"))
    loss, accuracy = global_loss(audio, motion)
    assert loss.item() == pytest.approx(float(golden["infonce"]), rel=1e-5)
    assert accuracy.item() == pytest.approx(float(golden["top1"]), abs=1e-6)
