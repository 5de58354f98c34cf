"""The published embedding at run time: its windows, its stages, what it refuses. Networks are functions here."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import ArtifactError, InputError
from engine.features.embedding import Features, embed_speech
from engine.features.full import FullEmbedding
from engine.features.recording import Recording
from engine.features.released_windows import WINDOW_SAMPLES, audio_rows, audio_segments
from engine.inference.manifest import Bundle, GraphSpec, TensorSpec
from engine.timebase import frame_count, frame_start
from tests.helpers.fakes_session import FunctionSession, write_fake_bundle

pytest.importorskip("tokenizers")

WIDTH = 6
LETTERS = ["<pad>", "|", *"ABCDEF"]


def _float(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


FED = ("raw_low", "ft_low", "raw_high", "ft_high")
GRAPHS = {
    "speech": GraphSpec(
        "speech",
        "x.onnx",
        (_float("waveform", 1, "samples"),),
        (*(_float(name, 1, "steps", 2) for name in FED), _float("logits", 1, "steps", len(LETTERS))),
        {},
    ),
    "text": GraphSpec(
        "text", "x.onnx", (TensorSpec("ids", "int64", (1, "tokens")),), (_float("hidden", 1, "tokens", 1),), {}
    ),
    "audio": GraphSpec(
        "audio",
        "x.onnx",
        (*(_float(name, 1, "steps", 2) for name in FED), _float("text", 1, "steps", 1)),
        (_float("low", 1, "rows", WIDTH), _float("cls", 1, WIDTH)),
        {},
    ),
    "motion": GraphSpec(
        "motion",
        "x.onnx",
        (_float("motion", "batch", "frames", 825),),
        (_float("low", "batch", "frames", WIDTH), _float("cls", "batch", WIDTH)),
        {},
    ),
}


def _speech(waveform: np.ndarray) -> tuple[np.ndarray, ...]:
    """Level and slope every 20 ms; a letter is the louder the later in the alphabet."""
    n_steps = 1 + (waveform.shape[1] - 400) // 320
    steps = np.stack([waveform[0, 320 * k : 320 * k + 400] for k in range(n_steps)])
    pair = np.stack([np.abs(steps).mean(1), np.diff(steps).mean(1)], 1, dtype=np.float32)[None]
    token = np.minimum((pair[0, :, 0] * 4).astype(int), len(LETTERS) - 1)
    logits = np.eye(len(LETTERS), dtype=np.float32)[token][None]
    return pair, pair + 1, pair * 2, -pair, logits


def _text(ids: np.ndarray) -> tuple[np.ndarray]:
    return (ids[..., None].astype(np.float32),)


def _audio(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
    joined = np.concatenate(inputs, -1)[..., -WIDTH:]
    rows = joined.shape[1] * 3 // 5
    rows += rows % 2
    at = np.minimum(np.arange(rows) * 5 // 3, joined.shape[1] - 1)
    return joined[:, at] + 0.1, joined.mean(1) + 0.1


def _motion(motion: np.ndarray) -> tuple[np.ndarray, ...]:
    return motion[..., :WIDTH], motion[..., :WIDTH].mean(1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    ids = "{" + ", ".join(f'"{letter}": {index}' for index, letter in enumerate(LETTERS)) + "}"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef", *(f"##{letter}" for letter in "abcdef")]
    files = {"x.onnx": b"", "vocab.json": ids.encode(), "vocab.txt": "\n".join(pieces).encode()}
    return replace(write_fake_bundle(tmp_path_factory.mktemp("full") / "bundle", files, GRAPHS), name="full")


class FunctionNetworks:
    """Stands in for Networks: functions in place of the bundle's networks."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        functions = {"speech": _speech, "text": _text, "audio": _audio, "motion": _motion}
        self._sessions = {name: FunctionSession(function, GRAPHS[name]) for name, function in functions.items()}

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._sessions[graph].run(inputs)


@pytest.fixture
def embedding(bundle: Bundle) -> FullEmbedding:
    return FullEmbedding(FunctionNetworks(bundle))  # type: ignore[arg-type]


def _voice(n_samples: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    knots = np.arange(0, n_samples + 2_000, 2_000)
    envelope = np.interp(np.arange(n_samples), knots, generator.random(len(knots)))
    return (envelope * generator.normal(size=n_samples)).astype(np.float32)


def _recording(lengths: list[int], motion: np.ndarray | None) -> Recording:
    n_frames = sum(lengths)
    return Recording(
        name="anna",
        samples=np.zeros(frame_start(n_frames), np.float32),
        joints=np.zeros((n_frames, 75, 3), np.float32),
        confidence=np.ones((n_frames, 75), np.float32),
        clip_start=np.cumsum([0, *lengths]) // 4,
        unit_px=100.0,
        motion=motion,
    )


@pytest.mark.parametrize("n_samples", [1, 399, 1_000, 3_000, 20_000, 68_266, 150_001])
def test_a_unit_row_for_every_frame(embedding: FullEmbedding, n_samples: int) -> None:
    features = embed_speech(embedding, _voice(n_samples))
    for level in features:
        assert level.shape == (frame_count(n_samples), WIDTH) and level.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(level, axis=1), 1, rtol=1e-5)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 30_000), max_size=8), st.integers(1, 90_000))
def test_chunks_never_matter(embedding: FullEmbedding, cuts: list[int], n_samples: int) -> None:
    voice = _voice(n_samples)
    whole = embed_speech(embedding, voice)
    listener = embedding.listen()
    edges = sorted({0, n_samples, *(cut for cut in cuts if cut < n_samples)})
    none = np.empty((0, 0), np.float32)
    parts = [listener.push(voice[a:b], none) for a, b in pairwise(edges)]
    parts.append(listener.flush())
    for level in (0, 1):
        np.testing.assert_array_equal(np.concatenate([part[level] for part in parts]), whole[level])


def test_look_ahead_is_what_it_says(embedding: FullEmbedding) -> None:
    assert embedding.lookahead_frames == 63
    voice = _voice(120_000)
    row = 70
    heard = frame_start(row + 1 + embedding.lookahead_frames)
    listener = embedding.listen()
    early = listener.push(voice[:heard], np.empty((0, 0), np.float32))
    assert len(early.low) > row
    np.testing.assert_array_equal(early.low[row], embed_speech(embedding, voice).low[row])


def test_networks_hear_standardised_windows_of_128_frames(embedding: FullEmbedding) -> None:
    heard = []

    def record(waveform: np.ndarray) -> tuple[np.ndarray, ...]:
        heard.append(waveform)
        return _speech(waveform)

    embedding._networks._sessions["speech"] = FunctionSession(record, GRAPHS["speech"])
    embed_speech(embedding, _voice(300_000) * 0.01 + 0.2)
    lengths = [waveform.shape[1] for waveform in heard]
    assert set(lengths[2:-2]) <= {WINDOW_SAMPLES, WINDOW_SAMPLES + 1}
    for waveform in heard:
        assert abs(waveform.mean()) < 1e-3 and abs(waveform.std() - 1) < 1e-2


def test_silence_is_finite(embedding: FullEmbedding) -> None:
    features = embed_speech(embedding, np.zeros(100_000, np.float32))
    assert all(np.isfinite(level).all() for level in features)


def test_motion_window_by_window(embedding: FullEmbedding, rng: np.random.Generator) -> None:
    motion = rng.normal(size=(360, 55, 15)).astype(np.float32)
    features = embedding.motion(_recording([300, 60], motion))
    flat = motion.reshape(360, -1)[:, :WIDTH]
    for start, end, first, last in ((0, 128, 0, 128), (128, 256, 128, 256), (172, 300, 256, 300), (300, 360, 300, 360)):
        cls = flat[start:end].mean(0)
        wanted = np.repeat(cls[None] / np.linalg.norm(cls), last - first, 0)
        np.testing.assert_allclose(features.high[first:last], wanted, atol=1e-6)
    np.testing.assert_allclose(features.low, flat / np.linalg.norm(flat, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("n_joints", [None, 75])
def test_motion_of_tracked_joints_is_refused(embedding: FullEmbedding, n_joints: int | None) -> None:
    motion = None if n_joints is None else np.zeros((8, n_joints, 15), np.float32)
    with pytest.raises(InputError, match=r"anna has .*motion.*the 55 joints of SMPL-X"):
        embedding.motion(_recording([8], motion))


@pytest.mark.parametrize("n_samples", [30_000, 68_266, 96_000, 200_000])
def test_windows_as_released(embedding: FullEmbedding, n_samples: int) -> None:
    voice = _voice(n_samples)
    features = embedding.as_released(voice)
    segments = audio_segments(n_samples)
    assert len(features.low) == sum(end - first for _, first, end in segments)
    start, first, end = segments[-1]
    low, high = embedding._hear(voice[start : start + WINDOW_SAMPLES], audio_rows(min(n_samples, WINDOW_SAMPLES)))
    np.testing.assert_array_equal(features.low[first - end :], low[first:end])
    np.testing.assert_array_equal(features.high[-1], high[0])


def test_a_bundle_of_something_else_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ArtifactError, match="holds the embedding mini, expected full"):
        FullEmbedding(FunctionNetworks(replace(bundle, name="mini")))  # type: ignore[arg-type]


def test_identity_is_that_of_the_bundle(embedding: FullEmbedding, bundle: Bundle) -> None:
    assert (embedding.name, embedding.sha256) == ("full", bundle.sha256)
    assert isinstance(embedding.listen().flush(), Features)


def test_hurried_windows_reach_less_far_ahead(embedding: FullEmbedding) -> None:
    assert [embedding.with_lookahead(frames).lookahead_frames for frames in (0, 31, 40, 63, 90)] == [31, 31, 40, 63, 63]
    voice = _voice(100_000)
    early = embedding.with_lookahead(31).listen().push(voice[: frame_start(64)], np.empty((0, 0), np.float32))
    late = embedding.listen().push(voice[: frame_start(64)], np.empty((0, 0), np.float32))
    assert (len(early.low), len(late.low)) == (64, 32)


def test_look_ahead_by_choice(bundle: Bundle) -> None:
    networks: Any = FunctionNetworks(bundle)
    assert FullEmbedding(networks, lookahead_frames=0).lookahead_frames == 31
    with pytest.raises(InputError, match="invalid windows"):
        FullEmbedding(networks, lookahead_frames=97)
