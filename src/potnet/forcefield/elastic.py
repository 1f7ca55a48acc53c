"""Elastic constants, lattice parameters and vacancies of a force field, by ASE and finite strains."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from potnet.forcefield.dynamics import relax
from potnet.forcefield.errors import ForceFieldError
from potnet.lattice.real import VOIGT

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

GPA = 160.2176634
"""One eV/Å³."""


class Moduli(NamedTuple):
    """GPa. Bulk and shear moduli after Voigt, Reuss and Hill."""

    bulk_voigt: float
    bulk_reuss: float
    bulk_hill: float
    shear_voigt: float
    shear_reuss: float
    shear_hill: float


def elastic_constants(
    atoms: Atoms, strain: float = 0.005, relax_atoms: bool = True, fmax: float = 1e-3
) -> np.ndarray:
    """The elastic tensor of a relaxed crystal, from central differences of its stress.

    C_ij = (s_i(+e_j) - s_i(-e_j)) / 2 e with engineering strains (shear counted twice), xx yy zz yz xz xy.

    Args:
        atoms: Relaxed, with a calculator that gives stress; it is not changed.
        strain: e.
        relax_atoms: Whether atoms relax in each strained cell, as they do in an experiment.
        fmax: eV/Å, of that relaxation.

    Returns:
        (6, 6) GPa, symmetrised.

    Raises:
        ForceFieldError: A strain that is not positive, or a relaxation that does not converge.
    """
    if not 0 < strain < 0.1:
        raise ForceFieldError(f"strain={strain}: give a small positive number, such as 0.005")
    found = np.zeros((6, 6))
    for column, (i, j) in enumerate(VOIGT):
        stresses = []
        for sign in (1, -1):
            deformation = np.eye(3)
            # Half of an engineering shear on each side of the diagonal; all of an axial strain.
            deformation[i, j] += sign * strain / 2
            deformation[j, i] += sign * strain / 2
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.set_cell(atoms.cell[:] @ deformation, scale_atoms=True)
            if relax_atoms and len(moved) > 1:
                relax(moved, fmax, cell=False)
            stresses.append(moved.get_stress(voigt=True))
        found[:, column] = (stresses[0] - stresses[1]) / (2 * strain) * GPA
    return (found + found.T) / 2


def moduli(constants: np.ndarray) -> Moduli:
    """Bulk and shear moduli of a polycrystal (Hill, Proc. Phys. Soc. A 65, 349, 1952).

    Args:
        constants: (6, 6), GPa.

    Raises:
        ForceFieldError: The crystal is not stable: the tensor is not positive definite.
    """
    c = np.asarray(constants, dtype=float)
    if np.linalg.eigvalsh(c).min() <= 0:
        raise ForceFieldError(
            "the elastic constants are not positive definite: the crystal is no minimum of this force field; "
            "relax it first"
        )
    s = np.linalg.inv(c)
    axial, across = c[:3, :3].trace(), c[0, 1] + c[1, 2] + c[0, 2]
    shear = c[3:, 3:].trace()
    bulk_voigt, shear_voigt = (axial + 2 * across) / 9, (axial - across + 3 * shear) / 15
    bulk_reuss = 1 / s[:3, :3].sum()
    s_across = s[0, 1] + s[1, 2] + s[0, 2]
    shear_reuss = 15 / (4 * s[:3, :3].trace() - 4 * s_across + 3 * s[3:, 3:].trace())
    return Moduli(
        bulk_voigt, bulk_reuss, (bulk_voigt + bulk_reuss) / 2,
        shear_voigt, shear_reuss, (shear_voigt + shear_reuss) / 2,
    )  # fmt: skip


def cubic_constants(constants: np.ndarray) -> tuple[float, float, float]:
    """C11, C12 and C44 of a cubic crystal along its axes: means over what symmetry makes equal."""
    c = np.asarray(constants)
    return (
        float(c[:3, :3].trace() / 3),
        float((c[0, 1] + c[0, 2] + c[1, 2]) / 3),
        float(c[3:, 3:].trace() / 3),
    )


def vacancy_energy(atoms: Atoms, index: int = 0, fmax: float = 0.01) -> float:
    """Energy to take one atom out, to where the others are: E(N - 1) - (N - 1)/N E(N), eV.

    Args:
        atoms: A relaxed supercell of an element, with a calculator; it is not changed.
        index: Of the atom to remove; the others relax in the same cell.
        fmax: eV/Å, of that relaxation.

    Raises:
        ForceFieldError: More than one element, too few atoms, or no convergence.
    """
    if len(set(atoms.numbers.tolist())) > 1 or len(atoms) < 2:
        raise ForceFieldError(
            f"{atoms.get_chemical_formula()}: a vacancy energy is of a supercell of one element"
        )
    n = len(atoms)
    hole = atoms.copy()
    del hole[index]
    hole.calc = atoms.calc
    whole = atoms.get_potential_energy()
    relax(hole, fmax, cell=False)
    return float(hole.get_potential_energy() - (n - 1) / n * whole)


def element_properties(
    symbol: str, structure: str, a: float, calculator: Calculator, repeat: int = 2
) -> dict[str, float]:
    """Lattice parameter (Å), C11, C12, C44 (GPa) and vacancy energy (eV) of a cubic element.

    Args:
        symbol: Such as "Cu".
        structure: Of ASE's `bulk`: "fcc", "bcc", "diamond".
        a: Å, where the relaxation begins.
        calculator: Of the force field.
        repeat: Cubic cells along each axis of the cell with the vacancy.
    """
    from ase.build import bulk

    atoms = bulk(symbol, structure, a=a, cubic=True)
    atoms.calc = calculator
    relax(atoms, fmax=1e-3)
    c11, c12, c44 = cubic_constants(elastic_constants(atoms))
    large = atoms * (repeat, repeat, repeat)
    large.calc = calculator
    return {
        "a": float(atoms.get_volume() ** (1 / 3)),
        "C11": c11,
        "C12": c12,
        "C44": c44,
        "vacancy": vacancy_energy(large),
    }
