"""Performing a pack: what lies where in the video, the store of transitions, unusual speech, words."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.io import wavfile

from engine.blending.blender import open_blender
from engine.blending.morph import Flow
from engine.character.pack import CharacterPack
from engine.character.perform import Performance, PerformOptions, perform, planned_transitions
from engine.errors import InputError
from engine.motion_graph.graph import CONTINUE, Cut
from engine.motion_graph.words import KeywordOptions
from engine.timebase import FPS, FRAMES_PER_NODE, SAMPLE_RATE, frame_count, frame_start
from tango_rt.cli import main
from tango_rt.pipeline import transitions as transitions_module
from tango_rt.pipeline.drawers import draw_ahead
from tango_rt.pipeline.render import RenderOptions, render
from tango_rt.pipeline.transitions import TransitionStore
from tango_rt.sound.audio import read_audio
from tango_rt.video.reader import VideoReader
from tango_rt.words import read_words
from tests.helpers.commands import refusal, run_json
from tests.helpers.fakes import make_pack
from tests.helpers.media_files import join, piped
from tests.helpers.speech import write_speech

CROSSFADE = open_blender("crossfade")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("made") / "anna.tango").path


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> CharacterPack:
    """A pack of one test alone, without cached transitions."""
    return CharacterPack.open(shutil.copytree(made, tmp_path / "anna.tango"))


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_speech(tmp_path / "speech.wav")


def cuts_of(pack: CharacterPack, n: int) -> list[Cut]:
    graph = pack.graph
    edges = np.flatnonzero(graph.kind != CONTINUE)[:: max(1, graph.n_cut_edges // n)][:n]
    return [(int(graph.sources[edge]), int(graph.indices[edge])) for edge in edges]


def stored_pictures(video: Path) -> list[bytes]:
    with av.open(str(video)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def annex_b(pictures: list[bytes]) -> list[bytes]:
    """Pictures of an mp4 as a pack has them: start codes in place of lengths."""
    return [_with_start_codes(picture) for picture in pictures]


def _units(picture: bytes) -> list[bytes]:
    """The NAL units of a picture with four-byte lengths."""
    units = []
    while picture:
        size = int.from_bytes(picture[:4], "big")
        units.append(picture[4 : 4 + size])
        picture = picture[4 + size :]
    return units


def _with_start_codes(picture: bytes) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in _units(picture))


def test_every_picture_is_where_the_path_says(pack: CharacterPack, speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    result = render(pack, speech, out, RenderOptions(blender="crossfade"))
    store = TransitionStore(pack, CROSSFADE)
    path = result.nodes
    expected: list[bytes] = []
    cut_steps = [t for t, (i, j) in enumerate(pairwise(path)) if j != i + 1 or j in pack["clip_start"]]
    assert len(cut_steps) == result.n_cuts > 1
    for t, node in enumerate(path):
        if t in cut_steps:
            expected += store.packets((node, path[t + 1]))[:FRAMES_PER_NODE]
        elif t - 1 in cut_steps:
            expected += store.packets((path[t - 1], node))[FRAMES_PER_NODE:]
        else:
            expected += pack.packets(node)
    assert annex_b(stored_pictures(out)) == expected[: result.n_frames]
    assert result.n_frames % FRAMES_PER_NODE, "the speech of this test is to end inside a node"


def test_cut_blender_shows_nothing_but_stored_frames(pack: CharacterPack, speech: Path, tmp_path: Path) -> None:
    result = render(pack, speech, tmp_path / "out.mp4", RenderOptions(blender="cut"))
    with VideoReader(tmp_path / "out.mp4") as reader:
        shown = np.stack([frame.copy() for frame in reader])
    decoder = transitions_module.GopDecoder(pack.info.extradata, pack.info.width, pack.info.height)
    stored = np.concatenate([decoder.decode(pack.packets(node)) for node in result.nodes])[: result.n_frames]
    difference = np.abs(shown.astype(int) - stored).mean(axis=(1, 2, 3))
    assert len(shown) == result.n_frames and np.median(difference) < 0.5  # two ways from YCbCr to RGB
    assert difference.max() < 3  # the frames around a cut are encoded a second time


def test_cached_transitions_survive_and_damage_does_not(pack: CharacterPack) -> None:
    cuts = cuts_of(pack, 6)
    store = TransitionStore(pack, CROSSFADE)
    assert list(draw_ahead(store, cuts + cuts, 1)) == cuts
    good = {cut: store.packets(cut) for cut in cuts}
    files = {cut: next(pack.path.glob(f"transitions/*/{cut[0]}-{cut[1]}.gops")) for cut in cuts}
    assert all(TransitionStore(pack, CROSSFADE).packets(cut) == good[cut] for cut in cuts)
    data = {cut: file.read_bytes() for cut, file in files.items()}
    files[cuts[0]].write_bytes(data[cuts[0]][:-1])
    files[cuts[1]].write_bytes(b"")
    files[cuts[2]].write_bytes(data[cuts[2]][:20])
    files[cuts[3]].write_bytes(data[cuts[5]])  # whole, and of another cut
    files[cuts[4]].unlink()
    files[cuts[4]].mkdir()
    again = TransitionStore(pack, CROSSFADE)
    assert [again.is_cached(cut) for cut in cuts] == [False] * 5 + [True]
    assert {cut: again.packets(cut) for cut in cuts} == good
    assert all(files[cut].read_bytes() == data[cut] for cut in cuts[:4])
    assert all(again.is_cached(cut) for cut in cuts)
    assert not list(pack.path.rglob("*.partial"))


@pytest.mark.parametrize("place", ["file", "key folder", "transitions"])
def test_links_are_not_followed(pack: CharacterPack, tmp_path: Path, place: str) -> None:
    cut = cuts_of(pack, 1)[0]
    good = TransitionStore(pack, CROSSFADE).packets(cut)
    file = next(pack.path.glob("transitions/*/*.gops"))
    moved = {"file": file, "key folder": file.parent, "transitions": file.parent.parent}[place]
    outside = tmp_path / "outside"
    moved.rename(outside)
    moved.symlink_to(outside)
    kept = outside if place == "file" else next(outside.rglob("*.gops"))
    kept.write_bytes(kept.read_bytes()[:32] + bytes(len(kept.read_bytes()) - 32))
    before = kept.read_bytes()
    store = TransitionStore(pack, CROSSFADE)
    assert not store.is_cached(cut)
    assert store.packets(cut) == good
    assert kept.read_bytes() == before and len(list(tmp_path.rglob("outside/**/*.gops"))) == (place != "file")
    assert store.is_cached(cut)


def test_pack_that_cannot_be_written_still_renders(pack: CharacterPack, speech: Path, tmp_path: Path) -> None:
    options = RenderOptions(blender="crossfade")
    usual = render(
        CharacterPack.open(shutil.copytree(pack.path, tmp_path / "b.tango")), speech, tmp_path / "b.mp4", options
    )
    (pack.path / "transitions").write_text("in the way")
    result = render(pack, speech, tmp_path / "a.mp4", options)
    assert result.n_transitions_computed == usual.n_transitions_computed > 0
    assert stored_pictures(tmp_path / "a.mp4") == stored_pictures(tmp_path / "b.mp4")
    assert not list(pack.path.rglob("*.gops"))


def test_cache_is_as_readable_as_the_user_wants(pack: CharacterPack) -> None:
    before = os.umask(0o022)
    try:
        TransitionStore(pack, CROSSFADE).packets(cuts_of(pack, 1)[0])
    finally:
        os.umask(before)
    assert next(pack.path.glob("transitions/*/*.gops")).stat().st_mode & 0o777 == 0o644


def test_other_options_are_other_transitions(pack: CharacterPack) -> None:
    cut = cuts_of(pack, 1)[0]
    blenders = [Flow(), Flow(arms=True), Flow(flow_points=200_000), CROSSFADE, open_blender("cut")]
    for blender in blenders:
        TransitionStore(pack, blender).packets(cut)
    assert len(list(pack.path.glob("transitions/*"))) == len(blenders)


def test_workers_make_the_same_transitions(pack: CharacterPack, made: Path, tmp_path: Path) -> None:
    cuts = cuts_of(pack, 4)
    alone = TransitionStore(CharacterPack.open(shutil.copytree(made, tmp_path / "alone.tango")), open_blender("flow"))
    assert list(draw_ahead(alone, cuts, 1)) == cuts
    together = TransitionStore(pack, open_blender("flow"))
    assert sorted(draw_ahead(together, cuts, 2)) == sorted(cuts)
    for cut in cuts:
        assert together.packets(cut) == alone.packets(cut)


@pytest.mark.parametrize("name", ["joints", "motion_level", "rest", "embeddings/onset/low", "embeddings/onset/high"])
def test_arrays_that_are_not_finite_are_told_about(
    pack: CharacterPack, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = pack.path / f"{name}.npy"
    np.save(file, np.full_like(np.load(file), np.nan))
    assert "damaged" in refusal(capsys, "render", pack.path, speech, "-o", tmp_path / "out.mp4", "--jobs", 1)
    assert not list(tmp_path.glob("*.mp4"))


def performance_of(nodes: list[int], cuts: list[int]) -> Performance:
    return Performance(
        nodes=np.array(nodes, np.int32),
        cuts=np.array(cuts),
        n_frames=4 * len(nodes),
        speaking=np.ones(len(nodes), np.float32),
        cost=0.0,
        retrieval="onset",
    )


def test_planned_transitions_of_cuts_side_by_side() -> None:
    assert planned_transitions(performance_of([0, 1, 5, 6], [1])) == {1: (1, 5)}
    assert planned_transitions(performance_of([0, 1, 5, 9, 10], [1, 2])) == {1: (1, 5)}
    assert planned_transitions(performance_of([0, 5, 9, 2, 3], [0, 1, 2])) == {0: (0, 5), 2: (9, 2)}
    assert planned_transitions(performance_of([0, 5, 6, 2, 3], [0, 2])) == {0: (0, 5), 2: (6, 2)}
    assert planned_transitions(performance_of([3], [])) == {}


def test_cuts_side_by_side_keep_the_length(
    pack: CharacterPack, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_steps = -(-frame_count(len(read_audio(speech))) // 4)
    nodes = [(7 * t) % 30 for t in range(n_steps)]
    made_up = replace(performance_of(nodes, list(range(n_steps - 1))), n_frames=frame_count(len(read_audio(speech))))
    monkeypatch.setattr("tango_rt.pipeline.character.perform", lambda *_: made_up)
    result = render(pack, speech, tmp_path / "out.mp4", RenderOptions(blender="cut"))
    assert result.n_hard_cuts == (n_steps - 1) // 2
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert sum(1 for _ in reader) == result.n_frames


@pytest.mark.parametrize(
    ("rate", "n_samples", "channels"),
    [(16000, 40, 1), (16000, 533, 1), (16000, 534, 1), (16000, 2133, 1), (16000, 2134, 1), (8000, 20001, 1),
     (48000, 120001, 2), (44100, 70001, 1), (11025, 3000, 2)],
)  # fmt: skip
def test_speech_of_any_length_and_rate(
    pack: CharacterPack, tmp_path: Path, rate: int, n_samples: int, channels: int
) -> None:
    speech = tmp_path / "speech.wav"
    samples = np.random.default_rng(0).integers(-9000, 9000, (n_samples, channels)).astype(np.int16)
    samples[0] = 5000
    wavfile.write(speech, rate, samples)
    heard = len(read_audio(speech))
    result = render(pack, speech, tmp_path / "out.mp4", RenderOptions(blender="cut"))
    assert abs(heard - n_samples * SAMPLE_RATE / rate) <= 1
    assert result.n_frames == frame_count(heard) and len(result.nodes) == -(-result.n_frames // FRAMES_PER_NODE)
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert sum(1 for _ in reader) == result.n_frames
    # the sound ends with the speech, to within a frame
    assert abs(len(read_audio(tmp_path / "out.mp4")) - heard) <= frame_start(1)


def test_speech_from_a_pipe_is_the_same_and_what_was_mended_is_said(
    pack: CharacterPack, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joined = join(tmp_path / "joined.wav", speech, speech)
    figures = run_json(capsys, "render", pack.path, joined, "-o", tmp_path / "out.mp4", "--blender", "cut")
    assert len(figures["warnings"]) == 1 and figures["warnings"][0].startswith("joined.wav: ")
    assert figures["duration_s"] == pytest.approx(2 * len(read_audio(speech)) / SAMPLE_RATE, abs=1e-3)
    with piped(joined.read_bytes()) as path:
        command = ["render", pack.path, path, "-o", tmp_path / "piped.mp4", "--blender", "cut"]
        main([str(argument) for argument in command])
    assert f"tango-rt: warning: {path.name}: " in capsys.readouterr().err
    with VideoReader(tmp_path / "out.mp4") as reader, VideoReader(tmp_path / "piped.mp4") as other:
        assert all(np.array_equal(one, two) for one, two in zip(reader, other, strict=True))
    np.testing.assert_array_equal(read_audio(tmp_path / "out.mp4"), read_audio(tmp_path / "piped.mp4"))
    with piped(b"no sound") as path:
        assert str(path) in refusal(capsys, "render", pack.path, path, "-o", tmp_path / "none.mp4")


def test_speech_of_one_sample_is_refused(
    pack: CharacterPack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speech = tmp_path / "click.wav"
    wavfile.write(speech, 48000, np.array([9000], np.int16))
    assert "click.wav" in refusal(capsys, "render", pack.path, speech, "-o", tmp_path / "out.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["anna.tango", "click.wav"]


def test_seed_is_the_performance(pack: CharacterPack, speech: Path) -> None:
    samples = read_audio(speech)
    paths = {
        seed: [perform(pack, samples, PerformOptions(seed=seed)).nodes.tolist() for _ in range(2)]
        for seed in (0, 1, -1, 2**80)
    }
    assert all(one == other for one, other in paths.values())
    assert len({tuple(one) for one, _ in paths.values()}) > 2


def test_cost_and_path_are_fit_for_json(pack: CharacterPack, speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run_json(capsys, "render", pack.path, speech, "-o", speech.with_suffix(".mp4"), "--blender", "cut")
    assert "NaN" not in (text := json.dumps(figures)) and "Infinity" not in text
    assert figures["cost"] > 0 and figures["retrieval"] == "onset"


def with_words(pack: CharacterPack, words: list[dict]) -> CharacterPack:
    """The pack as if it had been built with word timings."""
    info = replace(pack.info, words=json.dumps(words))
    (pack.path / "pack.json").write_text(info.to_json(), "utf-8")
    return CharacterPack.open(pack.path)


def test_sentence_of_the_reference_is_performed_as_it_was(
    pack: CharacterPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # dear enough to win against anything else: this is about the right place, not about the right weight
    monkeypatch.setattr("engine.motion_graph.words.KeywordOptions", partial(KeywordOptions, weight=5.0))
    node_s = FRAMES_PER_NODE / FPS
    sentence = range(42, 58)  # nodes of the second clip, a word each
    said_at = range(20, 36)  # steps of the speech
    words = [f"zanzi{letter}bar" for letter in "abcdefghijklmnop"]

    def timings(starts: range) -> list[dict]:
        return [
            {"word": word, "start": start * node_s, "end": (start + 1) * node_s}
            for word, start in zip(words, starts, strict=True)
        ]

    pack = with_words(pack, timings(sentence))
    spoken = tmp_path / "words.json"
    spoken.write_text(json.dumps({"words": timings(said_at)}).replace("zanzi", "Zanzi"))
    samples = read_audio(write_speech(tmp_path / "speech.wav", 6))
    found = perform(pack, samples, PerformOptions(words=read_words(spoken)))
    plain = perform(pack, samples, PerformOptions())
    assert (found.retrieval, plain.retrieval) == ("onset+words", "onset")
    steps = slice(said_at.start, said_at.stop)
    assert np.mean(found.nodes[steps] == list(sentence)) > 0.8
    assert np.mean(plain.nodes[steps] == list(sentence)) < 0.5


def test_words_are_checked(pack: CharacterPack, tmp_path: Path) -> None:
    pack = with_words(pack, [{"word": "a", "start": 0, "end": 1}])
    samples = read_audio(write_speech(tmp_path / "speech.wav", 2))
    words = tmp_path / "words.json"
    for text, wanted in (
        (b"", "empty"),
        (b"[", "JSON"),
        (b"\xff\xfe", "cannot be read"),
        (b'[{"word": "a", "start": 50, "end": 51}]', "s"),
    ):
        words.write_bytes(text)
        with pytest.raises(InputError, match=wanted):
            perform(pack, samples, PerformOptions(words=read_words(words)))
    with pytest.raises(InputError, match="cannot be read"):
        perform(pack, samples, PerformOptions(words=read_words(tmp_path / "none.json")))


def test_byte_order_mark_of_words_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "words.json").write_bytes(b'\xef\xbb\xbf[{"word": "na\xc3\xafve", "start": 0, "end": 1}]')
    assert json.loads(read_words(tmp_path / "words.json"))[0]["word"] == "naïve"


def test_bad_places_are_refused_before_the_work(
    pack: CharacterPack,
    speech: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tango_rt.pipeline.character.perform", lambda *_: pytest.fail("work was begun"))
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "o.mp4"
    for arguments, wanted in (
        (("-o", tmp_path / "none" / "o.mp4"), "does not exist"),
        (("-o", tmp_path / "anna.tango"), ".mp4"),
        (("-o", tmp_path / ("n" * 300 + ".mp4")), "too long"),
        (("-o", out, "--plot", tmp_path / "p.foo"), ".png"),
        (("-o", out, "--plot", tmp_path / "none" / "p.png"), "does not exist"),
    ):
        assert wanted in refusal(capsys, "render", pack.path, speech, *arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_speech_is_never_overwritten(
    pack: CharacterPack, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "talk.mp4"
    render(pack, speech, video, RenderOptions(blender="cut"))
    before = video.read_bytes()
    (tmp_path / "linked.mp4").symlink_to(video)
    os.link(video, tmp_path / "twin.mp4")
    for out in (video, tmp_path / "linked.mp4", tmp_path / "twin.mp4"):
        assert "speech itself" in refusal(capsys, "render", pack.path, video, "-o", out)
    assert video.read_bytes() == before


@pytest.mark.parametrize("where", ["first transition", "half of the video"])
def test_interrupted_render_leaves_no_video(
    pack: CharacterPack, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    calls = Counter()
    name, limit = ("packets", 60) if where == "half of the video" else ("make", 1)
    owner = CharacterPack if name == "packets" else transitions_module.TransitionMaker
    original = getattr(owner, name)

    def interrupted(self: object, what: object) -> object:
        calls[name] += 1
        if calls[name] > limit:
            raise KeyboardInterrupt
        return original(self, what)

    monkeypatch.setattr(owner, name, interrupted)
    out = tmp_path / "out.mp4"
    out.write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt):
        render(pack, speech, out, RenderOptions(blender="crossfade"))
    assert out.read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["anna.tango", "out.mp4", "speech.wav"]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.skipif(shutil.which("ps") is None, reason="no ps to see processes with")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_processes_start_says_one_line(
    pack: CharacterPack, tmp_path: Path, ending: signal.Signals
) -> None:
    """Ctrl-C in a terminal goes to the whole process group, a request to end to one process."""
    speech = write_speech(tmp_path / "speech.wav", 20)  # enough cuts for processes to be worth their start
    arguments = ["render", str(pack.path), str(speech), "-o", str(tmp_path / "out.mp4"), "--jobs", "2"]
    program = [sys.executable, "-c", "from tango_rt.cli import main; main()", *arguments]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    while "spawn_main" not in _group(process.pid) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.3)
    if ending == signal.SIGINT:
        os.killpg(process.pid, ending)
    else:
        process.send_signal(ending)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == b"" and err.decode().splitlines() == ["tango-rt: interrupted; nothing half-written was left behind"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["anna.tango", "speech.wav"]
    assert "spawn_main" not in _group(process.pid)


def _group(number: int) -> str:
    """Commands of the processes of a group that are alive."""
    lines = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pgid=,stat=,args="], capture_output=True, text=True
    ).stdout.splitlines()
    return "\n".join(line for line in lines if line.split()[0] == str(number) and not line.split()[1].startswith("Z"))
