"""The errors of the application, which are those of the engine."""

from engine.errors import ArtifactError, BackendError, InputError, TangoError

__all__ = ["ArtifactError", "BackendError", "InputError", "TangoError"]
