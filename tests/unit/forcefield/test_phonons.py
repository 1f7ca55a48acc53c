"""Phonons of nearest neighbours on springs, whose frequencies are known in closed form."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list

from potnet.forcefield.errors import ForceFieldError
from potnet.forcefield.phonons import phonons, write_phonons

pytest.importorskip("phonopy")

SPRING, SIDE = 2.0, 4.05  # eV/Å², Å
THZ = 15.633302  # of sqrt(eV / (Å² u)), as phonopy has it


class Springs(Calculator):
    """E = k/2 sum over nearest pairs of (r - r0)²."""

    implemented_properties = ("energy", "forces")

    def __init__(self, length: float, spring: float = SPRING) -> None:
        super().__init__()
        self.length, self.spring = length, spring

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        i, d, vector = neighbor_list("idD", self.atoms, 1.2 * self.length)
        stretch = d - self.length
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, i, (self.spring * stretch / d)[:, None] * vector)
        self.results = {"energy": self.spring / 4 * (stretch**2).sum(), "forces": forces}


def aluminium(spring: float = SPRING):
    atoms = bulk("Al", "fcc", a=SIDE, cubic=True)
    atoms.calc = Springs(SIDE / 2**0.5, spring)
    return atoms


@pytest.fixture(scope="module")
def found():
    seen = []
    result = phonons(aluminium(), [2, 2, 2], points=60, mesh=30.0, report=seen.append)
    assert seen == [1]  # by symmetry, one displacement is enough
    return result


def test_frequencies_of_springs_on_an_fcc_lattice(found):
    """Along [100]: m w² = 8 k sin²(q a / 4), longitudinal, and 4 k sin²(q a / 4), transverse."""
    assert found.atoms == 1
    mass = aluminium().get_masses()[0]
    expected = THZ * np.sqrt(np.array([4, 4, 8]) * SPRING / mass)
    at_x = found.bands.ticks[found.bands.labels.index("X")]
    rows = [int(np.abs(found.bands.distance - part * at_x).argmin()) for part in (1, 0.5)]
    for row, part in zip(rows, (1, 0.5), strict=True):
        assert found.bands.distance[row] == pytest.approx(part * at_x)
        frequencies = np.sort(found.bands.frequency[row])
        np.testing.assert_allclose(frequencies, expected * np.sin(np.pi / 2 * part), rtol=1e-3)
    assert found.stable


def test_states_and_heat_capacity(found):
    assert np.trapezoid(found.dos, found.dos_frequency) == pytest.approx(3, rel=0.02)
    # Dulong and Petit, less the first quantum correction.
    assert found.heat_capacity[-1] == pytest.approx(24.94, rel=0.02)
    assert found.heat_capacity[0] == 0
    # dS/dT = C/T.
    t, c, s = found.temperature, found.heat_capacity, found.entropy
    np.testing.assert_allclose(np.gradient(s, t)[30:-1], (c / np.maximum(t, 1))[30:-1], rtol=0.01)


def test_files(found, tmp_path):
    write_phonons(found, tmp_path / "phonons")
    assert {path.name for path in (tmp_path / "phonons").iterdir()} == {
        "bands.csv", "dos.csv", "thermal.csv", "bands.png", "heat_capacity.png", "phonopy_params.yaml"
    }  # fmt: skip
    header, first = (tmp_path / "phonons" / "bands.csv").read_text().splitlines()[:2]
    assert header == "distance_per_angstrom,q_1,q_2,q_3,branch_1_thz,branch_2_thz,branch_3_thz"
    assert np.abs([float(x) for x in first.split(",")[4:]]).max() < 1e-3  # acoustic modes at Γ


def test_springs_that_push_have_imaginary_modes():
    found = phonons(aluminium(-SPRING), [2, 2, 2], points=10, mesh=10.0)
    assert not found.stable
    assert found.lowest < -1


def test_the_supercell_reaches_as_far_as_asked():
    found = phonons(aluminium(), length=8.0, points=5, mesh=5.0)
    np.testing.assert_array_equal(found.phonopy.supercell_matrix, np.diag([2, 2, 2]))


def test_what_has_no_phonons_is_refused(monkeypatch):
    slab = aluminium()
    slab.pbc = (True, True, False)
    with pytest.raises(ForceFieldError, match="periodic in 2 directions"):
        phonons(slab)
    with pytest.raises(ForceFieldError, match="displacement=0"):
        phonons(aluminium(), displacement=0)
    with pytest.raises(ForceFieldError, match=r"repeat=\[2, 2\]"):
        phonons(aluminium(), [2, 2])
    monkeypatch.setitem(sys.modules, "phonopy", None)
    with pytest.raises(ForceFieldError, match=r'pip install "potnet\[phonons\]"'):
        phonons(aluminium())
