"""Older checkpoints in the current format.

Format 1: one target, `hyper_parameters["target"]`; mean and deviation in `state_dict["mean"]`, `["std"]`; a
network with a single output; absolute paths in the record; no table of elements.
Format 2: `hyper_parameters["targets"]` by key; `state_dict["scalers.KEY.mean"]`; a network with heads.
"""  # fmt: skip

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from potnet.models.legacy import upgraded_model, upgraded_names
from potnet.runs.record import FORMAT, portable

_CLASSES = {
    f"potnet.training.{module}": f"potnet.training.loggers.{module}"
    for module in ("wandb_run.WandbRun", "tensorboard_run.TensorBoardRun")
}
"""Names of classes in format 1 that are others now, besides those of models."""

_OF_TRAINING = ("training_means.", "validation_loss.", "validation_metrics.")
"""Tensors of format 1 that hold nothing but the state of an epoch."""


def upgrade(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint in the current format; what is current is returned as it is.

    Args:
        checkpoint: With `potnet`, `hyper_parameters` and `state_dict`.

    Raises:
        KeyError, TypeError: It is not what its format says.
    """
    current = dict(checkpoint)
    while current["potnet"]["format"] < FORMAT:
        current = UPGRADES[current["potnet"]["format"]](current)
    return current


def from_format_1(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Format 1 in format 2; the state of the optimizer is left out, as it belongs to other parameters."""
    settings, record = dict(checkpoint["hyper_parameters"]), dict(checkpoint["potnet"])
    target = dict(settings.pop("target"))
    key = str(target["key"])
    weights = {}
    network = {}
    for name, value in checkpoint["state_dict"].items():
        if name in ("mean", "std"):
            weights[f"scalers.{key}.{name}"] = value
        elif name.startswith("model."):
            network[name.removeprefix("model.")] = value
        elif not name.startswith(_OF_TRAINING):
            weights[name] = value
    current = upgraded_names(str(settings["model"].get("_target_")), network, key)
    weights |= {f"model.{name}": value for name, value in current.items()}
    model = upgraded_model(settings["model"])
    config = portable(renamed(record.get("config") or {}))
    return {
        "state_dict": weights,
        "hyper_parameters": {**settings, "model": model, "targets": {key: target}},
        "potnet": {**record, "format": 2, "config": config},
    }


def renamed(config: Any) -> Any:
    """A plain config of format 1 with classes, and arguments of models, by their present names."""
    if isinstance(config, Mapping):
        found: dict[Any, Any] = {
            name: upgraded_model(value)
            if name == "model" and isinstance(value, Mapping) and "_target_" in value
            else renamed(value)
            for name, value in config.items()
        }
        path = found.get("_target_")
        if isinstance(path, str):
            found["_target_"] = _CLASSES.get(path, path)
        return found
    if isinstance(config, list | tuple):
        return [renamed(value) for value in config]
    return config


UPGRADES: dict[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = {1: from_format_1}
"""Format -> the function that makes the next one of it."""
