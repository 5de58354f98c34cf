"""Where the research release's demo places its windows of 128 frames, over motion and over speech."""

from typing import NamedTuple

from engine.timebase import FPS, SAMPLE_RATE

__all__ = [
    "MIN_SAMPLES",
    "WINDOW_FRAMES",
    "WINDOW_SAMPLES",
    "Segment",
    "audio_rows",
    "audio_segments",
    "motion_segments",
]

WINDOW_FRAMES = 128
WINDOW_SAMPLES = SAMPLE_RATE * WINDOW_FRAMES // FPS
# 7 steps of 20 ms: for 4 to 6, ONNX Runtime divides zero by zero when it interpolates maps; fewer give no row
MIN_SAMPLES = 2_320

# kernel and stride of the speech encoder's convolutions
_CONVOLUTIONS = ((10, 5), *((3, 2),) * 4, *((2, 2),) * 2)


class Segment(NamedTuple):
    """A window's first frame or sample, and which of its rows are kept."""

    start: int
    first_row: int
    end_row: int


def motion_segments(n_frames: int) -> list[Segment]:
    """Whole windows over a clip; the remainder is covered by the clip's last window. A short clip is one window."""
    if n_frames < WINDOW_FRAMES:
        return [Segment(0, 0, n_frames)]
    left = n_frames % WINDOW_FRAMES
    segments = [Segment(start, 0, WINDOW_FRAMES) for start in range(0, n_frames - left, WINDOW_FRAMES)]
    if left:
        segments.append(Segment(n_frames - WINDOW_FRAMES, WINDOW_FRAMES - left, WINDOW_FRAMES))
    return segments


def audio_segments(n_samples: int) -> list[Segment]:
    """Windows over a speech as in the release.

    Its last window keeps 30 * whole seconds - 256 rows, but 256 is the width of a feature, not the number of rows
    before it: lengths are right only for one and two windows, and longer speech drifts.
    """
    if n_samples < WINDOW_SAMPLES:
        return [Segment(0, 0, audio_rows(n_samples))]
    left = n_samples % WINDOW_SAMPLES
    segments = [Segment(start, 0, WINDOW_FRAMES) for start in range(0, n_samples - left, WINDOW_SAMPLES)]
    gap = FPS * (n_samples // SAMPLE_RATE) - 256
    first_row = max(0, WINDOW_FRAMES - gap) if gap > 0 else -gap
    if left > 1 and first_row < WINDOW_FRAMES:
        segments.append(Segment(n_samples - WINDOW_SAMPLES, first_row, WINDOW_FRAMES))
    return segments


def audio_rows(n_samples: int) -> int:
    """Rows that the network gives for n_samples: an even number, one per frame of 1/30 s."""
    n_steps = n_samples
    for kernel, stride in _CONVOLUTIONS:
        n_steps = max(0, (n_steps - kernel) // stride + 1)
    return (n_steps * 3 // 5 + 1) // 2 * 2
