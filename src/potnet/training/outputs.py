"""From a network's outputs to the values of its targets; training and prediction share it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from potnet.crystals.batch import CrystalBatch
from potnet.data.targets import Targets
from potnet.nn.derivatives import derivatives
from potnet.training.scaling import scaler_of


def values_of(
    model: nn.Module,
    scalers: nn.ModuleDict,
    targets: Targets,
    batch: CrystalBatch,
    create_graph: bool = False,
) -> dict[str, Tensor]:
    """The value of each target, as the network has it.

    Args:
        model: `forward(batch)` gives a scaled output for each target that has a head.
        scalers: Of these targets.
        targets: Of the run.
        batch: B crystals.
        create_graph: Whether derived values are differentiated again, as in training.

    Returns:
        float64 each, in the learned unit: (B, *shape), or (N, *shape) for targets of atoms. Of a
        classification: (B, classes) logits.

    Raises:
        ValueError: The network has no output for a target, or one of the wrong shape.
    """
    if not targets.derived:
        return _direct(model(batch), scalers, targets, batch)
    energy_key = next(iter(targets.derived.values())).derived_from
    assert energy_key is not None
    kept: dict[str, Tensor] = {}

    def energy(moved: CrystalBatch) -> Tensor:
        kept.update(_direct(model(moved), scalers, targets, moved))
        return kept[energy_key]

    asked = {key: key in targets.derived for key in ("forces", "stress")}
    found = derivatives(energy, batch, **asked, create_graph=create_graph)
    if not create_graph:
        kept = {key: value.detach() for key, value in kept.items()}
    return {key: found[key] if key in targets.derived else kept[key] for key in targets}


def _direct(
    outputs: Mapping[str, Tensor], scalers: nn.ModuleDict, targets: Targets, batch: CrystalBatch
) -> dict[str, Tensor]:
    values = {}
    for key, target in targets.direct.items():
        if key not in outputs:
            raise ValueError(f"the network gives {', '.join(outputs) or 'nothing'}, but the target is {key}")
        rows = batch.num_crystals if target.per == "crystal" else len(batch.z)
        shape = (rows, target.outputs) if target.is_class else (rows, *target.shape)
        output = outputs[key]
        if output.numel() != rows * target.outputs:
            raise ValueError(
                f"the network's output for {key} has the shape {tuple(output.shape)}, expected {shape}"
            )
        values[key] = scaler_of(scalers, key).value(output.reshape(shape), batch)
    return values


def labels_of(targets: Targets, batch: CrystalBatch) -> dict[str, Tensor]:
    """The labels of a batch in the learned unit, float64, NaN where missing; classes by number."""
    return {key: target.learned(batch.targets[key].double()) for key, target in targets.items()}


def per_atom(targets: Targets, key: str, values: Tensor, batch: CrystalBatch) -> Tensor:
    """Extensive values divided by the number of atoms, others as they are: what the loss compares."""
    return values / batch.num_atoms.to(values.dtype) if targets[key].extensive else values


def measured(targets: Targets, key: str, values: Tensor, batch: CrystalBatch) -> Tensor:
    """What errors are measured on: `per_atom`, in the target's metric unit."""
    found = per_atom(targets, key, values, batch)
    factor = targets[key].metric_factor
    return found if factor == 1.0 else found * factor


def probabilities(logits: Tensor) -> Tensor:
    """(B, classes) logits to probabilities."""
    return torch.softmax(logits, -1)
