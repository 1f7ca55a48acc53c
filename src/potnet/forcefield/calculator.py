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
from potnet.forcefield.member import Models, check_allowed, checked_crystal, members

if TYPE_CHECKING:
    from ase import Atoms


class Calculator(AseCalculator):
    """Energy (eV), forces (eV/Å), stress (eV/Å³, in ASE's order and sign) and energies of atoms.

    A network with charges gives `charges` (e). Of several checkpoints the results are means, and
    `results["energy_spread"]` (eV/atom) and `results["forces_spread"]` ((N,), eV/Å) their deviations:
    where these are large, none of the networks should be believed. With `spread_limit`,
    `results["extrapolates"]` (N,) says of which atoms the spread of the force is larger.

    Slabs, wires and molecules are computed without images in the directions in which `atoms.pbc` is false,
    however little vacuum their cell has; stress then refers to the volume of the cell, and there is none
    without three cell vectors. Complete energies of charges can do that for slabs, and no other complete
    sums can: these are refused. With `pbc=True` everything is a crystal, and images count.

    Args:
        models: A checkpoint, an export, the folder of a run, a `Predictor`, or several of these.
        device: "cpu", "cuda", ..., or "auto".
        dtype: "float32", or "float64": slower, for small displacements and tight relaxations.
        unknown_elements: "raise", or "allow" elements that no training crystal has: their energies are
            guesses, without a reference energy.
        isolated: "raise" where an atom has no neighbour within the cutoff although others have (it has
            left), or "allow".
        spread_limit: eV/Å, of a committee. docs/forces.md says how to choose it.

    Raises:
        ForceFieldError: A limit without a committee; a network that has no energy, or that is no continuous
            function of positions.
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
        spread_limit: float | None = None,
    ) -> None:
        super().__init__()
        self.members = members(models, device, dtype)
        check_allowed(unknown_elements=unknown_elements, isolated=isolated)
        if spread_limit is not None and (len(self.members) < 2 or not spread_limit > 0):
            raise ForceFieldError(
                f"spread_limit={spread_limit} with {len(self.members)} networks: give a positive number of "
                "eV/Å, and several networks, whose spread it limits"
            )
        self.unknown_elements, self.isolated, self.spread_limit = unknown_elements, isolated, spread_limit

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
        crystal, periodic, times = self._crystal(self.atoms)
        allowed = self.isolated == "allow", self.unknown_elements == "allow", periodic
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
        if len(found) > 1:
            results["member_energies"] = np.array([float(one["energy"]) for one in found])
        if self.spread_limit is not None:
            results["extrapolates"] = results["forces_spread"] > self.spread_limit
        if "stress" in results:
            if times is None:
                del results["stress"]
            else:
                results["stress"] = results["stress"] * times
        results["energy"] = results["free_energy"] = float(results["energy"])
        self.results = results
        for name in properties:
            if name not in results:
                raise PropertyNotImplementedError(
                    f"this force field gives no {name}: it has {', '.join(results)}"
                )

    def _crystal(self, atoms: Atoms) -> tuple[Crystal, tuple[bool, bool, bool], float | None]:
        """What is computed, its periods, and what its stress is multiplied with, None if there is none."""
        periods = [bool(p and vector.any()) for p, vector in zip(atoms.pbc, atoms.cell, strict=True)]
        periodic = (periods[0], periods[1], periods[2])
        given = atoms
        if not all(periodic):
            # Vectors that are no periods give way to vacuum in which no image is within the cutoff.
            given = atoms.copy()
            given.pbc = periodic
            given.cell[~np.array(periodic)] = 0.0
        try:
            crystal = from_ase(given, box=self.cutoff / 2 + 1.0)
        except CrystalError as error:
            raise ForceFieldError(f"{error}: the cell has collapsed, or atoms have left it") from error
        volume = atoms.cell.volume if atoms.cell.rank == 3 else 0.0
        return checked_crystal(crystal), periodic, crystal.volume / volume if volume > 0 else None


def _of_one(results: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Results of a batch of one crystal, as numpy arrays."""
    plain = {key: value.cpu().numpy() for key, value in results.items()}
    return {key: value[0] if key in ("energy", "stress") else value for key, value in plain.items()}
