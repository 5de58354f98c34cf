"""Runs TensorFlow Lite networks on LiteRT: float32 arrays in, float32 arrays out, one thread."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from engine.errors import BackendError

__all__ = ["Network", "open_network"]

Network = Callable[[np.ndarray], list[np.ndarray]]
"""Input float32 (1, size, size, 3) -> outputs, float32, valid until the next call."""


def open_network(file: Path) -> Network:
    """Open a network with one input. Raises BackendError if LiteRT is missing or cannot load the file."""
    try:
        # on first use: it takes a third of a second, paid only when people are tracked
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise BackendError(f"LiteRT is missing or broken ({error}): pip install ai-edge-litert") from error
    try:
        with _quiet():
            interpreter = Interpreter(str(file), num_threads=1)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise BackendError(f"{file}: LiteRT cannot open the network ({error})") from error
    place = interpreter.get_input_details()[0]["index"]
    outputs = [output["index"] for output in interpreter.get_output_details()]

    def run(picture: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(place, picture)
        interpreter.invoke()
        return [interpreter.get_tensor(output) for output in outputs]

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps LiteRT's messages about its delegate off stderr; C++ writes them, bypassing sys.stderr."""
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
