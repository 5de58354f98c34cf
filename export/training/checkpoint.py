"""Checkpoints of mini: whole or absent, plain tensors and numbers, nothing that runs code when it is read."""

import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import ArtifactError, InputError
from engine.features.mini import FEATURES_VERSION
from engine.folders import sibling_file
from export.models.mini import AuMoMini, MiniConfig

__all__ = ["Checkpoint", "read_checkpoint", "trained_model", "write_checkpoint"]

_KIND = "tango-rt mini"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to continue as if it had never stopped.

    average holds the moving average of the weights: what is evaluated, adapted and exported. data: name and frames of
    each recording. history: one record per validation.
    """

    config: MiniConfig
    mouth: bool
    options: dict[str, Any]
    data: list[tuple[str, int]]
    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write and rename: an interrupted or failed write leaves the older file as it was. Raises InputError."""
    fields = {name: getattr(checkpoint, name) for name in checkpoint.__dataclass_fields__}
    fields |= {"kind": _KIND, "features_version": FEATURES_VERSION, "config": asdict(checkpoint.config)}
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = sibling_file(path)
        with temporary.open("wb") as file:
            torch.save(fields, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path}: the checkpoint cannot be written ({reason})") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises InputError if there is none, ArtifactError for another kind of file or version."""
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}: give one written by 'tango-export train aumoclip'")
    try:
        fields = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(fields, Mapping) or fields.get("kind") != _KIND:
            raise ArtifactError(
                f"{path} is not a checkpoint of mini: give one written by 'tango-export train aumoclip'"
            )
        if fields["features_version"] != FEATURES_VERSION:
            raise ArtifactError(
                f"{path} was trained on features of version {fields['features_version']}, "
                f"this version makes {FEATURES_VERSION}: train it again"
            )
        config = MiniConfig(**fields["config"])
        rest = {name: fields[name] for name in Checkpoint.__dataclass_fields__ if name != "config"}
        checkpoint = Checkpoint(config=config, **rest)
        trained_model(checkpoint)
    except pickle.UnpicklingError as error:
        raise ArtifactError(f"{path} is not a checkpoint of mini: it holds more than tensors and numbers") from error
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{path} is damaged or not a checkpoint of mini: {reason}") from error
    return checkpoint


def trained_model(checkpoint: Checkpoint) -> AuMoMini:
    """The networks with averaged weights, in evaluation."""
    model = AuMoMini(checkpoint.config)
    model.load_state_dict(checkpoint.average)
    return model.eval()
