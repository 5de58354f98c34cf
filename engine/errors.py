"""Every error that a caller can act on.

TangoError
 +-- InputError      the caller's media, text or options are wrong: say what was found and what is wanted (exit code 2)
 +-- ArtifactError   a pack, bundle or manifest is damaged, foreign or of another version: rebuild it (exit code 2)
 +-- BackendError    a package, library or device is missing on this machine (exit code 1)
"""

__all__ = ["ArtifactError", "BackendError", "InputError", "TangoError"]


class TangoError(Exception):
    """Base of all errors of this project; the message is one line for the user."""


class InputError(TangoError):
    """The caller's input cannot be used."""


class ArtifactError(TangoError):
    """A file made by this project cannot be used in its present state."""


class BackendError(TangoError):
    """The machine lacks something: a package, a library, a device."""
