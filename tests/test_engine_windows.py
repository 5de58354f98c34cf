"""Windows over a stream: chunks never matter, every frame gets its row once, memory stays bounded."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.features.windows import WindowedStream, WindowPlan
from engine.timebase import FPS, SAMPLE_RATE, frame_count, frame_start

WIDTHS = (3, 2)
PLANS = st.builds(WindowPlan, st.integers(1, 9), st.integers(0, 20), st.integers(0, 12), st.integers(1, 30))


def network(items: np.ndarray, n_frames: int) -> tuple[np.ndarray, ...]:
    """Rows that depend on the whole window, on its length and on the place in it, like attention does."""
    flat = items.reshape(len(items), -1).mean(axis=1)
    means = np.array([part.mean() if part.size else 0 for part in np.array_split(flat, n_frames)])
    place = np.arange(n_frames)
    wide = np.stack((means, np.full(n_frames, items.sum()), place * 0.1 + len(items)), axis=1)
    return wide.astype(np.float32), np.stack((means[::-1], np.cos(place * items.std())), axis=1).astype(np.float32)


def streamed(
    items: np.ndarray, plan: WindowPlan, first_item: Callable[[int], int], ends: list[int]
) -> tuple[np.ndarray, ...]:
    stream = WindowedStream(network, WIDTHS, plan, first_item, items.shape[1:])
    buffer = np.empty_like(items)
    parts = []
    for a, b in pairwise([0, *sorted(min(end, len(items)) for end in ends), len(items)]):
        buffer[: b - a] = items[a:b]  # as a sound card does: the same memory again and again
        parts.append(stream.push(buffer[: b - a]))
    parts.append(stream.flush())
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def naive(items: np.ndarray, plan: WindowPlan, first_item: Callable[[int], int]) -> tuple[np.ndarray, ...]:
    """The whole speech at hand, one frame after the other, each from the window that keeps it."""
    n_frames = next(frame for frame in range(10**6) if first_item(frame) >= len(items))
    rows = []
    for frame in range(n_frames):
        start = frame - frame % plan.hop_frames
        end = min(n_frames, start + plan.hop_frames + plan.lookahead_frames)
        first = min(start - plan.lookback_frames, end - plan.least_frames)
        first = max(first, 0)
        window = items[first_item(first) : first_item(end)]
        rows.append([array[frame - first] for array in network(window, end - first)])
    return tuple(np.array(column, np.float32) for column in zip(*rows, strict=True))


@given(PLANS, st.integers(1, 30 * 533), st.lists(st.integers(0, 30 * 533), max_size=20))
@settings(max_examples=40, deadline=None)
def test_chunks_of_samples_do_not_matter(plan: WindowPlan, n: int, ends: list[int]) -> None:
    samples = np.random.default_rng(n).normal(size=n).astype(np.float32)
    once = streamed(samples, plan, frame_start, [])
    assert len(once[0]) == len(once[1]) == frame_count(n)
    for a, b, c in zip(
        once, streamed(samples, plan, frame_start, ends), naive(samples, plan, frame_start), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


@given(PLANS, st.integers(1, 80), st.lists(st.integers(0, 80), max_size=80))
@settings(max_examples=40, deadline=None)
def test_chunks_of_rows_do_not_matter(plan: WindowPlan, n: int, ends: list[int]) -> None:
    rows = np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)
    once = streamed(rows, plan, int, [])
    assert len(once[0]) == n
    for a, b, c in zip(once, streamed(rows, plan, int, ends), naive(rows, plan, int), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_a_row_comes_as_soon_as_its_lookahead_is_there() -> None:
    stream = WindowedStream(network, WIDTHS, WindowPlan(4, 8, 3), int, (1,))
    assert stream.lookahead_frames == 6
    n_rows = 0
    for pushed in range(1, 50):
        n_rows += len(stream.push(np.ones((1, 1), np.float32))[0])
        assert n_rows >= pushed - stream.lookahead_frames
        assert n_rows == max(0, (pushed - 3) // 4 * 4)


def test_a_short_end_reaches_back() -> None:
    lengths = []

    def listen(items: np.ndarray, n_frames: int) -> tuple[np.ndarray, ...]:
        lengths.append(n_frames)
        return network(items, n_frames)

    stream = WindowedStream(listen, WIDTHS, WindowPlan(10, 0, 0, least_frames=8), int, (1,))
    stream.push(np.ones((21, 1), np.float32))
    assert len(stream.flush()[0]) == 1
    assert lengths == [10, 10, 8]
    short = WindowedStream(listen, WIDTHS, WindowPlan(10, 0, 0, least_frames=8), int, (1,))
    short.push(np.ones((3, 1), np.float32))
    assert len(short.flush()[0]) == lengths[-1] == 3


@pytest.mark.slow
def test_memory_is_bounded_over_an_hour() -> None:
    plan = WindowPlan(32, 128, 16)
    stream = WindowedStream(network, WIDTHS, plan)
    minute = np.zeros(60 * SAMPLE_RATE, np.float32)
    n_rows = 0
    for _ in range(60):
        n_rows += len(stream.push(minute)[0])
        held = sum(chunk.nbytes for chunk in stream._chunks)
        assert held <= frame_start(32 + 128 + 16 + 2) * 4
        assert all(chunk.base is None for chunk in stream._chunks)  # no view keeps a long chunk alive
    assert n_rows + len(stream.flush()[0]) == 3600 * FPS


def test_silence_of_no_length() -> None:
    stream = WindowedStream(network, WIDTHS, WindowPlan(4, 0, 0))
    assert [array.shape for array in stream.push(np.empty(0, np.float32))] == [(0, 3), (0, 2)]
    assert [array.shape for array in stream.flush()] == [(0, 3), (0, 2)]


def test_refusals() -> None:
    stream = WindowedStream(network, WIDTHS, WindowPlan(4, 0, 0), int, (3,))
    with pytest.raises(ValueError, match=r"\(5,\), expected \(n, 3\)"):
        stream.push(np.zeros(5, np.float32))
    with pytest.raises(ValueError, match=r"expected \(n, 3\)"):
        stream.push(np.zeros((5, 2), np.float32))
    stream.flush()
    with pytest.raises(RuntimeError, match="has ended"):
        stream.push(np.zeros((5, 3), np.float32))
    with pytest.raises(InputError, match="hop"):
        WindowPlan(0, 1, 1)
    wrong = WindowedStream(lambda items, n: (items, items), WIDTHS, WindowPlan(1, 0, 0), int, (3,))
    with pytest.raises(ValueError, match="rows of shapes"):
        wrong.push(np.zeros((5, 3), np.float32))
