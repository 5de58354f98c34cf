"""How far the port of Holistic is from MediaPipe's own package.

    python -m benchmarks.pose_parity reference clip.mp4 ... -o FOLDER     where mediapipe 0.10.14 is installed
    python -m benchmarks.pose_parity compare clip.mp4 ... -o FOLDER       here: prints a table

`presenter` in the place of a clip is the drawn presenter. The package cannot be installed together with tango-rt
(protobuf), so the reference is written in an environment of its own: mediapipe==0.10.14, av, opencv, scipy, numba,
matplotlib, tqdm. tests/helpers/pose_of_the_presenter.npz was made by `reference presenter --frames 40`.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

N_BODY, N_HAND, N_FACE = 33, 21, 468
SHOULDERS = (11, 12)
MOUTH = (33, 263, 13, 14)


def frames_of(clip: str, n_frames: int) -> list[np.ndarray]:
    """The first frames of a clip as the estimator sees them, RGB, long side 640 px."""
    if clip == "presenter":
        from tango_rt.demo.presenter import REFERENCE_SPEECH, presenter_frames
        from tango_rt.sound.audio import read_audio

        speech = read_audio(Path(REFERENCE_SPEECH))
        return list(islice(presenter_frames(speech, height=480), 120, 120 + n_frames))
    from tango_rt.video.reader import VideoReader

    with VideoReader(Path(clip)) as reader:
        return [_shrunk(frame) for frame in islice(reader, n_frames)]


def _shrunk(frame: np.ndarray) -> np.ndarray:
    scale = min(1.0, 640 / max(frame.shape[:2]))
    size = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


def reference(frames: list[np.ndarray]) -> dict[str, np.ndarray]:
    """What the package finds, in pixels: NaN where it finds nothing."""
    from mediapipe.python.solutions.holistic import Holistic

    found: dict[str, list[Any]] = {name: [] for name in ("body", "left", "right", "face", "mask")}
    options = {"model_complexity": 1, "smooth_landmarks": False, "enable_segmentation": True}
    started = time.process_time()
    with Holistic(**options, smooth_segmentation=False) as holistic:
        for frame in frames:
            result = holistic.process(frame)
            size = frame.shape[1], frame.shape[0], frame.shape[1]
            found["body"].append(_points(result.pose_landmarks, N_BODY, size, visibility=True))
            found["left"].append(_points(result.left_hand_landmarks, N_HAND, size))
            found["right"].append(_points(result.right_hand_landmarks, N_HAND, size))
            found["face"].append(_points(result.face_landmarks, N_FACE, size)[list(MOUTH)])
            mask = result.segmentation_mask
            found["mask"].append(np.zeros(frame.shape[:2], bool) if mask is None else mask > 0.5)
    spent = (time.process_time() - started) / len(frames)
    arrays = {name: np.array(rows) for name, rows in found.items()}
    arrays["mask"] = np.packbits(arrays["mask"], axis=-1)
    return {**arrays, "cpu_s": np.array(spent)}


def _points(found: Any, n_points: int, size: tuple[int, int, int], visibility: bool = False) -> np.ndarray:
    if found is None:
        return np.full((n_points, 3 + visibility), np.nan, np.float32)
    points = [(p.x, p.y, p.z, p.visibility)[: 3 + visibility] for p in found.landmark]
    return np.array(points, np.float32) * np.array([*size, 1][: 3 + visibility], np.float32)


def ported(frames: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The same by the port."""
    from tango_rt.characters.holistic.holistic import Holistic
    from tango_rt.models.folder import ensure_models

    holistic = Holistic(ensure_models())
    nothing = {name: np.full((n, 3), np.nan) for name, n in (("left", N_HAND), ("right", N_HAND), ("face", len(MOUTH)))}
    rows: list[dict[str, np.ndarray]] = []
    started = time.process_time()
    for frame in frames:
        person = holistic.process(frame)
        row = {"body": np.full((N_BODY, 4), np.nan), "mask": np.zeros(frame.shape[:2], bool), **nothing}
        if person is not None:
            row |= {"body": person.body, "mask": person.mask > 0.5}
            hands = {"left": person.left_hand, "right": person.right_hand}
            row |= {side: hand for side, hand in hands.items() if hand is not None}
            row |= {} if person.face is None else {"face": person.face[list(MOUTH)]}
        rows.append(row)
    spent = (time.process_time() - started) / len(frames)
    arrays = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    arrays["mask"] = np.packbits(arrays["mask"], axis=-1)
    return {**arrays, "cpu_s": np.array(spent)}


def compare(want: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean distances in shoulder widths, shares in which hands were found, overlap of the masks, r of the mouth."""
    shoulders = want["body"][:, SHOULDERS[0], :2] - want["body"][:, SHOULDERS[1], :2]
    unit = float(np.nanmedian(np.linalg.norm(shoulders, axis=1)))
    figures = {}
    for name, points in (("body", slice(0, 25)), ("left", slice(None)), ("right", slice(None))):
        apart = np.linalg.norm(want[name][:, points, :2] - got[name][:, points, :2], axis=-1)
        figures[name] = float(np.nanmean(apart)) / unit
        figures[f"{name}_found"] = float(np.mean(~np.isnan(got[name][:, 0, 0])))
        figures[f"{name}_found_by_reference"] = float(np.mean(~np.isnan(want[name][:, 0, 0])))
    masks = np.unpackbits(want["mask"], axis=-1).astype(bool), np.unpackbits(got["mask"], axis=-1).astype(bool)
    figures["mask_iou"] = float((masks[0] & masks[1]).sum() / max(1, (masks[0] | masks[1]).sum()))
    mouths = [
        np.linalg.norm(a[:, 2] - a[:, 3], axis=1) / np.linalg.norm(a[:, 0] - a[:, 1], axis=1)
        for a in (want["face"][..., :2], got["face"][..., :2])
    ]
    both = ~np.isnan(mouths[0]) & ~np.isnan(mouths[1])
    figures["mouth_r"] = float(np.corrcoef(mouths[0][both], mouths[1][both])[0, 1])
    figures["cpu_ms"] = 1000 * float(got["cpu_s"])
    figures["cpu_ms_of_reference"] = 1000 * float(want["cpu_s"])
    return figures


def _results(arguments: argparse.Namespace) -> Iterator[tuple[str, list[np.ndarray], Path]]:
    for clip in arguments.clips:
        name = Path(clip).stem
        yield name, frames_of(clip, arguments.frames), arguments.output / f"{name}.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("reference", "compare"))
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="video files, or 'presenter'")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="of the references")
    parser.add_argument("--frames", type=int, default=300, help="from the beginning of each (default: 300)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.action == "compare":
        print("| clip | body | left | right | left found | right found | mask IoU | mouth r | CPU ms |")
        print("|---|---|---|---|---|---|---|---|---|")
    for name, frames, file in _results(arguments):
        if arguments.action == "reference":
            np.savez_compressed(file, **reference(frames))
            continue
        with np.load(file) as want:
            f = compare(dict(want), ported(frames))
        found = [f"{f[side + '_found']:.3f} ({f[side + '_found_by_reference']:.3f})" for side in ("left", "right")]
        print(
            f"| {name} | {f['body']:.4f} | {f['left']:.4f} | {f['right']:.4f} | {found[0]} | {found[1]} "
            f"| {f['mask_iou']:.4f} | {f['mouth_r']:.4f} | {f['cpu_ms']:.0f} ({f['cpu_ms_of_reference']:.0f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
