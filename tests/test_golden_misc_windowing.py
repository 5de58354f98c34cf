"""Windows of the research release's demo, as recorded."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.features.released_windows import audio_rows, audio_segments, motion_segments

GOLDEN = Path(os.environ.get("TANGO_GOLDEN_DIR", Path(__file__).parents[2] / "shared" / "golden"))
FILES = sorted((GOLDEN / "misc").glob("windowing*.json"))
pytestmark = pytest.mark.skipif(not FILES, reason=f"no golden windows in {GOLDEN}")


def _cases() -> Iterator[Any]:
    for file in FILES:
        for number, case in enumerate(json.loads(file.read_text())):
            yield pytest.param(case, id=f"{file.stem}-{number}-{case['num_samples']}")


@pytest.mark.parametrize("case", list(_cases()))
def test_windows(case: dict[str, Any]) -> None:
    for n_frames, segments, starts in zip(
        case["clip_lengths"], case["motion_segments"], case["motion_high_window_starts"], strict=True
    ):
        found = motion_segments(n_frames)
        assert [list(segment) for segment in found] == segments
        assert [segment.start for segment in found] == starts
    found = audio_segments(case["num_samples"])
    assert [list(segment) for segment in found] == case["audio_segments"]
    assert [segment.start for segment in found] == case["audio_high_window_starts"]
    assert sum(segment.end_row - segment.first_row for segment in found) == case["num_audio_frames"]


def test_lengths_that_the_release_gets_wrong() -> None:
    def rows(n_samples: int) -> int:
        return sum(segment.end_row - segment.first_row for segment in audio_segments(n_samples))

    assert rows(136_534) == 368
    assert rows(15 * 16_000) == 512
    assert audio_rows(68_266) == 128
    assert audio_rows(0) == audio_rows(399) == 0
