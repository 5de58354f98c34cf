"""What a build says of its videos: few pictures a second, stills, and what the reader changed; kept with the tracks."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engine.timebase import FPS, SAMPLE_RATE
from tango_rt.characters.pose import RawPose
from tango_rt.characters.shots import ShotDetector
from tango_rt.characters.source import track_source
from tango_rt.characters.stillness import Stillness
from tango_rt.characters.subject import Subject
from tango_rt.video.reader import VideoReader
from tests.helpers.media_files import write_audio, write_sizes, write_video
from tests.helpers.scenes import Scene


def warnings_of(frames: Iterable[np.ndarray]) -> list[str]:
    detector, stillness = ShotDetector(), Stillness()
    for frame in frames:
        detector.push(frame)
        stillness.push(detector.picture)
    return list(stillness.warnings())


def encoded(path: Path, frames: Sequence[np.ndarray], fps: Fraction | int = 30) -> Iterator[np.ndarray]:
    """The frames as a reader gives them back from H.264 of an everyday quality."""
    pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p") for frame in frames]
    write_video(path, pictures, fps=fps, options={"crf": "24", "preset": "veryfast"}, colorspace=6, gop=60)
    with VideoReader(path) as reader:
        yield from reader


@pytest.fixture(scope="module")
def talk() -> list[np.ndarray]:
    """4 s of somebody who gestures, with the noise of a camera."""
    return list(Scene(3).frames(120))


def rate_in(lines: list[str]) -> float:
    (line,) = lines
    assert "pictures a second, wanted 20 or more" in line and "\n" not in line
    return float(line.split()[1])


@pytest.mark.parametrize("fps", [24, 25, 30, 60])
def test_usual_rates_are_not_spoken_of(tmp_path: Path, talk: list[np.ndarray], fps: int) -> None:
    assert warnings_of(encoded(tmp_path / "a.mp4", talk, fps)) == []


@pytest.mark.parametrize("fps", [8, 12, 15, 18])
def test_low_rates_are_measured(tmp_path: Path, talk: list[np.ndarray], fps: int) -> None:
    assert rate_in(warnings_of(encoded(tmp_path / "a.mp4", talk, fps))) == pytest.approx(fps, abs=1)


@pytest.mark.parametrize("times", [2, 3])
def test_copies_encoded_as_30_fps_are_measured(tmp_path: Path, talk: list[np.ndarray], times: int) -> None:
    copies = [frame for frame in talk[: 150 // times] for _ in range(times)]
    assert rate_in(warnings_of(encoded(tmp_path / "a.mp4", copies))) == pytest.approx(30 / times, abs=3)


def test_one_picture_a_second(tmp_path: Path, talk: list[np.ndarray]) -> None:
    assert rate_in(warnings_of(encoded(tmp_path / "a.mp4", talk[::15], 1))) == pytest.approx(1, abs=0.2)


def test_a_still_image_never_moves(tmp_path: Path, talk: list[np.ndarray]) -> None:
    (line,) = warnings_of(encoded(tmp_path / "a.mp4", [talk[0]] * 150))
    assert "never moves" in line and "5.0 s" in line


def test_a_stretch_that_stands_still_is_told_with_its_time(tmp_path: Path, talk: list[np.ndarray]) -> None:
    (line,) = warnings_of([*talk[:60], *[talk[60]] * 90, *talk[60:]])
    assert "is still for 3.0 of 7.0 s" in line and "from 2.0 to 5.0 s" in line


def test_nothing_is_said_of_less_than_a_second(talk: list[np.ndarray]) -> None:
    assert warnings_of([]) == warnings_of(talk[:1]) == warnings_of([talk[0]] * 20) == []


@pytest.mark.parametrize(
    "clip", ["woman_grey_coat_seated_10s", "woman_black_blouse_seated_10s", "man_navy_shirt_stool_15s"]
)
def test_real_clips_move(data_dir: Path, clip: str) -> None:
    with VideoReader(data_dir / "video" / f"{clip}.mp4", 288) as reader:
        assert warnings_of(reader) == []


def poses_of(frames: Iterable[np.ndarray], *_: object, **__: object) -> Iterator[RawPose]:
    """Somebody in every frame, without an estimator."""
    body = np.random.default_rng(0).uniform(20, 60, (33, 4)).astype(np.float32)
    hand = np.full((21, 3), np.nan, np.float32)
    for _ in frames:
        yield RawPose(body, hand, hand, np.zeros(48, np.uint64), np.zeros(2, np.float32))


@pytest.fixture
def no_estimator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TANGO_RT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tango_rt.characters.source.estimate_poses", poses_of)
    monkeypatch.setattr("tango_rt.characters.source.find_subject", lambda frames: Subject(np.zeros((1, 4)), 1, 0.0))


def with_sound(path: Path, video: Path, n_frames: int) -> Path:
    """The video with noise for sound."""
    sound = path.with_suffix(".wav")
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, SAMPLE_RATE * n_frames // FPS).astype(np.float32)
    write_audio(sound, noise, SAMPLE_RATE)
    with av.open(str(video)) as pictures, av.open(str(sound)) as voice, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(pictures.streams.video[0])
        encoder = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for packet in pictures.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
        for frame in voice.decode(audio=0):
            out.mux(encoder.encode(frame))
        out.mux(encoder.encode(None))
    return path


def test_warnings_of_reading_outlive_the_cache(tmp_path: Path, no_estimator: None, talk: list[np.ndarray]) -> None:
    def shot(frames: Sequence[np.ndarray], width: int, height: int) -> list[av.VideoFrame]:
        small = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames]
        return [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p") for frame in small]

    copies = [frame for frame in talk[:45] for _ in range(2)]
    options = {"preset": "ultrafast", "x264-params": "repeat-headers=1"}
    silent = write_sizes(
        tmp_path / "silent.mkv", [shot(copies[:60], 320, 180), shot(copies[60:], 160, 90)], "libx264", options
    )
    video = with_sound(tmp_path / "talk.mkv", silent, 90)
    first = track_source(video, 720, None, 1)
    again = track_source(video, 720, None, 1)
    assert (first.cached, again.cached) == (False, True)
    assert first.warnings == again.warnings and np.array_equal(first.thumbnails, again.thumbnails)
    sizes, rate, *_ = first.warnings
    assert sizes.startswith("talk.mkv: the picture changes its size: 320x180 is shown longest (2.0 s)")
    assert rate.startswith("talk.mkv: about 1") and "pictures a second" in rate
    assert first.thumbnails.shape == (15, 24, 32, 3)
