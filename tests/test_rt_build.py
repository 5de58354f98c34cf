"""Building characters: refusals that leave nothing behind, clips, the cache of tracking, one real clip."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engine.character.arrays import ARRAYS
from engine.character.embeddings import read_embedding, stored_names
from engine.character.info import Clip
from engine.character.pack import CharacterPack
from engine.character.retrieval import open_retrieval
from engine.character.writer import PackWriter
from engine.errors import InputError
from engine.features.fit import FitOptions
from engine.features.validation import fit_person
from engine.motion_graph.graph import CONTINUE
from engine.timebase import FPS, SAMPLE_RATE, frame_count, frame_start
from tango_rt.characters.build import BuildOptions, build_character
from tango_rt.characters.clips import cut_into_clips, gather_audio, gather_tracks
from tango_rt.characters.cues import mark_cue
from tango_rt.characters.inspect import describe
from tango_rt.characters.source import TrackedSource
from tango_rt.characters.tracking import Track
from tango_rt.cli import main
from tango_rt.sound.audio import read_audio
from tango_rt.video.reader import VideoReader
from tests.helpers.commands import refusal, run_json
from tests.helpers.fakes import fake_joints, make_pack
from tests.helpers.media_files import gray_pictures, write_audio, write_video

BLOUSE = "woman_black_blouse_seated_10s.mp4"
NAVY = "man_navy_shirt_stool_15s.mp4"
N_WORKERS = 2


@pytest.fixture(scope="module", autouse=True)
def tracking_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of tracking for these tests alone."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TANGO_RT_CACHE", str(folder))
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("fonts")))  # else commands would set it, to this cache
        yield folder


@pytest.fixture(scope="module")
def blouse(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> CharacterPack:
    """A real clip, built as a user would."""
    output = tmp_path_factory.mktemp("packs") / "blouse.tango"
    return build_character([data_dir / "video" / BLOUSE], output, BuildOptions(live_cuts=0.1, n_workers=N_WORKERS))


def noise(n_samples: int) -> np.ndarray:
    return np.random.default_rng(2).uniform(-0.3, 0.3, n_samples).astype(np.float32)


def write_talk(path: Path, pictures: Sequence[av.VideoFrame], voice: np.ndarray | None = None) -> Path:
    """An mp4 of pictures at 30 fps with sound of the same length."""
    samples = noise(frame_start(len(pictures))) if voice is None else voice
    return write_audio(path, samples, SAMPLE_RATE, codec="aac", container_format="mp4", pictures=pictures)


def pictures_of(frames: Sequence[np.ndarray]) -> list[av.VideoFrame]:
    return [av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24") for frame in frames]


def real_frames(video: Path, n_frames: int) -> list[np.ndarray]:
    with VideoReader(video) as reader:
        return [frame.copy() for frame in islice(reader, n_frames)]


def nobody(n_frames: int = 5 * FPS) -> list[av.VideoFrame]:
    """Flat grey, then noise."""
    rng = np.random.default_rng(0)
    flat = [np.full((96, 128, 3), 128, np.uint8)] * (n_frames // 2)
    return pictures_of(flat + [rng.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(n_frames - len(flat))])


def _missing(path: Path) -> None:
    assert not path.exists()


BAD_VIDEOS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": ("no such file", _missing),
    "folder": ("folder", lambda path: path.mkdir()),
    "empty": ("cannot be read", lambda path: path.write_bytes(b"")),
    "text": ("video or audio", lambda path: path.write_text("no video at all\n" * 200)),
    "sound only": ("no video track", lambda path: write_audio(path, noise(16000), 16000, container_format="wav")),
    "pictures only": ("no audio track", lambda path: write_video(path, gray_pictures(range(30, 60)))),
    "silent": ("silent", lambda path: write_talk(path, list(gray_pictures(range(150))), np.zeros(80_000))),
    "nobody": ("no person", lambda path: write_talk(path, nobody())),
}


@pytest.mark.parametrize("kind", BAD_VIDEOS)
def test_bad_videos_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    wanted, make = BAD_VIDEOS[kind]
    video = tmp_path / "in" / "talk.mp4"
    video.parent.mkdir()
    make(video)
    (tmp_path / "out").mkdir()
    line = refusal(capsys, "character", "build", video, "-o", tmp_path / "out" / "a.tango", "--jobs", 1)
    assert wanted in line and "talk.mp4" in line
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_outputs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_talk(tmp_path / "talk.mp4", list(gray_pictures(range(150))))
    (tmp_path / "mine.tango").mkdir()
    (tmp_path / "mine.tango" / "letter.txt").write_text("dear")
    (tmp_path / "file.tango").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    for name, wanted in (
        ("anna", "end in .tango"),
        ("anna.mp4", "end in .tango"),
        ("mine.tango", "not a character pack"),
        ("file.tango", "not a character pack"),
        ("talk.mp4/anna.tango", "cannot be written"),
        ("n" * 300 + ".tango", "300 bytes, at most 249 are allowed"),
    ):
        assert wanted in refusal(capsys, "character", "build", video, "-o", tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_videos_of_two_sizes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = write_talk(tmp_path / "small.mp4", list(gray_pictures(range(30))))
    large = write_talk(tmp_path / "large.mp4", list(gray_pictures(range(30), 128, 96)))
    line = refusal(capsys, "character", "build", small, large, "-o", tmp_path / "a.tango")
    assert "small.mp4 64x48" in line and "large.mp4 128x96" in line


@pytest.mark.parametrize("text", ["", "[{", '{"text": "hello"}', '[{"word": "a", "start": 2, "end": 1}]', "\xff"])
def test_damaged_words_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    video = write_talk(tmp_path / "talk.mp4", list(gray_pictures(range(30))))
    words = tmp_path / "words.json"
    words.write_text(text, "latin-1")
    assert "word" in refusal(capsys, "character", "build", video, "-o", tmp_path / "a.tango", "--words", words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.mp4", "words.json"]


def test_short_video_is_refused(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_talk(tmp_path / "short.mp4", pictures_of(real_frames(data_dir / "video" / BLOUSE, 100)))
    (tmp_path / "out").mkdir()
    line = refusal(capsys, "character", "build", video, "-o", tmp_path / "out" / "a.tango", "--jobs", 1)
    assert "3.3 s" in line and "at least 4 s" in line
    assert list((tmp_path / "out").iterdir()) == []


def test_smplx_without_body_model_is_refused(
    blouse: CharacterPack, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "talk.mp4"
    shutil.copy(data_dir / "video" / BLOUSE, video)
    np.savez(tmp_path / "talk.npz", poses=np.zeros((300, 165)))
    assert "--smplx-model" in refusal(capsys, "character", "build", video, "-o", tmp_path / "a.tango")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.mp4", "talk.npz"]


def tracked(n_frames: int, shots: Sequence[int] = (), unseen: Sequence[slice] = (), seed: int = 0) -> TrackedSource:
    """A source whose every array tells which frame it is of; audio: sample n has the value of its frame / 30,000."""
    valid = np.ones(n_frames, bool)
    for part in unseen:
        valid[part] = False
    number = np.arange(n_frames)
    frame_of_sample = (
        np.searchsorted([frame_start(n) for n in range(n_frames + 1)], np.arange(frame_start(n_frames)), "right") - 1
    )
    track = Track(
        joints=fake_joints(n_frames, seed),
        confidence=np.ones((n_frames, 75), np.float32),
        valid=valid,
        hands_found=np.ones((n_frames, 2), bool),
        hand_boxes=np.broadcast_to(number[:, None, None], (n_frames, 2, 4)).astype(np.float32),
        surface=np.broadcast_to(number[:, None], (n_frames, 96)).astype(np.uint64),
        mouth=np.broadcast_to(number[:, None], (n_frames, 2)).astype(np.float32),
        shoulder_px=20.0,
    )
    return TrackedSource(
        path=Path("talk.mp4"),
        sha256="0" * 64,
        n_frames=n_frames,
        shots=tuple(shots),
        track=track,
        appearance=np.broadcast_to(number[:, None, None] % 256, (n_frames, 4, 3)).astype(np.uint8),
        thumbnails=np.zeros((-(-n_frames // 6), 24, 32, 3), np.uint8),
        motion=None,
        audio=(frame_of_sample / 30_000).astype(np.float32),
        warnings=(),
        cached=False,
    )


def spans(sources: Sequence[TrackedSource]) -> list[tuple[int, int, int]]:
    return [(clip.source, clip.first_frame, clip.n_frames) for clip in cut_into_clips(sources)]


def test_clips_are_whole_nodes_between_shot_changes() -> None:
    assert spans([tracked(100)]) == [(0, 0, 100)]
    assert spans([tracked(103)]) == [(0, 0, 100)]
    assert spans([tracked(100, shots=[33, 60])]) == [(0, 0, 32), (0, 33, 24), (0, 60, 40)]
    assert spans([tracked(100, shots=[40, 51])]) == [(0, 0, 40), (0, 51, 48)]  # 11 frames are no clip
    assert spans([tracked(40), tracked(50, shots=[25])]) == [(0, 0, 40), (1, 0, 24), (1, 25, 24)]


def test_long_absence_parts_a_clip_and_a_short_one_does_not() -> None:
    assert spans([tracked(100, unseen=[slice(40, 55)])]) == [(0, 0, 100)]
    assert spans([tracked(100, unseen=[slice(40, 56)])]) == [(0, 0, 40), (0, 56, 44)]
    assert spans([tracked(100, unseen=[slice(0, 20), slice(90, 100)])]) == [(0, 20, 80)]
    assert spans([tracked(100, shots=[50], unseen=[slice(40, 60)])]) == [(0, 0, 48), (0, 50, 48)]
    assert spans([tracked(100, unseen=[slice(0, 100)]), tracked(20)]) == [(1, 0, 20)]


def test_nothing_long_enough_is_refused() -> None:
    with pytest.raises(InputError, match="11 frames"):
        cut_into_clips([tracked(33, shots=[11, 22])])
    with pytest.raises(InputError, match=" 0 frames"):
        cut_into_clips([tracked(100, unseen=[slice(0, 100)])])


def test_gathered_arrays_are_those_of_the_frames_of_the_clips() -> None:
    sources = [tracked(130, shots=[41], unseen=[slice(70, 90)], seed=1), tracked(50, seed=2)]
    clips = cut_into_clips(sources)
    frames = np.concatenate([np.arange(clip.first_frame, clip.first_frame + clip.n_frames) for clip in clips])
    assert frames.tolist() == [*range(40), *range(41, 69), *range(90, 130), *range(48)]
    arrays = gather_tracks(sources, clips, 20.0)
    assert arrays["clip_start"].tolist() == [0, 10, 17, 27, 39]
    assert np.array_equal(arrays["surface"][:, 0], frames)
    assert np.array_equal(arrays["hand_boxes"][:, 1, 2], frames)
    assert np.array_equal(arrays["mouth"][:, 1], frames)
    assert np.array_equal(arrays["joints"][108:], sources[1].track.joints[:48])
    for name in ("joints", "confidence", "valid", "hands_found", "hand_boxes", "surface", "mouth", "motion"):
        dtype, (_, *shape) = ARRAYS[name]
        assert arrays[name].dtype == dtype and arrays[name].shape[0] == len(frames)
        assert all(got == want for got, want in zip(arrays[name].shape[1:], shape, strict=True) if want != "D")
    assert np.isfinite(arrays["motion"]).all()


def test_audio_lies_under_its_frames_after_what_was_dropped() -> None:
    sources = [tracked(1000, shots=[41, 501], unseen=[slice(70, 90)]), tracked(301)]
    clips = cut_into_clips(sources)
    audio = gather_audio(sources, clips)
    frame = 0
    for clip in clips:
        for n in range(clip.n_frames):
            # frames have 533 or 534 samples by turns, and the turn of one may change: the middle is sure
            middle = audio[frame_start(frame + n) + 2 : frame_start(frame + n + 1) - 2]
            assert set(middle) == {round((clip.first_frame + n) / 30_000 * 32767)}
        frame += clip.n_frames
    assert audio.shape == (frame_start(frame),) and audio.dtype == np.int16


def test_audio_that_runs_out_is_silence() -> None:
    source = tracked(100)
    short = TrackedSource(**{**vars(source), "audio": np.full(frame_start(50), 0.5, np.float32)})
    audio = gather_audio([short, source], [Clip(0, 0, 48), Clip(0, 52, 48), Clip(1, 0, 4)])
    assert np.all(audio[: frame_start(48)] == 16384) and not audio[frame_start(48) : frame_start(96)].any()
    loud = TrackedSource(**{**vars(source), "audio": np.full(frame_start(100), -1.7, np.float32)})
    assert gather_audio([loud], [Clip(0, 0, 48)]).min() == -32767


def test_real_clip(blouse: CharacterPack, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run_json(capsys, "character", "inspect", blouse.path)
    assert (figures["width"], figures["height"], figures["n_frames"], figures["n_clips"]) == (256, 256, 300, 1)
    assert figures["sources"] == [BLOUSE]
    assert figures["n_nodes"] * 4 == figures["n_frames"]
    assert 0.9 * figures["n_nodes"] < figures["n_nodes_kept"] <= figures["n_nodes"]
    assert figures["n_nodes_kept"] < figures["n_cut_edges"] < figures["n_edges"]
    assert figures["n_relaxed_edges"] < 10
    assert figures["pose_coverage"] > 0.99 and min(figures["hand_coverage"]) > 0.9
    assert figures["bytes"] < 10e6
    assert figures["build"]["tracking_cached"] is False
    assert [entry for entry in blouse.path.parent.iterdir()] == [blouse.path]


def test_same_video_again_takes_tracking_from_the_cache(
    blouse: CharacterPack, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tango_rt.characters.source.estimate_poses", _not_to_be_called)
    monkeypatch.setattr("tango_rt.characters.source.find_subject", _not_to_be_called)
    renamed = tmp_path / "other name.mp4"
    shutil.copy(data_dir / "video" / BLOUSE, renamed)
    replaced = CharacterPack.open(shutil.copytree(blouse.path, tmp_path / "again.tango"))
    marked = mark_cue(replaced, "wave", 2.0, 3.0)
    again = build_character([renamed], replaced.path, BuildOptions(live_cuts=0.1, n_workers=1))
    assert again.info.report["tracking_cached"] is True
    assert list(again.cues.by_name["wave"].nodes) == marked.nodes, "what was named stays so in a new build"
    for name in ARRAYS:
        assert again[name].tobytes() == blouse[name].tobytes(), name
    assert (again.path / "video.h264").read_bytes() == (blouse.path / "video.h264").read_bytes()


class _Called(Exception):
    pass


def _not_to_be_called(*_: object, **__: object) -> None:
    raise _Called


@pytest.mark.parametrize("damage", ["cut off", "noise", "empty", "folder"])
def test_damaged_cache_is_no_cache(
    blouse: CharacterPack,
    tracking_cache: Path,
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    shutil.copytree(tracking_cache, tmp_path / "cache")
    monkeypatch.setenv("TANGO_RT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tango_rt.characters.source.find_subject", _not_to_be_called)
    for file in (tmp_path / "cache").iterdir():
        data = file.read_bytes()
        file.unlink()
        if damage == "folder":
            file.mkdir()
        else:
            file.write_bytes({"cut off": data[: len(data) // 2], "noise": noise(9999).tobytes(), "empty": b""}[damage])
    with pytest.raises(_Called):
        build_character([data_dir / "video" / BLOUSE], tmp_path / "a.tango", BuildOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_interrupt_leaves_nothing_and_the_older_pack_whole(
    blouse: CharacterPack, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "anna.tango"
    make_pack(output)
    older = content_of(output)
    add_packets = PackWriter.add_packets

    def interrupted(writer: PackWriter, packets: list[bytes]) -> None:
        add_packets(writer, packets)
        if writer.n_frames == 40:
            raise KeyboardInterrupt

    monkeypatch.setattr(PackWriter, "add_packets", interrupted)
    with pytest.raises(SystemExit) as left:
        main(["character", "build", str(data_dir / "video" / BLOUSE), "-o", str(output), "--jobs", "2"])
    assert left.value.code == 130
    assert list(tmp_path.iterdir()) == [output]
    assert content_of(output) == older


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_failing_swap_brings_the_older_pack_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    output = tmp_path / "anna.tango"
    make_pack(output)
    older = (output / "audio.npy").read_bytes()
    rename = Path.rename

    def broken(path: Path, target: Path) -> Path:
        if Path(target) == output and path.name != "old":
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else InputError):
        make_pack(output, seed=1)
    assert list(tmp_path.iterdir()) == [output]
    assert (output / "audio.npy").read_bytes() == older


def test_a_built_character_has_a_fit_of_its_own(blouse: CharacterPack) -> None:
    assert stored_names(blouse.path) == ["fitted", "onset"]
    stored = read_embedding(blouse, "fitted")
    fitted, chosen, report = fit_person(blouse.recording, FitOptions(mouth=True))
    assert np.ptp(blouse["mouth"], axis=0).min() > 0.01 and report.mouth
    assert stored.fitted is not None and stored.fitted.sha256 == fitted.sha256 == stored.sha256
    assert stored.about == report.to_dict() and open_retrieval(blouse).embedding.name == chosen.name
    assert any("s of speech" in warning for warning in describe(blouse)["build"]["warnings"]), "10 s are little"


@pytest.mark.slow
def test_real_render(blouse: CharacterPack, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speech = data_dir / "speech" / "spanish_10s.wav"
    packs = [shutil.copytree(blouse.path, tmp_path / f"{n}.tango") for n in (1, 2)]
    one, two = (
        run_json(capsys, "render", pack, speech, "-o", tmp_path / f"{jobs}.mp4", "--jobs", jobs)
        for jobs, pack in enumerate(packs, 1)
    )
    assert one["n_transitions_computed"] == two["n_transitions_computed"] > 0
    assert one["nodes"] == two["nodes"]
    assert one["n_frames"] == frame_count(len(read_audio(speech)))
    _check_path(blouse, one["nodes"])
    with VideoReader(tmp_path / "1.mp4") as reader:
        assert sum(1 for _ in reader) == one["n_frames"] and reader.skipped == 0
    packets = stored_pictures(tmp_path / "1.mp4")
    assert packets == stored_pictures(tmp_path / "2.mp4")
    again = run_json(capsys, "render", packs[0], speech, "-o", tmp_path / "1.mp4")
    assert again["n_transitions_computed"] == 0
    assert again["n_transitions_cached"] == one["n_transitions_cached"] + one["n_transitions_computed"]
    assert stored_pictures(tmp_path / "1.mp4") == packets


def _check_path(pack: CharacterPack, path: list[int]) -> None:
    """Only edges of the graph; between two cuts at least 3 nodes."""
    graph = pack.graph
    kinds = []
    for i, j in pairwise(path):
        row = slice(graph.indptr[i], graph.indptr[i + 1])
        at = np.flatnonzero(graph.indices[row] == j)
        assert len(at) == 1, f"{i} -> {j} is no edge"
        kinds.append(graph.kind[row][at[0]])
    cuts = np.flatnonzero(np.array(kinds) != CONTINUE)
    assert len(cuts) > 1 and np.diff(cuts).min() >= 3


def stored_pictures(video: Path) -> list[bytes]:
    """The encoded pictures of an mp4, as they lie in it."""
    with av.open(str(video)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.slow
def test_two_people_are_told_about(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    n_frames, side_px = 5 * FPS, 160  # of a smaller face the detector knows nothing
    both = []
    for one, other in zip(*(real_frames(data_dir / "video" / name, n_frames) for name in (BLOUSE, NAVY)), strict=True):
        small = np.full((len(one), side_px, 3), 90, np.uint8)
        small[-side_px:] = cv2.resize(other, (side_px, side_px), interpolation=cv2.INTER_AREA)
        both.append(np.hstack([one, small]))
    video = write_talk(tmp_path / "couple.mp4", pictures_of(both))
    main(["character", "build", str(video), "-o", str(tmp_path / "a.tango"), "--jobs", str(N_WORKERS), "--json"])
    printed = capsys.readouterr()
    assert "warning: couple.mp4: 2 people" in printed.err
    figures = json.loads(printed.out)
    assert "2 people" in figures["build"]["warnings"][0]
    assert figures["pose_coverage"] > 0.9
    # the larger one, on the left, is followed
    joints = CharacterPack.open(tmp_path / "a.tango")["joints"]
    assert np.median(joints[:, 0, 0]) < 256


@pytest.mark.slow
def test_two_people_one_after_the_other_make_a_character_of_one(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [*real_frames(data_dir / "video" / BLOUSE, 130), *real_frames(data_dir / "video" / NAVY, 160)]
    video = write_talk(tmp_path / "both.mp4", pictures_of(frames))
    main(["character", "build", str(video), "-o", str(tmp_path / "a.tango"), "--jobs", str(N_WORKERS), "--json"])
    printed = capsys.readouterr()
    assert "warning: both.mp4 at 0.0 to 4.3 s: a different person, outfit or place" in printed.err
    assert [group["kept"] for group in json.loads(printed.out)["build"]["groups"]] == [True, False]
    (clip,) = CharacterPack.open(tmp_path / "a.tango").info.clips
    assert abs(clip.first_frame - 130) <= 1 and clip.n_frames >= 156
