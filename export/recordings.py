"""Training data: people and their voices from character packs, SMPL-X files and joint text files.

A recording is one of
    NAME.tango              a character pack
    NAME.npz + NAME.wav     SMPL-X, also NAME.smplx.npz: `poses` (T, 165) with `mocap_frame_rate`, or `body_pose_axis`
    NAME.joints.txt + .wav  15 lines a second, 49 joints x, y, z a line
and a folder means all recordings in it.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from engine.character.pack import SUFFIX, CharacterPack
from engine.errors import InputError
from engine.features.recording import Recording
from engine.skeleton import LEFT_SHOULDER, RIGHT_SHOULDER
from engine.timebase import FPS, FRAMES_PER_NODE, SAMPLE_RATE, frame_start
from export.bodies import read_joint_text, read_smplx_joints

__all__ = ["read_recordings", "read_wav"]

_SMPLX_SUFFIXES = (".smplx.npz", ".npz")
_JOINTS_SUFFIX = ".joints.txt"
_WAV_SUFFIX = ".wav"
_MAX_MISMATCH_S = 0.25  # between motion and sound; with more they are not from the same take


def read_recordings(paths: Sequence[Path]) -> list[Recording]:
    """Read the given files, and those in the given folders, in a fixed order and nothing twice.

    In a folder, motion without a wav of its name is skipped; a motion file given by name must have one next to it.

    Raises:
        InputError: nothing found, or something that cannot be read, does not fit its sound or is shorter than a node.
        ArtifactError: a damaged pack.
    """
    found: dict[Path, Path | None] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist: give character packs, motion with a .wav, or folders of them")
        found.update(_search(path))
    if not found:
        names = ", ".join(map(str, paths)) or "nothing"
        raise InputError(f"no recordings in {names}: give *{SUFFIX}, NAME.npz + NAME.wav or NAME.joints.txt + NAME.wav")
    return [
        CharacterPack.open(motion).recording if wav is None else _from_pair(motion, wav)
        for motion, wav in found.items()
    ]


def _search(path: Path) -> Iterator[tuple[Path, Path | None]]:
    """Motion file and sound file; a pack has no sound file."""
    if path.suffix == SUFFIX or (path / "pack.json").is_file():
        yield path.resolve(), None
    elif path.is_dir():
        yield from _search_folder(path)
    elif path.suffix == _WAV_SUFFIX:
        motions = [motion for motion in sorted(path.parent.iterdir()) if _stem(motion) == path.stem]
        if not motions:
            raise InputError(f"{path} has no motion next to it: wanted {path.stem}.npz or {path.stem}{_JOINTS_SUFFIX}")
        yield motions[0].resolve(), path.resolve()
    else:
        stem = _stem(path)
        if stem is None:
            raise InputError(f"{path} is not a recording: give *{SUFFIX}, *.npz or *{_JOINTS_SUFFIX}, with a .wav")
        wav = path.with_name(stem + _WAV_SUFFIX)
        if not wav.is_file():
            raise InputError(f"{path} has no sound: {wav.name} is missing next to it")
        yield path.resolve(), wav.resolve()


def _search_folder(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    files = sorted(folder.rglob("*"))
    wavs: dict[str, list[Path]] = {}
    for file in files:
        if file.suffix == _WAV_SUFFIX:
            wavs.setdefault(file.stem, []).append(file)
    for file in files:
        if any(parent.suffix == SUFFIX for parent in file.parents):
            continue
        if file.suffix == SUFFIX and file.is_dir():
            yield file.resolve(), None
            continue
        stem = _stem(file)
        sounds = wavs.get(stem, []) if stem else []
        adjacent = [wav for wav in sounds if wav.parent == file.parent]
        # some collections keep motion and sound in separate folders
        if adjacent or len(sounds) == 1:
            yield file.resolve(), (adjacent or sounds)[0].resolve()


def _stem(path: Path) -> str | None:
    """The name that a motion file shares with its sound; None if it is not a motion file."""
    for suffix in (*_SMPLX_SUFFIXES, _JOINTS_SUFFIX):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return None


def _from_pair(motion: Path, wav: Path) -> Recording:
    read = read_joint_text if motion.name.endswith(_JOINTS_SUFFIX) else read_smplx_joints
    joints, confidence = read(motion)
    samples = read_wav(wav)
    n_heard = len(samples) * FPS // SAMPLE_RATE
    if abs(n_heard - len(joints)) > _MAX_MISMATCH_S * FPS:
        raise InputError(
            f"{motion} has {len(joints) / FPS:.2f} s of motion, {wav.name} {n_heard / FPS:.2f} s of sound: "
            f"they may differ by {_MAX_MISMATCH_S} s"
        )
    n_frames = min(n_heard, len(joints)) // FRAMES_PER_NODE * FRAMES_PER_NODE
    if n_frames == 0:
        raise InputError(f"{motion} is shorter than {FRAMES_PER_NODE} frames")
    across = joints[:n_frames, LEFT_SHOULDER] - joints[:n_frames, RIGHT_SHOULDER]
    unit = float(np.median(np.linalg.norm(across, axis=-1)))
    if not unit > 0:
        raise InputError(f"{motion}: both shoulders are at the same place")
    return Recording(
        name=str(_stem(motion)),
        samples=samples[: frame_start(n_frames)],
        joints=joints[:n_frames],
        confidence=confidence[:n_frames],
        clip_start=np.array([0, n_frames // FRAMES_PER_NODE]),
        unit_px=unit,
    )


def read_wav(path: Path) -> np.ndarray:
    """Any rate, any plain number format, channels averaged -> float32 (S,) at 16 kHz."""
    try:
        with warnings.catch_warnings():
            # chunks without sound (titles, markers) are skipped
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            rate, data = wavfile.read(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a .wav: {error}") from error
    if not 1000 <= rate <= 400_000:
        raise InputError(f"{path} has {rate} samples a second, wanted 1,000 to 400,000")
    if data.dtype == np.uint8:
        data = data.astype(np.float64) / 128 - 1
    elif data.dtype.kind == "i":
        data = data / (np.iinfo(data.dtype).max + 1.0)
    samples = np.asarray(data, np.float64).reshape(len(data), -1).mean(axis=1)
    if not np.isfinite(samples).all():
        raise InputError(f"{path} has samples that are not finite")
    common = math.gcd(rate, SAMPLE_RATE)
    if len(samples) and rate != SAMPLE_RATE:
        samples = resample_poly(samples, SAMPLE_RATE // common, rate // common)
    return np.asarray(samples, np.float32)
