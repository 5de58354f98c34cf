"""Training data: what is read from packs, SMPL-X and joint text, and what is refused."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

from engine.errors import ArtifactError, InputError
from engine.features.body import body_descriptors
from engine.skeleton import (
    LEFT_ELBOW,
    LEFT_HAND,
    LEFT_SHOULDER,
    LEFT_WRIST,
    NOSE,
    RIGHT_ELBOW,
    RIGHT_HAND,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
)
from engine.timebase import frame_start
from export.bodies import read_joint_text, read_smplx_joints
from export.recordings import read_recordings
from tests.helpers.fakes import make_pack

LEFT_SHOULDER_ROTATION, LEFT_ELBOW_ROTATION = 16, 18  # SMPL-X
LEFT_INDEX_ROTATION = 25


def _wav(path: Path, seconds: float, rate: int = 16_000, dtype: str = "int16", channels: int = 1) -> None:
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    scale = {"int16": 32767, "int32": 2147483647, "float32": 1, "uint8": 127}[dtype]
    data = (tone * scale + (128 if dtype == "uint8" else 0)).astype(dtype)
    wavfile.write(path, rate, np.repeat(data[:, None], channels, axis=1) if channels > 1 else data)


def _amass(path: Path, poses: np.ndarray, fps: float = 30.0) -> None:
    np.savez(path, poses=poses.reshape(len(poses), 165), trans=np.zeros((len(poses), 3)), mocap_frame_rate=fps)


def _show(path: Path, n_frames: int, hand_numbers: int = 12) -> None:
    np.savez(
        path,
        body_pose_axis=np.zeros((n_frames, 63)),
        global_orient=np.tile([np.pi, 0, 0], (n_frames, 1, 1)),
        transl=np.zeros((n_frames, 3)),
        left_hand_pose=np.ones((n_frames, hand_numbers)),
        right_hand_pose=np.ones((n_frames, hand_numbers)),
    )


def test_pack_is_read_as_it_is(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "anna.tango")
    (recording,) = read_recordings([pack.path])
    assert recording.name == "anna" and recording.unit_px == pack.info.shoulder_px
    for name in ("joints", "confidence", "clip_start", "motion"):
        np.testing.assert_array_equal(getattr(recording, name), pack[name])
    np.testing.assert_allclose(recording.samples, pack["audio"] / 32768, atol=1e-7)
    assert len(recording.clips) == 2


def test_folders_are_searched_and_nothing_comes_twice(tmp_path: Path) -> None:
    make_pack(tmp_path / "deep" / "anna.tango", (20,))
    _show(tmp_path / "ben.smplx.npz", 60)
    _wav(tmp_path / "ben.wav", 2.0)
    (tmp_path / "motion").mkdir()
    (tmp_path / "sound").mkdir()
    _amass(tmp_path / "motion" / "cleo.npz", np.zeros((60, 55, 3)))
    _wav(tmp_path / "sound" / "cleo.wav", 2.0)
    _amass(tmp_path / "silent.npz", np.zeros((60, 55, 3)))
    found = read_recordings([tmp_path, tmp_path / "ben.wav", tmp_path / "deep" / "anna.tango"])
    assert sorted(recording.name for recording in found) == ["anna", "ben", "cleo"]
    assert read_recordings([tmp_path / "ben.wav"])[0].name == "ben"


@settings(max_examples=12, deadline=None)
@given(st.integers(8, 100), st.integers(-7, 7))
def test_motion_and_sound_are_trimmed_to_each_other(tmp_path_factory, n_frames: int, more: int) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("pair")
    _amass(folder / "a.npz", np.zeros((n_frames, 55, 3)))
    _wav(folder / "a.wav", max(n_frames + more, 4) / 30 + 1e-3)
    (recording,) = read_recordings([folder])
    assert recording.n_frames == min(n_frames, max(n_frames + more, 4)) // 4 * 4
    assert len(recording.samples) == frame_start(recording.n_frames)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_000, 44_100])
@pytest.mark.parametrize(("dtype", "channels"), [("int16", 2), ("int32", 1), ("float32", 2), ("uint8", 1)])
def test_any_wav_becomes_16_khz(tmp_path: Path, rate: int, dtype: str, channels: int) -> None:
    _amass(tmp_path / "a.npz", np.zeros((60, 55, 3)))
    _wav(tmp_path / "a.wav", 2.0, rate, dtype, channels)
    samples = read_recordings([tmp_path])[0].samples
    middle = samples[8000:24_000]
    spectrum = np.abs(np.fft.rfft(middle))
    assert spectrum.argmax() == 440
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_body_stands_upright_before_the_camera(tmp_path: Path) -> None:
    for name, write in (("a", lambda p: _amass(p, np.zeros((40, 55, 3)))), ("b", lambda p: _show(p, 40))):
        write(tmp_path / f"{name}.npz")
        joints, _ = read_smplx_joints(tmp_path / f"{name}.npz")
        body = joints[0]
        assert body[LEFT_WRIST, 0] > body[LEFT_ELBOW, 0] > body[LEFT_SHOULDER, 0] > 0 > body[RIGHT_SHOULDER, 0]
        assert body[NOSE, 1] < body[LEFT_SHOULDER, 1] < body[23, 1]  # y points down
        assert body[NOSE, 2] < body[LEFT_SHOULDER, 2]  # the nose points at the camera
        assert np.linalg.norm(body[LEFT_SHOULDER] - body[RIGHT_SHOULDER]) == pytest.approx(1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_rotations_keep_bones(tmp_path_factory, seed: int) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("body") / "a.npz"
    _amass(path, np.random.default_rng(seed).normal(0, 1, (6, 55, 3)))
    joints, confidence = read_smplx_joints(path)
    assert np.isfinite(joints).all() and set(np.unique(confidence)) == {0.0, 1.0}
    bones = [(LEFT_SHOULDER, LEFT_ELBOW), (RIGHT_ELBOW, RIGHT_WRIST)]
    bones += [(LEFT_HAND.start + 5, LEFT_HAND.start + 6), (RIGHT_HAND.start + 3, RIGHT_HAND.start + 4)]
    for a, b in bones:
        length = np.linalg.norm(joints[:, a] - joints[:, b], axis=-1)
        np.testing.assert_allclose(length, length[0], rtol=1e-4)
        assert length[0] > 0.01


def test_a_rotation_moves_what_hangs_on_its_joint(tmp_path: Path) -> None:
    poses = np.zeros((40, 55, 3))
    poses[20:, LEFT_SHOULDER_ROTATION, 2] = np.pi / 2  # about z: the arm goes up
    poses[30:, LEFT_INDEX_ROTATION, 2] = -1.0
    _amass(tmp_path / "a.npz", poses)
    joints, _ = read_smplx_joints(tmp_path / "a.npz")
    moved = np.linalg.norm(joints[25] - joints[0], axis=-1) > 1e-4
    assert moved[[LEFT_ELBOW, LEFT_WRIST]].all() and moved[LEFT_HAND].all()
    assert not moved[[NOSE, LEFT_SHOULDER, RIGHT_WRIST]].any() and not moved[RIGHT_HAND].any()
    assert joints[25, LEFT_WRIST, 1] < joints[25, LEFT_SHOULDER, 1] - 1  # above the shoulder
    finger = np.linalg.norm(joints[35] - joints[25], axis=-1)[LEFT_HAND] > 1e-4
    assert np.flatnonzero(finger).tolist() == [6, 7, 8]  # the index finger beyond its knuckle


def test_frame_rates_become_30(tmp_path: Path) -> None:
    angle = np.linspace(0, 2, 240)
    poses = np.zeros((240, 55, 3))
    poses[:, LEFT_ELBOW_ROTATION, 1] = angle
    _amass(tmp_path / "fast.npz", poses, 120)
    _amass(tmp_path / "slow.npz", poses[::4], 30)
    fast, slow = (read_smplx_joints(tmp_path / f"{name}.npz")[0] for name in ("fast", "slow"))
    np.testing.assert_allclose(fast[: len(slow)], slow, atol=1e-4)


def test_hands_as_components_are_not_trusted(tmp_path: Path) -> None:
    for numbers, trusted in ((12, 0), (45, 1)):
        _show(tmp_path / "a.npz", 8, numbers)
        joints, confidence = read_smplx_joints(tmp_path / "a.npz")
        assert (confidence[:, LEFT_HAND] == trusted).all() and (confidence[:, RIGHT_HAND] == trusted).all()
        assert (confidence[:, LEFT_SHOULDER : RIGHT_WRIST + 1] == 1).all() and np.isfinite(joints).all()


def test_joint_text_lands_on_our_joints(tmp_path: Path, rng: np.random.Generator) -> None:
    given = rng.normal(0, 1, (16, 49, 3))
    given[:, 7], given[:, 28] = given[:, 6], given[:, 3]
    path = tmp_path / "a.joints.txt"
    np.savetxt(path, given.reshape(16, 147))
    joints, confidence = read_joint_text(path)
    assert joints.shape == (31, 75, 3)
    every = joints[::2]  # the given frames themselves
    np.testing.assert_allclose(every[:, LEFT_WRIST], given[:, 6], atol=1e-5)
    np.testing.assert_allclose(every[:, RIGHT_ELBOW], given[:, 2], atol=1e-5)
    np.testing.assert_allclose(every[:, LEFT_HAND.start + 4], given[:, 8], atol=1e-5)  # tip of the thumb
    np.testing.assert_allclose(every[:, RIGHT_HAND.start + 5], given[:, 28 + 8], atol=1e-5)  # knuckle of the index
    assert (confidence[:, :11] == 0).all() and (confidence[:, 23:33] == 0).all()
    assert (confidence[:, LEFT_SHOULDER:23] == 1).all() and np.isfinite(joints).all()


def _broken(folder: Path) -> list[tuple[Path, str]]:
    """Files that cannot be used, and what must be said about them."""
    _wav(folder / "long.wav", 3.0)
    _amass(folder / "long.npz", np.zeros((60, 55, 3)))
    _amass(folder / "alone.npz", np.zeros((60, 55, 3)))
    for name in ("zip", "shape", "nan", "other", "rate", "pickle", "one"):
        _wav(folder / f"{name}.wav", 2.0)
    (folder / "zip.npz").write_bytes(b"PK\3\4 but no more")
    np.savez(folder / "shape.npz", poses=np.zeros((60, 66)), trans=np.zeros((60, 3)))
    _amass(folder / "nan.npz", np.full((60, 55, 3), np.nan))
    np.savez(folder / "other.npz", something=np.zeros(3))
    _amass(folder / "rate.npz", np.zeros((60, 55, 3)), 0.0)
    np.savez(folder / "pickle.npz", poses=np.array([{}], dtype=object))
    _amass(folder / "one.npz", np.zeros((1, 55, 3)))
    for name, text in (("words", "a b c\n"), ("few", "1 2 3\n1 2 3\n"), ("ragged", "1 2\n1\n")):
        (folder / f"{name}.joints.txt").write_text(text)
        _wav(folder / f"{name}.wav", 2.0)
    _amass(folder / "noise.npz", np.zeros((60, 55, 3)))
    (folder / "noise.wav").write_bytes(b"RIFF no sound")
    (folder / "empty").mkdir()
    (folder / "sound.txt").write_text("")
    return [
        (folder / "long.npz", "2.00 s of motion, long.wav 3.00 s of sound"),
        (folder / "alone.npz", "alone.wav is missing"),
        (folder / "zip.npz", "cannot be read as an .npz"),
        (folder / "shape.npz", "'poses' has shape"),
        (folder / "nan.npz", "not finite"),
        (folder / "other.npz", "neither 'poses' nor"),
        (folder / "rate.npz", "mocap_frame_rate"),
        (folder / "pickle.npz", "'poses'|cannot be read"),
        (folder / "one.npz", "1 frames"),
        (folder / "words.joints.txt", "cannot be read as lines"),
        (folder / "few.joints.txt", "wanted at least 2 lines of 147"),
        (folder / "ragged.joints.txt", "cannot be read as lines"),
        (folder / "noise.npz", "cannot be read as a .wav"),
        (folder / "empty", "no recordings"),
        (folder / "sound.txt", "is not a recording"),
        (folder / "missing", "does not exist"),
    ]


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    for path, said in _broken(tmp_path):
        with pytest.raises(InputError) as refusal:
            read_recordings([path])
        assert re.search(said, str(refusal.value)), f"{path.name}: {refusal.value}"
        assert "\n" not in str(refusal.value) and path.stem.split(".")[0] in str(refusal.value)
    with pytest.raises(InputError, match="nothing"):
        read_recordings([])


def test_damaged_pack_is_refused(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "anna.tango", (20,))
    (pack.path / "joints.npy").write_bytes(b"no array")
    with pytest.raises(ArtifactError, match="damaged"):
        read_recordings([tmp_path])


def test_real_pairs(data_dir: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recordings = read_recordings([data_dir / "motion"])
    names = {recording.name for recording in recordings}
    assert {"lecturer_1845", "show_116213"} <= names and "desk_host_102571" not in names  # no sound
    for recording in recordings:
        columns = body_descriptors(recording)
        assert np.isfinite(columns).all() and columns.std() > 0.05
        assert recording.samples.std() > 1e-3
        shoulders = recording.joints[:, [LEFT_SHOULDER, RIGHT_SHOULDER], 1].mean()
        assert recording.joints[:, NOSE, 1].mean() < shoulders  # the head is above them
