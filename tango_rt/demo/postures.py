"""The presenter's gestures, as postures of one arm, modelled on people talking.

A gesture is a sequence of steps, each reached on an accent of speech. A step names the postures of the leading arm and
of the other one; `None` leaves an arm at rest.
"""

from dataclasses import dataclass

import numpy as np

from tango_rt.demo.anatomy import ALONG, BENDS, MIDDLES, N_ARM, PALM, SPREAD, SWING, THUMB, WRIST

__all__ = ["GESTURES", "POSTURES", "REST", "Gesture"]

Triple = tuple[float, float, float]
Bends = tuple[float, float, float, float]

LOOSE: tuple[Bends, Bends] = ((0.10, 0.16, 0.22, 0.28), (0.22, 0.28, 0.34, 0.38))
FLAT: tuple[Bends, Bends] = ((0.0, 0.0, 0.02, 0.04), (0.08, 0.08, 0.10, 0.12))
RELAXED: tuple[Bends, Bends] = ((0.32, 0.38, 0.44, 0.50), (0.34, 0.40, 0.46, 0.50))
ROUND: tuple[Bends, Bends] = ((0.30, 0.32, 0.36, 0.42), (0.50, 0.52, 0.56, 0.60))


def _fingers(straight: int) -> tuple[Bends, Bends]:
    """The first `straight` fingers, from the index on, straight; the others folded into the palm."""
    folded = [finger >= straight for finger in range(4)]
    a, b, c, d = (1.35 if fold else 0.0 for fold in folded)
    e, f, g, h = (1.60 if fold else 0.06 for fold in folded)
    return (a, b, c, d), (e, f, g, h)


def _arm(
    wrist: Triple,
    along: Triple,
    palm: Triple,
    fingers: tuple[Bends, Bends] = LOOSE,
    thumb: Triple = (0.85, 0.15, 0.12),
    spread: float = 0.17,
    swing: float = 0.0,
) -> np.ndarray:
    arm = np.zeros(N_ARM)
    arm[WRIST], arm[ALONG], arm[PALM] = wrist, along, palm
    arm[ALONG] /= np.linalg.norm(along)
    arm[PALM] /= np.linalg.norm(palm)
    arm[SWING], arm[SPREAD], arm[THUMB] = swing, spread, thumb
    arm[BENDS], arm[MIDDLES] = fingers
    return arm


FOLDED_THUMB = (0.35, 0.80, 0.85)
POSTURES = {
    "rest": _arm((90, 128, 135), (-0.78, -0.45, 0.25), (-0.25, 0.25, -0.90), RELAXED, (0.50, 0.20, 0.20), 0.10),
    "offer": _arm((185, 185, 190), (0.42, 0.34, 0.62), (-0.30, 0.70, 0.70)),
    "offer_high": _arm((175, 245, 190), (0.40, 0.55, 0.50), (-0.30, 0.45, 0.85)),
    "wide": _arm((300, 195, 110), (0.75, 0.22, 0.30), (-0.10, 0.55, 0.80), spread=0.22),
    "wide_low": _arm((265, 150, 120), (0.72, 0.02, 0.35), (-0.10, 0.60, 0.75), spread=0.20),
    "halt": _arm((185, 320, 150), (0.10, 1.0, 0.10), (0.0, -0.10, 1.0), FLAT, (0.90, 0.10, 0.10), 0.22),
    "point_up": _arm((178, 345, 120), (0.02, 1.0, 0.10), (-0.20, 0.0, 1.0), _fingers(1), FOLDED_THUMB, 0.05),
    "count_1": _arm((172, 300, 140), (-0.10, 1.0, 0.12), (-0.15, 0.0, 1.0), _fingers(1), FOLDED_THUMB, 0.10),
    "count_2": _arm((176, 304, 140), (-0.06, 1.0, 0.12), (-0.15, 0.0, 1.0), _fingers(2), FOLDED_THUMB, 0.20),
    "count_3": _arm((180, 308, 140), (-0.02, 1.0, 0.12), (-0.15, 0.0, 1.0), _fingers(3), FOLDED_THUMB, 0.22),
    "frame": _arm((150, 215, 190), (0.02, 0.60, 0.72), (-0.72, 0.05, 0.62), LOOSE, (0.90, 0.20, 0.10), 0.18),
    "frame_small": _arm((105, 225, 190), (-0.04, 0.62, 0.70), (-0.62, 0.05, 0.72), ROUND, (0.80, 0.30, 0.15), 0.14),
    "pinch": _arm(
        (140, 250, 180),
        (-0.15, 0.80, 0.50),
        (-0.55, -0.15, 0.78),
        ((0.85, 0.42, 0.30, 0.20), (0.92, 0.46, 0.38, 0.30)),
        (0.35, 0.65, 0.26),
        0.16,
    ),
    "heart": _arm((92, 232, 105), (-0.88, 0.42, 0.08), (0.10, 0.10, -1.0), LOOSE, (0.80, 0.10, 0.10), 0.14),
    "sweep_in": _arm((70, 215, 185), (-0.45, 0.55, 0.45), (-0.25, 0.25, 0.92), LOOSE, spread=0.14),
    "sweep_out": _arm((265, 215, 150), (0.52, 0.55, 0.35), (0.05, 0.10, 1.0), LOOSE, spread=0.20),
    "chop": _arm((135, 215, 200), (-0.12, 0.52, 0.80), (-0.85, 0.10, 0.50), FLAT, (0.55, 0.10, 0.10), 0.06),
    "shrug": _arm((235, 205, 130), (0.65, 0.42, 0.30), (-0.10, 0.50, 0.85), LOOSE, spread=0.22, swing=0.15),
    "level": _arm((205, 255, 165), (-0.20, 0.90, 0.30), (-0.30, 0.05, 0.95), LOOSE, spread=0.20),
}
REST = POSTURES["rest"]


@dataclass(frozen=True)
class Gesture:
    """A gesture of one or both arms."""

    name: str
    steps: tuple[tuple[str, str | None], ...]  # (posture of the leading arm, of the other), one per accent
    weight: float  # relative frequency
    lift: float = 0.0  # of the shoulders


GESTURES = (
    Gesture("offer both", (("offer", "offer"),), 3.0),
    Gesture("offer one", (("offer", None),), 2.5),
    Gesture("offer high", (("offer_high", "offer_high"),), 1.2),
    Gesture("wide", (("wide", "wide"),), 1.5, 4.0),
    Gesture("gather", (("wide_low", "wide_low"), ("frame_small", "frame_small")), 1.2),
    Gesture("halt", (("halt", None),), 0.8),
    Gesture("point up", (("point_up", None),), 1.3),
    Gesture("count", (("count_1", None), ("count_2", None), ("count_3", None)), 1.6),
    Gesture("frame", (("frame", "frame"),), 2.0),
    Gesture("narrow", (("frame", "frame"), ("frame_small", "frame_small")), 1.5),
    Gesture("pinch", (("pinch", None),), 1.8),
    Gesture("pinch both", (("pinch", "pinch"),), 0.8),
    Gesture("heart", (("heart", None),), 0.9),
    Gesture("sweep", (("sweep_in", None), ("sweep_out", None)), 1.6),
    Gesture("chop", (("chop", "chop"),), 1.2),
    Gesture("weigh", (("offer_high", "offer"), ("offer", "offer_high")), 1.2),
    Gesture("shrug", (("shrug", "shrug"),), 1.0, 11.0),
    Gesture("level", (("level", "offer"),), 1.0),
)
