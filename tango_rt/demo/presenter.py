"""A drawn presenter: she gives a speech, and her hands, head and mouth follow its sound."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from engine.errors import InputError
from tango_rt.demo import scenery
from tango_rt.demo.anatomy import HEIGHT, HIP_Y, MIDDLE_X, SHOULDER, WIDTH, arm_cones
from tango_rt.demo.gestures import Motion, hear, perform
from tango_rt.demo.paint import ramp
from tango_rt.demo.portrait import SKIN_STOPS, Face, Portrait
from tango_rt.demo.raster import Limbs, Palette, paste

__all__ = ["REFERENCE_SPEECH", "TARGET_SPEECH", "Studio", "presenter_frames"]

_SPEECH = Path(str(files("tango_rt.demo"))) / "speech"
REFERENCE_SPEECH = _SPEECH / "reference.ogg"
TARGET_SPEECH = _SPEECH / "target.ogg"

# Paintings have a higher resolution than the picture, because they are resampled again when they move.
FINENESS = 1.25
NECK_Y, NECK_TO_EYES = 302.0, 114.0
SHADOW_SCALE = 4
SHADOW_SHIFT = np.array([7.0, 13.0])


def presenter_frames(speech: np.ndarray, seed: int = 0, height: int = 720) -> Iterator[np.ndarray]:
    """Draw the presenter giving this speech.

    speech: float32 (n_samples,) at 16 kHz. Yields timebase.frame_count(n_samples) pictures, RGB uint8
    (height, height * 4 / 3, 3), picture n at n / 30 s, one at a time. Equal arguments give equal pictures.
    Raises InputError: the speech is empty, not mono or not finite, or the height is not supported.
    """
    if speech.ndim != 1 or speech.dtype != np.float32 or len(speech) == 0 or not np.isfinite(speech).all():
        raise InputError(f"speech: found {speech.dtype} {speech.shape}, wanted finite float32 (n_samples,) at 16 kHz")
    if not 144 <= height <= 1440 or height % 12:
        raise InputError(f"height {height}: wanted a multiple of 12 from 144 to 1440")
    motion = perform(hear(speech), seed)
    return _drawn(motion, height)


def _drawn(motion: Motion, height: int) -> Iterator[np.ndarray]:
    studio = Studio(height)
    for frame in range(len(motion.sway)):
        yield studio.draw(motion, frame)


class Studio:
    """Draws single frames of a motion, `height` pixels high; everything static is painted once."""

    def __init__(self, height: int) -> None:
        self.scale = height / HEIGHT
        fine = self.scale * FINENESS
        self.room = scenery.room(self.scale)
        self.torso = scenery.torso(fine)
        self.portrait = Portrait(fine)
        light = np.linspace(0, 1, 256)[:, None]
        stops = [scenery.CLOTH_STOPS, scenery.CUFF_STOPS, SKIN_STOPS, SKIN_STOPS, scenery.NAIL_STOPS]
        palette = Palette(np.stack([ramp(light, s)[:, 0] for s in stops]), scenery.folds())
        self.limbs = Limbs(height, height * WIDTH // HEIGHT, palette)
        self.no_shadow = np.zeros((height, height * WIDTH // HEIGHT), np.uint8)

    def draw(self, motion: Motion, frame: int) -> np.ndarray:
        """One picture, uint8 (H, W, 3), owned by the caller."""
        picture = self.room.copy()
        sway, lift = float(motion.sway[frame]), float(motion.lift[frame] + 3.0 * motion.breath[frame])
        arms = [arm_cones(motion.arms[frame, i], 2 * i - 1, sway, lift, self.scale) for i in (0, 1)]
        self._draw_torso(picture, sway, lift, self._shadow([joints for _, joints in arms]))
        self._draw_head(picture, motion, frame, sway, lift)
        self.limbs.draw(picture, np.concatenate([cones for cones, _ in arms]))
        return picture

    def _shadow(self, joints: list[np.ndarray]) -> np.ndarray:
        """The shadow of forearms and hands on the jacket, uint8 (H, W)."""
        height, width = self.room.shape[:2]
        mask = np.zeros((height // SHADOW_SCALE, width // SHADOW_SCALE), np.uint8)
        for arm in joints:
            line = np.round((arm + SHADOW_SHIFT * self.scale) / SHADOW_SCALE * 16).astype(np.int32)
            thin = max(1, round(5 * self.scale))
            cv2.polylines(mask, [line[1:3]], False, 85, max(1, round(11 * self.scale)), cv2.LINE_8, 4)
            for tip in line[3:]:
                cv2.line(mask, line[2].tolist(), tip.tolist(), 85, thin, cv2.LINE_8, 4)
        return cv2.resize(cv2.blur(cv2.blur(mask, (7, 7)), (5, 5)), (width, height))

    def _draw_torso(self, picture: np.ndarray, sway: float, lift: float, shadow: np.ndarray) -> None:
        stretch = 1 - lift / SHOULDER[1]
        lean = sway / SHOULDER[1]
        low, fine = scenery.TORSO_LOW, FINENESS
        # Scene y is stretched to HIP_Y + (y - HIP_Y) / stretch; x moves by lean for every unit above the hips.
        inverse = np.array(
            [
                [fine, fine * lean, (-lean * HIP_Y - low[0]) * fine * self.scale],
                [0.0, fine * stretch, (HIP_Y * (1 - stretch) - low[1]) * fine * self.scale],
            ]
        )
        paste(picture, self.torso, inverse, shadow)

    def _draw_head(self, picture: np.ndarray, motion: Motion, frame: int, sway: float, lift: float) -> None:
        turn, nod, tilt = motion.head[frame].tolist()
        angle = tilt + sway / SHOULDER[1]
        neck = np.array([MIDDLE_X + sway * (HIP_Y - NECK_Y) / SHOULDER[1], NECK_Y - 0.8 * lift])
        eyes = neck + NECK_TO_EYES * np.array([np.sin(angle) + 0.06 * turn, -np.cos(angle) + 0.10 * nod])
        rotation = FINENESS * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        offset = self.portrait.origin - rotation @ eyes * self.scale
        head = self.portrait.with_face(Face(*motion.face[frame].tolist()))
        # The head has a radius of 62 units: its middle moves by the sine of the turn, its outline stays.
        swing = (62.0 * np.sin(turn), 62.0 * np.sin(nod))
        paste(picture, head, np.column_stack([rotation, offset]), self.no_shadow, self.portrait.relief, swing)
