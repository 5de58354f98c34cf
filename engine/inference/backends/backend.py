"""The seam to the libraries that run networks: one object each says all that is known of its library."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.inference.machine import Machine
from engine.inference.target import Precision

if TYPE_CHECKING:  # they need NumPy, which a command line's help does without
    from engine.inference.manifest import GraphSpec
    from engine.inference.session import RunOptions, Session

__all__ = ["Backend"]


class Backend(Protocol):
    """A library that runs networks. It is imported only to answer what it alone knows, and to open a network.

    All reasons are one line; None where there is nothing in the way.
    """

    @property
    def name(self) -> str:
        """In options, records and names of folders."""

    @property
    def extra(self) -> str:
        """The extra of pip that installs it."""

    @property
    def onnx_precisions(self) -> tuple[Precision, ...]:
        """In which it runs ONNX files as they are; none where it runs only what was compiled."""

    @property
    def build_options(self) -> Mapping[str, str | int | bool]:
        """What its compiler is told apart from precision and shapes; part of the key of every engine."""

    def version(self) -> str:
        """Of the library. Raises BackendError where it is not installed."""

    def machine(self) -> Machine:
        """This machine as the library sees it: the CPU, or the GPU where it runs on that. Never raises."""

    def why_not_runnable(self) -> str | None:
        """Why no network can be run with it here, with what to install."""

    def why_not_buildable(self) -> str | None:
        """Why no engine can be compiled with it here."""

    def why_no_precision(self, precision: Precision) -> str | None:
        """Why it does not compute in `precision` on this machine.

        Raises BackendError where the library has to be asked and is not installed.
        """

    def open(self, file: Path, spec: "GraphSpec", options: "RunOptions") -> "Session":
        """Open one network from its file.

        Raises BackendError where the library is not installed or cannot do what is asked, ArtifactError where the file
        is damaged or made for another machine.
        """
