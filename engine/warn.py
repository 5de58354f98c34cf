"""Warnings that are given once, however often their cause comes up."""

import functools
import logging

__all__ = ["warn_once"]


@functools.cache
def warn_once(log: logging.Logger, text: str) -> None:
    """Log a warning, the first time that this process has it to give."""
    log.warning(text)
