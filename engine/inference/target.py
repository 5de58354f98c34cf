"""What a network is compiled for and run with."""

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["PRECISIONS", "Precision", "Target"]

Precision = Literal["fp32", "fp16", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Target:
    """What the engines of a bundle are compiled for."""

    backend: str  # a name in engine.inference.backends.BACKENDS
    precision: Precision = "fp32"  # as requested; some networks are kept in fp32 anyway
    profile: str = ""  # of shapes; "": the bundle's first, or none if it has none

    def __str__(self) -> str:
        return " ".join(filter(None, (self.backend, self.precision, self.profile)))
