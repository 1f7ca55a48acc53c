"""Many crystals at once in TorchSim, against the calculator for ASE."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from ase.build import bulk
from test_calculator import lennard_jones, networks, predictor

from potnet.forcefield import Calculator, ForceFieldError
from potnet.forcefield.dynamics import relax

pytest.importorskip("torch_sim")

import torch_sim as ts

from potnet.forcefield.torchsim import TorchSimModel


def coppers():
    one = bulk("Cu", cubic=True, a=3.4)
    one.rattle(0.05, seed=2)
    two = bulk("Cu", "bcc", a=2.7) * (2, 1, 1)
    two.set_cell(two.cell[:] @ np.array([[1, 0.03, 0], [0, 1, 0.02], [0.01, 0, 1]]), scale_atoms=True)
    two.rattle(0.05, seed=3)
    return [one, two]


def test_results_are_those_of_the_calculator():
    given = predictor(networks())
    model = TorchSimModel(given, "cpu")
    systems = coppers()
    state = ts.initialize_state(systems, model.device, model.dtype)
    found = model(state)
    calculator = Calculator(given, "cpu", "float64")
    first = 0
    for number, atoms in enumerate(systems):
        atoms.calc = calculator
        assert float(found["energy"][number]) == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        forces = found["forces"][first : first + len(atoms)]
        np.testing.assert_allclose(forces.numpy(), atoms.get_forces(), atol=1e-6)
        np.testing.assert_allclose(found["stress"][number].numpy(), atoms.get_stress(voigt=False), atol=1e-6)
        first += len(atoms)


def test_relaxation_and_dynamics_of_several_crystals():
    given = predictor(lennard_jones())
    model = TorchSimModel(given, "cpu")
    state = ts.optimize(
        coppers(), model, optimizer=ts.frechet_cell_fire, max_steps=300,
        convergence_fn=ts.generate_force_convergence_fn(1e-2),
    )  # fmt: skip
    atoms = coppers()[0]
    atoms.calc = Calculator(given, "cpu", "float64")
    relax(atoms, fmax=1e-3)
    assert float(state.energy[0]) == pytest.approx(atoms.get_potential_energy(), abs=1e-3)
    assert abs(float(torch.linalg.det(state.cell[0]))) == pytest.approx(atoms.get_volume(), rel=3e-3)
    kT = torch.tensor(600 * ts.units.MetalUnits.temperature, dtype=model.dtype)
    begin, step = ts.nve(model, dt=torch.tensor(ts.units.MetalUnits.time * 1e-3, dtype=model.dtype), kT=kT)
    moving = begin(state)
    totals = []
    for _ in range(20):
        moving = step(moving, kT=kT)
        kinetic = ts.calc_kinetic_energy(
            masses=moving.masses, momenta=moving.momenta, system_idx=moving.system_idx
        )
        totals.append(moving.energy + kinetic)
        assert (kinetic > 0).all()
    assert (moving.positions - state.positions).abs().max() > 0.02
    assert (torch.stack(totals) - totals[0]).abs().max() < 5e-3


def test_bad_states_are_refused(monkeypatch):
    model = TorchSimModel(predictor(lennard_jones()), "cpu")
    state = ts.initialize_state(coppers(), model.device, model.dtype)
    state.positions[5] = state.positions[4] + 0.1
    with pytest.raises(ForceFieldError, match=r"system 1: .*atoms have met"):
        model(state)
    state = ts.initialize_state(coppers(), model.device, model.dtype)
    state.pbc = False
    with pytest.raises(ForceFieldError, match="not periodic in all directions"):
        model(state)
    state = ts.initialize_state([bulk("Fe")], model.device, model.dtype)
    with pytest.raises(ForceFieldError, match="no training crystal has Fe"):
        model(state)
    monkeypatch.delitem(sys.modules, "potnet.forcefield.torchsim")
    monkeypatch.setitem(sys.modules, "torch_sim.models.interface", None)
    with pytest.raises(ForceFieldError, match=r'pip install "potnet\[torchsim\]"'):
        import potnet.forcefield.torchsim  # noqa: F401
