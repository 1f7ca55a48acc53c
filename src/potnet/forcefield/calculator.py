"""`Calculator`: a trained force field, or a committee of several, for ASE."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from torch import Tensor

from potnet.crystals import Crystal, CrystalBatch, CrystalError, collate, from_ase
from potnet.crystals.elements import symbol
from potnet.crystals.reading.check import implausible
from potnet.forcefield.derivatives import derivatives
from potnet.forcefield.errors import ForceFieldError
from potnet.inference.predictor import Predictor
from potnet.models.network import Network
from potnet.training.outputs import values_of
from potnet.training.scaling import EnergyScaler, scaler_of

if TYPE_CHECKING:
    from ase import Atoms

Models = str | os.PathLike[str] | Predictor | Sequence[str | os.PathLike[str] | Predictor]


class Calculator(AseCalculator):
    """Energy (eV), forces (eV/Å), stress (eV/Å³, in ASE's order and sign) and energies of atoms.

    A network with charges gives `charges` (e). Of several checkpoints the results are means, and
    `results["energy_spread"]` (eV/atom) and `results["forces_spread"]` ((N,), eV/Å) their deviations:
    where these are large, none of the networks should be believed.

    Crystals count as periodic in all three directions of their cell: a slab needs as much vacuum as the
    cutoff, and complete potentials sum over its images. Molecules without a cell are put in a box of vacuum.

    Args:
        models: A checkpoint, an export, the folder of a run, a `Predictor`, or several of these.
        device: "cpu", "cuda", ..., or "auto".
        dtype: "float32", or "float64": slower, for small displacements and tight relaxations.
        unknown_elements: "raise", or "allow" elements that no training crystal has: their energies are
            guesses, without a reference energy.
        isolated: "raise" where an atom has no neighbour within the cutoff although others have (it has
            left), or "allow".
        box: Å of vacuum around what has no cell.

    Raises:
        ForceFieldError: A network that has no energy, or that is no continuous function of positions.
        CheckpointError: A checkpoint that cannot be read.

    Example:
        >>> atoms.calc = Calculator("runs/mlearn_Si")  # doctest: +SKIP
        >>> atoms.get_forces()  # doctest: +SKIP
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "charges"]  # noqa: RUF012

    def __init__(
        self,
        models: Models,
        device: str = "auto",
        dtype: Literal["float32", "float64"] = "float32",
        unknown_elements: Literal["raise", "allow"] = "raise",
        isolated: Literal["raise", "allow"] = "raise",
        box: float = 10.0,
    ) -> None:
        super().__init__()
        several = not isinstance(models, str | os.PathLike | Predictor)
        given: Sequence[Any] = models if several else [models]  # type: ignore[assignment]
        if not given:
            raise ForceFieldError("no force field is given: give a checkpoint, or several for a committee")
        self.members = [_Member(one, device, dtype) for one in given]
        for name, value in (("unknown_elements", unknown_elements), ("isolated", isolated)):
            if value not in ("raise", "allow"):
                raise ForceFieldError(f"{name}={value!r}: give 'raise' or 'allow'")
        self.unknown_elements, self.isolated, self.box = unknown_elements, isolated, box

    @property
    def cutoff(self) -> float:
        """Å, the largest of the members' local edges."""
        return max(member.cutoff for member in self.members)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute all properties at once, as ASE asks.

        Raises:
            ForceFieldError: An unknown element, atoms that coincide or have left, a collapsed cell, forces
                that are not numbers.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        crystal = self._crystal(self.atoms)
        found = [
            member.results(crystal, self.isolated == "allow", self.unknown_elements == "allow")
            for member in self.members
        ]
        results: dict[str, Any] = {}
        for key in found[0]:
            values = np.stack([one[key] for one in found if key in one])
            if len(values) == len(found):
                results[key] = values.mean(0)
                if len(values) > 1 and key in ("energy", "forces"):
                    spread = values.std(0)
                    per_atom = spread / len(crystal) if key == "energy" else np.linalg.norm(spread, axis=-1)
                    results[f"{key}_spread"] = per_atom
        results["energy"] = results["free_energy"] = float(results["energy"])
        self.results = results
        for name in properties:
            if name not in results:
                raise PropertyNotImplementedError(
                    f"this force field gives no {name}: it has {', '.join(results)}"
                )

    def _crystal(self, atoms: Atoms) -> Crystal:
        try:
            crystal = from_ase(atoms, box=self.box)
            problems = implausible(crystal, boxed=True)
        except CrystalError as error:
            raise ForceFieldError(f"{error}: the cell has collapsed, or atoms have left it") from error
        if problems:
            raise ForceFieldError(
                f"{problems[0]}. The cell has collapsed or atoms have met: take a smaller time step, and "
                "compare with the configurations of the training"
            )
        return crystal


class _Member:
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

    def results(self, crystal: Crystal, isolated: bool, unknown: bool) -> dict[str, np.ndarray]:
        """Results of one crystal.

        Args:
            crystal: One.
            isolated, unknown: Whether atoms without neighbours and elements not trained on are allowed.

        Raises:
            ForceFieldError: See `Calculator.calculate`.
        """
        batch = self._batch(crystal, isolated, unknown)
        found, parts = self._differentiated(batch)
        results = {
            "energy": found["energy"].sum(),
            "energies": parts["atoms"],
            "forces": found["forces"],
            "stress": found["stress"][0],
            **({"charges": parts["charges"]} if "charges" in parts else {}),
        }
        if self.direct_forces:
            with torch.no_grad():
                values = values_of(self.model, self.predictor.scalers, self.predictor.targets, batch)
            results["forces"] = values["forces"]
            del results["stress"]
        plain = {key: value.detach().double().cpu().numpy() for key, value in results.items()}
        for key, value in plain.items():
            if not np.isfinite(value).all():
                where = f" of atom {int(np.argwhere(~np.isfinite(value))[0, 0])}" if value.ndim > 1 else ""
                raise ForceFieldError(
                    f"the {key}{where} came out as NaN or infinite: the structure is far from those of the "
                    "training, or the network's training diverged"
                )
        return plain

    def _batch(self, crystal: Crystal, isolated: bool, unknown: bool) -> CrystalBatch:
        known = self.predictor.domain.elements
        strange = sorted(set(crystal.z.tolist()) - set(known)) if known else []
        if strange and not unknown:
            raise ForceFieldError(
                f"no training crystal has {', '.join(map(symbol, strange))}; the force field knows "
                f"{', '.join(symbol(z) for z in sorted(known))}. unknown_elements='allow' goes on"
            )
        try:
            (graph,) = self.predictor.featurizer.featurize([crystal], labels=False)
        except (CrystalError, ValueError) as error:
            raise ForceFieldError(f"the neighbours cannot be found: {error}") from error
        batch = collate([graph])
        if batch.edge_index is not None and not isolated:
            alone = np.setdiff1d(np.arange(len(crystal)), batch.edge_index[1].numpy())
            if 0 < len(alone) < len(crystal):
                raise ForceFieldError(
                    f"atom {alone[0]} ({symbol(int(crystal.z[alone[0]]))}) has no neighbour within "
                    f"{self.cutoff:g} Å: it has left the others ({len(alone)} of {len(crystal)} atoms). "
                    "isolated='allow' goes on"
                )
        batch = batch.to(self.predictor.device)
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
