"""What this machine can do, asked as the product asks it: tests that need more skip with its answer."""

import pytest

from engine.inference.machine import can_build, missing_precision
from engine.inference.target import Backend, Precision

__all__ = ["cannot_build", "need"]


def cannot_build(backend: Backend, precision: Precision) -> str | None:
    """None where networks can be compiled in a precision here; else why not."""
    return can_build(backend) or missing_precision(backend, precision)


def need(backend: Backend, precision: Precision = "fp32") -> None:
    """Skip the test where a back end is not installed or does not compute in a precision."""
    if (reason := cannot_build(backend, precision)) is not None:
        pytest.skip(reason)
