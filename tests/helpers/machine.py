"""What this machine can do, asked as the product asks it: tests that need more skip with its answer."""

from typing import Any

import pytest

from engine.inference.backends import BACKENDS, Backend
from engine.inference.target import Precision

__all__ = ["cannot_build", "need", "replace_answers"]


def cannot_build(backend: str, precision: Precision) -> str | None:
    """None where networks can be compiled in a precision here; else why not."""
    return BACKENDS[backend].why_not_buildable() or BACKENDS[backend].why_no_precision(precision)


def need(backend: str, precision: Precision = "fp32") -> None:
    """Skip the test where a back end is not installed or does not compute in a precision."""
    if (reason := cannot_build(backend, precision)) is not None:
        pytest.skip(reason)


def replace_answers(patch: pytest.MonkeyPatch, backend: str, **answers: Any) -> None:
    """Put a back end into the table that is the one that was there but for some attributes or methods.

    As in replace_answers(monkeypatch, "openvino", version=lambda: "9.9").
    """
    patch.setitem(BACKENDS, backend, _Altered(BACKENDS[backend], answers))  # type: ignore[arg-type]


class _Altered:
    def __init__(self, backend: Backend, answers: dict[str, Any]) -> None:
        self._backend = backend
        self.__dict__.update(answers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)
