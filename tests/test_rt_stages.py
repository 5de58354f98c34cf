"""Stages behind the search: without them nothing happens to pictures; with them, the same in renders and sessions."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.character.pack import CharacterPack
from engine.errors import InputError
from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE, frame_start
from tango_rt.pipeline.captions import missing_glyphs, text_stages
from tango_rt.pipeline.live import Step
from tango_rt.pipeline.render import RenderOptions, render
from tango_rt.pipeline.stages import Shown, StageChain, UtteranceSound
from tango_rt.pipeline.store import CharacterStore
from tango_rt.server.checks import plan_session
from tango_rt.server.config import ServerConfig
from tango_rt.server.listening import GestureServer
from tango_rt.server.metrics import Metrics
from tango_rt.server.opening import Opener
from tango_rt.server.status import Refusal
from tango_rt.v1 import media_pb2, session_pb2
from tango_rt.video.codecs import StepPictures
from tango_rt.video.gop import GopDecoder, GopEncoder
from tango_rt.video.reader import VideoReader
from tango_rt.video.shared_pictures import SharedPictures
from tests.helpers.commands import refusal
from tests.helpers.fakes import HEIGHT, WIDTH, make_pack
from tests.helpers.live_server import speech as sound_of
from tests.helpers.speech import write_speech

LABEL = "AI-made"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "anna.tango").path


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> CharacterPack:
    return CharacterPack.open(shutil.copytree(made, tmp_path / "anna.tango"))


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_speech(tmp_path / "speech.wav")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often pictures are decoded and encoded."""
    counted: Counter[str] = Counter()
    for owner, name in ((GopDecoder, "decode"), (GopDecoder, "decode_i420"), (GopEncoder, "encode_i420")):
        monkeypatch.setattr(owner, name, _counting(getattr(owner, name), counted, name))
    return counted


def _counting(original: Callable[..., Any], counted: Counter[str], name: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        counted[name] += 1
        return original(*arguments)

    return call


@dataclass
class Recorder:
    """A stage that hears, sees if it is told to, and changes nothing."""

    lookahead_s: float | None = 0.3
    key: str | None = None
    sees: bool = False
    shown: list[Shown] = field(default_factory=list)

    def apply(self, shown: Shown) -> Shown:
        self.shown.append(shown)
        if self.sees:
            shown.pixels()
        return shown


class Inverter:
    lookahead_s = None
    key = "inverted"

    def apply(self, shown: Shown) -> Shown:
        return shown.changed(255 - shown.pixels())


def node(pack: CharacterPack, number: int) -> StepPictures:
    return StepPictures(tuple(pack.packets(number)))


def frames_of(pack: CharacterPack, drawn: StepPictures) -> np.ndarray:
    return GopDecoder(pack.info.extradata, WIDTH, HEIGHT).decode_i420(drawn.packets)


def test_without_stages_nothing_is_decoded(
    pack: CharacterPack, speech: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    first = render(pack, speech, tmp_path / "a.mp4", RenderOptions(blender="crossfade"))
    calls.clear()
    render(pack, speech, tmp_path / "b.mp4", RenderOptions(blender="crossfade"))
    assert not calls and first.n_transitions_computed
    render(pack, speech, tmp_path / "c.mp4", RenderOptions(blender="crossfade", label=LABEL))
    n_steps = len(first.nodes)
    assert calls == {"decode_i420": n_steps, "encode_i420": n_steps}


def test_pictures_are_decoded_and_encoded_once_and_only_if_a_stage_asks(
    pack: CharacterPack, calls: Counter[str]
) -> None:
    drawn = node(pack, 3)
    assert StageChain(pack.info, [Recorder(), Recorder()]).apply(Step(3), drawn) is drawn and not calls
    assert StageChain(pack.info, [Recorder(sees=True), Recorder(sees=True)]).apply(Step(3), drawn) is drawn
    assert calls == {"decode_i420": 1}
    calls.clear()
    changed = StageChain(pack.info, [Recorder(sees=True), Inverter(), Inverter(), Inverter()]).apply(Step(3), drawn)
    assert calls == {"decode_i420": 1, "encode_i420": 1}
    assert changed.changed and not changed.generated and len(changed.packets) == FRAMES_PER_NODE
    wanted = 255 - frames_of(pack, drawn).astype(int)
    assert np.abs(frames_of(pack, changed) - wanted).mean() < 2


def test_what_depends_on_pixels_alone_is_made_once_for_all(pack: CharacterPack, calls: Counter[str]) -> None:
    shared = SharedPictures(1 << 20)
    chains = [StageChain(pack.info, [Inverter()], shared) for _ in range(2)]
    one, other = (chain.apply(Step(3), node(pack, 3)) for chain in chains)
    assert one == other and calls["encode_i420"] == 1
    assert chains[0].apply(Step(4), node(pack, 4)) != one and calls["encode_i420"] == 2
    for stages in ([Inverter(), Inverter()], [Inverter(), Recorder()]):  # others, and one that may depend on more
        before = calls["encode_i420"]
        StageChain(pack.info, stages, shared).apply(Step(3), node(pack, 3))
        assert calls["encode_i420"] == before + 1


def test_sound_does_not_depend_on_chunks_and_goes_on_in_silence() -> None:
    samples = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    whole, pieces = UtteranceSound(), UtteranceSound()
    whole.push(samples)
    for piece in np.split(samples, [7, 7, 900, 3000]):
        pieces.push(piece)
    padded = np.pad(samples, (0, 9000))
    for first_frame in range(0, 16, 4):
        step = Step(0, utterance="u", first_frame=first_frame)
        start, end = frame_start(first_frame), frame_start(first_frame + 4) + round(0.3 * SAMPLE_RATE)
        for sound in (whole, pieces):
            np.testing.assert_array_equal(sound.excerpt(step, 0.3), padded[start:end])
            np.testing.assert_array_equal(sound.excerpt(step, 0.3), padded[start:end])  # taken back, and again


@pytest.fixture
def opener(made: Path) -> Opener:
    return Opener(ServerConfig(characters=made.parent), CharacterStore(made.parent), None, Metrics())


def played(opener: Opener, data: bytes, **fields: Any) -> Iterator[Any]:
    """The frames of a session that says something and rests a moment."""
    config = session_pb2.SessionConfig(character="anna", blender=media_pb2.BLENDER_CUT, **fields)
    session = opener.open(plan_session(config, opener.server), "s", 10.0).session
    session.queue.accept(session_pb2.AudioChunk(data=data, utterance_id="u"), 0.0)
    session.queue.end_open()
    session.queue.closed = True
    while not session.over:
        if session.has_frame or session.prepare():
            for message in session.show(0.0):
                if message.WhichOneof("message") == "frame":
                    yield message.frame


@pytest.mark.parametrize("pacing", [session_pb2.PACING_FAST, session_pb2.PACING_REALTIME])
def test_a_stage_of_a_session_hears_its_frames_and_what_follows(opener: Opener, pacing: int) -> None:
    recorder = Recorder(lookahead_s=0.2)
    data = sound_of(2.0)
    frames = list(played(replace(opener, stages=lambda _: [recorder]), data, pacing=pacing))
    assert len(recorder.shown) == -(-len(frames) // FRAMES_PER_NODE)
    speaking = [shown for shown in recorder.shown if shown.step.utterance is not None]
    assert [shown.step.first_frame for shown in speaking] == list(range(0, 60, FRAMES_PER_NODE))
    padded = np.pad(np.frombuffer(data, "<i2").astype(np.float32) / 32768, (0, SAMPLE_RATE))
    for shown in speaking:
        first, last = shown.step.first_frame, shown.step.first_frame + FRAMES_PER_NODE
        assert shown.sound is not None
        np.testing.assert_array_equal(shown.sound, padded[frame_start(first) : frame_start(last) + 3200])
    assert all(shown.sound is None for shown in recorder.shown if shown.step.utterance is None)


def test_a_session_that_hears_less_far_than_its_stages_is_refused(opener: Opener) -> None:
    hearing = replace(opener, stages=lambda _: [Recorder(lookahead_s=0.5)])
    with pytest.raises(Refusal, match=r"need 0\.50 s"):
        next(played(hearing, sound_of(1.0), lookahead_nodes=0))
    assert next(played(hearing, sound_of(1.0), whole_utterance=True, pacing=session_pb2.PACING_FAST))


@pytest.mark.parametrize("encoding", [media_pb2.VIDEO_ENCODING_H264, media_pb2.VIDEO_ENCODING_REFERENCE])
def test_a_session_sends_what_its_stages_made(pack: CharacterPack, opener: Opener, encoding: int) -> None:
    labelled = replace(opener, stages=lambda info: text_stages(info, label=LABEL), pictures=SharedPictures(1 << 20))
    options = {"video_encoding": encoding, "pacing": session_pb2.PACING_FAST, "whole_utterance": True}
    frames = list(played(labelled, sound_of(0.5), **options))
    plain = list(played(opener, sound_of(0.5), **options))
    assert [frame.source.node for frame in frames] == [frame.source.node for frame in plain]
    assert [frame.kind for frame in frames] == [frame.kind for frame in plain]
    head = len(pack.info.extradata)
    for first in range(0, len(frames) - 3, FRAMES_PER_NODE):
        four = frames[first : first + FRAMES_PER_NODE]
        assert four[0].data.startswith(pack.info.extradata) and four[0].key_frame
        drawn = StepPictures((four[0].data[head:], *(frame.data for frame in four[1:])))
        check_labelled(frames_of(pack, drawn), frames_of(pack, node(pack, four[0].source.node)))


def check_labelled(labelled: np.ndarray, plain: np.ndarray) -> None:
    """A dark box with light letters in the upper right corner, the rest as it was."""
    difference = np.abs(labelled[:, :HEIGHT].astype(int) - plain[:, :HEIGHT])
    assert difference[:, 4:16, -30:-4].mean() > 60 and labelled[:, 4:20, -60:-2].max() > 200
    assert difference[:, 30:].mean() < 2


def test_a_render_is_labelled_in_one_place_all_along(pack: CharacterPack, speech: Path, tmp_path: Path) -> None:
    frames = []
    for name, label in (("plain", None), ("labelled", LABEL)):
        result = render(pack, speech, tmp_path / f"{name}.mp4", RenderOptions(blender="crossfade", label=label))
        with VideoReader(tmp_path / f"{name}.mp4") as reader:
            frames.append(np.stack([frame[..., 1] for frame in reader]).astype(int))
        assert len(frames[-1]) == result.n_frames and result.n_cuts > 1
    plain, labelled = frames
    corner = labelled[:, 2:22, WIDTH - 60 :]
    assert np.abs(corner - corner[0]).mean(axis=(1, 2)).max() < 4  # nothing flickers, at cuts neither
    assert np.abs(labelled - plain)[:, 30:].mean() < 2


WORDS = json.dumps([{"word": w, "start": s, "end": s + 0.2} for w, s in (("one", 0.2), ("two", 0.5), ("ten", 2.0))])


def test_words_are_shown_while_they_are_said(pack: CharacterPack, calls: Counter[str]) -> None:
    chain = StageChain(pack.info, text_stages(pack.info, caption="words", words=WORDS))
    shown = []
    for first_frame in range(0, 80, FRAMES_PER_NODE):
        drawn = node(pack, 5)
        passed = chain.apply(Step(5, utterance="u", first_frame=first_frame), drawn)
        if passed is not drawn:
            difference = np.abs(frames_of(pack, passed).astype(int) - frames_of(pack, drawn))[
                :, HEIGHT - 14 : HEIGHT - 4
            ]
            shown += [first_frame + k for k in range(4) if difference[k].mean() > 10]
    said = [range(6, 30), range(60, 75)]  # "one two" up to 0.3 s after its end, "ten" likewise
    assert shown == [frame for span in said for frame in span]
    assert chain.apply(Step(5), node(pack, 5)) == node(pack, 5)  # nobody speaks


def test_words_that_are_too_long_are_shortened(pack: CharacterPack) -> None:
    words = json.dumps([{"word": "w" * 99, "start": 0, "end": 1}, {"word": "next", "start": 1, "end": 2}])
    chain = StageChain(pack.info, text_stages(pack.info, caption="words", words=words))
    assert chain.apply(Step(5, utterance="u"), node(pack, 5)).changed


def test_letters_that_cannot_be_drawn_are_told(pack: CharacterPack) -> None:
    assert missing_glyphs("Grüße, Привет 12 % мир ελ") == ""
    for what in ("label", "caption"):
        with pytest.raises(InputError, match=f"{what} 'über 你好': the font cannot draw 你好"):
            text_stages(pack.info, **{what: "über 你好"})
        with pytest.raises(InputError, match="empty"):
            text_stages(pack.info, **{what: " "})
    warnings: list[str] = []
    text_stages(pack.info, caption="words", words=WORDS.replace("two", "你"), warn=warnings.append)
    assert warnings == ["the font cannot draw 你 in the words: boxes are shown instead"]
    with pytest.raises(InputError, match="shorten it"):
        text_stages(pack.info, caption="long " * 40)


def test_command(pack: CharacterPack, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("render", pack.path, speech, "-o", tmp_path / "out.mp4")
    assert "add --words" in refusal(capsys, *arguments, "--caption", "words")
    assert "cannot draw" in refusal(capsys, *arguments, "--label", "你好")
    assert not list(tmp_path.glob("*.mp4"))


def test_a_server_that_cannot_draw_its_label_does_not_start(made: Path) -> None:
    with pytest.raises(InputError, match="cannot draw"):
        GestureServer(ServerConfig(characters=made.parent, listen=("127.0.0.1:0",), label="你好"))
