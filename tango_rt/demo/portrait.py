"""The presenter's head: painted once, with eyes, brows and mouth added for every frame."""

from dataclasses import dataclass

import cv2
import numpy as np

from tango_rt.demo.paint import Canvas, points, ramp, rgb, spline

__all__ = ["SKIN_STOPS", "Face", "Portrait"]

SKIN_STOPS = np.stack([rgb("99563f"), rgb("e0a585"), rgb("ffe0c8")])
HAIR_STOPS = np.stack([rgb("1b1110"), rgb("46291f"), rgb("a0693f")])
# Units around the middle between the eyes; the chin is at y = 77.
LOW, HIGH = (-106.0, -122.0), (106.0, 140.0)
PAINTING_SCALE = 3.0
MIRRORS = np.array([[-1.0, 1.0], [1.0, 1.0]])
EYE_X, EYE_HALF, EYE_HEIGHT = 25.0, 14.6, 8.4
MOUTH_Y = 52.0

FACE = spline(
    points(
        "0,77 17,73 34,59 47,37 54,10 56,-20 52,-52 32,-82 0,-92 -32,-82 -52,-52 -56,-20 -54,10 -47,37 -34,59 -17,73"
    )
)
BACK_HAIR = spline(
    points(
        "0,-104 38,-98 66,-70 76,-26 78,20 83,66 78,100 52,112 20,104 0,100 -20,104 -52,112 -79,100 -84,66 "
        "-79,20 -77,-26 -66,-70 -38,-98"
    )
)
# Hair on both sides of a parting on the presenter's left, which is the right of the picture.
LEFT_FALL = spline(
    points(
        "16,-103 -18,-103 -48,-90 -69,-58 -77,-10 -80,36 -84,72 -77,101 -60,104 -50,80 -49,46 -53,10 -53,-12 "
        "-45,-32 -27,-50 0,-62 20,-74 27,-92"
    )
)
RIGHT_FALL = spline(
    points("16,-103 40,-98 64,-72 75,-26 78,20 84,66 78,100 61,104 50,82 49,46 54,8 54,-18 49,-42 38,-60 22,-80")
)


@dataclass(frozen=True)
class Face:
    """The expression of a face; 0 is rest."""

    lid: float  # 0..1, closed
    brow: float  # 0..1, raised
    open: float  # 0..1, mouth open
    wide: float  # 0..1, mouth wide
    look: float  # units, eyes to the side


class Portrait:
    """Paints the head of one presenter. scale: pixels per unit of the result."""

    def __init__(self, scale: float) -> None:
        canvas = Canvas(LOW, HIGH, PAINTING_SCALE)
        _paint_head(canvas)
        self.scale = scale
        self.origin = -np.array(LOW) * scale
        self._plain = canvas.finished(scale)
        small = self._plain.shape[1::-1]
        self.relief = cv2.resize(_nearness(canvas), small, interpolation=cv2.INTER_AREA) * np.float32(scale)

    def with_face(self, face: Face) -> np.ndarray:
        """The head with this face, uint8 (h, w, 4)."""
        head = self._plain.copy()
        for side in (-1, 1):
            self._eye(head, side, face)
            self._brow(head, side, face.brow)
        self._mouth(head, face)
        return head

    def _fill(self, head: np.ndarray, outline: np.ndarray, colour: str) -> None:
        cv2.fillPoly(head, [self._pixels(outline)], (*rgb(colour).tolist(), 255), cv2.LINE_AA, 4)

    def _stroke(self, head: np.ndarray, curve: np.ndarray, colour: str, width: float) -> None:
        """A tapering line: thick in the middle, nothing at its ends."""
        along = np.gradient(curve, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1)
        across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-9
        thick = np.sin(np.linspace(0.12, np.pi - 0.12, len(curve)))[:, None] * width / 2
        self._fill(head, np.concatenate([curve + across * thick, (curve - across * thick)[::-1]]), colour)

    def _pixels(self, curve: np.ndarray) -> np.ndarray:
        return np.round((curve * self.scale + self.origin - 0.5) * 16).astype(np.int32)

    def _eye(self, head: np.ndarray, side: int, face: Face) -> None:
        t = np.linspace(-1, 1, 17)
        x = side * (EYE_X + EYE_HALF * t)
        bow = 1 - np.abs(t) ** 2.2
        low = 0.8 + 0.42 * EYE_HEIGHT * bow - 1.4 * t
        top = 0.8 - EYE_HEIGHT * bow * (1 + 0.10 * face.brow) - 1.4 * t
        top = top + (low - top) * face.lid
        upper, lower = np.stack([x, top], axis=1), np.stack([x, low], axis=1)
        if face.lid < 0.92:
            self._eyeball(head, np.concatenate([upper, lower[::-1]]), side * EYE_X + face.look, top.min())
        self._stroke(head, lower, "a8674f", 0.9)
        lash = upper + np.stack([side * 1.3 * np.maximum(t, 0) ** 2, -1.2 * np.maximum(t, 0) ** 2], axis=1)
        self._stroke(head, lash, "24140f", 3.0)
        self._stroke(head, upper - np.array([0.0, 4.0 - 1.5 * face.lid]), "b06f55", 1.0)

    def _eyeball(self, head: np.ndarray, almond: np.ndarray, iris_x: float, lid_y: float) -> None:
        corner = np.floor(self._pixels(almond).min(axis=0) / 16).astype(int) - 1
        end = np.ceil(self._pixels(almond).max(axis=0) / 16).astype(int) + 2
        box = head[corner[1] : end[1], corner[0] : end[0]]
        mask = np.zeros(box.shape[:2], np.uint8)
        shifted = self._pixels(almond) - (corner * 16).astype(np.int32)
        cv2.fillPoly(mask, [shifted], 255, cv2.LINE_AA, 4)
        eye = np.empty((*box.shape[:2], 3), np.uint8)
        rows = (np.arange(corner[1], end[1]) - self.origin[1]) / self.scale - lid_y
        eye[:] = (np.clip(0.70 + rows * 0.07, 0.70, 1.0)[:, None] * rgb("fbf6f1"))[:, None]
        centre = np.array([iris_x, -0.6])
        for radius, colour in ((7.8, "3a2114"), (7.1, "7b4a26"), (5.0, "5b331a")):
            self._dot(eye, corner, centre, radius, colour)
        self._dot(eye, corner, centre + np.array([0.0, 3.6]), 2.4, "93602f")
        self._dot(eye, corner, centre, 3.3, "140b08")
        self._dot(eye, corner, centre - np.array([2.4, 2.7]), 1.9, "ffffff")
        weight = mask[..., None].astype(np.float32) / 255
        box[..., :3] = (box[..., :3] * (1 - weight) + eye * weight + 0.5).astype(np.uint8)

    def _dot(self, eye: np.ndarray, corner: np.ndarray, centre: np.ndarray, radius: float, colour: str) -> None:
        x, y = ((centre * self.scale + self.origin - 0.5 - corner) * 16).round().astype(int).tolist()
        cv2.circle(eye, (x, y), int(radius * self.scale * 16), rgb(colour).tolist(), -1, cv2.LINE_AA, 4)

    def _brow(self, head: np.ndarray, side: int, raised: float) -> None:
        t = np.linspace(0, 1, 12)
        x = side * (11.0 + 31.5 * t)
        y = -15.5 - 5.0 * np.sin(np.minimum(t * 1.25, 1.25) * 1.5) + 3.2 * t**2 - 4.0 * raised
        thick = 2.6 * np.sin(np.pi * (0.10 + 0.90 * t) ** 0.55) + 0.2
        upper, lower = np.stack([x, y - thick], axis=1), np.stack([x, y + thick * 0.8], axis=1)
        self._fill(head, np.concatenate([upper, lower[::-1]]), "5a3626")

    def _mouth(self, head: np.ndarray, face: Face) -> None:
        t = np.linspace(-1, 1, 21)
        half = 21.0 + 2.5 * face.wide - 3.0 * face.open
        x = half * t
        bow = np.cos(t * np.pi / 2)
        smile = -4.2 * t**2 * (1 + 0.3 * face.wide)
        cupid = 1.3 * np.exp(-((t / 0.12) ** 2))
        line = MOUTH_Y + 1.6 + smile
        gap = 10.5 * face.open * bow**0.7
        top, bottom = line - 0.15 * gap, line + 0.85 * gap
        self._fill(head, _between(x * 1.03, top - 4.4 * bow**0.8 + cupid, bottom + 5.6 * bow**0.75), "c2625b")
        self._stroke(head, np.stack([x * 0.5, bottom + 3.0 * bow + 0.2], axis=1), "db877d", 1.9)
        if face.open > 0.06:
            self._fill(head, _between(x, top, bottom), "4c191b")
        if face.open > 0.22:
            middle = slice(3, -3)
            tongue = np.maximum(bottom - 0.34 * gap, top)[middle]
            self._fill(head, _between(x[middle] * 0.8, tongue, bottom[middle]), "b25453")
            self._fill(head, _between(x[middle], top[middle], (top + 0.36 * gap)[middle]), "f4ece5")
        self._stroke(head, np.stack([x, top], axis=1), "803836", 1.3)


def _between(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.concatenate([np.stack([x, top], axis=1), np.stack([x, bottom], axis=1)[::-1]])


def _paint_head(canvas: Canvas) -> None:
    back = canvas.shape(BACK_HAIR)
    canvas.lay(back, ramp(canvas.rounded(back, 34.0) * 0.62, HAIR_STOPS))
    # The upper neck moves with the head and blends into that of the body.
    neck = canvas.shape(points("-29,40 29,40 29,132 -29,132"))
    light = canvas.rounded(neck, 30.0) * np.clip(0.55 + (canvas.y - 80) / 130, 0.5, 0.92)
    canvas.lay(neck * np.clip((130 - canvas.y) / 26, 0, 1), ramp(light, SKIN_STOPS))
    _paint_face(canvas)
    for fall, side in ((RIGHT_FALL, 1), (LEFT_FALL, -1)):
        _paint_fall(canvas, fall, side)


def _paint_face(canvas: Canvas) -> None:
    face = canvas.shape(FACE)
    bumps = (
        7.0 * canvas.spot((0, 24), (7, 17))
        + 5.0 * canvas.spot((0, 31), (9, 6.5))
        + 2.2 * canvas.spot((-8, 34), (4.5, 4))
        + 2.2 * canvas.spot((8, 34), (4.5, 4))
        + 5.0 * canvas.spot((-31, 24), (20, 17))
        + 5.0 * canvas.spot((31, 24), (20, 17))
        - 3.2 * canvas.spot((-EYE_X, -2), (17, 10))
        - 3.2 * canvas.spot((EYE_X, -2), (17, 10))
        + 3.0 * canvas.spot((0, 69), (13, 9))
        - 2.0 * canvas.spot((0, 60.5), (13, 3.5))
        + 2.2 * canvas.spot((0, MOUTH_Y), (24, 12))
    )
    canvas.lay(face, ramp(canvas.rounded(face, 46.0, bumps) * 1.03, SKIN_STOPS))
    for x in (-33, 33):
        canvas.tint(0.34 * canvas.spot((x, 25), (17, 13)) * face, rgb("f2958a"))
        canvas.tint(0.30 * canvas.spot((x * 0.79, -6), (19, 9)) * face, rgb("c07a66"))
    canvas.tint(0.25 * canvas.spot((0, 33), (10, 7)) * face, rgb("f08a7c"))
    for mirror in MIRRORS:
        nostril = spline(points("2.2,36.6 5.2,35.2 8,36.4") * mirror, closed=False)
        canvas.tint(0.75 * canvas.line(nostril, 2.0, 0.7), rgb("8f4a3c"))
        wing = spline(points("9.6,29 11.6,33.5 9.4,37") * mirror, closed=False)
        canvas.tint(0.40 * canvas.line(wing, 1.2, 0.8), rgb("a05c48"))
    canvas.tint(0.35 * canvas.line(spline(points("6,2 7.5,14 9,27"), closed=False), 5.0, 3.0), rgb("cf8d70"))
    canvas.tint(0.45 * canvas.line(spline(points("-9,63.2 0,65 9,63.2"), closed=False), 2.0, 1.6), rgb("bf7f68"))
    # The shadow of the hair on the forehead and the temples.
    shade = canvas.soften(
        np.maximum(canvas.shape(LEFT_FALL + np.array([3, 6])), canvas.shape(RIGHT_FALL + np.array([2, 6]))), 3.2
    )
    canvas.tint(0.75 * shade * face, rgb("a86a55"))


def _paint_fall(canvas: Canvas, outline: np.ndarray, side: int) -> None:
    fall = canvas.shape(outline)
    # Strands follow the hair: stripes by distance from its outer edge.
    rng = np.random.default_rng(7 + side)
    flow = canvas.x * side - 0.10 * np.maximum(-canvas.y, 0) ** 1.18 * np.sign(canvas.x * side + 40)
    noise = np.interp(flow, np.linspace(-140, 140, 180), np.convolve(rng.normal(size=180), [0.25, 0.5, 0.25], "same"))
    light = canvas.rounded(fall, 26.0) * 0.80 + 0.050 * noise.astype(np.float32)
    # A soft band of gloss around the crown.
    radius = np.hypot(canvas.x / 76, (canvas.y - 20) / 122)
    gloss = np.exp(-(((radius - 0.78) / 0.075) ** 2)) * np.clip(-canvas.y / 60, 0, 1)
    light += gloss * (0.16 + 0.07 * noise) * (1.0 if side < 0 else 0.7)
    canvas.lay(fall, ramp(np.clip(light, 0, 1).astype(np.float32), HAIR_STOPS))
    rim = fall - canvas.soften(fall, 1.6)
    canvas.tint(np.clip(rim, 0, 1), rgb("60402f"))


def _nearness(canvas: Canvas) -> np.ndarray:
    """How near to the viewer each point of the head is, 0..1: an egg with a nose."""
    egg = 1 - (canvas.x / 74) ** 2 - ((canvas.y + 12) / np.where(canvas.y > -12, 96, 112)) ** 2
    return (np.maximum(egg, 0) + 0.12 * canvas.spot((0, 27), (12, 18))).astype(np.float32)
