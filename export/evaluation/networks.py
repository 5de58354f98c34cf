"""The trained towers: mini with the paper's ablations, trained on other people, and adapted to the person."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch

from engine.errors import InputError
from engine.features.embedding import Embedding, Features
from engine.features.mini import motion_rows
from engine.features.recording import Recording
from engine.features.scores import REACH
from engine.features.validation import SMOOTHING_FRAMES
from engine.timebase import FRAMES_PER_NODE
from export.evaluation.baselines import WholeListener
from export.evaluation.people import Person
from export.evaluation.rivals import Rival
from export.models.mini import AuMoMini, MiniConfig, MiniTower
from export.training.adapt import AdaptOptions
from export.training.batches import cut_nodes
from export.training.checkpoint import Checkpoint
from export.training.trainer import Trainer, TrainOptions

__all__ = ["ABLATIONS", "NetworkOptions", "TowerEmbedding", "network_rivals"]

ABLATIONS = {
    "mini": MiniConfig(),
    "mini, max-pool": MiniConfig(pooling="max"),
    "mini, low only": MiniConfig(levels="low"),
    "mini, split": MiniConfig(layout="split"),
    "mini, no stop-gradient": MiniConfig(stop_gradient=False),
}
"""`mini` itself has the class token: TANGO, section 4.3, table 2."""


@dataclass(frozen=True)
class NetworkOptions:
    """n_groups: of people, for leaving one group out; adapt_steps: fixed, as no data is left for early stopping."""

    n_groups: int = 3
    train: TrainOptions = field(default_factory=lambda: TrainOptions(progress=False))
    adapt: AdaptOptions = field(default_factory=AdaptOptions)
    adapt_steps: int = 30


@dataclass(frozen=True, eq=False)
class TowerEmbedding:
    """A trained model on whole recordings; at run time engine.features.mini does the same window by window."""

    model: AuMoMini
    name: str = "mini"
    weight: float = 1.0

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for value in self.model.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()

    @property
    def lookahead_frames(self) -> int:
        return self.model.config.lookahead_frames

    def with_lookahead(self, lookahead_frames: int) -> "TowerEmbedding":
        """Itself: it has no shorter form."""
        return self

    def listen(self) -> WholeListener:
        config = self.model.config
        high = config.high_dim if config.levels == "both" else 0
        return WholeListener(lambda rows: _run(self.model.audio, rows), (config.low_dim, high))

    def motion(self, recording: Recording) -> Features:
        rows = motion_rows(recording)
        parts = [_run(self.model.motion, rows[clip]) for clip in recording.clips]
        return Features(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def network_rivals(people: Sequence[Person], options: NetworkOptions) -> list[Rival]:
    """Raises InputError if there are too few people to leave some out."""
    if len(people) < 2:
        raise InputError("mini is tested on people that it was not trained on: give two recordings or more")

    @cache
    def trained(name: str, group: int) -> Checkpoint:
        learned = [p.recording for number, p in enumerate(people) if number % groups != group]
        trainer = Trainer(learned, [], replace(options.train, model=ABLATIONS[name]))
        for _ in range(trainer.options.steps):
            trainer.advance()
        return trainer.checkpoint()

    def of_others(name: str) -> Callable[[Person, np.ndarray], Embedding]:
        return lambda person, asked: _embedding(trained(name, people.index(person) % groups))

    def adapted(person: Person, asked: np.ndarray) -> Embedding:
        start = trained("mini", people.index(person) % groups)
        return _embedding(_adapted(start, person.recording, asked, options))

    groups = min(options.n_groups, len(people))
    rivals = [Rival(name, of_others(name), ablation=name != "mini", shown=name == "mini") for name in ABLATIONS]
    return [*rivals, Rival("mini, adapted", adapted, refits=True, shown=True)]


def _adapted(start: Checkpoint, recording: Recording, asked: np.ndarray, options: NetworkOptions) -> Checkpoint:
    """Fine-tuned to both sides of the query frames; the start if they are too short."""
    config, adapt = start.config, options.adapt
    # training sees nothing beyond its part, so one context must fit in between
    seen = REACH + config.high_lookback_frames - config.window_frames // 2 + SMOOTHING_FRAMES
    n_nodes = recording.n_frames // FRAMES_PER_NODE
    sides = (
        (0, max(int(asked[0]) - seen, 0) // FRAMES_PER_NODE),
        (min(-(-(int(asked[-1]) + 1 + seen) // FRAMES_PER_NODE), n_nodes), n_nodes),
    )
    parts = [cut_nodes(recording, first, last) for first, last in sides if last > first]
    wanted = replace(
        options.train,
        steps=options.adapt_steps,
        batch=adapt.batch,
        window_frames=2 * config.low_reach_frames + config.window_frames,
        learning_rate=adapt.learning_rate,
        average=adapt.average,
        variants=adapt.variants,
        augment=adapt.augment,
        model=config,
    )
    try:
        trainer = Trainer(parts, [], wanted, start)
    except InputError:
        return start
    for _ in range(options.adapt_steps):
        trainer.advance()
    return trainer.checkpoint()


def _embedding(checkpoint: Checkpoint) -> TowerEmbedding:
    model = AuMoMini(checkpoint.config)
    model.load_state_dict(checkpoint.average)
    return TowerEmbedding(model.eval())


@torch.no_grad()
def _run(tower: MiniTower, rows: np.ndarray) -> Features:
    features = tower(torch.from_numpy(np.ascontiguousarray(rows[None])))
    return Features(*(part[0].numpy() for part in (features.low, features.high)))
