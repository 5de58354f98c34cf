"""The errors of the application: those of the engine."""

from engine.errors import ArtifactError, BackendError, InputError, TangoError

__all__ = ["ArtifactError", "BackendError", "InputError", "TangoError"]
