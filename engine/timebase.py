"""The time base: 30 frames and 16,000 samples a second, four frames a node.

16000 / 30 is not an integer, so frame n starts at sample floor(n * 1600 / 3). Every other conversion follows from that
line, in integers: no float ever accumulates, and hours of audio do not drift.
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
    """The one frame to which a sample belongs."""
    return ((sample + 1) * FPS - 1) // SAMPLE_RATE


def frame_count(n_samples: int) -> int:
    """Frames needed to show n_samples of speech: the last one may be cut short by the end."""
    return 0 if n_samples <= 0 else frame_at_sample(n_samples - 1) + 1


def node_count(n_frames: int) -> int:
    """Nodes needed to show n_frames: the last one may be cut short by the end."""
    return -(-n_frames // FRAMES_PER_NODE)
