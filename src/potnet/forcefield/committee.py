"""What a committee of force fields disputes: ranking of polymorphs, and of configurations to label next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from potnet.crystals import from_ase
from potnet.forcefield.errors import ForceFieldError

if TYPE_CHECKING:
    from ase import Atoms

    from potnet.forcefield.calculator import Calculator


class Judged(NamedTuple):
    """What a committee says of one structure.

    Attributes:
        id: Its name.
        formula: Reduced.
        energy: eV/atom, mean.
        energy_spread: eV/atom, standard deviation over the members.
        above: eV/atom above the lowest structure of the same formula among those judged, mean.
        above_spread: Its deviation: errors that members make in both structures cancel in it.
        forces_spread: eV/Å, the largest deviation of a force, over the atoms.
        extrapolates: Whether that is above the limit.
    """

    id: str
    formula: str
    energy: float
    energy_spread: float
    above: float
    above_spread: float
    forces_spread: float
    extrapolates: bool


def judge(
    calculator: Calculator, structures: Iterable[tuple[str, Atoms]], limit: float | None = None
) -> list[Judged]:
    """Energies of structures with the spread of a committee, in the order given.

    Args:
        calculator: Of two members or more.
        structures: Names and structures; they are not changed.
        limit: eV/Å, spread of the forces above which a structure is far from the training; None flags none.

    Raises:
        ForceFieldError: One network alone, or a structure that the force field refuses: it is named.
    """
    if len(calculator.members) < 2:
        raise ForceFieldError(
            "a committee needs two networks or more: train several with other seeds (seed=1)"
        )
    names, formulas, energies, spreads = [], [], [], []
    for name, atoms in structures:
        copied = atoms.copy()
        copied.calc = calculator
        try:
            copied.get_forces()
        except ForceFieldError as error:
            raise ForceFieldError(f"{name}: {error}") from error
        names.append(name)
        formulas.append(from_ase(atoms, box=1.0).formula)
        energies.append(np.asarray(calculator.results["member_energies"]) / len(atoms))
        spreads.append(float(calculator.results["forces_spread"].max()))
    table = np.array(energies).reshape(len(names), -1)
    found = []
    for row, name in enumerate(names):
        alike = [other for other, formula in enumerate(formulas) if formula == formulas[row]]
        lowest = min(alike, key=lambda other: table[other].mean())
        above = table[row] - table[lowest]
        found.append(
            Judged(
                name, formulas[row], float(table[row].mean()), float(table[row].std()), float(above.mean()),
                float(above.std()), spreads[row], limit is not None and spreads[row] > limit,
            )
        )  # fmt: skip
    return found


def ranked(found: Sequence[Judged], by: str = "spread") -> list[Judged]:
    """Structures in order.

    Args:
        found: Of `judge`.
        by: "spread": the most disputed first, which are worth a calculation; "energy": by formula, the most
            stable first.

    Raises:
        ForceFieldError: Another word.
    """
    if by == "spread":
        return sorted(found, key=lambda one: -one.forces_spread)
    if by == "energy":
        return sorted(found, key=lambda one: (one.formula, one.above))
    raise ForceFieldError(f"by={by!r}: give 'spread' or 'energy'")


def spread_limit(found: Sequence[Judged], quantile: float = 0.99) -> float:
    """eV/Å, a limit such that this share of known structures is below it.

    Args:
        found: Of structures like those of the training that were not trained on.
        quantile: The share.

    Raises:
        ForceFieldError: No structure.
    """
    if not found:
        raise ForceFieldError("no structure to take the limit from: give those of the validation part")
    return float(np.quantile([one.forces_spread for one in found], quantile))
