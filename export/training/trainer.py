"""The training loop of mini; a stopped and resumed run ends with the same weights as an uninterrupted one.

All randomness follows from the seed and the step number, so a step is the same whatever came before it.
"""

import copy
import math
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from engine.errors import BackendError, InputError
from engine.features.body import BODY_COLUMNS, MOUTH_COLUMNS
from engine.features.recording import Recording
from export.losses import global_loss, local_loss
from export.models.mini import AuMoMini, MiniConfig
from export.training.augment import AugmentOptions
from export.training.batches import Batch, Sampler, Take, make_takes, prepare
from export.training.checkpoint import Checkpoint, write_checkpoint
from export.training.validation import low_accuracy

__all__ = ["TrainOptions", "Trainer"]


@dataclass(frozen=True)
class TrainOptions:
    """How mini is trained. The defaults are for minutes of video; hours take more steps, and less dropout."""

    steps: int = 160
    batch: int = 12  # windows
    window_frames: int = 192  # 128 of them have all of their context inside and are compared
    learning_rate: float = 4e-3  # at the start; a cosine to 0 follows
    weight_decay: float = 0.05
    average: float = 0.97  # decay of the moving average of the weights, per step
    global_weight: float = 1.0
    temperature: float = 0.1
    seed: int = 0
    mouth: bool = False  # use mouth movements, too; all recordings need them
    variants: int = 6  # of every recording, augmented
    model: MiniConfig = field(default_factory=MiniConfig)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    # Names of recordings (* for anything) used for validation instead of training; if empty, the last part of each
    # recording is.
    held_out: tuple[str, ...] = ()
    validation_share: float = 0.2
    gap_s: float = 0.5  # between the part trained on and the one validated on
    validate_every: int = 20
    bf16: bool | None = None  # None: if it is faster, on a GPU that supports it
    device: Literal["auto", "cpu", "cuda"] = "auto"
    resume: bool = False
    progress: bool = True


# what may differ between a run and its continuation
_FREE = ("resume", "progress", "device", "bf16")


class Trainer:
    """The state of a run, and its steps."""

    def __init__(
        self,
        learned: Sequence[Recording],
        validated: Sequence[Recording],
        options: TrainOptions,
        start: Checkpoint | None = None,
    ) -> None:
        """From random weights, or from the averaged ones of `start`."""
        self.options = options
        self.device, self.bf16 = _device(options)
        self.config = start.config if start else _sized(options)
        margin = self.config.low_reach_frames
        takes = prepare(learned, options.mouth, options.seed, options.variants, options.augment)
        self.sampler = Sampler(takes, options.window_frames, margin, options.seed)
        self.validated: list[Take] = make_takes(validated, options.mouth)
        self.data = [(r.name, r.n_frames) for r in learned]
        torch.manual_seed(options.seed)
        self.model = AuMoMini(self.config)
        if start:
            self.model.load_state_dict(start.average)
        else:
            _normalise(self.model, self.sampler)
        self.model.to(self.device)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.step = 0
        self.history: list[dict[str, float]] = []

    def run(self, output: Path) -> None:
        """Run all remaining steps and write the checkpoint regularly; Ctrl-C ends the run between two steps."""
        options = self.options
        with (
            _interruptible() as stop,
            tqdm(
                total=options.steps, initial=self.step, unit=" steps", disable=None if options.progress else True
            ) as bar,
        ):
            while self.step < options.steps:
                if stop.is_set():
                    write_checkpoint(output, self.checkpoint())
                    told = f"stopped after step {self.step}; the same command with --resume continues from {output}"
                    bar.write(told, file=sys.stderr)
                    raise KeyboardInterrupt
                losses = self.advance()
                bar.update()
                if self.step % options.validate_every == 0 or self.step == options.steps:
                    self.history.append({"step": self.step, **losses, **self.validate()})
                    bar.set_postfix({n: f"{v:.2f}" for n, v in self.history[-1].items() if n not in ("step", "frames")})
                    write_checkpoint(output, self.checkpoint())

    def advance(self) -> dict[str, float]:
        """One step -> its losses and accuracies."""
        options = self.options
        torch.manual_seed(options.seed * 1_000_003 + self.step)  # of the dropout
        for group in self.optimizer.param_groups:
            group["lr"] = options.learning_rate * (1 + math.cos(math.pi * self.step / options.steps)) / 2
        self.model.train()
        loss, told = self.loss(self.sampler.batch(self.step, options.batch))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        self._follow()
        return {name: float(value.detach()) for name, value in told.items()}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Local loss over frames with their whole context in the window, global loss over the middles of full ones."""
        options, margin = self.options, self.config.low_reach_frames
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            audio, motion = self.model(
                torch.from_numpy(batch.rows).to(self.device), torch.from_numpy(batch.descriptors).to(self.device)
            )
        lengths = np.unique(batch.n_frames)
        inner = (lengths - 2 * margin) * np.array([(batch.n_frames == length).sum() for length in lengths])
        local, accuracy = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for length, share in zip(lengths, inner / inner.sum(), strict=True):
            chosen = torch.from_numpy(np.flatnonzero(batch.n_frames == length)).to(self.device)
            sides = [side.low[chosen, margin : length - margin] for side in (audio, motion)]
            some, right = local_loss(sides[0], sides[1], options.temperature)
            local, accuracy = local + share * some, accuracy + share * right
        told = {"local_loss": local, "train_low": accuracy}
        whole = torch.from_numpy(np.flatnonzero(batch.n_frames == options.window_frames)).to(self.device)
        if self.config.levels == "low" or len(whole) < 2:
            return local, told
        middle = options.window_frames // 2
        summary, top1 = global_loss(audio.high[whole, middle], motion.high[whole, middle], options.temperature)
        return local + options.global_weight * summary, {**told, "global_loss": summary, "train_top1": top1}

    def validate(self) -> dict[str, float]:
        """Accuracy of the averaged weights on held-out data."""
        return low_accuracy(self.averaged(), self.validated)

    def averaged(self) -> AuMoMini:
        """The network with averaged weights, in evaluation."""
        model = AuMoMini(self.config).to(self.device)
        model.load_state_dict(self.average)
        return model.eval()

    def checkpoint(self) -> Checkpoint:
        """A copy of the state: later steps do not change it."""
        options = asdict(replace(self.options, model=self.config))
        return Checkpoint(
            config=self.config,
            mouth=self.options.mouth,
            options={name: value for name, value in options.items() if name not in _FREE},
            data=self.data,
            step=self.step,
            weights={name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()},
            average={name: value.cpu().clone() for name, value in self.average.items()},
            optimizer=copy.deepcopy(self.optimizer.state_dict()),
            history=list(self.history),
        )

    def restore(self, saved: Checkpoint, path: Path) -> None:
        """Continue from a checkpoint of the same run. Raises InputError if it is from another one."""
        mine = self.checkpoint()
        if saved.data != mine.data:
            raise InputError(f"{path} was trained on other data: resume with the same data, or choose another output")
        for name, value in mine.options.items():
            if saved.options.get(name) != value:
                raise InputError(
                    f"{path} was begun with {name} {saved.options.get(name)}, not {value}: "
                    "resume with the same options, or choose another output"
                )
        self.model.load_state_dict(saved.weights)
        self.average = {name: value.to(self.device) for name, value in saved.average.items()}
        self.optimizer.load_state_dict(saved.optimizer)
        self.step, self.history = saved.step, list(saved.history)

    @torch.no_grad()
    def _follow(self) -> None:
        # early averages must not retain the random start
        decay = min(self.options.average, self.step / (self.step + 10))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)


def _sized(options: TrainOptions) -> MiniConfig:
    columns = len(BODY_COLUMNS) + (len(MOUTH_COLUMNS) if options.mouth else 0)
    return replace(options.model, motion_columns=columns)


def _normalise(model: AuMoMini, sampler: Sampler) -> None:
    audio_mean, audio_sd, motion_mean, motion_sd = sampler.statistics()
    for tower, mean, sd in ((model.audio, audio_mean, audio_sd), (model.motion, motion_mean, motion_sd)):
        tower.offset.copy_(torch.from_numpy(mean))
        tower.scale.copy_(torch.from_numpy(np.where(sd > 1e-3, 1 / np.maximum(sd, 1e-3), 0).astype(np.float32)))


def _device(options: TrainOptions) -> tuple[torch.device, bool]:
    has_gpu = torch.cuda.is_available()
    if options.device == "cuda" and not has_gpu:
        raise BackendError("there is no CUDA device: use --device cpu")
    device = torch.device("cuda" if has_gpu and options.device != "cpu" else "cpu")
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        if options.bf16 and not able:
            raise BackendError("this GPU does not support bf16: use --no-bf16")
        return device, able if options.bf16 is None else options.bf16
    return device, bool(options.bf16)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event instead of interrupting a step; a second one is a normal interrupt."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(_: int, __: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
