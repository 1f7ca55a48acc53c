"""Sums of pair potentials over all periodic images of a crystal.

from potnet.lattice import Coulomb, London, Pauli, lattice_sums
sums = lattice_sums(cell, positions, batch, [Coulomb(), London(), Pauli(alpha=3.0)], accuracy=1e-8)
"""

from potnet.lattice.direct import truncated_sums
from potnet.lattice.ewald import (
    LatticeDerivatives,
    LatticeSums,
    backward_through,
    lattice_sums,
    lattice_sums_and_derivatives,
)
from potnet.lattice.inputs import LatticeError, complete_pairs
from potnet.lattice.potentials import (
    Coulomb,
    InversePower,
    LennardJones,
    London,
    Morse,
    Pauli,
    Potential,
    ScreenedCoulomb,
)

__all__ = [
    "Coulomb",
    "InversePower",
    "LatticeDerivatives",
    "LatticeError",
    "LatticeSums",
    "LennardJones",
    "London",
    "Morse",
    "Pauli",
    "Potential",
    "ScreenedCoulomb",
    "backward_through",
    "complete_pairs",
    "lattice_sums",
    "lattice_sums_and_derivatives",
    "truncated_sums",
]
