"""Madelung constants to 1e-11, per nearest-neighbour distance and with the charges given."""

import math

import numpy as np
import pytest
import torch
from lattice_cases import Case, from_parameters, tensors
from lattice_reference import Real, coulomb_by_planes

from potnet.lattice import Coulomb, lattice_sums

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


def structure(name):
    """Case, charges, nearest-neighbour distance."""
    if name == "NaCl":
        return Case(name, 5.64 * FCC, 5.64 * np.array([[0, 0, 0], [0.5, 0.5, 0.5]])), [1, -1], 5.64 / 2
    if name == "CsCl":
        return (
            Case(name, 4.12 * np.eye(3), 4.12 * np.array([[0, 0, 0], [0.5, 0.5, 0.5]])),
            [1, -1],
            4.12 * math.sqrt(3) / 2,
        )
    if name == "zinc blende":
        return (
            Case(name, 5.41 * FCC, 5.41 * np.array([[0, 0, 0], [0.25, 0.25, 0.25]])),
            [1, -1],
            5.41 * math.sqrt(3) / 4,
        )
    if name == "fluorite":
        sites = 5.46 * np.array([[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]])
        return Case(name, 5.46 * FCC, sites), [2, -1, -1], 5.46 * math.sqrt(3) / 4
    a, c = 3.82, 3.82 * math.sqrt(8 / 3)  # wurtzite with the ideal c/a and u = 3/8
    cell = from_parameters(a, a, c, 90, 90, 120)
    sites = np.array([[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.375], [2 / 3, 1 / 3, 0.875]])
    return Case(name, cell, sites @ cell), [1, 1, -1, -1], 0.375 * c


# NaCl, CsCl and zinc blende: Crandall and Buhler (1987), J. Phys. A 20, 5497, and OEIS A085469 and
# A181152. Wurtzite and fluorite: Johnson and Templeton (1961), J. Chem. Phys. 34, 2004, give 1.64132 and
# 5.03879; the digits beyond are those of `coulomb_by_planes` in extended precision.
MADELUNG = {
    "NaCl": 1.7475645946331822,
    "CsCl": 1.7626747730709884,
    "zinc blende": 1.6380550533887894,
    "wurtzite": 1.6413216273719495,
    "fluorite": 5.038784879848567,
}


def constant(sums, charges, distance):
    """-d sum of q_a q_b S(a, b) / 2 per formula unit; with one formula unit of charges q and -q that is the
    constant.
    """
    q = np.asarray(charges, float)
    units = sum(1 for charge in charges if charge > 0)
    return -0.5 * distance * float(q @ sums @ q) / units


@pytest.mark.parametrize("name", MADELUNG)
def test_madelung(name):
    case, charges, distance = structure(name)
    n = len(charges)
    sums = lattice_sums(*tensors([case]), [Coulomb()], 1e-12)
    assert abs(constant(sums.values.view(n, n).numpy(), charges, distance) - MADELUNG[name]) < 1e-11
    assert float(sums.bound) <= 1e-12


@pytest.mark.parametrize("name", MADELUNG)
def test_madelung_by_lattice_planes(name):
    """The constants themselves, by a method without a splitting parameter."""
    case, charges, distance = structure(name)
    x = case.positions.astype(Real)
    sums = np.array([[float(coulomb_by_planes(case.cell, a - b)) for a in x] for b in x])
    assert abs(constant(sums, charges, distance) - MADELUNG[name]) < 1e-13


def test_wigner_crystals():
    """One charge in a uniform background, per a: Coldwell-Horsfall and Maradudin (1960), J. Math. Phys. 1,
    395.
    """
    cells = torch.from_numpy(np.stack([np.eye(3), 0.5 - np.eye(3), FCC]))
    sums = lattice_sums(cells * 3.0, torch.zeros(3, 3), torch.arange(3), [Coulomb()], 1e-12)
    # S(0) = -2 alpha / a; their energies in units of e²/2r_s are 1.760119, 1.791859 (bcc), 1.791747 (fcc).
    volume = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64) * 27
    radius = (3 * volume / (4 * math.pi)) ** (1 / 3)
    energies = -(sums.values[:, 0] * radius)
    assert torch.allclose(
        energies, torch.tensor([1.760119, 1.791859, 1.791747], dtype=torch.float64), atol=1e-6
    )
