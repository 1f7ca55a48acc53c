"""Derivatives of energies: finite differences, autograd of all orders, and the closed forms of one pass."""

import pytest
import torch
from energy_cases import POTENTIALS, crystals, from_pairs

from potnet.lattice import (
    Coulomb,
    LennardJones,
    London,
    Pauli,
    ScreenedCoulomb,
    lattice_energies,
    lattice_sums,
)


def largest(difference):
    return float(difference.detach().abs().max())


def energies(cell, positions, batch, charges, potentials, **options):
    accuracy = 1e-5 if options.get("method") == "mesh" else 1e-11
    return lattice_energies(cell, positions, batch, charges, potentials, accuracy, **options)


@pytest.mark.parametrize("method", ["ewald", "mesh"])
def test_forces_and_stress_by_finite_differences(method):
    """Central differences of the energy, each column; a mesh's own derivatives are exact too."""
    cell, positions, batch, charges = crystals((6, 3), len(POTENTIALS), seed=1)
    options = {"method": method, "eta": 0.4}
    got = energies(cell, positions, batch, charges, POTENTIALS, forces=True, stress=True, **options)
    step = 1e-4
    for atom, axis in ((0, 0), (4, 2), (8, 1)):
        ends = []
        for sign in (1, -1):
            moved = positions.clone()
            moved[atom, axis] += sign * step
            ends.append(energies(cell, moved, batch, charges, POTENTIALS, **options).crystal.sum(0))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert largest((slope + got.forces[atom, :, axis]) / (1 + slope.abs())) < 1e-6
    volume = torch.linalg.det(cell).abs()
    for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)):
        ends = []
        for sign in (1, -1):
            strain = torch.eye(3, dtype=torch.float64)
            strain[i, j] += 0.5 * sign * step
            strain[j, i] += 0.5 * sign * step
            strained = energies(cell @ strain, positions @ strain, batch, charges, POTENTIALS, **options)
            ends.append(strained.crystal)
        slope = (ends[0] - ends[1]) / (2 * step)
        assert largest((slope / volume[:, None] - got.stress[..., i, j]) / (1 + slope.abs())) < 1e-6


def test_gradients_are_those_of_pair_sums():
    """With weights on crystals and on atoms, in positions, cell and charges."""
    sizes = (4, 1, 9)
    cell, positions, batch, charges = crystals(sizes, len(POTENTIALS), seed=4)
    inputs = [t.requires_grad_() for t in (cell, positions, charges)]
    exact = lattice_sums(cell, positions, batch, POTENTIALS, 1e-11)
    expected = from_pairs(exact, charges, batch, len(sizes))
    got = energies(cell, positions, batch, charges, POTENTIALS)
    weights = [torch.randn_like(part) for part in expected]
    for some in ((0,), (1,), (0, 1)):
        slopes = [
            torch.autograd.grad(sum((result[i] * weights[i]).sum() for i in some), inputs, retain_graph=True)
            for result in (expected, got)
        ]
        for one, other in zip(*slopes, strict=True):
            assert largest((one - other) / (1 + one.abs())) < 1e-9


@pytest.mark.parametrize("potentials", [POTENTIALS, [Coulomb()]])
def test_one_pass_is_autograd(potentials):
    cell, positions, batch, charges = crystals((5, 16), len(potentials), seed=6)
    with torch.no_grad():
        one = energies(cell, positions, batch, charges, potentials, forces=True, stress=True)
    strain = torch.zeros(2, 3, 3, dtype=torch.float64, requires_grad=True)
    positions = positions.requires_grad_()
    plain = energies(
        cell + cell @ strain,
        positions + (positions[:, None] @ strain[batch])[:, 0],
        batch,
        charges,
        potentials,
    )
    assert largest(one.crystal - plain.crystal) < 1e-10
    volume = torch.linalg.det(cell).abs()[:, None, None]
    for p in range(len(potentials)):
        force, virial = torch.autograd.grad(plain.crystal[:, p].sum(), (positions, strain), retain_graph=True)
        scale = 1 + force.abs()
        assert largest((one.forces[:, p] + force) / scale) < 1e-10
        virial = 0.5 * (virial + virial.transpose(1, 2)) / volume
        assert largest(one.stress[:, p] - virial) < 1e-10


@pytest.mark.parametrize("method", ["ewald", "mesh"])
def test_gradcheck_and_gradgradcheck(method):
    cell, positions, batch, charges = crystals((2, 1), 3, seed=8)
    potentials = [Coulomb(), London(), Pauli(1.2, convention="published")]
    inputs = tuple(t.requires_grad_() for t in (cell, positions, charges))

    def both(cell, positions, charges):
        result = energies(cell, positions, batch, charges, potentials, eta=0.5, method=method)
        return result.crystal, result.atom

    assert torch.autograd.gradcheck(both, inputs, atol=1e-7, rtol=1e-5, fast_mode=True)
    assert torch.autograd.gradgradcheck(both, inputs, atol=1e-6, rtol=1e-4, fast_mode=True)


def test_gradcheck_of_forces_and_stress():
    """What is trained on: their derivatives in positions, cell and charges."""
    cell, positions, batch, charges = crystals((2, 3), 2, seed=8)
    inputs = tuple(t.requires_grad_() for t in (cell, positions, charges))

    def both(cell, positions, charges):
        result = energies(
            cell, positions, batch, charges, [Coulomb(), Pauli(2.0)], eta=0.5, forces=True, stress=True
        )
        return result.forces, result.stress

    assert torch.autograd.gradcheck(both, inputs, atol=1e-6, rtol=1e-4, fast_mode=True)


def test_a_force_loss_is_the_same_by_both_roads():
    cell, positions, batch, charges = crystals((6, 10), 1, seed=11)
    charges.requires_grad_()
    target = torch.randn(16, 3, dtype=torch.float64)
    one = energies(cell, positions, batch, charges, [Coulomb()], forces=True).forces[:, 0]
    moved = positions.clone().requires_grad_()
    energy = energies(cell, moved, batch, charges, [Coulomb()]).crystal.sum()
    other = -torch.autograd.grad(energy, moved, create_graph=True)[0]
    slopes = [torch.autograd.grad((f - target).square().sum(), charges)[0] for f in (one, other)]
    assert largest(slopes[0] - slopes[1]) < 1e-10
    assert largest(slopes[0]) > 1e-3


def test_learnable_parameters():
    """Gradients in alpha and sigma, one number or one for each crystal, are those of pair sums."""
    cell, positions, batch, charges = crystals((3, 6), 3, seed=12)
    alpha = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([1.5, 2.0], dtype=torch.float64, requires_grad=True)
    potentials = [Pauli(alpha), LennardJones(sigma), ScreenedCoulomb(alpha)]
    exact = from_pairs(lattice_sums(cell, positions, batch, potentials, 1e-11), charges, batch, 2)[0]
    for options in ({}, {"forces": True, "stress": True}, {"method": "mesh"}):
        got = energies(cell, positions, batch, charges, potentials, **options)
        weights = torch.randn_like(exact)
        slopes = [
            torch.autograd.grad((result * weights).sum(), (alpha, sigma), retain_graph=True)
            for result in (exact, got.crystal)
        ]
        for one, other in zip(*slopes, strict=True):
            assert largest((one - other) / (1 + one.abs())) < (1e-9 if "method" not in options else 1e-3)
    fixed = [Pauli(1.7), LennardJones(1.5), ScreenedCoulomb(1.7)]
    plain = energies(cell[:1], positions[:3], batch[:3], charges[:3], fixed, forces=True, stress=True)
    got = energies(cell, positions, batch, charges, potentials, forces=True, stress=True)
    assert largest((plain.forces - got.forces[:3]) / (1 + plain.forces.abs())) < 1e-9
    assert largest(plain.stress[0] - got.stress[0]) < 1e-9
    (slope,) = torch.autograd.grad(got.forces.square().sum(), alpha)
    assert largest(slope) > 1e-3
