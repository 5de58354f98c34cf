"""Characters of several videos: the same one twice is refused."""

from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from tango_rt.characters.build import _check_different
from tango_rt.characters.source import TrackedSource
from tango_rt.characters.tracking import Track


def source(name: str, sha256: str) -> TrackedSource:
    nothing = np.zeros(0, np.float32)
    track = Track(nothing, nothing, nothing, nothing, nothing, nothing, nothing, 20.0)
    return TrackedSource(Path(name), sha256, 40, (), track, nothing, nothing, None, nothing, (), False)


SOURCES = (source("monday.mp4", "a"), source("tuesday.mp4", "b"))


def test_the_same_video_twice_is_refused() -> None:
    _check_different(SOURCES)
    with pytest.raises(InputError, match=r"copy\.mp4 and monday\.mp4 are the same video"):
        _check_different((*SOURCES, source("copy.mp4", "a")))
