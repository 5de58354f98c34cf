"""The Python face: what it exports, and a character from build to live frames, as README shows it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tango_rt
from engine.timebase import FRAMES_PER_NODE, SAMPLE_RATE, frame_count
from tango_rt import Character, InputError
from tango_rt.pipeline.render import RenderResult
from tango_rt.video.reader import VideoReader
from tests.helpers.fakes import make_pack
from tests.helpers.speech import write_speech

ROOT = Path(__file__).resolve().parent.parent


def read_video(path: Path) -> np.ndarray:
    with VideoReader(path, 1080) as reader:
        return np.stack(list(reader))


@pytest.fixture(scope="module")
def character(tmp_path_factory: pytest.TempPathFactory) -> Character:
    return Character.open(str(make_pack(tmp_path_factory.mktemp("packs") / "anna.tango").path))


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    rng = np.random.default_rng(3)
    return (0.2 * rng.standard_normal(3 * SAMPLE_RATE)).astype(np.float32)


def test_exported_names_are_there_and_documented() -> None:
    for name in tango_rt.__all__:
        value = getattr(tango_rt, name)
        assert name == "__version__" or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tango_rt.nothing  # type: ignore[attr-defined]


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, tango_rt, tango_rt.client\n"
        "print({'numba', 'cv2', 'av', 'scipy', 'matplotlib', 'engine'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"


def test_render_of_a_file_and_of_samples_is_the_same(character: Character, samples: np.ndarray, tmp_path: Path) -> None:
    seen: list[tango_rt.Progress] = []
    first = character.render(samples, tmp_path / "a.mp4", SAMPLE_RATE, blender="crossfade", on_progress=seen.append)
    again = character.render(samples.tolist(), str(tmp_path / "b.mp4"), SAMPLE_RATE, blender="crossfade")
    assert isinstance(first, RenderResult) and first.nodes == again.nodes
    assert read_video(tmp_path / "a.mp4").shape == read_video(tmp_path / "b.mp4").shape
    assert (seen[0].stage, seen[0].done) == ("transitions", 0) and seen[-1].done == seen[-1].total
    assert "of" in str(seen[-1])


def test_frames_are_those_of_the_video(character: Character, samples: np.ndarray, tmp_path: Path) -> None:
    result = character.render(samples, tmp_path / "a.mp4", SAMPLE_RATE, blender="crossfade", label="AI")
    frames = list(character.frames(samples, SAMPLE_RATE, blender="crossfade", label="AI"))
    assert [frame.index for frame in frames] == list(range(result.n_frames))
    assert [frames[t].node for t in range(0, len(frames), FRAMES_PER_NODE)] == result.nodes
    shown = read_video(tmp_path / "a.mp4")
    assert frames[0].picture.shape == (*character.size[::-1], 3)
    assert max(np.abs(a.picture.astype(int) - b).mean() for a, b in zip(frames, shown, strict=True)) < 3
    assert all(frame.speaking for frame in frames) and frames[-1].time_s == pytest.approx((len(frames) - 1) / 30)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_stream_says_the_same_however_it_is_cut(character: Character, samples: np.ndarray, rate: int) -> None:
    def performed(chunk: int) -> list[int]:
        with character.stream(rate, blender="cut") as live:
            nodes = []
            for start in range(0, len(samples), chunk):
                live.push(samples[start : start + chunk])
                nodes += [frame.node for frame in live.speech()]
            live.end_of_utterance()
            return nodes + [frame.node for frame in live.speech()]

    nodes = performed(800)
    assert performed(len(samples)) == nodes
    n_frames = frame_count(round(len(samples) * SAMPLE_RATE / rate))
    assert len(nodes) == -(-n_frames // FRAMES_PER_NODE) * FRAMES_PER_NODE


def test_a_stream_rests_and_is_interrupted(character: Character, samples: np.ndarray) -> None:
    with character.stream(blender="cut") as live:
        assert not any(frame.speaking for frame in live.next())
        live.push(samples)
        spoken = live.next()
        assert any(frame.speaking for frame in spoken)
        assert [frame.index for frame in spoken] == [4, 5, 6, 7]
        live.interrupt()
        assert not any(frame.speaking for frame in live.next())
        live.push(samples)
        assert any(frame.speaking for frame in live.next())
    with pytest.raises(RuntimeError, match="closed"):
        live.next()


def test_what_cannot_be_used_is_said(character: Character, samples: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    for speech, rate, wanted in (
        (samples, None, "need their rate"),
        (samples, 4_000, "sample rate of 4000"),
        (np.stack([samples, samples]), SAMPLE_RATE, "channel"),
        (samples * 1000, SAMPLE_RATE, "full scale"),
        (np.zeros_like(samples), SAMPLE_RATE, "silent"),
        (samples[:0], SAMPLE_RATE, "no samples"),
        (write_speech(tmp_path / "speech.wav", 1), SAMPLE_RATE, "its own sample rate"),
        (tmp_path / "none.wav", None, "none.wav"),
    ):
        with pytest.raises(InputError, match=wanted):
            character.render(speech, out, rate)
    with pytest.raises(InputError, match=r"end in \.mp4"):
        character.render(samples, tmp_path / "out.avi", SAMPLE_RATE)
    with pytest.raises(InputError, match="unknown"):
        character.render(samples, out, SAMPLE_RATE, blender="wipe")
    assert not out.exists()


def test_readme_runs(
    character: Character, samples: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its block of Python, but for the build, which takes minutes: the character is there already."""
    block = next(b for b in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL))
    assert "tango_rt.build(" in block
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tango_rt, "build", lambda videos, output: character, raising=False)
    write_speech(tmp_path / "speech.wav", 2)
    scope = {"samples": samples, "rate": SAMPLE_RATE, "chunk": samples[:1600]}
    exec(compile(block, "README.md", "exec"), scope)
    assert (tmp_path / "out.mp4").is_file() and isinstance(scope["result"], RenderResult)
