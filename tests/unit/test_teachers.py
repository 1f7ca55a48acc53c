"""Labels of benchmarks/teachers.py against lattice sums that are known."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.data import covalent_radii

pytest.importorskip("pymatgen.core")

FILE = Path(__file__).parents[2] / "benchmarks" / "teachers.py"


@pytest.fixture(scope="module")
def teachers():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FILE.parent))
        return importlib.import_module("teachers")


def row(atoms):
    return {
        "lattice": atoms.cell[:].tolist(),
        "z": atoms.numbers.tolist(),
        "frac": atoms.get_scaled_positions().tolist(),
    }


def test_lennard_jones_of_fcc(teachers):
    """Sums of (d/r)^12 and (d/r)^6 over the fcc lattice: 12.13188 and 14.45392."""
    side = 3.9
    found = teachers.teacher_energies(row(bulk("Cu", a=side)))
    ratio = 2 * covalent_radii[29] * 2 ** (-1 / 6) / (side / 2**0.5)
    assert found["lj_energy_per_atom"] == pytest.approx(
        2 * (12.13188 * ratio**12 - 14.45392 * ratio**6), abs=1e-3
    )
    assert found["ionic_energy_per_atom"] is None  # an element has no formal charges


def test_forces_and_stress_are_derivatives(teachers):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.positions[1] += 0.2
    found, h = teachers.teacher_energies(row(atoms), forces=True), 1e-4
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[1, 2] += sign * h
        energies.append(teachers.teacher_energies(row(moved), forces=True)["energy"])
    assert found["forces"][1][2] == pytest.approx(-(energies[0] - energies[1]) / (2 * h), abs=1e-3)
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        shear = np.eye(3)
        shear[1, 2] += sign * h / 2
        shear[2, 1] += sign * h / 2
        moved.set_cell(atoms.cell[:] @ shear, scale_atoms=True)
        energies.append(teachers.teacher_energies(row(moved), forces=True)["energy"])
    # xx yy zz yz xz xy.
    expected = (energies[0] - energies[1]) / (2 * h) / atoms.get_volume()
    assert found["stress"][3] == pytest.approx(expected, abs=1e-4)


def test_ionic_energy_of_rock_salt(teachers):
    """Madelung's constant 1.747565, and the repulsion summed shell by shell."""
    side = 5.64
    found = teachers.teacher_energies(row(bulk("NaCl", "rocksalt", a=side)))
    steps = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    steps = steps[np.abs(steps).sum(1) > 0]
    r = side / 2 * np.linalg.norm(steps, axis=1)
    unlike = steps.sum(1) % 2 == 1
    repulsion = 0.0
    for own, other in ((11, 17), (17, 11)):
        radius = covalent_radii[own] + np.where(unlike, covalent_radii[other], covalent_radii[own])
        repulsion += (0.2 * np.exp((radius - r) / 0.345)).sum() / 2
    coulomb = -1.747565 * 14.399645 / (side / 2)
    assert found["ionic_energy_per_atom"] == pytest.approx((coulomb + repulsion) / 2, abs=2e-3)
