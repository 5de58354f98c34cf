"""The command line as a user meets it: figures as JSON, one line and exit code 2 for bad input, nothing left behind."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from engine.timebase import SAMPLE_RATE, frame_count
from tango_rt.cli import main
from tango_rt.sound.audio import read_audio
from tango_rt.video.reader import VideoReader
from tests.helpers.commands import refusal, run_json
from tests.helpers.fakes import make_pack
from tests.helpers.speech import write_speech


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packs") / "anna.tango"
    make_pack(path)
    return path


def test_render(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speech = write_speech(tmp_path / "speech.wav")
    out = tmp_path / "out.mp4"
    first = run_json(capsys, "render", pack, speech, "-o", out, "--jobs", 1, "--plot", tmp_path / "path.png")
    samples = read_audio(speech)
    assert first["n_frames"] == frame_count(len(samples))
    assert len(first["nodes"]) == -(-first["n_frames"] // 4)
    assert abs(first["duration_s"] - 7.3) < 1 / 30
    assert first["n_cuts"] >= first["n_transitions_computed"] + first["n_transitions_cached"] > 0
    assert first["n_hard_cuts"] == 0
    with VideoReader(out) as reader:
        assert sum(1 for _ in reader) == first["n_frames"]
    assert abs(len(read_audio(out)) - len(samples)) <= SAMPLE_RATE / 30
    assert (tmp_path / "path.png").stat().st_size > 1000
    again = run_json(capsys, "render", pack, speech, "-o", out, "--jobs", 1)
    assert again["nodes"] == first["nodes"]
    assert again["n_transitions_computed"] == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.mp4", "path.png", "speech.wav"]


@pytest.mark.parametrize("blender", ["cut", "crossfade"])
def test_other_blenders_and_searches(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], blender: str
) -> None:
    speech = write_speech(tmp_path / "speech.wav", 4)
    out = tmp_path / "out.mp4"
    result = run_json(
        capsys, "render", pack, speech, "-o", out, "--blender", blender, "--search", "official", "--jobs", 1
    )
    assert (result["blender"], result["search"]) == (blender, "official")
    with VideoReader(out) as reader:
        assert sum(1 for _ in reader) == result["n_frames"]


def test_seed_changes_the_performance(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speech = write_speech(tmp_path / "speech.wav")
    paths = [
        run_json(
            capsys,
            "render",
            pack,
            speech,
            "-o",
            tmp_path / "o.mp4",
            "--seed",
            seed,
            "--blender",
            "cut",
            "--jobs",
            1,
        )["nodes"]
        for seed in (1, 1, 2)
    ]
    assert paths[0] == paths[1] != paths[2]


def test_inspect(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run_json(capsys, "character", "inspect", pack)
    assert (figures["character"], figures["n_clips"]) == (str(pack), 2)
    main(["character", "inspect", str(pack)])
    assert "2 clips" in capsys.readouterr().out


def _audio(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.wav"
    silence = np.zeros(SAMPLE_RATE, np.float32)
    if kind == "silent":
        wavfile.write(path, SAMPLE_RATE, silence)
    elif kind == "nan":
        silence[500] = np.nan
        wavfile.write(path, SAMPLE_RATE, silence)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "zero_length":
        wavfile.write(path, SAMPLE_RATE, silence[:0])
    elif kind == "text":
        path.write_text("this is no sound\n" * 100)
    return path


@pytest.mark.parametrize("kind", ["missing", "silent", "nan", "empty", "zero_length", "text"])
def test_bad_speech(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    speech = _audio(kind, tmp_path)
    out = tmp_path / "out" / "out.mp4"
    out.parent.mkdir()
    assert speech.name in refusal(capsys, "render", pack, speech, "-o", out)
    assert list(out.parent.iterdir()) == []


def test_bad_packs_and_outputs(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speech = write_speech(tmp_path / "speech.wav", 1)
    assert "no character" in refusal(capsys, "render", tmp_path / "nobody.tango", speech, "-o", tmp_path / "o.mp4")
    assert "damaged" in refusal(capsys, "character", "inspect", tmp_path)
    assert ".mp4" in refusal(capsys, "render", pack, speech, "-o", tmp_path / "o.avi")
    assert "folder" in refusal(capsys, "render", pack, speech, "-o", tmp_path / "no" / "o.mp4")
    words = tmp_path / "words.json"
    words.write_text("[]")
    assert "--words" in refusal(capsys, "render", pack, speech, "-o", tmp_path / "o.mp4", "--words", words)


@pytest.mark.parametrize("command", [[], ["demo"], ["character", "build"], ["character", "inspect"], ["render"]])
def test_help_has_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    help_text = capsys.readouterr().out
    assert f"tango-rt {' '.join(command)}".strip() in help_text.partition("examples:")[2]
