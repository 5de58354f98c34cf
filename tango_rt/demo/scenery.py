"""Everything that does not gesture: the room behind the presenter, and her clothes from the neck to the hips."""

import numpy as np

from tango_rt.demo.anatomy import HEIGHT, WIDTH
from tango_rt.demo.paint import Canvas, points, ramp, rgb, spline
from tango_rt.demo.portrait import SKIN_STOPS

__all__ = ["CLOTH_STOPS", "CUFF_STOPS", "NAIL_STOPS", "TORSO_LOW", "folds", "room", "torso"]

CLOTH_STOPS = np.stack([rgb("0c2531"), rgb("1d5263"), rgb("4a8a99")])
CUFF_STOPS = np.stack([rgb("b3aba4"), rgb("ebe5dc"), rgb("fffdf8")])
NAIL_STOPS = np.stack([rgb("b46a5c"), rgb("eeb3a3"), rgb("ffe6dc")])
GOLD = rgb("d9ab5a")
TORSO_LOW, TORSO_HIGH = (340.0, 236.0), (620.0, 760.0)
MIDDLE = 480.0
TO_MIDDLE = np.array([MIDDLE, 0.0])
PAINTING_SCALE = 2.5


def _on_side(outline: np.ndarray, side: float) -> np.ndarray:
    """Place an outline, given outward from the middle, on one side of it."""
    return outline * np.array([side, 1.0]) + TO_MIDDLE


def torso(scale: float) -> np.ndarray:
    """Neck, blouse and jacket, uint8 (h, w, 4), colours multiplied by alpha."""
    canvas = Canvas(TORSO_LOW, TORSO_HIGH, PAINTING_SCALE)
    _paint_neck(canvas)
    _paint_blouse(canvas)
    for side in (-1.0, 1.0):
        _paint_jacket(canvas, side)
    for side in (-1.0, 1.0):
        _paint_lapel(canvas, side)
    _paint_button(canvas)
    return canvas.finished(scale)


def _paint_neck(canvas: Canvas) -> None:
    outline = spline(
        points("29,236 29,268 33,288 56,303 70,330 40,400 -40,400 -70,330 -56,303 -33,288 -29,268 -29,236")
    )
    neck = canvas.shape(outline + TO_MIDDLE)
    bumps = -2.5 * canvas.spot((MIDDLE, 322), (6, 7))
    for side in (-1, 1):
        bone = _on_side(spline(points("9,323 30,318 58,311"), closed=False), side)
        bumps = bumps + 2.2 * canvas.line(bone, 4.0, 2.4)
        cord = _on_side(spline(points("22,262 15,295 7,318"), closed=False), side)
        bumps = bumps + 1.4 * canvas.line(cord, 4.0, 2.6)
    canvas.lay(neck, ramp(canvas.rounded(neck, 30.0, bumps) * 0.99, SKIN_STOPS))
    canvas.tint(0.9 * canvas.spot((MIDDLE + 4, 246), (44, 34)) * neck, rgb("b77860"))


def _paint_blouse(canvas: Canvas) -> None:
    outline = spline(points("-62,312 -44,336 -22,353 0,359 22,353 44,336 62,312 66,430 40,590 -40,590 -66,430"))
    blouse = canvas.shape(outline + TO_MIDDLE)
    light = canvas.rounded(
        blouse, 60.0, _wrinkles(canvas, 3, [(-20, 380, -6, 520), (14, 372, 4, 540), (-4, 400, 0, 560)])
    )
    canvas.tint(0.5 * canvas.soften(blouse, 3.0), rgb("a9705a"))
    canvas.lay(blouse, ramp(light, CUFF_STOPS))
    hem = spline(points("-44,338 -22,355 0,361 22,355 44,338"), closed=False) + TO_MIDDLE + np.array([0.0, 2.0])
    canvas.tint(0.35 * canvas.line(hem, 1.0, 0.5), rgb("a89c92"))
    chain = spline(points("-30,300 -20,325 0,343 20,325 30,300"), closed=False) + TO_MIDDLE
    canvas.tint(0.5 * canvas.line(chain + np.array([1.0, 1.6]), 1.0, 0.8), rgb("a9654e"))
    canvas.lay(0.9 * canvas.line(chain, 1.0), GOLD)
    canvas.lay(canvas.shape(spline(points("0,342 3.2,346.5 0,351 -3.2,346.5")) + TO_MIDDLE), GOLD)


def _wrinkles(canvas: Canvas, depth: float, strokes: list[tuple[float, float, float, float]]) -> np.ndarray:
    """Soft ridges, as heights; a stroke is (x0, y0, x1, y1) with x from the middle."""
    height = np.zeros_like(canvas.alpha)
    for x0, y0, x1, y1 in strokes:
        bow = ((x0 + x1) / 2 + 0.06 * (y1 - y0), (y0 + y1) / 2)
        curve = spline(np.array([(x0, y0), bow, (x1, y1)]), closed=False) + TO_MIDDLE
        height += canvas.line(curve, 3.0, 3.2)
    return depth * height


def _paint_jacket(canvas: Canvas, side: float) -> None:
    outline = points("34,291 66,299 104,315 132,334 128,380 116,430 101,490 91,560 98,640 114,780")
    half = spline(outline, closed=False)
    front = points("-10,780 -10,640 -8,566 20,470 44,350")
    jacket = canvas.shape(_on_side(np.concatenate([half, front]), side))
    strokes = [
        (8, 562, 60, 540),
        (10, 568, 70, 572),
        (8, 575, 56, 612),
        (88, 470, 60, 500),
        (96, 500, 62, 530),
        (90, 610, 52, 640),
    ]
    folded = _wrinkles(canvas, 5.5, [(x0 * side, y0, x1 * side, y1) for x0, y0, x1, y1 in strokes])
    bust = 14.0 * canvas.spot((MIDDLE + side * 56, 440), (40, 48))
    light = canvas.rounded(jacket, 64.0, folded + bust)
    canvas.tint(0.55 * canvas.soften(jacket, 4.0), rgb("8a8f95"))
    canvas.lay(jacket, ramp(light * 0.97, CLOTH_STOPS))
    edge = np.clip(jacket - canvas.soften(jacket, 1.2), 0, 1)
    canvas.tint(0.8 * edge, rgb("50707a"))
    pocket = _on_side(points("48,628 88,622"), side)
    canvas.tint(0.8 * canvas.line(pocket, 1.6, 0.5), rgb("3c5c66"))
    canvas.tint(0.45 * canvas.line(pocket + np.array([0.0, 4.0]), 4.0, 2.5), rgb("6f8a92"))


def _paint_lapel(canvas: Canvas, side: float) -> None:
    outer = "30,284 42,287 60,318 76,352 61,356 84,374 70,440 40,505 2,563"
    outline = points(f"{outer} 12,520 30,440 44,380 46,340 36,308")
    lapel = canvas.shape(_on_side(outline, side))
    canvas.tint(0.75 * canvas.soften(lapel, 4.0) * (1 - lapel), rgb("3f6672"))
    light = canvas.rounded(lapel, 14.0, 6.0 * canvas.spot((MIDDLE + side * 62, 390), (30, 60)))
    canvas.lay(lapel, ramp(light * 1.05, CLOTH_STOPS))
    seam = _on_side(points("42,350 61,356"), side)
    canvas.tint(0.85 * canvas.line(seam, 1.4, 0.3), rgb("2c4c57"))
    stitch = _on_side(points("80,375 67,438 38,502 4,556"), side)
    canvas.tint(0.30 * canvas.line(stitch - np.array([side * 2.0, 0.0]), 0.8, 0.3), rgb("274650"))


def _paint_button(canvas: Canvas) -> None:
    for offset, radius, colour in ((1.2, 5.6, "0a1c24"), (0.0, 5.2, "2c5c6b"), (-0.6, 3.6, "214b58")):
        circle = np.array([(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 40)]) * radius
        canvas.lay(canvas.shape(circle + np.array([MIDDLE + offset * 0.5, 572 + offset])), rgb(colour))


def folds() -> np.ndarray:
    """Brightness of a sleeve over (along, around), float32 (64, 64) about 1: oblique folds that gather at both ends."""
    along, around = np.mgrid[0:64, 0:64] / 63.0
    near_end = np.exp(-(((along - 1.0) / 0.18) ** 2)) + 0.25 * np.exp(-((along / 0.10) ** 2))
    wave = np.sin(2 * np.pi * (along * 6.5 + 0.55 * (around - 0.5) + 0.12 * np.sin(7 * around)))
    long_wave = np.sin(2 * np.pi * (around * 1.6 - along * 0.7))
    return (1 + 0.07 * near_end * wave + 0.025 * long_wave).astype(np.float32)


def room(scale: float) -> np.ndarray:
    """The background, uint8 (H, W, 3): a wall in daylight, a window and a plant far out of focus."""
    canvas = Canvas((0, 0), (WIDTH, HEIGHT), scale)
    everywhere = np.ones_like(canvas.alpha)
    fall = np.clip(0.62 * canvas.y / HEIGHT + 0.38 * canvas.x / WIDTH, 0, 1)
    wall = np.stack([rgb("e9efee"), rgb("cfdadb"), rgb("9fb2b8")])
    canvas.lay(everywhere, ramp(fall.astype(np.float32) * 0.9, wall))
    canvas.lay(0.55 * canvas.spot((300, 170), (330, 300)), rgb("fff6e6"))
    for x, y, width, height in ((42, 70, 92, 165), (150, 70, 92, 165), (42, 250, 92, 150), (150, 250, 92, 150)):
        pane = np.array([(x, y), (x + width, y - 14), (x + width, y - 14 + height), (x, y + height)], np.float64)
        canvas.lay(0.60 * canvas.shape(pane, 7.0), rgb("fffdf6"))
    shelf = points("660,232 1000,240 1000,254 660,246")
    canvas.lay(0.50 * canvas.shape(shelf, 5.0), rgb("8f7f73"))
    _paint_books(canvas)
    _paint_plant(canvas)
    canvas.tint(0.45 * (1 - canvas.spot((470, 330), (720, 560))), rgb("7d929b"))
    # Noise below one grey level keeps the long gradients free of banding.
    grain = np.random.default_rng(1).normal(0, 0.6, canvas.colour.shape)
    return np.clip(canvas.colour + grain + 0.5, 0, 255).astype(np.uint8)


def _paint_books(canvas: Canvas) -> None:
    x = 700.0
    for width, height, colour in (
        (20, 74, "b98a6a"),
        (15, 88, "5f8791"),
        (24, 66, "d8c7ae"),
        (16, 80, "8fa6a0"),
        (22, 58, "c99b83"),
    ):
        book = np.array([(x, 236), (x + width, 236), (x + width, 236 - height), (x, 236 - height)], np.float64)
        canvas.lay(0.55 * canvas.shape(book, 4.5), rgb(colour))
        x += width + 3


def _paint_plant(canvas: Canvas) -> None:
    rng = np.random.default_rng(5)
    root = np.array([880.0, 700.0])
    for angle in np.linspace(-1.25, 0.75, 13):
        reach = 190 + 110 * rng.random()
        tip = root + reach * np.array([np.sin(angle), -np.cos(angle)]) + [0, 40 * abs(angle)]
        across = np.array([np.cos(angle), np.sin(angle)]) * (20 + 10 * rng.random())
        middle = (root + tip) / 2 + [0, -26]
        leaf = spline(np.stack([root, middle + across, tip, middle - across]))
        green = rgb("5f8a76") * (0.85 + 0.4 * rng.random())
        canvas.lay(0.50 * canvas.shape(leaf, 6.5), green)
