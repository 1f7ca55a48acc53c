"""Beginning with the weights of an earlier run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from potnet.config import ConfigError
from potnet.runs.checkpoint import find_checkpoint, load_checkpoint


def start_from(model: nn.Module, path: str | Path, without: Sequence[str] = ("heads",)) -> list[str]:
    """Take over the weights of a trained network of the same shape; averaged weights, where the run averaged.

    Args:
        model: Of the new run; changed in place.
        path: A run's folder, a folder of runs, or a checkpoint file (`find_checkpoint`).
        without: Parts that keep the weights they have: names of submodules, such as "heads".

    Returns:
        Names of the parameters and buffers that were taken over.

    Raises:
        CheckpointError: The checkpoint is missing or damaged.
        ConfigError: There is no such part, or a weight is missing there or has another shape.
    """
    here = model.state_dict()
    for part in without:
        if not any(name == part or name.startswith(f"{part}.") for name in here):
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in here))
            raise ConfigError(f"finetune.except: the network has no part {part!r}; it has {parts}")
    wanted = {
        name: value
        for name, value in here.items()
        if not any(name == part or name.startswith(f"{part}.") for part in without)
    }
    weights = load_checkpoint(path)["state_dict"]
    there = {name: weights[f"model.{name}"] for name in wanted if f"model.{name}" in weights}
    for name, value in wanted.items():
        found = tuple(there[name].shape) if name in there else None
        if found != tuple(value.shape):
            raise ConfigError(
                f"finetune.from={path}: {name} is {'missing' if found is None else f'of shape {found}'} in "
                f"{find_checkpoint(path)}, and of shape {tuple(value.shape)} in this run: choose the model "
                "and features of that run, or leave the part out with finetune.except"
            )
    model.load_state_dict({**here, **there})
    return list(wanted)
