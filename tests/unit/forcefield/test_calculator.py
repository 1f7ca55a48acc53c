"""The ASE calculator against the networks it holds, and what is done with it through ASE."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from potnet.crystals import collate, from_ase
from potnet.data import Featurizer
from potnet.data.targets import Targets
from potnet.forcefield import Calculator, ForceFieldError
from potnet.forcefield.dynamics import relax, run_dynamics
from potnet.inference.predictor import Predictor
from potnet.models import LEIGNN, PairSplines, PotNet, PotNetFF
from potnet.training.outputs import values_of
from potnet.training.scaling import scalers_of

CUTOFF = 5.0
ENERGY = {"energy": {"extensive": True}}
TARGETS = Targets.from_config(
    {
        "energy": {"unit": "eV", "extensive": True},
        "forces": {"per": "atom", "shape": [3], "derived_from": "energy", "unit": "eV/Å"},
        "stress": {"shape": [6], "derived_from": "energy", "unit": "eV/Å³"},
    }
)


def predictor(model: torch.nn.Module, targets: Targets = TARGETS, cell: str = "as_given") -> Predictor:
    scalers = scalers_of(targets)
    scalers["energy"].std.fill_(0.5)
    scalers["energy"].reference[[8, 12, 29]] = torch.tensor([-4.0, -1.5, -3.5], dtype=torch.float64)
    features = Featurizer(cell=cell, neighbors={"cutoff": CUTOFF}, device="cpu")
    known = {"training": {"elements": {8: 10, 12: 10, 29: 10}}}
    return Predictor(model, scalers, targets, features, known, "cpu")


def networks(seed: int = 0) -> PotNetFF:
    torch.manual_seed(seed)
    return PotNetFF(16, 1, CUTOFF, 8, heads=ENERGY)


def oxide() -> Atoms:
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def lennard_jones(depth: float = 0.4, length: float = 2.3) -> PairSplines:
    """Splines through a Lennard-Jones curve for copper, as a force field whose minimum is known."""
    model = PairSplines(CUTOFF, knots=40)
    r = torch.linspace(1.6, CUTOFF, 400, dtype=torch.float64)
    curve = 4 * depth * ((length / r) ** 12 - (length / r) ** 6) * ((r - CUTOFF) / CUTOFF) ** 2
    value, _ = model.basis(r)
    model.pairs = torch.tensor([[29, 29]])
    solution = torch.linalg.lstsq(value, curve[:, None], driver="gelsd").solution
    model.coefficients = solution.T
    return model


def test_results_are_those_of_the_network():
    given = predictor(networks())
    atoms = oxide()
    atoms.calc = Calculator(given, dtype="float64")
    batch = collate(given.featurizer.featurize([from_ase(atoms)], labels=False)).double()
    expected = values_of(given.model, given.scalers, TARGETS, batch)
    assert atoms.get_potential_energy() == pytest.approx(float(expected["energy"].sum()), abs=1e-9)
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"].numpy(), atol=1e-9)
    np.testing.assert_allclose(atoms.get_stress(), expected["stress"][0].numpy(), atol=1e-9)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    charges = atoms.get_charges()
    assert np.ptp(charges) > 1e-4
    assert abs(charges.sum()) < 1e-9


def test_forces_and_stress_are_derivatives_as_ase_takes_them():
    from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

    model = networks()
    model.accuracy = 1e-9
    atoms = oxide()
    atoms.calc = Calculator(predictor(model), dtype="float64")
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0, 5])
    np.testing.assert_allclose(atoms.get_forces()[[0, 5]], numerical, atol=1e-6)
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-4), atol=1e-6)


def test_a_committee_gives_means_and_spreads():
    members = [predictor(networks(seed)) for seed in range(3)]
    atoms = oxide()
    alone = []
    for member in members:
        atoms.calc = Calculator(member)
        alone.append((atoms.get_potential_energy(), atoms.get_forces()))
    atoms.calc = Calculator(members)
    energies = np.array([energy for energy, _ in alone])
    forces = np.array([force for _, force in alone])
    assert atoms.get_potential_energy() == pytest.approx(energies.mean())
    np.testing.assert_allclose(atoms.get_forces(), forces.mean(0))
    assert atoms.calc.results["energy_spread"] == pytest.approx(energies.std() / len(atoms))
    expected = np.sqrt(forces.var(0).sum(-1))
    np.testing.assert_allclose(atoms.calc.results["forces_spread"], expected, rtol=1e-6, atol=1e-12)
    atoms.calc = Calculator(members[0])
    atoms.get_forces()
    assert "forces_spread" not in atoms.calc.results


def test_relaxation_of_cell_and_atoms_finds_the_minimum():
    atoms = bulk("Cu", cubic=True, a=3.4)
    atoms.rattle(0.05, seed=2)
    atoms.set_cell(atoms.cell[:] @ np.diag([1.02, 0.99, 1.0]), scale_atoms=True)
    atoms.calc = Calculator(predictor(lennard_jones()), dtype="float64")
    relax(atoms, fmax=1e-4, steps=100)
    assert np.abs(atoms.get_forces()).max() < 1e-3
    assert np.abs(atoms.get_stress()).max() < 1e-4
    energies = []
    for strain in (-1e-3, 0, 1e-3):
        moved = atoms.copy()
        moved.set_cell(atoms.cell[:] * (1 + strain), scale_atoms=True)
        moved.calc = atoms.calc
        energies.append(moved.get_potential_energy())
    assert energies[1] < min(energies[0], energies[2])


def test_dynamics_conserve_the_energy():
    atoms = bulk("Cu", cubic=True, a=3.5) * (2, 2, 1)
    atoms.calc = Calculator(predictor(lennard_jones()), dtype="float64")
    found = run_dynamics(atoms, 0.1, 600, every=5)
    totals = found.potential + found.kinetic
    assert np.ptp(totals) < 2e-3  # eV an atom, with a step of 1 fs
    assert abs(found.drift) < 0.5


def test_direct_forces_have_no_stress():
    torch.manual_seed(0)
    targets = Targets.from_config(
        {"energy": {"unit": "eV", "extensive": True}, "forces": {"per": "atom", "shape": [3]}}
    )
    model = LEIGNN(16, 1, CUTOFF, 8, heads=targets.heads())
    atoms = oxide()
    atoms.calc = Calculator(predictor(model, targets))
    assert atoms.get_forces().shape == (8, 3)
    with pytest.raises(NotImplementedError, match="gives no stress"):
        atoms.get_stress()


def test_bad_structures_are_refused_with_reasons():
    calculator = Calculator(predictor(networks()))

    def energy(atoms: Atoms, **options: str) -> float:
        atoms.calc = Calculator(predictor(networks()), **options) if options else calculator
        return atoms.get_potential_energy()

    iron = bulk("Fe")
    with pytest.raises(ForceFieldError, match="no training crystal has Fe; the force field knows O, Mg, Cu"):
        energy(iron)
    assert np.isfinite(energy(iron, unknown_elements="allow"))
    left = Atoms("Cu3", [[0, 0, 0], [2.5, 0, 0], [12, 12, 12]], cell=[24, 24, 24], pbc=True)
    with pytest.raises(ForceFieldError, match=r"atom 2 \(Cu\) has no neighbour within 5 Å: it has left"):
        energy(left)
    assert np.isfinite(energy(left, isolated="allow"))
    small = bulk("Cu", a=0.9)
    with pytest.raises(ForceFieldError, match="collapsed"):
        energy(small)
    flat = bulk("Cu", cubic=True)
    flat.set_cell([[3.6, 0, 0], [0, 3.6, 0], [3.6, 0, 0]])
    with pytest.raises(ForceFieldError, match="collapsed"):
        energy(flat)
    lost = bulk("Cu", cubic=True)
    lost.positions[1, 2] = np.nan
    with pytest.raises(ForceFieldError, match=r"finite|NaN"):
        energy(lost)


def test_forces_that_are_no_numbers_are_refused():
    model = networks()
    with torch.no_grad():
        model.heads["energy"].output.weight.fill_(float("nan"))
    atoms = oxide()
    atoms.calc = Calculator(predictor(model))
    with pytest.raises(ForceFieldError, match="came out as NaN"):
        atoms.get_forces()


def test_molecules_have_no_images():
    model = predictor(PotNetFF(16, 1, CUTOFF, 8, long_range=[], heads=ENERGY))
    water = Atoms("OMgO", [[0, 0, 0], [0, 0, 1.9], [0, 1.9, 0]])
    boxed = water.copy()
    boxed.set_cell([30, 30, 30])
    boxed.pbc = True
    tight = water.copy()
    tight.set_cell([4, 4, 4])
    found = []
    for atoms in (water, boxed, tight):
        atoms.calc = Calculator(model)
        found.append(atoms.get_potential_energy())
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert found[0] == pytest.approx(found[2], abs=1e-5)
    with pytest.raises(NotImplementedError, match="gives no stress"):
        water.get_stress()


def slab(height: float) -> Atoms:
    """Two polar layers of MgO, with vacuum along the second vector, which is not normal to the others."""
    places = [[0.1, 0, 0], [1.6, 1.2, 1.3], [0.2, 1.4, 1.5], [1.5, 0.1, 0.2]]
    return Atoms("MgOMgO", places, cell=[[4, 0, 0], [0.5, height, 0.3], [0, 0, 4.4]], pbc=[True, False, True])


@pytest.mark.parametrize("long_range", [[], ["coulomb"], ["coulomb", "london", "pauli"]])
def test_slabs_have_no_images_however_little_vacuum_they_have(long_range):
    model = PotNetFF(16, 1, CUTOFF, 8, long_range=long_range, accuracy=1e-8, heads=ENERGY)
    given = predictor(model)
    atoms, deep = slab(3.0), slab(40.0)
    atoms.calc = deep.calc = calculator = Calculator(given, dtype="float64")
    assert atoms.get_potential_energy() == pytest.approx(deep.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(atoms.get_forces(), deep.get_forces(), atol=1e-6)
    times = deep.get_volume() / atoms.get_volume()
    np.testing.assert_allclose(atoms.get_stress(), times * deep.get_stress(), atol=1e-6)
    h, energies = 1e-4, []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.calc = calculator
        moved.positions[1, 1] += sign * h
        energies.append(moved.get_potential_energy())
    assert atoms.get_forces()[1, 1] == pytest.approx(-(energies[0] - energies[1]) / (2 * h), abs=1e-5)
    # As a crystal it has images across the vacuum, and the same calculator goes on with crystals.
    crystal = slab(40.0)
    crystal.pbc = True
    crystal.calc = calculator
    difference = abs(crystal.get_potential_energy() - atoms.get_potential_energy())
    assert (difference > 1e-8) == bool(long_range)


def test_a_layer_of_pair_potentials_has_no_images():
    layer = Atoms("Cu2", [[0, 0, 1], [1.3, 1.3, 3.0]], cell=[2.6, 2.6, 5.0], pbc=[True, True, False])
    alone = layer.copy()
    alone.set_cell([2.6, 2.6, 30.0])
    layer.calc = alone.calc = Calculator(predictor(lennard_jones()))
    assert layer.get_potential_energy() == pytest.approx(alone.get_potential_energy())
    layer.pbc = True
    assert layer.get_potential_energy() != pytest.approx(alone.get_potential_energy())


def test_complete_sums_that_cannot_leave_out_images_are_refused():
    atoms = slab(20.0)
    pairs = PotNetFF(16, 1, CUTOFF, 8, pairs="complete", long_range=[], heads=ENERGY)
    atoms.calc = Calculator(predictor(pairs))
    with pytest.raises(ForceFieldError, match=r"periodic in 2 directions, .* \(pairs of the network\) run"):
        atoms.get_potential_energy()
    atoms.calc = Calculator(predictor(networks()))
    atoms.pbc = [True, False, False]
    with pytest.raises(ForceFieldError, match=r"\(coulomb, london\)"):
        atoms.get_potential_energy()
    atoms.pbc = True
    assert np.isfinite(atoms.get_potential_energy())


def test_networks_that_are_no_force_fields_are_refused():
    with pytest.raises(ForceFieldError, match="no continuous function"):
        Calculator(predictor(PotNet(width=8, layers=1, pairs="none", heads=ENERGY)))
    with pytest.raises(ForceFieldError, match=r"features\.cell=as_given"):
        Calculator(predictor(networks(), cell="primitive"))
    with pytest.raises(ForceFieldError, match="no force field is given"):
        Calculator([])
