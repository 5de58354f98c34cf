"""Training: augmentations do what they say, batches stay inside clips, runs go on as if never stopped."""

import math
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

torch = pytest.importorskip("torch")

from engine.errors import ArtifactError, BackendError, InputError  # noqa: E402
from engine.features.body import body_descriptors, mirror  # noqa: E402
from engine.features.recording import Recording  # noqa: E402
from engine.features.speech import speech_features  # noqa: E402
from engine.skeleton import LEFT_HAND, LEFT_WRIST, RIGHT_HAND, RIGHT_WRIST  # noqa: E402
from engine.timebase import FPS, frame_start  # noqa: E402
from export.models.mini import MiniConfig  # noqa: E402
from export.training import augment, run, trainer  # noqa: E402
from export.training.adapt import AdaptOptions, adapt  # noqa: E402
from export.training.augment import AugmentOptions, augmented  # noqa: E402
from export.training.batches import Sampler, Take, cut_nodes, make_takes, split_time  # noqa: E402
from export.training.checkpoint import read_checkpoint, write_checkpoint  # noqa: E402
from export.training.run import _curves_file, train  # noqa: E402
from export.training.trainer import Trainer, TrainOptions, _device  # noqa: E402

MODEL = MiniConfig(
    width=12, dilations=(1, 2, 4), high_dilations=(1,), low_dim=8, high_dim=8, heads=2, window_frames=32, dropout=0.1
)
OPTIONS = TrainOptions(
    steps=6, batch=4, window_frames=64, model=MODEL, variants=1, validate_every=3, progress=False, device="cpu"
)


pytestmark = pytest.mark.usefixtures("one_thread")


def _recording(seed: int = 0, clip_nodes: tuple[int, ...] = (150,), planted: bool = True, name: str = "") -> Recording:
    """Somebody whose hands move when the voice is loud; without `planted` whenever they like."""
    rng = np.random.default_rng(seed)
    start = np.cumsum([0, *clip_nodes])
    n = int(start[-1]) * 4
    beat, other = (np.clip(np.convolve(rng.normal(0, 1, n + 8), np.hanning(9), "valid"), 0, None) for _ in range(2))
    loudness = np.repeat(beat, 534)[: frame_start(n)]
    samples = (0.03 * (0.1 + loudness) * rng.normal(0, 1, frame_start(n))).astype(np.float32)
    joints = np.repeat(rng.uniform(0, 100, (1, 75, 3)), n, axis=0)
    path = np.cumsum((beat if planted else other) * np.where(np.arange(n) // 12 % 2, 1, -1))
    for hand, wrist in ((LEFT_HAND, LEFT_WRIST), (RIGHT_HAND, RIGHT_WRIST)):
        joints[:, hand, 1] += path[:, None]
        joints[:, wrist, 1] += path
    joints += rng.normal(0, 0.05, joints.shape)
    confidence = np.ones((n, 75), np.float32)
    mouth = np.stack([beat, beat], axis=1).astype(np.float32)
    return Recording(name or f"p{seed}", samples, joints.astype(np.float32), confidence, start, 20.0, mouth)


def _write(folder: Path, name: str, seed: int, n_lines: int = 200) -> None:
    """A recording as joint text and wav, for what reads files."""
    recording = _recording(seed, (n_lines // 2,))
    given = np.zeros((n_lines, 49, 3))
    given[:, 1, 0], given[:, 4, 0] = -10, 10
    for joint in (6, *range(7, 28)):
        given[:, joint] = recording.joints[: 2 * n_lines : 2, LEFT_WRIST] + joint
    np.savetxt(folder / f"{name}.joints.txt", given.reshape(n_lines, 147), fmt="%.4f")
    wavfile.write(folder / f"{name}.wav", 16_000, (recording.samples * 32767).astype(np.int16))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    for seed, name in enumerate(("anna", "ben")):
        _write(folder, name, seed)
    return folder


def test_mirror_is_the_mirror_of_the_descriptors() -> None:
    recording = _recording(1)
    recording.joints[:, 1:11] += np.random.default_rng(0).normal(0, 3, recording.joints[:, 1:11].shape)
    swapped = augment.mirror(recording)
    np.testing.assert_allclose(body_descriptors(swapped), mirror(body_descriptors(recording)), atol=1e-5)
    np.testing.assert_array_equal(augment.mirror(swapped).joints, recording.joints)
    assert swapped.joints[5, LEFT_WRIST, 1] == recording.joints[5, RIGHT_WRIST, 1]


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_tempo_moves_speech_and_motion_together(factor: float) -> None:
    recording = _recording(2, (80, 40))
    changed = augment.tempo(recording, factor)
    assert changed.n_frames == pytest.approx(recording.n_frames / factor, abs=8)
    assert len(changed.samples) == frame_start(changed.n_frames) and len(changed.clip_start) == 3
    for clip, was in zip(changed.clips, recording.clips, strict=True):
        where = was.start + np.arange(clip.stop - clip.start) * factor
        inside = where < was.stop - 1
        wanted = np.interp(where, np.arange(recording.n_frames), recording.joints[:, LEFT_WRIST, 1])
        np.testing.assert_allclose(changed.joints[clip, LEFT_WRIST, 1][inside], wanted[inside], rtol=1e-4)
        level = speech_features(changed.samples)[clip, 0]
        wanted = np.interp(where, np.arange(recording.n_frames), speech_features(recording.samples)[:, 0])
        assert np.corrcoef(level[inside][10:], wanted[inside][10:])[0, 1] > 0.9


def test_tempo_1_changes_nothing() -> None:
    recording = _recording(2)
    assert augment.tempo(recording, 1.0) is recording


def test_noise_has_the_power_that_is_asked_for(rng: np.random.Generator) -> None:
    recording = _recording(3)
    for snr_db in (0.0, 20.0):
        noise = augment.add_noise(recording, rng, snr_db).samples - recording.samples
        ratio = np.mean(recording.samples.astype(float) ** 2) / np.mean(noise.astype(float) ** 2)
        assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.1)


def test_gain_wanders_within_its_bounds(rng: np.random.Generator) -> None:
    recording = _recording(3)
    heard = np.abs(recording.samples) > 1e-3
    gain_db = 20 * np.log10(augment.ride_gain(recording, rng, 5.0).samples[heard] / recording.samples[heard])
    assert np.abs(gain_db).max() <= 5.01 and gain_db.std() > 0.5 and np.abs(np.diff(gain_db)).max() < 0.1


def test_jitter_is_measured_in_shoulder_widths(rng: np.random.Generator) -> None:
    recording = _recording(3)
    trembling = augment.jitter(recording, rng, 0.01).joints - recording.joints
    assert trembling.std() == pytest.approx(0.01 * recording.unit_px, rel=0.02)


def test_dropped_hands_stay_on_the_wrist_with_no_confidence(rng: np.random.Generator) -> None:
    recording = _recording(3, (400, 200))
    changed = augment.drop_hands(recording, rng, 0.2)
    for hand, wrist in ((LEFT_HAND, LEFT_WRIST), (RIGHT_HAND, RIGHT_WRIST)):
        lost = (changed.confidence[:, hand] == 0).all(axis=1)
        assert 0.05 < lost.mean() < 0.4
        np.testing.assert_array_equal(changed.joints[~lost, hand], recording.joints[~lost, hand])
        shape = changed.joints[:, hand] - changed.joints[:, wrist, None]
        held = lost[1:] & lost[:-1]
        assert (np.abs(np.diff(shape, axis=0)[held]).max(axis=(1, 2)) < 1e-3).mean() > 0.9  # but where drops meet
    assert (changed.confidence[:, :33] == 1).all()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_augmented_recordings_are_whole_and_finite(seed: int, clip_nodes: list[int]) -> None:
    recording = _recording(4, tuple(clip_nodes))
    strong = AugmentOptions(0.5, 0.3, 12, (0, 10), 1.0, 0.05, 0.5)
    one, two = (augmented(recording, np.random.default_rng(seed), strong) for _ in range(2))
    assert len(one.clips) == len(recording.clips)  # Recording itself checks that its parts fit
    for name in ("samples", "joints", "confidence", "mouth"):
        assert np.isfinite(getattr(one, name)).all()
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    still = AugmentOptions(0, 0, 0, (0, 0), 0, 0, 0)
    np.testing.assert_allclose(
        augmented(recording, np.random.default_rng(seed), still).samples, recording.samples, atol=1e-6
    )


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(5, 60), min_size=1, max_size=5), st.integers(0, 1000))
def test_windows_stay_inside_a_clip(clip_nodes: list[int], step: int) -> None:
    # every frame says which clip it is of, and which frame it is
    start = np.cumsum([0, *clip_nodes]) * 4
    number = np.repeat(np.arange(len(clip_nodes)), np.diff(start))
    rows = np.stack([number, np.arange(len(number))], axis=1).astype(np.float32) + 1
    take = Take("a", rows, rows * 2, [slice(int(a), int(b)) for a, b in pairwise(start)])
    least = 2 * 10 + 32
    if max(clip_nodes) * 4 < least:
        with pytest.raises(InputError, match="training needs"):
            Sampler([[take]], 80, 10, 0)
        return
    sampler = Sampler([[take]], 80, 10, 0)
    batch = sampler.batch(step, 5)
    again = sampler.batch(step, 5)
    for k, n in enumerate(batch.n_frames):
        assert least <= n <= 80 and len(set(batch.rows[k, :n, 0])) == 1
        assert (np.diff(batch.rows[k, :n, 1]) == 1).all() and not batch.rows[k, n:].any()
    np.testing.assert_array_equal(batch.descriptors, batch.rows * 2)
    np.testing.assert_array_equal(batch.rows, again.rows)


def test_batches_mix_people_and_avoid_doubles() -> None:
    takes = [make_takes([_recording(seed, (150,))], mouth=False) for seed in range(3)]
    sampler = Sampler(takes, 64, 8, 0)
    drawn = [sampler.batch(step, 6) for step in range(20)]
    assert len({batch.rows.tobytes() for batch in drawn}) == 20
    whole = np.concatenate([batch.rows for batch in drawn])
    for some in takes:
        windows = {some[0].rows[k : k + 64].tobytes() for k in range(len(some[0].rows) - 63)}
        assert 15 < sum(window.tobytes() in windows for window in whole) < 75


@given(st.integers(1, 60), st.floats(0.05, 0.9))
@settings(max_examples=25, deadline=None)
def test_the_held_out_end_is_apart_from_what_is_learned(n_nodes: int, share: float) -> None:
    recording = _recording(0, (n_nodes, 10))
    first, second = split_time(recording, share, 0.5)
    if second is None:
        assert first is recording
        return
    assert first.n_frames + second.n_frames <= recording.n_frames - 0.5 * FPS
    np.testing.assert_array_equal(first.joints, recording.joints[: first.n_frames])
    np.testing.assert_array_equal(second.joints, recording.joints[-second.n_frames :])
    cut = cut_nodes(recording, n_nodes - 1, n_nodes + 2)
    assert cut.clip_start.tolist() == [0, 1, 3]
    at = frame_start(4 * (n_nodes - 1))
    np.testing.assert_array_equal(cut.samples[:-1], recording.samples[at : at + len(cut.samples) - 1])


def test_planted_gestures_of_strangers_are_found() -> None:
    def after(planted: bool) -> dict[str, float]:
        learned = [_recording(seed, (200,), planted) for seed in range(3)]
        some = Trainer(learned, [_recording(9, (200,), planted)], replace(OPTIONS, steps=50, batch=8, mouth=False))
        while some.step < 50:
            some.advance()
        return some.validate()

    found, nothing = after(True), after(False)
    assert found["low"] > found["control"] + 0.3 and found["frames"] > 600
    assert abs(nothing["low"] - nothing["control"]) < 0.15


@pytest.mark.parametrize(
    "changes",
    [{"pooling": "max"}, {"levels": "low"}, {"layout": "split"}, {"stop_gradient": False}],
    ids=["max", "low", "split", "no-stop"],
)
def test_every_ablation_trains(changes: dict[str, object]) -> None:
    options = replace(OPTIONS, model=replace(MODEL, **changes), mouth=True)  # type: ignore[arg-type]
    some = Trainer([_recording(0), _recording(1, (18, 30))], [], options)
    losses = [some.advance() for _ in range(3)]
    assert all(math.isfinite(value) for record in losses for value in record.values())
    assert ("global_loss" in losses[0]) == (changes.get("levels") != "low")
    assert math.isnan(some.validate()["low"])  # nothing was held out


def test_a_gpu_is_asked_for_bf16_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch counts what it can emulate, too, on GPUs before Ampere: that is slower than float32."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert _device(replace(OPTIONS, device="auto"))[1] is False
    with pytest.raises(BackendError, match="this GPU does not support bf16"):
        _device(replace(OPTIONS, device="auto", bf16=True))


@pytest.mark.parametrize("n_bytes", [244, 255])
def test_checkpoints_with_names_as_long_as_they_can_be(tmp_path: Path, n_bytes: int) -> None:
    trainer = Trainer([_recording(0)], [], OPTIONS)
    output = tmp_path / ("ह" * 20 + "x" * (n_bytes - 65) + ".ckpt")
    write_checkpoint(output, trainer.checkpoint())
    assert list(tmp_path.iterdir()) == [output]
    curves = _curves_file(output)
    curves.touch()
    assert curves != output and curves.suffix == ".png"
    longer = output.with_name(output.name + "y" * (256 - n_bytes))
    with pytest.raises(InputError, match=rf"{longer.name}: the checkpoint cannot be written \(File name too long\)"):
        write_checkpoint(longer, trainer.checkpoint())


def test_bf16_computes_about_the_same() -> None:
    first = [Trainer([_recording(0)], [], replace(OPTIONS, bf16=bf16)).advance() for bf16 in (False, True)]
    assert first[0]["local_loss"] == pytest.approx(first[1]["local_loss"], rel=0.05)
    assert first[0]["local_loss"] != first[1]["local_loss"]


def _equal(one: Path, other: Path) -> None:
    a, b = read_checkpoint(one), read_checkpoint(other)
    assert a.step == b.step
    for left, right in ((a.weights, b.weights), (a.average, b.average)):
        for name, value in left.items():
            assert torch.equal(value, right[name]), name


def test_a_stopped_run_goes_on_to_the_same_weights(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train([people], tmp_path / "whole.ckpt", OPTIONS)
    advance = Trainer.advance
    before = signal.getsignal(signal.SIGINT)

    def interrupted(self: Trainer) -> dict[str, float]:
        if self.step == 3:
            signal.raise_signal(signal.SIGINT)  # Ctrl-C in the middle of a step
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train([people], tmp_path / "parts.ckpt", OPTIONS)
    assert read_checkpoint(tmp_path / "parts.ckpt").step == 4  # the step at hand was finished
    assert "--resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    again = train([people], tmp_path / "parts.ckpt", replace(OPTIONS, resume=True))
    _equal(tmp_path / "whole.ckpt", tmp_path / "parts.ckpt")
    assert again["low"] == result["low"] and again["steps"] == 6
    assert (tmp_path / "whole.ckpt.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "whole.ckpt").stat().st_mode & 0o777 == (tmp_path / "whole.ckpt.png").stat().st_mode & 0o777
    assert result["recordings"] == ["anna", "ben"] and result["validated_on"] == ["anna", "ben"]


def test_people_can_be_held_out(people: Path, tmp_path: Path) -> None:
    result = train([people], tmp_path / "a.ckpt", replace(OPTIONS, steps=1, held_out=("b*",)))
    assert result["recordings"] == ["anna"] and result["validated_on"] == ["ben"]
    with pytest.raises(InputError, match="leaves nothing"):
        train([people], tmp_path / "b.ckpt", replace(OPTIONS, held_out=("nobody",)))


def test_what_cannot_be_resumed_is_refused(people: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.ckpt"
    with pytest.raises(InputError, match="no checkpoint at"):
        train([people], output, replace(OPTIONS, resume=True))
    train([people], output, replace(OPTIONS, steps=1))
    before = output.read_bytes()
    for changes, data, said in (
        ({}, people, "exists: continue it"),
        ({"resume": True}, people, "begun with steps 1, not 6"),
        ({"resume": True, "steps": 1, "seed": 5}, people, "begun with seed 0"),
        ({"resume": True, "steps": 1}, people / "anna.joints.txt", "other data"),
    ):
        with pytest.raises(InputError, match=said):
            train([data], output, replace(OPTIONS, **changes))  # type: ignore[arg-type]
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "1 or more"),
        ({"window_frames": 30}, "too short"),
        ({"validation_share": 1.0}, "validation share"),
        ({"mouth": True}, "no mouth track"),
    ],
)
def test_bad_options_are_refused(people: Path, tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        train([people], tmp_path / "a.ckpt", replace(OPTIONS, **changes))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_missing_gpu_is_said(people: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no CUDA device"):
        train([people], tmp_path / "a.ckpt", replace(OPTIONS, device="cuda"))


def test_places_that_cannot_be_written_are_refused(people: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        train([people], tmp_path, OPTIONS)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        train([people], tmp_path / "file" / "a.ckpt", replace(OPTIONS, steps=1))


def test_a_failed_write_keeps_the_older_checkpoint(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "a.ckpt"
    train([people], output, replace(OPTIONS, steps=1))
    saved = read_checkpoint(output)

    def full_disk(_: object, file) -> None:  # type: ignore[no-untyped-def]
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(InputError, match="No space left"):
        write_checkpoint(output, saved)
    assert read_checkpoint(output).step == 1 and len(list(tmp_path.iterdir())) == 2  # the picture is the other one


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run by a checkpoint",)


def test_foreign_checkpoints_are_refused(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train([people], tmp_path / "a.ckpt", replace(OPTIONS, steps=1))
    fields = torch.load(tmp_path / "a.ckpt", weights_only=True)
    capsys.readouterr()
    for content, said in (
        (fields | {"kind": "other"}, "not a checkpoint of mini"),
        (fields | {"features_version": 99}, "version 99"),
        (fields | {"average": {}}, "damaged"),
        (fields | {"config": {"depth": 3}}, "damaged"),
        ({name: value for name, value in fields.items() if name != "step"}, "damaged"),
        (fields | {"step": _Code()}, "more than tensors"),
    ):
        torch.save(content, tmp_path / "b.ckpt")
        with pytest.raises(ArtifactError, match=said) as refusal:
            read_checkpoint(tmp_path / "b.ckpt")
        assert "\n" not in str(refusal.value)
    for damaged in (b"", b"no checkpoint", (tmp_path / "a.ckpt").read_bytes()[:-2000]):
        (tmp_path / "b.ckpt").write_bytes(damaged)
        with pytest.raises(ArtifactError):
            read_checkpoint(tmp_path / "b.ckpt")
    assert "run by" not in capsys.readouterr().out


def test_adapting_helps_and_keeps_the_best(tmp_path: Path) -> None:
    _write(tmp_path, "other", 5, 200)
    _write(tmp_path, "anna", 1, 400)
    start = tmp_path / "start.ckpt"
    train([tmp_path / "other.joints.txt"], start, replace(OPTIONS, steps=1))
    options = AdaptOptions(steps=40, learning_rate=1e-2, variants=1, progress=False)
    result = adapt(tmp_path / "anna.joints.txt", start, tmp_path / "anna.ckpt", options)
    assert result["low"] > max(result["low_before"], result["control"]) + 0.1 and result["person"] == "anna"
    best = read_checkpoint(tmp_path / "anna.ckpt")
    assert best.step == result["kept_step"] > 0
    assert best.history[-1]["low"] == max(record["low"] for record in best.history) == result["low"]


def test_adapting_in_vain_gives_the_start_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, "anna", 1, 300)
    start = tmp_path / "start.ckpt"
    train([tmp_path / "anna.joints.txt"], start, replace(OPTIONS, steps=1))
    monkeypatch.setattr(trainer, "low_accuracy", lambda *_: {"low": 0.0, "control": 0.2, "frames": 9.0})
    result = adapt(tmp_path, start, tmp_path / "anna.ckpt", AdaptOptions(steps=40, variants=0, progress=False))
    assert result["kept_step"] == 0 and result["steps"] == 20  # patience
    for name, value in read_checkpoint(start).average.items():
        assert torch.equal(value, read_checkpoint(tmp_path / "anna.ckpt").average[name])


def test_adapting_wants_one_long_enough_recording(people: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.ckpt"
    train([people], start, replace(OPTIONS, steps=1))
    with pytest.raises(InputError, match="2 recordings"):
        adapt(people, start, tmp_path / "a.ckpt")
    _write(tmp_path, "short", 3, 60)
    with pytest.raises(InputError, match="too short"):
        adapt(tmp_path / "short.joints.txt", start, tmp_path / "a.ckpt", AdaptOptions(variants=0))
    assert not (tmp_path / "a.ckpt").exists()


def test_modules_name_what_they_offer() -> None:
    assert run.__all__ == ["TrainOptions", "train"] and run.TrainOptions is TrainOptions
