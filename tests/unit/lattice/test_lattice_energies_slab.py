"""Slabs against the two-dimensional Ewald sum (Parry 1975, Surf. Sci. 49, 433), written out plainly."""

import math

import pytest
import torch
from energy_cases import crystals, from_pairs

from potnet.lattice import (
    Coulomb,
    InversePower,
    LatticeError,
    LennardJones,
    London,
    Morse,
    Pauli,
    ScreenedCoulomb,
    lattice_energies,
    lattice_sums,
)
from potnet.lattice.slab import without_free_vector
from potnet.lattice.slab_pairs import layers_of, long_cells
from potnet.lattice.task import distinct_kernels

FLAGS = {"periodic": (True, True, False)}
MANY = [
    Coulomb(),
    London(),
    Pauli(1.3),
    ScreenedCoulomb(0.8),
    LennardJones(1.4),
    Morse(1.1, 1.4),
    InversePower(2.2),
]


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


def slabs():
    """Three slabs in one batch, of 3, 4 and 1 atoms: a flat one, one of 300 Å, and a single layer."""
    cell = torch.tensor(
        [
            [[3.1, 0.4, 0.0], [-1.0, 4.2, 0.0], [0.3, 0.2, 2.0]],
            [[3.0, 0.0, 0.0], [7.0, 3.6, 0.0], [0.0, 0.0, 9.0]],
            [[2.5, 0.0, 0.0], [0.0, 2.5, 0.0], [0.0, 0.0, 0.0]],
        ],
        dtype=torch.float64,
    )
    positions = torch.tensor(
        [
            [0.1, 0.2, 1.0], [1.4, 9.9, 1.0], [-0.3, 1.7, 1.0],
            [0.0, 0.0, 3.0], [1.1, 1.0, 5.1], [2.0, 0.3, 303.0], [0.4, 2.0, 301.2],
            [0.0, 0.0, -7.0],
        ],
        dtype=torch.float64,
    )  # fmt: skip
    batch = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2])
    charges = torch.tensor([0.5, -0.3, -0.2, 1.0, -0.6, 0.3, -0.7, 0.0], dtype=torch.float64)[:, None]
    return cell, positions, batch, charges


def strained(cell, positions, batch, strain):
    grown = torch.eye(3, dtype=torch.float64) + strain
    return cell @ grown, (positions[:, None] @ grown[batch])[:, 0]


def test_energies_and_derivatives_are_those_of_pairs():
    cell, positions, batch, charges = slabs()
    charges = charges.repeat(1, len(MANY))
    charges[:, 1:] += torch.linspace(0.2, 1.1, 8 * 6, dtype=torch.float64).view(8, 6)  # no need of neutrality
    strain = torch.zeros(3, 3, 3, dtype=torch.float64, requires_grad=True)
    x = positions.clone().requires_grad_()
    by_pairs = lattice_sums(*strained(cell, x, batch, strain), batch, MANY, 1e-10, **FLAGS)
    crystal, atom = from_pairs(by_pairs, charges, batch, 3)
    for accuracy in (1e-3, 1e-8):
        got = lattice_energies(cell, positions, batch, charges, MANY, accuracy, forces=True, **FLAGS)
        assert bool((got.bound.energy <= accuracy).all())
        assert bool((got.bound.force <= accuracy).all())
        number = torch.bincount(batch)[:, None]
        assert bool(((got.atom - atom).abs() <= got.bound.energy[batch] + 1e-9).all())
        assert bool(((got.crystal - crystal).abs() <= number * got.bound.energy + 1e-9).all())
        for column in range(len(MANY)):
            force = -torch.autograd.grad(crystal[:, column].sum(), x, retain_graph=True)[0]
            off = (got.forces[:, column] - force).abs().amax(1)
            assert bool((off <= got.bound.force[batch, column] + 1e-9).all()), MANY[column]
    again = strain.detach().clone().requires_grad_()
    moved = lattice_energies(*strained(cell, positions, batch, again), batch, charges, MANY, 1e-8, **FLAGS)
    for column in range(len(MANY)):
        one, other = (
            torch.autograd.grad(energy[:, column].sum(), by, retain_graph=True)[0]
            for energy, by in ((crystal, strain), (moved.crystal, again))
        )
        assert float((one - other)[:, :2, :2].abs().max()) < 2e-6, MANY[column]


def test_derivatives_are_those_of_finite_differences():
    cell, positions, batch, charges = slabs()
    potentials = [Coulomb(), London(), Pauli(1.3)]
    charges = charges.repeat(1, 3)
    charges[:, 1:] = charges[:, 1:].abs() + 0.1

    def energies(positions, strain):
        given = strained(cell, positions, batch, strain)
        return lattice_energies(*given, batch, charges, potentials, 1e-10, eta=0.4, **FLAGS).crystal

    strain = torch.zeros(3, 3, 3, dtype=torch.float64, requires_grad=True)
    inputs = (positions.requires_grad_(), strain)
    assert torch.autograd.gradcheck(energies, inputs, eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=True)
    assert torch.autograd.gradgradcheck(energies, inputs, eps=1e-5, atol=1e-4, rtol=1e-4, fast_mode=True)


def test_parameters_and_charges_of_slabs_have_gradients():
    cell, positions, batch, charges = slabs()
    alpha = torch.tensor([1.3, 0.9, 2.0], dtype=torch.float64, requires_grad=True)

    def energies(alpha, charges):
        return lattice_energies(cell, positions, batch, charges, [Pauli(alpha)], 1e-10, **FLAGS).crystal

    inputs = (alpha, (charges + 0.4).requires_grad_())
    assert torch.autograd.gradcheck(energies, inputs, eps=1e-5, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("potential", MANY, ids=str)
@pytest.mark.parametrize("accuracy", [1e3, 1e-2, 1e-5])
def test_images_stay_within_their_bounds(potential, accuracy):
    """The sums over three periods less the layers, against two periods, and so for the gradient."""
    cell, positions, batch, _ = slabs()
    cell[..., 2] = 0.0
    x = positions.clone().requires_grad_()
    kernels, coefficients, _ = distinct_kernels([potential], cell.new_ones(3))
    allowed = cell.new_tensor([accuracy])
    flat = without_free_vector(cell, 2)
    long = long_cells(flat, x, batch, 2, kernels, coefficients.abs(), allowed, allowed)
    complete = lattice_sums(long.cell, x, batch, [potential], 1e-11)
    first, second = complete.pair_index
    height = long.plane.height
    layers = layers_of(kernels, height[first] - height[second], batch[first], long) @ coefficients.T
    exact = lattice_sums(cell, x, batch, [potential], 1e-11, **FLAGS)
    off = (complete.values - layers - exact.values)[:, 0]
    assert bool((off.abs() <= long.bound[batch[first], 0] + 2e-10).all())
    for number in (first != second).nonzero()[::3, 0].tolist():
        slope = torch.autograd.grad(off[number], x, retain_graph=True)[0][first[number]]
        assert float(slope.norm()) <= float(long.slope[batch[first[number]], 0]) + 1e-9


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
    with pytest.raises(LatticeError, match="crystal 0: a slab must be neutral"):
        lattice_energies(cell, positions, batch, charges + 1, [Coulomb()], **FLAGS)
    with pytest.raises(LatticeError, match="crystal 0: a slab must be neutral"):
        lattice_energies(cell, positions, batch, charges.repeat(1, 2) + 1, [London(), Coulomb()], **FLAGS)
    for potential in (InversePower(1.0), Pauli(3.0, convention="published")):
        with pytest.raises(ValueError, match="slabs: powers are 1/r or steeper than 1/r³"):
            lattice_energies(cell, positions, batch, charges, [potential], **FLAGS)
    with pytest.raises(ValueError, match="stress by autograd"):
        lattice_energies(cell, positions, batch, charges, [London()], stress=True, **FLAGS)
    with pytest.raises(ValueError, match="periodic must be three flags"):
        lattice_energies(cell, positions, batch, charges, [Coulomb()], periodic=(True, False, False))
