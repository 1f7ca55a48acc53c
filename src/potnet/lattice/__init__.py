"""Sums of pair potentials over all periodic images of a crystal.

from potnet.lattice import Coulomb, London, Pauli, lattice_sums
sums = lattice_sums(cell, positions, batch, [Coulomb(), London(), Pauli(alpha=3.0)], accuracy=1e-8)
energies = lattice_energies(cell, positions, batch, charges, [Coulomb()], accuracy=1e-6, forces=True)
"""

from potnet.lattice.direct import truncated_sums
from potnet.lattice.energies import COULOMB_EV_ANGSTROM, EnergySums, LatticeEnergies, lattice_energies
from potnet.lattice.energy_bounds import EnergyBound
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
    "COULOMB_EV_ANGSTROM",
    "Coulomb",
    "EnergyBound",
    "EnergySums",
    "InversePower",
    "LatticeDerivatives",
    "LatticeEnergies",
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
    "lattice_energies",
    "lattice_sums",
    "lattice_sums_and_derivatives",
    "truncated_sums",
]
