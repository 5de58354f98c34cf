"""The small embedding at run time, with networks that are plain functions: no weights, no libraries."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ArtifactError, InputError
from engine.features.body import BODY_COLUMNS, MOUTH_COLUMNS
from engine.features.embedding import embed_speech
from engine.features.mini import MiniEmbedding, mini_config, motion_rows
from engine.features.recording import Recording
from engine.features.speech import N_COLUMNS, SpeechFeatures, speech_features
from engine.timebase import frame_start

REACH = 5


class FunctionSession:
    """A session that is a function of one array (1, T, C) -> low, high."""

    def __init__(self, function: Callable[[np.ndarray], dict[str, np.ndarray]]) -> None:
        self._function = function
        self.closed = False

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        ((_, rows),) = inputs.items()
        assert rows.dtype == np.float32 and rows.ndim == 3 and len(rows) == 1
        return self._function(rows)

    def close(self) -> None:
        self.closed = True


def _moving_sums(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Features of which each depends on REACH frames to either side."""
    padded = np.pad(rows[0, :, :3], ((REACH, REACH), (0, 0)))
    sums = np.stack([padded[t : t + 2 * REACH + 1].sum(axis=0) for t in range(rows.shape[1])])
    return {"low": sums[None, :, :2], "high": sums[None, :, 1:]}


def _embedding(mouth: bool = False, high_dim: int = 2, **changes: Any) -> MiniEmbedding:
    config = mini_config(mouth, 2, high_dim, REACH, REACH) | changes
    return MiniEmbedding(config, "f" * 64, FunctionSession(_moving_sums), FunctionSession(_moving_sums))  # type: ignore[arg-type]


def _recording(n_nodes: int = 24, clips: tuple[int, ...] = (24,), seed: int = 0) -> Recording:
    rng = np.random.default_rng(seed)
    n = 4 * n_nodes
    joints = np.cumsum(rng.normal(0, 1, (n, 75, 3)), axis=0).astype(np.float32)
    samples = rng.normal(0, 0.1, frame_start(n)).astype(np.float32)
    return Recording("one", samples, joints, np.ones((n, 75), np.float32), np.cumsum([0, *clips]), 20.0)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.lists(st.integers(1, 9000), min_size=1, max_size=8))
def test_features_do_not_depend_on_chunks(n_frames: int, chunks: list[int]) -> None:
    samples = np.random.default_rng(n_frames).normal(0, 0.1, frame_start(n_frames)).astype(np.float32)
    embedding = _embedding()
    whole = embed_speech(embedding, samples)
    assert len(whole.low) == len(whole.high) == n_frames
    hearing, listener, parts, at = SpeechFeatures(), embedding.listen(), [], 0
    while at < len(samples):
        size = chunks[len(parts) % len(chunks)]
        part = samples[at : at + size]
        parts.append(listener.push(part, hearing.push(part)))
        at += size
    parts += [listener.push(samples[:0], hearing.flush()), listener.flush()]
    for level in (0, 1):
        np.testing.assert_array_equal(np.concatenate([part[level] for part in parts]), whole[level])


def test_speech_features_are_those_of_the_whole_speech() -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, frame_start(150)).astype(np.float32)
    wanted = _moving_sums(speech_features(samples)[None])
    got = embed_speech(_embedding(), samples)
    np.testing.assert_allclose(got.low, wanted["low"][0], atol=1e-4)
    np.testing.assert_allclose(got.high, wanted["high"][0], atol=1e-4)


def test_lookahead_is_kept_to_and_can_be_cut() -> None:
    rows = np.zeros((400, N_COLUMNS), np.float32)
    full = _embedding()
    assert full.with_lookahead(full.lookahead_frames) is full and full.with_lookahead(3).sha256 == full.sha256
    for frames in (full.lookahead_frames, 12, 4, 1, 0):
        embedding = full.with_lookahead(frames)
        listener, most, out = embedding.listen(), 0, 0
        for pushed, row in enumerate(rows, 1):
            out += len(listener.push(np.zeros(0, np.float32), row[None]).low)
            most = max(most, pushed - out)
        assert most == embedding.lookahead_frames == frames
        assert out + len(listener.flush().low) == len(rows)


def test_motion_never_crosses_a_clip() -> None:
    recording = _recording(clips=(10, 14))
    features = _embedding().motion(recording)
    rows = motion_rows(recording)
    for clip in recording.clips:
        np.testing.assert_allclose(features.low[clip], _moving_sums(rows[None, clip])["low"][0])
    assert features.low.shape == (96, 2) and features.low.dtype == np.float32


def test_motion_rows_know_no_sizes_and_no_dead_columns() -> None:
    recording = _recording()
    rows = motion_rows(recording)
    assert rows.shape == (96, len(BODY_COLUMNS)) and rows.dtype == np.float32
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-3)
    larger = replace(recording, joints=recording.joints * 3, unit_px=recording.unit_px * 3)
    np.testing.assert_allclose(motion_rows(larger), rows, atol=1e-3)
    still = replace(recording, joints=np.repeat(recording.joints[:1], 96, axis=0))
    assert not motion_rows(still).any()


def test_without_a_high_level_the_width_is_0() -> None:
    embedding = _embedding(high_dim=0)
    recording = _recording()
    assert embedding.motion(recording).high.shape == (96, 0)
    assert embed_speech(embedding, recording.samples).high.shape == (96, 0)


def test_a_mouth_must_be_there_if_it_is_wanted() -> None:
    recording = _recording()
    with pytest.raises(InputError, match="no mouth track"):
        _embedding(mouth=True).motion(recording)
    seen = replace(recording, mouth=np.random.default_rng(0).random((96, 2)).astype(np.float32))
    assert motion_rows(seen, mouth=True).shape == (96, len(BODY_COLUMNS) + len(MOUTH_COLUMNS))
    assert _embedding(mouth=True).motion(seen).low.shape == (96, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features_version": 0}, "features_version 0"),
        ({"audio_columns": 8}, "audio_columns 8"),
        ({"motion_columns": ["one"]}, "motion_columns"),
        ({"low_dim": -1}, "sizes"),
        ({"lookahead_frames": "many"}, "sizes"),
        ({"motion_columns": None}, "config lacks"),
    ],
)
def test_other_features_are_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtifactError, match=said) as refusal:
        _embedding(**changes)
    assert "\n" not in str(refusal.value)


def test_closing_frees_both_networks() -> None:
    audio, motion = FunctionSession(_moving_sums), FunctionSession(_moving_sums)
    MiniEmbedding(mini_config(False, 2, 2, 1, 1), "f" * 64, audio, motion).close()  # type: ignore[arg-type]
    assert audio.closed and motion.closed
