"""tango-rt: a person on video, gesturing to any speech.

    import tango_rt

    character = tango_rt.build("talk.mp4", "anna.tango")
    result = character.render("speech.wav", "out.mp4")

docs/python.md has more. Names are imported on first use, so importing tango_rt itself is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.errors import ArtifactError, BackendError, InputError, TangoError
    from tango_rt.api import Character, Frame, RenderResult, Stream, build
    from tango_rt.progress import Progress

__all__ = [
    "ArtifactError",
    "BackendError",
    "Character",
    "Frame",
    "InputError",
    "Progress",
    "RenderResult",
    "Stream",
    "TangoError",
    "__version__",
    "build",
]

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("Character", "Frame", "RenderResult", "Stream", "build"), "tango_rt.api"),
    **dict.fromkeys(("ArtifactError", "BackendError", "InputError", "TangoError"), "engine.errors"),
    "Progress": "tango_rt.progress",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in ("engine", "tango_rt"):
            raise AttributeError(f"tango_rt.{name} needs all of tango-rt, and only the client is installed") from error
        raise


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
