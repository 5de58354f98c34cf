"""Libraries that come with an extra of pip, and what to say where one is missing."""

from engine.errors import BackendError

__all__ = ["install_line", "not_installed"]


def install_line(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'tango-rt[{extra}]'"


def not_installed(library: str, extra: str) -> BackendError:
    """What to raise where a library is missing that an extra brings."""
    return BackendError(f"{library} is not installed: {install_line(extra)}")
