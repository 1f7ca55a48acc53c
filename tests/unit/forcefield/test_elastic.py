"""Elastic constants against those of known potentials, drift, vacancies."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones

from potnet.forcefield.dynamics import radial_distribution, relax, run_dynamics
from potnet.forcefield.elastic import (
    GPA,
    cubic_constants,
    elastic_constants,
    element_properties,
    moduli,
    vacancy_energy,
)
from potnet.forcefield.errors import ForceFieldError


def argon(repeat: int = 1):
    atoms = bulk("Ar", "fcc", a=5.25, cubic=True) * (repeat, repeat, repeat)
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0, smooth=True)
    return atoms


def test_constants_of_pairs_obey_cauchy_and_are_second_derivatives_of_the_energy():
    atoms = relax(argon(), fmax=1e-5)
    constants = elastic_constants(atoms, strain=1e-3)
    c11, c12, c44 = cubic_constants(constants)
    # Central forces in a lattice of inversion centres, without pressure.
    assert c12 == pytest.approx(c44, rel=1e-2)
    energies = []
    for step in (-2e-3, 0.0, 2e-3):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.set_cell(atoms.cell[:] @ np.diag([1 + step, 1, 1]), scale_atoms=True)
        energies.append(moved.get_potential_energy())
    second = (energies[0] - 2 * energies[1] + energies[2]) / 2e-3**2
    assert c11 == pytest.approx(second / atoms.get_volume() * GPA, rel=1e-2)
    found = moduli(constants)
    assert found.bulk_voigt == pytest.approx((c11 + 2 * c12) / 3)
    assert found.bulk_reuss == pytest.approx(found.bulk_voigt)
    assert found.shear_voigt == pytest.approx((c11 - c12 + 3 * c44) / 5)
    assert found.shear_reuss < found.shear_hill < found.shear_voigt
    with pytest.raises(ForceFieldError, match="not positive definite"):
        moduli(-constants)


def test_a_vacancy_of_pairs_costs_about_the_cohesive_energy():
    atoms = argon(2)
    relax(atoms, fmax=1e-3)
    cohesive = -atoms.get_potential_energy() / len(atoms)
    assert 0.9 * cohesive < vacancy_energy(atoms, fmax=1e-3) <= cohesive * 1.001
    properties = element_properties("Ar", "fcc", 5.25, atoms.calc)
    assert properties["a"] == pytest.approx(atoms.get_volume() ** (1 / 3) / 2, abs=1e-3)
    with pytest.raises(ForceFieldError, match="one element"):
        vacancy_energy(bulk("NaCl", "rocksalt", a=5.6))


def test_relaxation_that_does_not_converge_says_so():
    atoms = argon()
    atoms.rattle(0.3, seed=1)
    with pytest.raises(ForceFieldError, match="not converged in 2 steps"):
        relax(atoms, fmax=1e-6, steps=2)


def test_a_cell_that_collapses_in_a_relaxation_names_the_step():
    class Collapsing(LennardJones):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            if self.atoms.get_volume() < 0.99 * argon().get_volume():
                raise ForceFieldError("the cell has collapsed")

    atoms = argon()
    atoms.calc = Collapsing(sigma=2.0, epsilon=0.0104, rc=8.0, smooth=True)
    with pytest.raises(ForceFieldError, match=r"in step [1-9]\d* of the relaxation: the cell has collapsed"):
        relax(atoms)


def test_dynamics_record_energies_and_name_the_time_of_a_failure(tmp_path):
    atoms = argon(2)
    found = run_dynamics(atoms, 0.2, 40, timestep=2.0, every=5, trajectory=tmp_path / "md.traj")
    assert len(found.time) == 21
    assert found.time[-1] == pytest.approx(0.2)
    assert abs(found.drift) < 0.1
    assert (tmp_path / "md.traj").stat().st_size > 0
    r, g = radial_distribution(found.frames, 8.0, 80)
    assert r[g.argmax()] == pytest.approx(5.25 / 2**0.5, abs=0.2)
    assert g[r < 2.5].max() == 0
    hot = run_dynamics(argon(), 0.1, 80, "nvt", timestep=2.0)
    assert hot.temperature.max() > 10

    class Broken(LennardJones):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            if self.atoms.get_momenta().any() and self.results["energy"] > 1e9:
                raise ForceFieldError("atoms have met")

    atoms = argon()
    atoms.calc = Broken(sigma=3.4, epsilon=0.0104, rc=8.0, smooth=True)
    with pytest.raises(ForceFieldError, match=r"at .* ps: atoms have met"):
        run_dynamics(atoms, 5.0, 1e6, timestep=50.0)
    with pytest.raises(ForceFieldError, match="ensemble='npt'"):
        run_dynamics(argon(), 1.0, ensemble="npt")  # type: ignore[arg-type]


def test_the_radial_distribution_of_a_gas_is_one():
    atoms = bulk("Ar", cubic=True, a=5.0) * (4, 4, 4)
    atoms.positions = np.random.default_rng(0).uniform(0, 20, (256, 3))
    r, g = radial_distribution([atoms], 9.0, 30)
    assert np.average(g, weights=r**2) == pytest.approx(1.0, abs=0.03)
