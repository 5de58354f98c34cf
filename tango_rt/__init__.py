"""tango-rt: a person on video, gesturing to any speech."""

__version__ = "0.1.0"
