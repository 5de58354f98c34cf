"""The interface to the libraries that run networks: one object holds everything known about its library."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.inference.machine import Machine
from engine.inference.target import Precision

if TYPE_CHECKING:  # they need NumPy, which a command line's help should not import
    from engine.inference.manifest import GraphSpec
    from engine.inference.session import RunOptions, Session

__all__ = ["Backend"]


class Backend(Protocol):
    """A library that runs networks. It is imported only if a question needs it, and to open a network.

    All reasons are one line; None means that nothing prevents it.
    """

    @property
    def name(self) -> str:
        """As used in options, records and folder names."""

    @property
    def extra(self) -> str:
        """The pip extra that installs it."""

    @property
    def onnx_precisions(self) -> tuple[Precision, ...]:
        """Precisions in which it runs ONNX files directly; empty if it runs only compiled engines."""

    @property
    def build_options(self) -> Mapping[str, str | int | bool]:
        """Options of its compiler other than precision and shapes; part of the key of every engine."""

    def version(self) -> str:
        """Version of the library. Raises BackendError if it is not installed."""

    def machine(self) -> Machine:
        """This machine as the library sees it: the CPU, or the GPU if it runs on that. Never raises."""

    def why_not_runnable(self) -> str | None:
        """Why no network can be run with it here, and what to install."""

    def why_not_buildable(self) -> str | None:
        """Why no engine can be compiled with it here."""

    def why_no_precision(self, precision: Precision) -> str | None:
        """Why it does not compute in `precision` on this machine.

        Raises BackendError if the library is needed to answer and is not installed.
        """

    def open(self, file: Path, spec: "GraphSpec", options: "RunOptions") -> "Session":
        """Open one network from its file.

        Raises BackendError if the library is not installed or does not support the options, ArtifactError if the file
        is damaged or made for another machine.
        """
