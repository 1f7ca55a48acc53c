"""`Member`: one trained network as a force field, for crystals one by one or many at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potnet.crystals import Crystal, CrystalBatch, CrystalError, collate
from potnet.crystals.elements import symbol
from potnet.crystals.reading.check import implausible
from potnet.forcefield.errors import ForceFieldError
from potnet.inference.predictor import Predictor
from potnet.models.network import Network
from potnet.nn.derivatives import derivatives
from potnet.training.outputs import values_of
from potnet.training.scaling import EnergyScaler, scaler_of

Models = str | os.PathLike[str] | Predictor | Sequence[str | os.PathLike[str] | Predictor]


def members(models: Models, device: str, dtype: str) -> list[Member]:
    """The networks of a committee, or the one.

    Raises:
        ForceFieldError: None is given, or one is no force field.
    """
    several = not isinstance(models, str | os.PathLike | Predictor)
    given: Sequence[Any] = models if several else [models]  # type: ignore[assignment]
    if not given:
        raise ForceFieldError("no force field is given: give a checkpoint, or several for a committee")
    return [Member(one, device, dtype) for one in given]


def check_allowed(**options: str) -> None:
    """Check options that say what becomes of a crystal outside what was trained on.

    Raises:
        ForceFieldError: One is neither "raise" nor "allow".
    """
    for name, value in options.items():
        if value not in ("raise", "allow"):
            raise ForceFieldError(f"{name}={value!r}: give 'raise' or 'allow'")


class Member:
    """One network of a committee.

    Args:
        given: A `Predictor`, or where its checkpoint is.
        device, dtype: See `Calculator`.
    """

    def __init__(self, given: Any, device: str, dtype: str) -> None:
        if dtype not in ("float32", "float64"):
            raise ForceFieldError(f"dtype={dtype!r}: give 'float32' or 'float64'")
        self.predictor = (
            given if isinstance(given, Predictor) else Predictor.from_checkpoint(Path(given), device)
        )
        targets, model = self.predictor.targets, self.predictor.model
        energies = [key for key, target in targets.direct.items() if target.extensive]
        if len(energies) != 1 or targets[energies[0]].transform != "none":
            raise ForceFieldError(
                f"the network learned {', '.join(targets)}: a force field has one extensive energy, as with "
                "target=energy_forces"
            )
        self.key = energies[0]
        if targets[self.key].unit != "eV":
            raise ForceFieldError(f"the energy is in {targets[self.key].unit or 'no unit'}: eV is needed")
        self.direct_forces = "forces" in targets.direct
        if not isinstance(model, Network) or not (model.smooth or self.direct_forces):
            raise ForceFieldError(
                f"{type(model).__name__} is no continuous function of the positions, so it has no forces: "
                "train model=potnet_ff or leignn"
            )
        if self.predictor.featurizer.cell != "as_given":
            raise ForceFieldError(
                "the network was trained on reduced cells, whose atoms are others: train with "
                "features.cell=as_given"
            )
        model.fold = False
        self.model, self.double = model, dtype == "float64"
        if self.double:
            self.model.double()

    @property
    def cutoff(self) -> float:
        neighbors = self.predictor.featurizer.neighbors or {}
        return float(neighbors.get("cutoff") or 0.0)

    def results(
        self,
        crystals: Sequence[Crystal],
        isolated: bool = False,
        unknown: bool = False,
        periodic: tuple[bool, bool, bool] = (True, True, True),
    ) -> dict[str, Tensor]:
        """Energies and their derivatives of B crystals with N atoms in all.

        Args:
            crystals: In one batch.
            isolated, unknown: Whether atoms without neighbours and elements not trained on are allowed.
            periodic: Which cell vectors are periods; along the others there has to be vacuum beyond the
                cutoff.

        Returns:
            float64: `energy` (B,), `energies` (N,), `forces` (N, 3), `stress` (B, 6) (not of direct forces),
            and of a network with charges `charges` (N,).

        Raises:
            ForceFieldError: See `Calculator.calculate`.
        """
        self._set_periods(periodic)
        batch = self._batch(crystals, isolated, unknown)
        found, parts = self._differentiated(batch)
        results = {
            "energy": found["energy"],
            "energies": parts["atoms"],
            "forces": found["forces"],
            "stress": found["stress"],
            **({"charges": parts["charges"]} if "charges" in parts else {}),
        }
        if self.direct_forces:
            with torch.no_grad():
                values = values_of(self.model, self.predictor.scalers, self.predictor.targets, batch)
            results["forces"] = values["forces"]
            del results["stress"]
        results = {key: value.detach().double() for key, value in results.items()}
        for key, value in results.items():
            if not bool(value.isfinite().all()):
                first = int((~value.isfinite()).nonzero()[0, 0])
                where = f" of atom {first}" if len(value) == len(batch.z) and value.ndim > 1 else ""
                raise ForceFieldError(
                    f"the {key}{where} came out as NaN or infinite: the structure is far from those of the "
                    "training, or the network's training diverged"
                )
        return results

    def _set_periods(self, periodic: tuple[bool, bool, bool]) -> None:
        """Sum complete energies over the periods alone, where that can be done.

        Raises:
            ForceFieldError: It cannot.
        """
        complete = list(getattr(self.model, "long_range", ()))
        if getattr(self.model, "pairs", "none") == "complete":
            complete.append("pairs of the network")
        if all(periodic):
            wrong = []
        elif sum(periodic) == 2:
            wrong = [name for name in complete if name == "pairs of the network"]
        else:
            wrong = complete
        if wrong:
            raise ForceFieldError(
                f"the structure is periodic in {sum(periodic)} directions, and complete sums of this network "
                f"({', '.join(wrong)}) run over three (of energies, over two as well): set pbc=True to "
                "compute it with its images across the vacuum, or train with model.pairs=none, and "
                "model.long_range=[] for wires and molecules"
            )
        if complete:
            self.model.periodic = periodic  # type: ignore[assignment]

    def _batch(self, crystals: Sequence[Crystal], isolated: bool, unknown: bool) -> CrystalBatch:
        known = self.predictor.domain.elements
        present = {z for crystal in crystals for z in crystal.z.tolist()}
        strange = sorted(present - set(known)) if known else []
        if strange and not unknown:
            raise ForceFieldError(
                f"no training crystal has {', '.join(map(symbol, strange))}; the force field knows "
                f"{', '.join(symbol(z) for z in sorted(known))}. unknown_elements='allow' goes on"
            )
        try:
            graphs = self.predictor.featurizer.featurize(crystals, labels=False)
        except (CrystalError, ValueError) as error:
            raise ForceFieldError(f"the neighbours cannot be found: {error}") from error
        for crystal, graph in zip(crystals, graphs, strict=True):
            if graph.edge_index is not None and not isolated:
                alone = np.setdiff1d(np.arange(len(crystal)), graph.edge_index[1].numpy())
                if 0 < len(alone) < len(crystal):
                    raise ForceFieldError(
                        f"atom {alone[0]} ({symbol(int(crystal.z[alone[0]]))}) has no neighbour within "
                        f"{self.cutoff:g} Å: it has left the others ({len(alone)} of {len(crystal)} atoms). "
                        "isolated='allow' goes on"
                    )
        batch = collate(graphs).to(self.predictor.device)
        return batch.double() if self.double else batch

    def _differentiated(self, batch: CrystalBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Energy, forces and stress; beside them energies of atoms and charges."""
        scaler = scaler_of(self.predictor.scalers, self.key)
        assert isinstance(scaler, EnergyScaler)
        kept: dict[str, Tensor] = {}

        def energy(moved: CrystalBatch) -> Tensor:
            parts = self.model.atom_parts(moved, self.key)
            atoms = parts["atoms"].double() * scaler.std + scaler.reference.index_select(0, moved.z)
            kept["atoms"] = atoms
            if "charges" in parts:
                # Energies are products of two charges.
                kept["charges"] = parts["charges"].double() * scaler.std.sqrt()
            return atoms.new_zeros(moved.num_crystals).index_add(0, moved.batch, atoms)

        return derivatives(energy, batch), kept


def checked_crystal(crystal: Crystal) -> Crystal:
    """A crystal that may be computed.

    Raises:
        ForceFieldError: Atoms have met, or the cell has collapsed.
    """
    problems = implausible(crystal, boxed=True)
    if problems:
        raise ForceFieldError(
            f"{problems[0]}. The cell has collapsed or atoms have met: take smaller steps, and compare with "
            "the configurations of the training"
        )
    return crystal
