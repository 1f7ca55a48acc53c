"""Beginning with the weights of a trained network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from potnet.config import ConfigError
from potnet.runs.checkpoint import find_checkpoint, load_checkpoint
from potnet.runs.errors import CheckpointError

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule

log = logging.getLogger(__name__)

LEAST_LABELS = 20
"""Labelled crystals from which on fine-tuning is worth trying."""


def source_file(path: str | Path) -> Path:
    """The checkpoint that a run, a file or the name of a registered model means (of a model the member that
    its entry names as `finetune_member`, else the first).

    Raises:
        CheckpointError, RegistryError: There is none.
    """
    from potnet.pretrained.registry import is_name, shipped

    models = shipped()
    if is_name(path) and (str(path) in models or not Path(path).exists()):
        entry = models[str(path)]
        return entry.file(entry.finetune_member)
    try:
        return find_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(f"finetune.from={error}; train that first, or name another run") from None


def with_source(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run that begins with another network: with its model and features, and the learning
    rates.

    Args:
        config: Plain config of the run. Without `finetune.from` it is returned as it is.

    Raises:
        CheckpointError, RegistryError: The source cannot be used.
    """
    settings = config.get("finetune") or {}
    if settings.get("from") is None:
        return dict(config)
    file = source_file(settings["from"])
    source = load_checkpoint(file)
    found = dict(config)
    for part, kept in (
        ("model", dict(source["hyper_parameters"]["model"])),
        ("features", dict(source["potnet"]["features"])),
    ):
        kept.pop("heads", None)
        before = config[part]
        other = [f"{part}.{key}" for key in kept if key in before and before[key] != kept[key]]
        if part == "model" and other:
            log.info("fine-tuning keeps the network of %s: %s are as there", file, ", ".join(other))
        # The sums are computed where this run computes them, and a network without sums says nothing of their
        # accuracy.
        free = ["device", "memory_mib"]
        if part == "features" and kept.get("accuracy") is None:
            free.append("accuracy")
        found[part] = {**kept, **{k: before[k] for k in free if k in before}}
    rates = dict((config.get("optimizer") or {}).get("rates") or {})
    factor = float(settings.get("rate", 1.0))
    if factor != 1:
        new = set(settings.get("except") or ())
        parts = {name.split(".")[1] for name in source["state_dict"] if name.startswith("model.")} - new
        rates = dict.fromkeys(sorted(parts), factor) | rates
    rates |= dict.fromkeys(settings.get("freeze") or (), 0.0)
    if rates:
        found["optimizer"] = {**config["optimizer"], "rates": rates}
    found["finetune"] = {**settings, "from": str(file.absolute())}
    return found


def check_labels(data: CrystalDataModule) -> None:
    """Refuse to fine-tune on fewer labels than can tell anything.

    Raises:
        ConfigError: There are fewer than 20 crystals with a label.
    """
    count = sum(data.split.sizes.values())
    if count < LEAST_LABELS:
        raise ConfigError(
            f"finetune: {count} crystals have a label, and at least {LEAST_LABELS} are needed: with fewer "
            "neither the network nor its error means anything. Add labels"
        )


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
    weights = load_checkpoint(source_file(path))["state_dict"]
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
