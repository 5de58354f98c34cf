"""A person on video and the voice of the same frames: the data that embeddings are fitted to and trained on."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engine.errors import InputError
from engine.skeleton import N_JOINTS
from engine.timebase import FPS, FRAMES_PER_NODE, frame_start

__all__ = ["Recording"]


@dataclass(frozen=True)
class Recording:
    """Frames at 30 fps in whole nodes. Raises InputError for parts that do not belong together."""

    name: str
    samples: np.ndarray  # float32 (S,), 16 kHz; frame f starts at frame_start(f)
    joints: np.ndarray  # float32 (F, 75, 3), finite
    confidence: np.ndarray  # float32 (F, 75), 0 for joints that were filled in
    clip_start: np.ndarray  # int64 (C + 1,), in nodes; motion and voice jump at the start of a clip
    unit_px: float  # shoulder width in the unit of the joints
    mouth: np.ndarray | None = None  # float32 (F, 2), opening and width of the mouth; None: unknown
    motion: np.ndarray | None = None  # float32 (F, J, 15), see engine.features.motion; J = 55 for SMPL-X

    def __post_init__(self) -> None:
        n = len(self.joints)
        shapes = {"joints": (n, N_JOINTS, 3), "confidence": (n, N_JOINTS), "mouth": (n, 2)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if name == "mouth" and value is None:
                continue
            if value.shape != shape:
                raise InputError(f"{self.name}: {name} has shape {value.shape}, expected {shape}")
            if not np.isfinite(value).all():
                raise InputError(f"{self.name}: {name} holds NaN or infinity")
        if self.motion is not None and len(self.motion) != n:
            raise InputError(f"{self.name}: motion has {len(self.motion)} frames, joints have {n}")
        starts = self.clip_start
        if len(starts) < 2 or starts[0] != 0 or starts[-1] * FRAMES_PER_NODE != n or np.any(np.diff(starts) < 1):
            raise InputError(f"{self.name}: clip_start must ascend from 0 to {n / FRAMES_PER_NODE} nodes")
        if len(self.samples) < frame_start(n):
            raise InputError(
                f"{self.name}: {len(self.samples)} samples of audio for {n} frames, {frame_start(n)} needed"
            )

    @property
    def n_frames(self) -> int:
        return len(self.joints)

    @property
    def duration_s(self) -> float:
        return self.n_frames / FPS

    @property
    def clips(self) -> list[slice]:
        """Frames of each clip."""
        bounds = self.clip_start * FRAMES_PER_NODE
        return [slice(int(a), int(b)) for a, b in pairwise(bounds)]
