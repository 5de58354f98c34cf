"""Tracking a person: the cleaning of raw poses, the choice of the subject, and the real estimator in its processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import BackendError, InputError
from engine.skeleton import LEFT_HAND, LEFT_SHOULDER, LEFT_WRIST, RIGHT_HAND, RIGHT_SHOULDER, RIGHT_WRIST
from tango_rt.characters.pose import PoseEstimator, RawPose, estimate_poses
from tango_rt.characters.subject import SAMPLE_FRAMES, Face, choose_subject, find_subject
from tango_rt.characters.tracking import Track, build_track
from tango_rt.models.folder import ensure_models
from tango_rt.video.reader import VideoReader

SIZE = (400, 640)
SHOULDER_PX = 100
NO_BODY = np.full((33, 4), np.nan, np.float32)
NO_HAND = np.full((21, 3), np.nan, np.float32)


def raw_pose(t: float) -> RawPose:
    """A person who waves; every hand 30 px long, hanging at its wrist."""
    body = np.zeros((33, 4), np.float32)
    body[:, :2] = 320, 100
    body[LEFT_SHOULDER, :2], body[RIGHT_SHOULDER, :2] = (370, 150), (270, 150)
    body[LEFT_WRIST, :3] = 420 + 40 * np.sin(t / 9), 250, -20
    body[RIGHT_WRIST, :3] = 220 + 40 * np.sin(t / 9), 250, -20
    body[:, 3] = 0.9
    hand = np.stack([np.linspace(0, 8, 21), np.linspace(0, 30, 21), np.linspace(0, 4, 21)], axis=1)
    left, right = (np.float32(hand) + body[wrist, :3] * [1, 1, 0] for wrist in (LEFT_WRIST, RIGHT_WRIST))
    return RawPose(body, left.astype(np.float32), right.astype(np.float32), np.full(48, 7, np.uint64))


def track_of(n_frames: int, change: Callable[[int, RawPose], RawPose], shots: list[int] | None = None) -> Track:
    return build_track([change(t, raw_pose(t)) for t in range(n_frames)], shots or [], SIZE)


def unchanged(_: int, pose: RawPose) -> RawPose:
    return pose


def test_clean_poses_stay_where_they_are() -> None:
    track = track_of(60, unchanged)
    assert track.shoulder_px == SHOULDER_PX
    assert track.coverage == {"body": 1.0, "left_hand": 1.0, "right_hand": 1.0}
    pose = raw_pose(30)
    np.testing.assert_allclose(track.joints[30, :33, :2], pose.body[:, :2], atol=0.3)
    np.testing.assert_allclose(track.joints[30, LEFT_HAND, :2], pose.left_hand[:, :2], atol=0.3)
    # z: halved; a hand's own starts at its wrist
    np.testing.assert_allclose(track.joints[30, LEFT_WRIST, 2], -10, atol=1e-4)
    np.testing.assert_allclose(track.joints[30, LEFT_HAND, 2], (np.linspace(0, 4, 21) - 20) / 2, atol=1e-3)
    assert (track.confidence > 0).all()


def test_the_mouth_is_tracked_beside_the_joints() -> None:
    def open_wide(t: int, pose: RawPose) -> RawPose:
        seen = not 20 <= t < 26 and t != 40  # a shot whose only face is lost for a while
        mouth = np.float32([0.1 + t / 100, 0.5]) if seen else np.full(2, np.nan, np.float32)
        return replace(pose, mouth=mouth)

    track = track_of(60, open_wide, shots=[40])
    assert track.mouth.shape == (60, 2) and track.mouth.dtype == np.float32
    np.testing.assert_allclose(track.mouth[:40, 0], 0.1 + np.arange(40) / 100, atol=0.01)
    assert track.mouth[40, 0] == pytest.approx(0.51, abs=0.01)
    np.testing.assert_allclose(track.mouth[:, 1], 0.5, atol=1e-3)
    assert not track_of(60, unchanged).mouth.any(), "no face was ever found"


def test_a_short_gap_is_bridged_and_marked() -> None:
    def lose(t: int, pose: RawPose) -> RawPose:
        return RawPose(NO_BODY, NO_HAND, NO_HAND, np.zeros(48, np.uint64)) if 20 <= t < 26 else pose

    track = track_of(60, lose)
    assert not track.valid[20:26].any() and track.valid.sum() == 54
    assert not track.confidence[20:26].any() and not track.hand_boxes[20:26].any()
    np.testing.assert_allclose(track.joints[23, LEFT_WRIST, :2], raw_pose(23).body[LEFT_WRIST, :2], atol=3)
    assert (track.surface[20:26, :48] == 7).all()


def test_a_hand_lost_for_long_rides_on_its_wrist() -> None:
    def lose(t: int, pose: RawPose) -> RawPose:
        return RawPose(pose.body, NO_HAND, pose.right_hand, pose.person_mask) if 20 <= t < 80 else pose

    track = track_of(100, lose)
    assert track.hands_found[:, 0].sum() == 40 and track.hands_found[:, 1].all()
    offsets = track.joints[20:80, LEFT_HAND] - track.joints[20:80, [LEFT_WRIST]]
    np.testing.assert_allclose(offsets, np.broadcast_to(offsets[:1], offsets.shape), atol=1e-3)
    assert not track.confidence[20:80, LEFT_HAND].any()


def test_a_hand_never_found_mirrors_the_other() -> None:
    track = track_of(30, lambda t, pose: RawPose(pose.body, NO_HAND, pose.right_hand, pose.person_mask))
    left = track.joints[10, LEFT_HAND] - track.joints[10, LEFT_WRIST]
    right = track.joints[10, RIGHT_HAND] - track.joints[10, RIGHT_WRIST]
    np.testing.assert_allclose(left[:, :2], right[:, :2] * [-1, 1], atol=0.5)
    without = track_of(30, lambda t, pose: RawPose(pose.body, NO_HAND, NO_HAND, pose.person_mask))
    assert np.isfinite(without.joints).all() and not without.hands_found.any()


def test_wrong_hands_are_thrown_out() -> None:
    def confuse(t: int, pose: RawPose) -> RawPose:
        if t == 15:  # on the other arm
            return RawPose(pose.body, pose.right_hand, pose.right_hand, pose.person_mask)
        if t == 35:  # out of place for one frame
            return RawPose(pose.body, pose.left_hand, pose.right_hand + np.float32([45, 0, 0]), pose.person_mask)
        return pose

    track = track_of(60, confuse)
    assert np.flatnonzero(~track.hands_found[:, 0]).tolist() == [15]
    assert np.flatnonzero(~track.hands_found[:, 1]).tolist() == [35]
    np.testing.assert_allclose(track.joints[35, RIGHT_HAND, :2], raw_pose(35).right_hand[:, :2], atol=2)


def test_a_joint_that_flies_off_for_a_frame_is_brought_back() -> None:
    def fling(t: int, pose: RawPose) -> RawPose:
        body = pose.body.copy()
        body[LEFT_WRIST, :2] += 80 if t == 25 else 0
        return RawPose(body, pose.left_hand, pose.right_hand, pose.person_mask)

    track = track_of(50, fling)
    np.testing.assert_allclose(track.joints[25, LEFT_WRIST, :2], raw_pose(25).body[LEFT_WRIST, :2], atol=1)
    assert track.confidence[25, LEFT_WRIST] == 0 and track.hands_found[25, 0]


def test_nothing_is_smoothed_over_a_shot_change() -> None:
    def jump(t: int, pose: RawPose) -> RawPose:
        body = pose.body.copy()
        body[:, 0] += 90 if t >= 30 else 0
        return RawPose(body, NO_HAND, NO_HAND, pose.person_mask)

    track = track_of(60, jump, shots=[30])
    steps = np.diff(track.joints[:, LEFT_SHOULDER, 0])
    assert steps[29] == pytest.approx(90, abs=0.1)
    assert np.abs(np.delete(steps, 29)).max() < 0.1


@pytest.mark.parametrize("n_frames", [1, 2, 3, 6])
def test_shots_of_few_frames(n_frames: int) -> None:
    track = track_of(n_frames, unchanged, shots=list(range(1, n_frames)))
    assert np.isfinite(track.joints).all() and track.surface.shape == (n_frames, 96)


def test_too_few_good_frames_are_refused_with_the_numbers() -> None:
    poses = [raw_pose(t) if t < 3 else RawPose(NO_BODY, NO_HAND, NO_HAND, np.zeros(48, np.uint64)) for t in range(300)]
    with pytest.raises(InputError, match=r"talk\.mp4: 3 of 300 frames \(1%\), at least 50% are needed"):
        build_track(poses, [], SIZE, "talk.mp4")


def test_hand_boxes_cover_hands_in_picture_and_grid() -> None:
    track = track_of(40, unchanged)
    x0, y0, x1, y1 = track.hand_boxes[20, 0]
    hand = track.joints[20, LEFT_HAND, :2]
    assert x0 < hand[:, 0].min() and x1 > hand[:, 0].max() and y0 < hand[:, 1].min() and y1 > hand[:, 1].max()
    words = track.surface[20, 48:]
    centre = hand.mean(axis=0)
    row, column = int(centre[1] / SIZE[0] * 48), int(centre[0] / SIZE[1] * 64)
    assert int(words[row]) >> column & 1
    n_cells = sum(int(word).bit_count() for word in words)
    area = sum((b[2] - b[0]) * (b[3] - b[1]) for b in track.hand_boxes[20])
    assert n_cells == pytest.approx(area / (SIZE[0] / 48 * SIZE[1] / 64), rel=0.5)


def face(x: float, width: float, y: float = 0.3) -> Face:
    return Face(x, y, width, aspect=16 / 9)


def test_one_face_leaves_the_picture_alone() -> None:
    subject = choose_subject([[face(0.4 + 0.01 * n, 0.1)] for n in range(20)])
    assert subject.n_people == 1 and subject.warning is None
    frame = np.full((90, 160, 3), 200, np.uint8)
    subject.hide_others(frame, 30)
    assert (frame == 200).all()


def test_the_larger_face_wins_and_the_other_side_is_blacked_out() -> None:
    subject = choose_subject([[face(0.8, 0.06), face(0.25, 0.12)] for _ in range(10)])
    assert subject.n_people == 2 and subject.warning is not None and "2 people" in subject.warning
    frame = np.full((90, 160, 3), 200, np.uint8)
    subject.hide_others(frame, 45)
    border = round(160 * (0.25 + 0.55 * 2 / 3))
    assert (frame[:, :border] == 200).all() and not frame[:, border:].any()


def test_of_two_like_sized_faces_the_steadier_wins() -> None:
    restless = [face(0.7 + 0.08 * (n % 2), 0.1) for n in range(20)]
    subject = choose_subject([[restless[n], face(0.2, 0.1)] for n in range(20)])
    assert subject.regions[10, 0] == 0 and 0.4 < subject.regions[10, 2] < 0.55


def test_a_small_face_overlooked_at_first_is_hidden_from_the_start() -> None:
    samples = [[face(0.3, 0.12)] + ([face(0.8, 0.06)] if n % 4 == 3 else []) for n in range(20)]
    assert (choose_subject(samples).regions[:, 2] < 0.8).all()


def test_a_face_seen_once_and_one_after_a_cut_are_no_second_person() -> None:
    samples = [[face(0.3, 0.12)] + ([face(0.8, 0.06)] if n == 4 else []) for n in range(10)]
    samples += [[face(0.7, 0.12)] for _ in range(10)]
    assert choose_subject(samples).n_people == 1


def clip_frames(path: Path, n_frames: int, height: int = 256) -> list[np.ndarray]:
    with VideoReader(path, max_height=height) as reader:
        return list(islice(reader, n_frames))


def same(one: RawPose, other: RawPose) -> bool:
    arrays = ("body", "left_hand", "right_hand")
    found = all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in arrays)
    return found and np.array_equal(one.person_mask, other.person_mask)


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers(data_dir: Path) -> None:
    frames = clip_frames(data_dir / "video" / "man_navy_shirt_stool_15s.mp4", 70)
    done: list[int] = []
    alone = list(estimate_poses(iter(frames), 1, progress=done.append))
    assert done == list(range(1, 71))
    in_two = list(estimate_poses(iter(frames), 2))
    assert len(alone) == len(in_two) == 70
    assert all(same(one, other) for one, other in zip(alone, in_two, strict=True))
    assert sum(pose.body_found for pose in alone) == 70
    assert sum(pose.hands_found[0] for pose in alone) > 55
    # the seam between blocks is no larger a step than others
    shoulders = np.array([pose.body[[LEFT_SHOULDER, RIGHT_SHOULDER], :2].mean(axis=0) for pose in alone])
    steps = np.linalg.norm(np.diff(shoulders, axis=0), axis=1)
    assert steps[59] <= np.delete(steps, 59).max()
    covered = sum(int(word).bit_count() for word in alone[30].person_mask)
    assert 0.05 < covered / (48 * 64) < 0.6


@pytest.mark.slow
def test_a_worker_that_dies_is_reported_and_none_is_left(data_dir: Path) -> None:
    frames = clip_frames(data_dir / "video" / "woman_black_blouse_seated_10s.mp4", 70)

    def endless() -> Iterator[np.ndarray]:
        while True:
            yield from frames

    poses = estimate_poses(endless(), 1)
    next(poses)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid or 0, signal.SIGKILL)
    with pytest.raises(BackendError, match=r"ended unexpectedly \(exit code -9\)"):
        list(poses)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_interrupt_ends_all_processes(tmp_path: Path) -> None:
    script = tmp_path / "track.py"
    script.write_text(
        textwrap.dedent("""
            import multiprocessing
            import numpy as np
            from tango_rt.characters.pose import estimate_poses

            def frames():
                while True:
                    yield np.zeros((64, 64, 3), np.uint8)

            if __name__ == "__main__":
                try:
                    for pose in estimate_poses(frames(), 2):
                        print("running", flush=True)
                except KeyboardInterrupt:
                    print("children", len(multiprocessing.active_children()), flush=True)
        """)
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert out.splitlines()[-1] == "children 0" and err == ""
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("larger_first", [True, False])
def test_of_two_people_the_larger_is_followed(data_dir: Path, larger_first: bool) -> None:
    large = clip_frames(data_dir / "video" / "woman_black_blouse_seated_10s.mp4", 46)
    small = clip_frames(data_dir / "video" / "man_navy_shirt_stool_15s.mp4", 46)
    pictures = []
    for one, other in zip(large, small, strict=True):
        side = np.full((256, 205, 3), 120, np.uint8)
        side[51:] = cv2.resize(other, (205, 205), interpolation=cv2.INTER_AREA)
        pictures.append(np.hstack([one, side] if larger_first else [side, one]))
    subject = find_subject(pictures[::SAMPLE_FRAMES])
    assert subject.n_people == 2
    followed = []
    estimator = PoseEstimator(ensure_models())
    for index in range(0, 46, 3):
        picture = pictures[index].copy()
        subject.hide_others(picture, index)
        pose = estimator.process(picture)
        followed.append(pose.body[[LEFT_SHOULDER, RIGHT_SHOULDER], 0].mean())
    low, high = (0, 256) if larger_first else (205, 461)
    assert all(low < x < high for x in followed)
