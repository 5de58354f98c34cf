"""Shot changes: those that the eye sees in real clips, and made ones whose place is known."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tango_rt.characters.shots import ShotDetector, find_shot_changes
from tango_rt.video.reader import VideoReader
from tests.helpers.scenes import Scene

# First frames of new shots at 30 fps, found by looking at the frames and their differences around every candidate.
# 303, 418, 473 and 1155 are jumps of a few pixels of the whole person; 480 and 640 are only the codec's key frames.
# fmt: off
PLAID_CUTS = [
    74, 150, 258, 303, 323, 358, 418, 473, 493, 542, 577, 617, 651, 698, 727, 752, 806, 945, 992, 1010, 1042, 1065,
    1099, 1121, 1143, 1155, 1190, 1211, 1290, 1321, 1350,
]
# fmt: on
REAL_CUTS = {
    "man_plaid_shirt_captions_46s": PLAID_CUTS,
    "man_white_tshirt_seated_20s": [271],
    "woman_striped_top_kitchen_22s": [334],
    "woman_grey_coat_seated_10s": [],
    "man_navy_shirt_stool_15s": [],
    "woman_black_blouse_seated_10s": [],
}


@pytest.mark.parametrize("clip", REAL_CUTS)
def test_finds_every_cut_that_the_eye_sees(data_dir: Path, clip: str) -> None:
    found = _changes_of(data_dir / "video" / f"{clip}.mp4")
    missed = [cut for cut in REAL_CUTS[clip] if not any(abs(cut - frame) <= 1 for frame in found)]
    false = [frame for frame in found if not any(abs(cut - frame) <= 1 for cut in REAL_CUTS[clip])]
    assert (missed, false) == ([], [])


@pytest.mark.slow
def test_a_minute_with_gestures_and_a_pan_has_no_cut(data_dir: Path) -> None:
    assert _changes_of(data_dir / "video" / "man_dark_suit_standing_61s.mp4") == []


def _changes_of(path: Path) -> list[int]:
    with VideoReader(path, max_height=288) as reader:
        return find_shot_changes(reader)


def test_a_jump_of_the_same_scene_is_found() -> None:
    scene = Scene(0)
    frames = [*scene.frames(30), *scene.frames(30, start=50), *scene.frames(40, start=140)]
    assert find_shot_changes(frames) == [30, 60]


def test_two_scenes_with_a_shot_of_three_frames_between() -> None:
    one, two, three = Scene(0), Scene(1), Scene(3)
    assert find_shot_changes([*one.frames(30), *two.frames(3), *three.frames(30)]) == [30, 33]


def test_a_cut_over_a_blended_frame_is_one_cut() -> None:
    one, two = list(Scene(0).frames(30)), list(Scene(1).frames(30))
    middle = (one[-1].astype(int) + two[0]) // 2
    changes = find_shot_changes([*one, middle.astype(np.uint8), *two])
    assert len(changes) == 1 and changes[0] in (30, 31)


def test_captions_word_by_word_are_no_cuts() -> None:
    frames = list(Scene(2).frames(90))
    for n, frame in enumerate(frames):
        word = ("SO", "THIS", "REALLY", "MATTERS")[n // 9 % 4]
        cv2.putText(frame, word, (60, 130), cv2.FONT_HERSHEY_DUPLEX, 1.3, (255, 240, 60), 3)
    assert find_shot_changes(frames) == []


def test_gestures_pans_captions_flashes_and_repeated_frames_are_no_cuts() -> None:
    scene = Scene(2)
    assert find_shot_changes(list(scene.frames(120))) == []
    assert find_shot_changes(list(scene.frames(60, pan_px=4))) == []
    captioned = list(scene.frames(60))
    for frame in captioned[25:45]:
        cv2.putText(frame, "a caption of some length", (40, 165), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
    assert find_shot_changes(captioned) == []
    flashed = list(scene.frames(60))
    for at, brightness in ((30, 120), (31, 70), (32, 30)):
        flashed[at] = np.clip(flashed[at].astype(int) + brightness, 0, 255).astype(np.uint8)
    assert find_shot_changes(flashed) == []
    assert find_shot_changes([frame for n, frame in enumerate(scene.frames(60)) for _ in range(1 + (n % 5 == 0))]) == []


@pytest.mark.parametrize("n_blended", [8, 15, 20])
def test_a_dissolve_between_scenes_is_a_shot_of_its_own(n_blended: int) -> None:
    one, two = list(Scene(0).frames(30 + n_blended)), list(Scene(1).frames(30 + n_blended))
    weights = np.clip((np.arange(60 + n_blended) - 29) / (n_blended + 1), 0, 1)
    one, two = one + [one[-1]] * 30, [two[0]] * 30 + two
    frames = [(a * (1 - weight) + b * weight).astype(np.uint8) for a, b, weight in zip(one, two, weights, strict=True)]
    start, stop = find_shot_changes(frames)
    assert 22 <= start <= 31 and 29 + n_blended <= stop <= 38 + n_blended


def test_the_answer_does_not_depend_on_when_it_is_asked_for() -> None:
    frames = [*Scene(0).frames(20), *Scene(1).frames(20)]
    detector = ShotDetector()
    for n, frame in enumerate(frames):
        detector.push(frame)
        assert all(change <= n for change in detector.changes())
    assert detector.changes() == find_shot_changes(frames) == [20]


@pytest.mark.parametrize("n_frames", [0, 1, 2, 5])
def test_very_short_videos_have_no_changes(n_frames: int) -> None:
    assert find_shot_changes(Scene(0).frames(n_frames)) == []
