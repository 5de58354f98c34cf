"""The small trained embedding at run time: two networks of a `mini` bundle, made by `tango-export bundle mini`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.errors import ArtifactError, InputError
from engine.features.body import BODY_COLUMNS, MOUTH_COLUMNS, body_descriptors
from engine.features.embedding import Features
from engine.features.recording import Recording
from engine.features.speech import N_COLUMNS
from engine.features.windows import WindowedStream, WindowPlan
from engine.inference.networks import Networks
from engine.inference.session import Session
from engine.timebase import FRAMES_PER_NODE

__all__ = [
    "AUDIO_GRAPH",
    "FEATURES_VERSION",
    "HOP_FRAMES",
    "MOTION_GRAPH",
    "MiniEmbedding",
    "mini_config",
    "motion_rows",
]

FEATURES_VERSION = 1  # of rows and descriptors: raise it when their numbers change
AUDIO_GRAPH, MOTION_GRAPH = "audio", "motion"
HOP_FRAMES = 16  # features come in blocks of this length
_MIN_DEVIATION = 0.01  # columns that vary less count as constant


def motion_rows(recording: Recording, mouth: bool = False) -> np.ndarray:
    """Body descriptors in standard deviations over the recording, float32 (F, M): people differ in size, not timing.

    Raises InputError if the mouth is requested and the recording has none.
    """
    if mouth and recording.mouth is None:
        raise InputError(f"{recording.name} has no mouth track: use an embedding that was trained without the mouth")
    rows = body_descriptors(recording, mouth)
    deviation = rows.std(axis=0)
    return np.where(deviation > _MIN_DEVIATION, rows / np.maximum(deviation, _MIN_DEVIATION), 0).astype(np.float32)


def mini_config(
    mouth: bool, low_dim: int, high_dim: int, lookback_frames: int, lookahead_frames: int
) -> dict[str, Any]:
    """The config of a bundle, which describes its networks' inputs; high_dim 0: there is no high level."""
    return {
        "features_version": FEATURES_VERSION,
        "audio_columns": N_COLUMNS,
        "motion_columns": [*BODY_COLUMNS, *(MOUTH_COLUMNS if mouth else ())],
        "low_dim": low_dim,
        "high_dim": high_dim,
        "lookback_frames": lookback_frames,
        "lookahead_frames": lookahead_frames,
    }


class MiniEmbedding:
    """Implements engine.features.embedding.Embedding."""

    name = "mini"
    weight = 1.0

    def __init__(
        self,
        config: Mapping[str, Any],
        sha256: str,
        audio: Session,
        motion: Session,
        plan: WindowPlan | None = None,
    ) -> None:
        """`plan`: windows of speech; None: with all the context that the networks can use.

        Raises ArtifactError if the config is not for the features of this version.
        """
        _check(config)
        self._config = config
        self.sha256 = sha256
        self._audio, self._motion = audio, motion
        self._widths = (int(config["low_dim"]), int(config["high_dim"]))
        self._mouth = len(config["motion_columns"]) > len(BODY_COLUMNS)
        context = int(config["lookback_frames"]), int(config["lookahead_frames"])
        self._plan = plan or WindowPlan(HOP_FRAMES, *context)

    @classmethod
    def of(cls, networks: Networks) -> "MiniEmbedding":
        """From the networks of a bundle. Raises ArtifactError for one of another kind or version."""
        bundle = networks.bundle
        if bundle.name != cls.name:
            raise ArtifactError(
                f"{bundle.folder} is a bundle of {bundle.name!r}, expected {cls.name!r}: run 'tango-export bundle mini'"
            )
        _check(bundle.config)
        sessions = networks.session(AUDIO_GRAPH), networks.session(MOTION_GRAPH)
        return cls(bundle.config, bundle.sha256, *sessions)

    @property
    def lookahead_frames(self) -> int:
        return self.listen().lookahead_frames

    def hurried(self, lookahead_frames: int) -> "MiniEmbedding":
        """The same networks with at most this look-ahead; speech not heard yet counts as average."""
        if lookahead_frames >= self.lookahead_frames:
            return self
        hop = min(FRAMES_PER_NODE, lookahead_frames + 1)
        plan = WindowPlan(hop, self._plan.lookback_frames, lookahead_frames + 1 - hop)
        return MiniEmbedding(self._config, self.sha256, self._audio, self._motion, plan)

    def listen(self) -> "MiniListener":
        return MiniListener(WindowedStream(self._hear, self._widths, self._plan, int, (N_COLUMNS,)))

    def motion(self, recording: Recording) -> Features:
        rows = motion_rows(recording, self._mouth)
        parts = [self._run(self._motion, "descriptors", rows[clip]) for clip in recording.clips]
        return Features(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def close(self) -> None:
        """Free both networks."""
        self._audio.close()
        self._motion.close()

    def _hear(self, rows: np.ndarray, n_frames: int) -> tuple[np.ndarray, ...]:
        return self._run(self._audio, "rows", rows[:n_frames])

    def _run(self, session: Session, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs = session.run({name: np.ascontiguousarray(rows[None])})
        low = outputs["low"][0]
        return low, outputs["high"][0] if self._widths[1] else np.empty((len(low), 0), np.float32)


class MiniListener:
    """Implements engine.features.embedding.Listener."""

    def __init__(self, stream: WindowedStream) -> None:
        self._stream = stream

    @property
    def lookahead_frames(self) -> int:
        return self._stream.lookahead_frames

    def push(self, samples: np.ndarray, rows: np.ndarray) -> Features:
        return Features(*self._stream.push(rows))

    def flush(self) -> Features:
        return Features(*self._stream.flush())


def _check(config: Mapping[str, Any]) -> None:
    try:
        mouth = len(config["motion_columns"]) > len(BODY_COLUMNS)
        frames = [config[name] for name in ("low_dim", "high_dim", "lookback_frames", "lookahead_frames")]
        if any(type(n) is not int or not 0 <= n <= 1 << 16 for n in frames):
            raise ArtifactError(f"the mini bundle's sizes are {frames}: make it again with 'tango-export bundle mini'")
        wanted = mini_config(mouth, *frames)
        other = [name for name, value in wanted.items() if config[name] != value]
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"the mini bundle's config lacks {error}: make it with 'tango-export bundle mini'"
        ) from error
    if other:
        found, want = config[other[0]], wanted[other[0]]
        raise ArtifactError(
            f"the mini bundle was made for other features ({other[0]} {found}, this version has {want}): train it again"
        )
