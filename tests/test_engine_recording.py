"""Recordings: parts that do not belong together are refused in one line."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from engine.errors import InputError
from engine.features.recording import Recording
from engine.timebase import frame_start
from tests.helpers.fakes_recording import at_ease, recording_of


def put(name: str, value: float) -> Callable[[Recording], Recording]:
    def change(recording: Recording) -> Recording:
        array = getattr(recording, name).copy()
        array.flat[7] = value
        return replace(recording, **{name: array})

    return change


ODD: dict[str, tuple[str, Callable[[Recording], Recording]]] = {
    "joints of a frame less": ("confidence has shape", lambda r: replace(r, joints=r.joints[:-1])),
    "other joints": ("joints has shape", lambda r: replace(r, joints=r.joints[:, :55])),
    "flat joints": ("joints has shape", lambda r: replace(r, joints=r.joints[..., :2])),
    "joints not finite": ("joints holds NaN", put("joints", np.nan)),
    "confidence not finite": ("confidence holds NaN", put("confidence", np.inf)),
    "mouth not finite": ("mouth holds NaN", put("mouth", np.nan)),
    "mouth of one number": (
        "mouth has shape",
        lambda r: replace(r, mouth=np.zeros((40, 1))),
    ),
    "motion of a frame less": ("motion has 39", lambda r: replace(r, motion=np.zeros((39, 55, 15), np.float32))),
    "clips that leave out the end": ("clip_start", lambda r: replace(r, clip_start=np.array([0, 4, 9]))),
    "clips that leave out the start": ("clip_start", lambda r: replace(r, clip_start=np.array([1, 10]))),
    "an empty clip": ("clip_start", lambda r: replace(r, clip_start=np.array([0, 4, 4, 10]))),
    "no clip": ("clip_start", lambda r: replace(r, clip_start=np.array([10]))),
    "a sample less": ("samples of audio", lambda r: replace(r, samples=r.samples[:-1])),
}


@pytest.fixture
def whole() -> Recording:
    return recording_of(at_ease(40), (4, 6), mouth=np.zeros((40, 2), np.float32))


def test_what_belongs_together_is_taken(whole: Recording) -> None:
    assert whole.n_frames == 40 and whole.duration_s == pytest.approx(4 / 3)
    assert whole.clips == [slice(0, 16), slice(16, 40)]
    longer = replace(whole, samples=np.zeros(frame_start(40) + 99, np.float32), motion=np.zeros((40, 55, 15)))
    assert longer.clips == whole.clips


@pytest.mark.parametrize("kind", ODD)
def test_what_does_not_is_refused(whole: Recording, kind: str) -> None:
    wanted, change = ODD[kind]
    with pytest.raises(InputError, match=f"somebody: .*{wanted}") as refused:
        change(whole)
    assert "\n" not in str(refused.value)
