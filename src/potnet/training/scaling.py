"""Scalers: between what a network gives and what its target is, in the target's learned unit."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from potnet.crystals.batch import CrystalBatch
from potnet.data.errors import DataError
from potnet.data.targets import Target, Targets

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule

log = logging.getLogger(__name__)

ELEMENTS = 119
"""Atomic numbers 0 to 118."""

LARGEST = 1e30
"""Of labels in the learned unit."""


class Scaler(nn.Module):
    """value = output * std + mean, in float64.

    Of classes the identity, until `potnet.training.temperature` has set `std` to 1 / temperature.

    Attributes:
        mean, std: () float64 buffers, of the training labels in the learned unit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("std", torch.ones((), dtype=torch.float64))

    def set(self, mean: float, std: float) -> None:
        """Set both; a deviation of zero (equal labels) leaves nothing to scale by, and counts as 1."""
        self.mean.fill_(mean)
        self.std.fill_(std if std > 0 else 1.0)

    def value(self, output: Tensor, batch: CrystalBatch) -> Tensor:
        """Outputs of the network to the learned unit, any shape, float64."""
        return output.double() * self.std + self.mean

    def scaled(self, value: Tensor, batch: CrystalBatch) -> Tensor:
        """The inverse of `value`."""
        return (value - self.mean) / self.std


class EnergyScaler(Scaler):
    """Of an extensive energy: value = output * std + the sum over atoms of a reference energy of its element.

    Attributes:
        reference: (119,) float64, by atomic number.
    """

    reference: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("reference", torch.zeros(ELEMENTS, dtype=torch.float64))

    def of_atoms(self, batch: CrystalBatch) -> Tensor:
        """(B,) the sum of reference energies."""
        energies = self.reference.index_select(0, batch.z)
        return energies.new_zeros(batch.num_crystals).index_add_(0, batch.batch, energies)

    def value(self, output: Tensor, batch: CrystalBatch) -> Tensor:
        """(B,) outputs to energies."""
        return output.double() * self.std + self.of_atoms(batch)

    def scaled(self, value: Tensor, batch: CrystalBatch) -> Tensor:
        """The inverse of `value`."""
        return (value - self.of_atoms(batch)) / self.std


def scalers_of(targets: Targets) -> nn.ModuleDict:
    """An unset scaler for each target that has a head."""
    return nn.ModuleDict(
        {key: EnergyScaler() if target.extensive else Scaler() for key, target in targets.direct.items()}
    )


def scaler_of(scalers: nn.ModuleDict, key: str) -> Scaler:
    """The scaler of a target."""
    scaler = scalers[key]
    assert isinstance(scaler, Scaler)
    return scaler


def check_labels(targets: Targets, data: CrystalDataModule) -> None:
    """Refuse numbers whose squares, or whose gradients in float32, are none any more.

    Args:
        targets: Of the run.
        data: Set up.

    Raises:
        DataError: Names the first crystal, and its label.
    """
    for part, size in data.split.sizes.items():
        dataset = data.dataset(part)
        for key, target in targets.items():
            if not size or target.is_class or target.shape or target.per == "atom":
                continue
            labels = dataset.values(key)
            learned = target.learned(torch.from_numpy(labels)).abs()
            wrong = (learned > LARGEST).nonzero()
            if len(wrong):
                row = int(wrong[0])
                unit = f" {target.unit}" if target.unit else ""
                raise DataError(
                    f"{data.split[part][row]}: {key} is {labels[row]:g}{unit}, and numbers beyond "
                    f"{LARGEST:g} cannot be learned: correct it, or choose a larger unit"
                )


def fit_scalers(scalers: nn.ModuleDict, targets: Targets, data: CrystalDataModule) -> None:
    """Set scalers from the training part.

    A number: mean and standard deviation of the transformed labels. An energy: reference energies of the
    elements by least squares, and as the scale the root mean square of the forces (eV/Å) where they are
    learned too, else of what remains of the energy of an atom.

    Args:
        scalers: From `scalers_of(targets)`.
        targets: Of the run.
        data: Set up.
    """
    dataset = data.dataset("train")
    for key, target in targets.direct.items():
        scaler = scaler_of(scalers, key)
        if target.is_class:
            continue
        if isinstance(scaler, EnergyScaler):
            _fit_energy(scaler, target, targets, data.dataloader("train"))
        elif target.shape or target.per == "atom":
            values = torch.cat([batch.targets[key].flatten() for batch in data.dataloader("train")])
            _fit_numbers(scaler, values)
        else:
            _fit_numbers(scaler, target.learned(torch.from_numpy(dataset.values(key))))


def _fit_numbers(scaler: Scaler, values: Tensor) -> None:
    values = values[~values.isnan()].double()
    if len(values):
        scaler.set(float(values.mean()), float(values.std(correction=0)))


def _fit_energy(
    scaler: EnergyScaler, target: Target, targets: Targets, batches: Iterable[CrystalBatch]
) -> None:
    compositions, energies, forces = [], [], []
    for batch in batches:
        counts = torch.zeros(batch.num_crystals * ELEMENTS, dtype=torch.float64)
        place = batch.batch * ELEMENTS + batch.z
        counts.index_add_(0, place, torch.ones(len(place), dtype=torch.float64))
        compositions.append(counts.view(-1, ELEMENTS))
        energies.append(batch.targets[target.key])
        forces += [batch.targets[key].flatten() for key in targets.derived if key == "forces"]
    counts, energy = torch.cat(compositions), torch.cat(energies)
    known = ~energy.isnan()
    counts, energy = counts[known], energy[known]
    if not len(energy):
        return
    atoms = counts.sum(1)
    present = counts.sum(0) > 0
    # Per atom, so that small and large cells count alike; the smallest solution where elements always
    # occur together.
    found = torch.linalg.lstsq(
        counts[:, present] / atoms[:, None], (energy / atoms)[:, None], driver="gelsd"
    ).solution
    scaler.reference.zero_()
    scaler.reference[present] = found[:, 0]
    left = energy / atoms - (counts[:, present] / atoms[:, None]) @ found[:, 0]
    scale = left.square().mean().sqrt()
    if forces:
        components = torch.cat(forces)
        components = components[~components.isnan()]
        if len(components) and float(components.square().mean()) > 0:
            scale = components.square().mean().sqrt()
    scaler.set(0.0, float(scale))
    log.info(
        "%s: reference energies of %d elements; %.4g %s an atom remain (rms)",
        target.key, int(present.sum()), float(left.square().mean().sqrt()), target.unit,
    )  # fmt: skip
