"""Two people, outfits or places in the videos of one character: the longest is kept, what is left out is named."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engine.character.info import Clip
from engine.character.pack import CharacterPack
from engine.errors import ArtifactError, InputError
from engine.features.appearance import coarse_colours
from engine.motion_graph.graph import CONTINUE, CUT, RELAXED, MotionGraph
from engine.skeleton import LEFT_SHOULDER, N_JOINTS, RIGHT_SHOULDER
from engine.timebase import FPS, SAMPLE_RATE, frame_start
from tango_rt.characters.build import BuildOptions, build_character
from tango_rt.characters.groups import Selection, select, unjoined_warnings
from tango_rt.characters.inspect import describe, summarize
from tango_rt.characters.looks import group_clips
from tango_rt.characters.report import write_report
from tango_rt.characters.source import THUMBNAIL_FRAMES, TrackedSource
from tango_rt.characters.tracking import Track
from tango_rt.cli import main
from tango_rt.video.gop import GopDecoder
from tests.helpers.commands import refusal
from tests.helpers.fakes import HEIGHT, WIDTH, fake_joints
from tests.helpers.media_files import write_audio

RED, BLUE, BLACK = (170, 50, 50), (40, 60, 170), (22, 22, 24)
WALL, GARDEN = (190, 185, 175), (70, 130, 60)


@dataclass(frozen=True)
class Shot:
    """A drawn person: seconds, colours of clothes and wall, how large and where, and how bright it all is."""

    seconds: float
    clothes: tuple[int, int, int] = RED
    wall: tuple[int, int, int] = WALL
    zoom: float = 1.0
    shift: float = 0.0  # of the picture's width
    light: float = 1.0

    @property
    def n_frames(self) -> int:
        return round(self.seconds * FPS)


def draw(shot: Shot) -> tuple[np.ndarray, np.ndarray]:
    """The picture, uint8 (HEIGHT, WIDTH, 3), and where the person is, bool (48, 64)."""
    picture = np.full((HEIGHT, WIDTH, 3), shot.wall, np.uint8)
    picture[:, ::12] = np.array(shot.wall) * 0.7  # panels
    person = np.zeros((HEIGHT, WIDTH), np.uint8)
    x, y = WIDTH * (0.5 + shot.shift), HEIGHT * 0.75
    for dx, dy, half_width, half_height, colour in ((0, -26, 8, 10, (200, 150, 120)), (0, 6, 20, 24, shot.clothes)):
        where = (round(x + dx * shot.zoom), round(y + dy * shot.zoom))
        axes = (round(half_width * shot.zoom), round(half_height * shot.zoom))
        cv2.ellipse(picture, where, axes, 0, 0, 360, colour, -1)
        cv2.ellipse(person, where, axes, 0, 0, 360, 255, -1)
    picture = np.clip(picture * shot.light, 0, 255).astype(np.uint8)
    return picture, cv2.resize(person, (64, 48), interpolation=cv2.INTER_AREA) > 127


def track_of(shots: Sequence[Shot], seed: int) -> tuple[Track, np.ndarray, np.ndarray]:
    """Track, appearance and thumbnails of a video of these shots."""
    n_frames = sum(shot.n_frames for shot in shots)
    joints = fake_joints(n_frames, seed)
    surface, appearance, at = np.zeros((n_frames, 96), np.uint64), np.zeros((n_frames, 48, 3), np.uint8), 0
    small = np.zeros((n_frames, 24, 32, 3), np.uint8)
    for shot in shots:
        frames = slice(at, at + shot.n_frames)
        picture, person = draw(shot)
        middle = np.array([WIDTH * (0.5 + shot.shift), HEIGHT * 0.55])
        joints[frames, :, :2] = middle + shot.zoom * (joints[frames, :, :2] - [48, 32])
        for side, sign in ((LEFT_SHOULDER, 1), (RIGHT_SHOULDER, -1)):
            joints[frames, side, :2] = middle + np.array([sign * 10 * shot.zoom, 0])
        surface[frames, :48] = np.packbits(person, axis=1, bitorder="little").view("<u8")[:, 0]
        appearance[frames] = coarse_colours(picture)
        small[frames] = cv2.resize(picture, (32, 24), interpolation=cv2.INTER_AREA)
        at += shot.n_frames
    track = Track(
        joints=joints.astype(np.float32),
        confidence=np.ones((n_frames, N_JOINTS), np.float32),
        valid=np.ones(n_frames, bool),
        hands_found=np.ones((n_frames, 2), bool),
        hand_boxes=np.zeros((n_frames, 2, 4), np.float32),
        surface=surface,
        mouth=np.zeros((n_frames, 2), np.float32),
        shoulder_px=20.0,
    )
    return track, appearance, small[::THUMBNAIL_FRAMES]


def source(shots: Sequence[Shot], name: str = "talk.mp4", seed: int = 0) -> TrackedSource:
    track, appearance, thumbnails = track_of(shots, seed)
    n_frames = len(track.valid)
    bounds = np.cumsum([shot.n_frames for shot in shots])
    rng = np.random.default_rng(seed)
    return TrackedSource(
        path=Path(name),
        sha256=f"{seed:064d}",
        n_frames=n_frames,
        shots=tuple(bounds[:-1].tolist()),
        track=track,
        appearance=appearance,
        thumbnails=thumbnails,
        motion=None,
        audio=rng.uniform(-0.3, 0.3, frame_start(n_frames)).astype(np.float32),
        warnings=(),
        cached=False,
    )


def clips_of(*sources: Sequence[Shot]) -> list[Clip]:
    clips = []
    for number, shots in enumerate(sources):
        first = 0
        for shot in shots:
            clips.append(Clip(number, first, shot.n_frames // 4 * 4))
            first += shot.n_frames
    return clips


def groups_of(*shots: Shot) -> list[list[int]]:
    return group_clips([source(shots)], clips_of(shots))


A, B = Shot(6, RED), Shot(4, BLUE)


@pytest.mark.parametrize(
    "other",
    [
        replace(A, clothes=BLUE),
        replace(A, clothes=BLUE, zoom=1.6, shift=0.2),
        replace(A, wall=GARDEN),
        replace(A, wall=GARDEN, zoom=0.7),
        replace(A, clothes=BLACK, wall=GARDEN),
    ],
)
def test_other_clothes_or_another_place_are_another_look(other: Shot) -> None:
    assert groups_of(A, replace(other, seconds=4)) == [[0], [1]]


@pytest.mark.parametrize(
    "other",
    [
        replace(A, zoom=1.2),
        replace(A, zoom=1.4, shift=0.1),
        replace(A, zoom=0.8),
        replace(A, shift=0.2),
        replace(A, light=1.15),
        replace(A, light=0.8),
        replace(A, seconds=0.5),
        replace(A, seconds=0.5, zoom=1.3),
    ],
)
def test_another_framing_or_light_or_a_short_clip_is_the_same_look(other: Shot) -> None:
    assert groups_of(A, other, replace(A, seconds=2)) == [[0, 1, 2]]


def test_dark_clothes_before_one_wall_are_told_apart_by_their_colour() -> None:
    black = Shot(6, BLACK)
    assert groups_of(black, Shot(4, (26, 30, 90))) == [[0], [1]]
    assert groups_of(black, replace(black, seconds=4, light=1.2)) == [[0, 1]]


def test_two_people_by_turns() -> None:
    assert groups_of(A, B, replace(A, seconds=3), replace(B, seconds=6.5)) == [[1, 3], [0, 2]]


def test_a_dissolve_does_not_join_two_people() -> None:
    """Its mean colours lie half way: nearer to both than they are to each other."""
    both = tuple(int(np.mean(pair)) for pair in zip(RED, BLUE, strict=True))
    groups = groups_of(A, Shot(0.6, both), B)
    assert not any(0 in group and 2 in group for group in groups)


def test_light_that_fades_all_day_is_one_place() -> None:
    shots = [Shot(3, light=light) for light in np.linspace(1, 0.75, 12)]
    assert groups_of(*shots) == [list(range(12))]


def test_pictures_without_a_mask_have_their_background_alone() -> None:
    shots = [A, B]
    talk = source(shots)
    talk = replace(talk, track=replace(talk.track, surface=np.zeros_like(talk.track.surface)))
    assert len(group_clips([talk], clips_of(shots))) in (1, 2)


def test_the_largest_is_kept_and_the_rest_is_named() -> None:
    shots = [replace(A, seconds=3), B, replace(A, seconds=5)]
    kept = select([source(shots)], clips_of(shots), "largest")
    assert kept.clips == (Clip(0, 0, 88), Clip(0, 210, 148)) and kept.in_largest == (True, True)
    assert [(group["seconds"], group["kept"]) for group in kept.report] == [(7.87, True), (4.0, False)]
    assert kept.report[1]["spans"] == [{"source": "talk.mp4", "first_s": 3.0, "last_s": 7.0}]
    (line,) = kept.warnings
    assert "talk.mp4 at 3.0 to 7.0 s" in line and "for 4.0 s" in line and "7.9 s" in line
    assert "left out" in line and "--keep all" in line and "\n" not in line
    assert kept.left_out_s == 4.0


def test_all_are_kept_if_asked_for() -> None:
    shots = [A, B]
    kept = select([source(shots)], clips_of(shots), "all")
    assert kept.clips == tuple(clips_of(shots)) and kept.in_largest == (True, False)
    assert kept.left_out_s == 0 and all(group["kept"] for group in kept.report)
    assert "kept" in kept.warnings[0] and "--keep largest" in kept.warnings[0]


def test_one_person_is_not_spoken_of() -> None:
    shots = [A, replace(A, seconds=2), replace(A, zoom=1.2, seconds=3)]
    kept = select([source(shots)], clips_of(shots), "largest")
    assert kept.clips == tuple(clips_of(shots)) and kept.warnings == () and len(kept.report) == 1


def test_sources_of_which_nothing_is_left_fall_out() -> None:
    monday, tuesday, friday = [B], [A], [replace(A, seconds=5)]
    sources = [source(shots, f"{n}.mp4", n) for n, shots in enumerate((monday, tuesday, friday))]
    kept = select(sources, clips_of(monday, tuesday, friday), "largest")
    assert [one.path.name for one in kept.sources] == ["1.mp4", "2.mp4"]
    assert kept.clips == (Clip(0, 0, 180), Clip(1, 0, 148))
    assert kept.warnings[0].startswith("0.mp4 at 0.0 to 4.0 s:")
    assert kept.report[0]["spans"] == [
        {"source": "1.mp4", "first_s": 0.0, "last_s": 6.0},
        {"source": "2.mp4", "first_s": 0.0, "last_s": 4.93},
    ]


def test_many_looks_and_places_make_few_lines() -> None:
    walls = [(40 * n % 256, 90 * n % 256, 255 - 30 * n) for n in range(8)]
    shots = [Shot(9, wall=WALL), *(Shot(1, clothes=wall, wall=wall) for wall in walls)]
    lines = select([source(shots)], clips_of(shots), "largest").warnings
    assert len(lines) == 5 and "more such looks" in lines[-1]
    turns = [shot for _ in range(7) for shot in (A, Shot(1, BLUE))]
    (line,) = select([source(turns)], clips_of(turns), "largest").warnings
    assert line.count(" to ") == 4 and "and 3 more places" in line


def graph(kind_across: int) -> MotionGraph:
    """Two clips of 20 nodes; a cut inside each, and one cut across, of the given kind, each way."""
    edges = [(n, n + 1, CONTINUE) for n in range(39) if n != 19]
    edges += [(18, 1, CUT), (38, 21, CUT), (5, 35, kind_across), (36, 2, kind_across)]
    source_, target, kind = (np.array(column) for column in zip(*sorted(edges), strict=True))
    return MotionGraph(
        n_nodes=40,
        clip_start=np.array([0, 20, 40]),
        indptr=np.concatenate([[0], np.cumsum(np.bincount(source_, minlength=40))]),
        indices=target.astype(np.int32),
        distance=np.ones(len(edges), np.float32),
        kind=kind.astype(np.uint8),
        kept=np.ones(40, bool),
    )


def selection(*in_largest: bool) -> Selection:
    shots = [Shot(80 / 30), Shot(80 / 30)]
    return Selection((source(shots),), tuple(clips_of(shots)), in_largest, [], 0.0, ())


def test_clips_of_one_look_that_no_ordinary_cut_joins_are_told_about() -> None:
    (line,) = unjoined_warnings(graph(RELAXED), selection(True, True))
    assert line.startswith("talk.mp4 at 2.7 to 5.3 s:") and "2.7 s" in line
    assert list(unjoined_warnings(graph(CUT), selection(True, True))) == []
    assert list(unjoined_warnings(graph(RELAXED), selection(True, False))) == [], "another look was spoken of already"


class Videos:
    """Drawn videos whose tracks are known: building them takes a second, without a pose estimator."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._tracked: dict[Path, TrackedSource] = {}
        monkeypatch.setattr("tango_rt.characters.build.track_source", lambda path, *_: self._tracked[path])

    def write(self, name: str, shots: Sequence[Shot], seed: int = 0) -> Path:
        path = self._folder / name
        tracked = source(shots, name, seed)
        pictures = [
            av.VideoFrame.from_ndarray(draw(shot)[0], format="rgb24") for shot in shots for _ in range(shot.n_frames)
        ]
        write_audio(path, tracked.audio, SAMPLE_RATE, codec="aac", container_format="mp4", pictures=pictures)
        self._tracked[path] = replace(tracked, path=path)
        return path


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Videos]:
    return Videos(tmp_path, monkeypatch)


def clothes_in(pack: CharacterPack) -> list[str]:
    """What the person of each node wears, by the encoded pictures."""
    decoder = GopDecoder(pack.info.extradata, pack.info.width, pack.info.height)
    middle = [
        decoder.decode(pack.packets(node))[0][52:60, 40:56].mean(axis=(0, 1)) for node in range(pack.info.n_nodes)
    ]
    return ["red" if red > blue else "blue" for red, _, blue in middle]


SHOTS = [replace(A, seconds=3), B, replace(A, seconds=5)]


def test_a_character_of_two_people_is_one_of_them_throughout(
    videos: Videos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = videos.write("talk.mp4", SHOTS)
    output = tmp_path / "a.tango"
    main(["character", "build", str(path), "-o", str(output), "--jobs", "1", "--json", "--report", str(tmp_path / "r")])
    printed = capsys.readouterr()
    assert "talk.mp4 at 3.0 to 7.0 s" in printed.err and "left out" in printed.err
    figures = json.loads(printed.out)
    assert figures["n_clips"] == 2 and figures["build"]["keep"] == "largest"
    assert [group["kept"] for group in figures["build"]["groups"]] == [True, False]
    pack = CharacterPack.open(output)
    assert pack.info.n_frames == 88 + 148 == len(pack["joints"]) == len(pack["appearance"])
    assert clothes_in(pack) == ["red"] * pack.info.n_nodes
    speech = np.round(source(SHOTS).audio * 32767)
    assert np.array_equal(pack["audio"][: frame_start(88)], speech[: frame_start(88)])
    assert np.array_equal(pack["audio"][-1000:], speech[frame_start(210) : frame_start(358)][-1000:])
    text = summarize(describe(pack))
    assert "look 1: 7.9 s, kept: talk.mp4 0.0 to 2.9 s, talk.mp4 7.0 to 11.9 s" in text
    assert "look 2: 4.0 s, left out: talk.mp4 3.0 to 7.0 s" in text
    assert "look 2: 4.0 s, left out" in (tmp_path / "r" / "index.html").read_text()


def test_keep_all_makes_a_character_of_both(videos: Videos, tmp_path: Path) -> None:
    path = videos.write("talk.mp4", SHOTS)
    pack = build_character([path], tmp_path / "a.tango", BuildOptions(keep="all", live_cuts=0))
    assert pack.info.n_frames == 88 + 120 + 148
    assert clothes_in(pack) == ["red"] * 22 + ["blue"] * 30 + ["red"] * 37
    across = np.diff(np.array(["blue" in name for name in clothes_in(pack)])[pack.graph.clip_start[:-1]])
    assert across.any() and pack.graph.n_relaxed_edges > 0


def test_another_video_of_somebody_else_is_left_out_whole(videos: Videos, tmp_path: Path) -> None:
    monday, tuesday = videos.write("monday.mp4", [B], 1), videos.write("tuesday.mp4", [A], 2)
    pack = build_character([monday, tuesday], tmp_path / "a.tango", BuildOptions(live_cuts=0))
    assert [one.name for one in pack.info.sources] == ["tuesday.mp4"]
    assert clothes_in(pack) == ["red"] * 45
    assert any(line.startswith("monday.mp4 at 0.0 to 4.0 s") for line in pack.info.report["warnings"])
    both = build_character([monday, tuesday], tmp_path / "b.tango", BuildOptions(keep="all", live_cuts=0))
    assert [one.name for one in both.info.sources] == ["monday.mp4", "tuesday.mp4"]
    write_report(both, tmp_path / "report")


def test_too_little_of_one_person_says_what_was_left_out(
    videos: Videos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = videos.write("talk.mp4", [Shot(3.2, RED), Shot(3, BLUE)])
    line = refusal(capsys, "character", "build", path, "-o", tmp_path / "a.tango", "--jobs", 1)
    assert "only 3.2 s" in line and "2.9 s of other looks were left out: see --keep" in line
    with pytest.raises(InputError, match="at least 4 s"):
        build_character([path], tmp_path / "a.tango", BuildOptions(live_cuts=0))
    assert build_character([path], tmp_path / "a.tango", BuildOptions(keep="all", live_cuts=0)).info.n_frames == 96 + 88


def test_what_a_damaged_pack_says_of_its_groups(videos: Videos, tmp_path: Path) -> None:
    pack = build_character([videos.write("talk.mp4", SHOTS)], tmp_path / "a.tango", BuildOptions(live_cuts=0))
    for groups in ([{}, {}], [1, 2], [{"seconds": "x", "kept": 1, "spans": []}] * 2, "ab"):
        figures = describe(pack)
        figures["build"]["groups"] = groups
        with pytest.raises(ArtifactError, match=r"what .*a.tango says about its groups is damaged"):
            summarize(figures)
