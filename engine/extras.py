"""Libraries that come with a pip extra, and the error to raise if one is missing."""

from engine.errors import BackendError

__all__ = ["install_line", "not_installed"]


def install_line(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'tango-rt[{extra}]'"


def not_installed(library: str, extra: str) -> BackendError:
    """The error to raise if a library of an extra is missing."""
    return BackendError(f"{library} is not installed: {install_line(extra)}")
