"""Slabs against the two-dimensional Ewald sum (Parry 1975, Surf. Sci. 49, 433), written out plainly."""

import math

import pytest
import torch
from energy_cases import crystals

from potnet.lattice import Coulomb, LatticeError, London, lattice_energies


def parry(first, second, positions, charges, alpha=0.9, cutoff=9.0, waves=9):
    """Energy of point charges with the periods `first` and `second` in the plane z = 0."""
    n = len(positions)
    area = float(torch.linalg.cross(first, second).norm())
    steps = torch.arange(-12, 13, dtype=torch.float64)
    shifts = (steps[:, None, None] * first + steps[None, :, None] * second).reshape(-1, 3)
    vectors = positions[:, None] - positions[None]
    distance = (vectors[:, :, None] + shifts).norm(dim=-1)
    near = torch.where((distance > 1e-9) & (distance < cutoff), distance, math.inf)
    pairs = charges[:, None] * charges[None]
    energy = 0.5 * (pairs * (torch.erfc(alpha * near) / near).sum(-1)).sum()
    normal = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    dual = 2 * math.pi * torch.linalg.inv(torch.stack([first, second, normal])).T
    k = torch.arange(-waves, waves + 1, dtype=torch.float64)
    g = (k[:, None, None] * dual[0] + k[None, :, None] * dual[1]).reshape(-1, 3)
    g = g[g.norm(dim=-1) > 1e-9]
    size, z = g.norm(dim=-1), vectors[..., 2:3]
    both = torch.exp(size * z) * torch.erfc(size / (2 * alpha) + alpha * z)
    both = both + torch.exp(-size * z) * torch.erfc(size / (2 * alpha) - alpha * z)
    energy += math.pi / (2 * area) * (pairs * ((vectors @ g.T).cos() * both / size).sum(-1)).sum()
    z = z[..., 0]
    flat = z * torch.erf(alpha * z) + torch.exp(-((alpha * z) ** 2)) / (alpha * math.sqrt(math.pi))
    energy -= math.pi / area * (pairs * flat).sum()
    assert n == len(charges)
    return energy - alpha / math.sqrt(math.pi) * charges.square().sum()


def slab(seed=0):
    cell, positions, batch, charges = crystals((6,), 1, seed=seed, neutral=True)
    cell[0, :2, 2] = 0.0
    positions = torch.rand(6, 3, dtype=torch.float64) @ torch.diag(torch.tensor([4.0, 4.0, 3.0]).double())
    positions[:, 2] += torch.arange(6) * 0.7
    return cell, positions, batch, charges


def test_energy_and_forces_are_those_in_two_dimensions():
    torch.manual_seed(1)
    cell, positions, batch, charges = slab()
    x = positions.clone().requires_grad_()
    exact = parry(cell[0, 0], cell[0, 1], x, charges[:, 0])
    force = -torch.autograd.grad(exact, x)[0]
    for third in (cell[0, 2], cell[0, 2] * 3, torch.zeros(3)):  # whatever the vacuum
        other = torch.stack([cell[0, 0], cell[0, 1], third.double()])[None]
        got = lattice_energies(
            other, positions, batch, charges, [Coulomb()], 1e-7, forces=True, periodic=(True, True, False)
        )
        assert abs(float(got.crystal) - float(exact.detach())) < 6e-7
        assert float((got.forces[:, 0] - force).abs().max()) < 1e-7
    # Another order of the vectors, turned, and moved along the normal.
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    other = torch.stack([cell[0, 1], cell[0, 2], cell[0, 0]])[None] @ turn
    moved = positions @ turn + 11.3 * turn[2]
    got = lattice_energies(
        other, moved, batch, charges, [Coulomb()], 1e-7, forces=True, periodic=(True, False, True)
    )
    assert abs(float(got.crystal) - float(exact.detach())) < 6e-7
    assert float((got.forces[:, 0] - force @ turn).abs().max()) < 1e-7


def test_autograd_agrees_with_one_pass():
    torch.manual_seed(2)
    cell, positions, batch, charges = slab(seed=3)
    x = positions.clone().requires_grad_()
    options = {"accuracy": 1e-9, "periodic": (True, True, False)}
    plain = lattice_energies(cell, x, batch, charges, [Coulomb()], **options)
    force = -torch.autograd.grad(plain.crystal.sum(), x)[0]
    got = lattice_energies(cell, positions, batch, charges, [Coulomb()], forces=True, **options)
    assert float((got.forces[:, 0] - force).abs().max()) < 1e-10
    assert float((got.atom.sum() - plain.crystal.sum().detach()).abs()) < 1e-10


def test_what_slabs_cannot_do():
    torch.manual_seed(3)
    cell, positions, batch, charges = slab()
    flags = {"periodic": (True, True, False)}
    with pytest.raises(LatticeError, match="crystal 0: a slab must be neutral"):
        lattice_energies(cell, positions, batch, charges + 1, [Coulomb()], **flags)
    with pytest.raises(ValueError, match=r"slabs: energies of Coulomb\(\) alone"):
        lattice_energies(cell, positions, batch, charges, [London()], **flags)
    with pytest.raises(ValueError, match="periodic must be three flags"):
        lattice_energies(cell, positions, batch, charges, [Coulomb()], periodic=(True, False, False))
