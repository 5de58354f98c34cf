"""The time base: 30 frames and 16,000 samples per second, four frames per node.

16000 / 30 is not an integer, so frame n starts at sample floor(n * 1600 / 3). All other conversions follow from that,
in integers: no rounding error accumulates, and hours of audio do not drift.
"""

__all__ = [
    "FPS",
    "FRAMES_PER_NODE",
    "SAMPLE_RATE",
    "frame_at_sample",
    "frame_count",
    "frame_start",
    "node_count",
]

SAMPLE_RATE = 16_000
FPS = 30
FRAMES_PER_NODE = 4


def frame_start(frame: int) -> int:
    """First sample of a frame."""
    return frame * SAMPLE_RATE // FPS


def frame_at_sample(sample: int) -> int:
    """The frame that a sample belongs to."""
    return ((sample + 1) * FPS - 1) // SAMPLE_RATE


def frame_count(n_samples: int) -> int:
    """Frames needed for n_samples of speech; the last may be partial."""
    return 0 if n_samples <= 0 else frame_at_sample(n_samples - 1) + 1


def node_count(n_frames: int) -> int:
    """Nodes needed for n_frames; the last may be partial."""
    return -(-n_frames // FRAMES_PER_NODE)
