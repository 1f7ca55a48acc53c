"""`Calculator`: a trained force field, or a committee of several, for ASE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from torch import Tensor

from potnet.crystals import Crystal, CrystalError, from_ase
from potnet.forcefield.errors import ForceFieldError
from potnet.forcefield.member import Models, checked_crystal, members

if TYPE_CHECKING:
    from ase import Atoms


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
        self.members = members(models, device, dtype)
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
                that are no numbers.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        crystal = self._crystal(self.atoms)
        allowed = self.isolated == "allow", self.unknown_elements == "allow"
        found = [_of_one(member.results([crystal], *allowed)) for member in self.members]
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
        except CrystalError as error:
            raise ForceFieldError(f"{error}: the cell has collapsed, or atoms have left it") from error
        return checked_crystal(crystal)


def _of_one(results: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Results of a batch of one crystal, as numpy arrays."""
    plain = {key: value.cpu().numpy() for key, value in results.items()}
    return {key: value[0] if key in ("energy", "stress") else value for key, value in plain.items()}
