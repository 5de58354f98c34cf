"""A blender that kills the process that draws with it."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from engine.blending.blender import Take, open_blender


@dataclass(frozen=True)
class Deadly:
    """Kills as many processes as its file says, then draws a flow."""

    n_deaths: Path
    name: str = "deadly"
    version: int = 1
    samples: Literal["sync", "gap"] = "sync"
    pixels: Literal["planes", "rgb"] = "planes"

    @property
    def settings(self) -> str:
        return str(self.n_deaths)

    def draw(self, before: Take, after: Take) -> Iterator[np.ndarray]:
        left = int(self.n_deaths.read_text())
        if left:
            self.n_deaths.write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        yield from open_blender("flow").draw(before, after)
