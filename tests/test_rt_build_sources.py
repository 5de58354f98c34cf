"""Characters of several videos: the same one twice is refused, one that fits no other is told about."""

from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.graph import CONTINUE, CUT, RELAXED, MotionGraph
from engine.pack import Clip
from tango_rt.characters.build import _check_different, _strangers
from tango_rt.characters.source import TrackedSource
from tango_rt.characters.tracking import Track


def source(name: str, sha256: str) -> TrackedSource:
    nothing = np.zeros(0, np.float32)
    track = Track(nothing, nothing, nothing, nothing, nothing, nothing, nothing, 20.0)
    return TrackedSource(Path(name), sha256, 40, (), track, nothing, None, nothing, (), False)


def graph(kind_across: int) -> MotionGraph:
    """Two clips of 10 nodes; a cut inside each, and one cut across, of the given kind, each way."""
    edges = [(n, n + 1, CONTINUE) for n in range(19) if n != 9]
    edges += [(8, 1, CUT), (18, 11, CUT), (5, 15, kind_across), (16, 2, kind_across)]
    source_, target, kind = (np.array(column) for column in zip(*sorted(edges), strict=True))
    return MotionGraph(
        n_nodes=20,
        clip_start=np.array([0, 10, 20]),
        indptr=np.concatenate([[0], np.cumsum(np.bincount(source_, minlength=20))]),
        indices=target.astype(np.int32),
        distance=np.ones(len(edges), np.float32),
        kind=kind.astype(np.uint8),
        kept=np.ones(20, bool),
    )


CLIPS = (Clip(0, 0, 40), Clip(1, 0, 40))
SOURCES = (source("monday.mp4", "a"), source("tuesday.mp4", "b"))


def test_videos_that_only_relaxed_cuts_join_are_told_about() -> None:
    warnings = list(_strangers(graph(RELAXED), CLIPS, SOURCES))
    assert [warning.split(":")[0] for warning in warnings] == ["monday.mp4", "tuesday.mp4"]
    assert list(_strangers(graph(CUT), CLIPS, SOURCES)) == []


def test_one_video_is_no_stranger() -> None:
    assert list(_strangers(graph(RELAXED), (Clip(0, 0, 40), Clip(0, 60, 40)), SOURCES[:1])) == []


def test_the_same_video_twice_is_refused() -> None:
    _check_different(SOURCES)
    with pytest.raises(InputError, match=r"copy\.mp4 and monday\.mp4 are the same video"):
        _check_different((*SOURCES, source("copy.mp4", "a")))
