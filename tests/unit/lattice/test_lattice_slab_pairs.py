"""Sums of pairs of slabs against plain sums in two dimensions, and Parry's sum for 1/r."""

import math

import pytest
import torch

from potnet import lattice
from potnet.lattice import Coulomb, InversePower, London, Pauli, lattice_energies, lattice_sums

FLAGS = (True, True, False)
ACCURACY = 1e-8
SHORT = [
    London(),
    Pauli(alpha=1.3),
    lattice.ScreenedCoulomb(alpha=0.8),
    lattice.LennardJones(sigma=1.4),
    lattice.Morse(alpha=1.1, r_e=1.4),
    InversePower(2.2),
]


def slabs():
    """Two slabs of different shape, 3 and 2 atoms, up to 5 Å thick; the third vectors have no meaning."""
    cell = torch.tensor(
        [
            [[3.1, 0.4, 0.0], [-1.0, 4.2, 0.0], [0.3, 0.2, 2.0]],
            [[5.0, 0.0, 0.0], [9.0, 2.6, 0.0], [0.0, 0.0, 9.0]],
        ],
        dtype=torch.float64,
    )
    positions = torch.tensor(
        [[0.1, 0.2, 0.0], [1.4, 9.9, 1.7], [-0.3, 1.0, 5.0], [0.0, 0.0, 3.0], [1.1, 1.0, 2.1]],
        dtype=torch.float64,
    )
    return cell, positions, torch.tensor([0, 0, 0, 1, 1])


def plain(cell, positions, potential, radius=300.0):
    """Sum over a circle in the plane, and an integral beyond it, (n, n)."""
    first, second = cell[0], cell[1]
    area = float(torch.linalg.cross(first, second).norm())
    most = int(radius / (area / max(float(first.norm()), float(second.norm())))) + 2
    steps = torch.arange(-most, most + 1, dtype=torch.float64)
    shifts = (steps[:, None, None] * first + steps[None, :, None] * second).reshape(-1, 3)
    shifts = shifts[shifts.norm(dim=-1) < radius]
    r = ((positions[:, None] - positions[None])[:, :, None] + shifts).norm(dim=-1)
    values = potential.value(r.clamp(min=1e-3), torch.ones_like(r)).masked_fill(r < 1e-9, 0.0).sum(-1)
    if isinstance(potential, London | InversePower):
        p = getattr(potential, "p", 3.0)
        values += 2 * math.pi / area * radius ** (2 - 2 * p) / (2 * p - 2)
    return values


@pytest.mark.parametrize("potential", SHORT, ids=str)
def test_sums_in_two_dimensions(potential):
    cell, positions, batch = slabs()
    found = lattice_sums(cell, positions, batch, [potential], ACCURACY, periodic=FLAGS)
    assert bool((found.bound <= ACCURACY).all())
    radius = 40.0 if isinstance(potential, Pauli | lattice.ScreenedCoulomb | lattice.Morse) else 300.0
    expected = [plain(cell[b], positions[batch == b], potential, radius).flatten() for b in (0, 1)]
    left_out = 2e-8 if isinstance(potential, InversePower) else 1e-10  # beyond the circle
    assert float((found.values[:, 0] - torch.cat(expected)).abs().max()) < ACCURACY + left_out
    for accuracy in (1e-2, 1e-4):
        rough = lattice_sums(cell, positions, batch, [potential], accuracy, periodic=FLAGS)
        bound = rough.bound[batch[rough.pair_index[0]]]
        assert bool(((rough.values - found.values).abs() <= bound + ACCURACY).all())
        assert bool((rough.bound <= accuracy).all())
    # Layers at a distance count: what three dimensions make of it is something else.
    assert float((lattice_sums(cell, positions, batch, [potential]).values - found.values).abs().max()) > 1e-4


def parry(cell, vector, alpha=0.9):
    """The sum of 1/r over two periods, with the limit -2π|z|/A (Parry 1975), for a vector other than zero."""
    first, second = cell[0], cell[1]
    area = float(torch.linalg.cross(first, second).norm())
    steps = torch.arange(-12, 13, dtype=torch.float64)
    shifts = (steps[:, None, None] * first + steps[None, :, None] * second).reshape(-1, 3)
    r = (vector + shifts).norm(dim=-1)
    total = (torch.erfc(alpha * r) / r).sum()
    normal = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    dual = 2 * math.pi * torch.linalg.inv(torch.stack([first, second, normal])).T
    g = (steps[:, None, None] * dual[0] + steps[None, :, None] * dual[1]).reshape(-1, 3)
    g = g[g.norm(dim=-1) > 1e-9]
    size, z = g.norm(dim=-1), vector[2]
    both = torch.exp(size * z) * torch.erfc(size / (2 * alpha) + alpha * z)
    both = both + torch.exp(-size * z) * torch.erfc(size / (2 * alpha) - alpha * z)
    total = total + math.pi / area * ((g @ vector).cos() * both / size).sum()
    flat = z * torch.erf(alpha * z) + torch.exp(-((alpha * z) ** 2)) / (alpha * math.sqrt(math.pi))
    return total - 2 * math.pi / area * flat


def test_coulomb_sums_are_those_of_parry():
    cell, positions, batch = slabs()
    found = lattice_sums(cell, positions, batch, [Coulomb()], 1e-9, periodic=FLAGS)
    for number, (a, b) in enumerate(found.pair_index.T.tolist()):
        if a != b:
            expected = parry(cell[batch[a]], positions[a] - positions[b])
            assert abs(float(found.values[number, 0] - expected)) < 2e-9
        else:  # its own images: 1/r less near zero
            near = torch.tensor([1e-4, 0.0, 0.0], dtype=torch.float64)
            assert abs(float(found.values[number, 0] - parry(cell[batch[a]], near) + 1e4)) < 1e-6


def test_neutral_charges_have_the_energy_of_a_slab():
    cell, positions, batch = slabs()
    charges = torch.tensor([0.5, -0.2, -0.3, 1.0, -1.0], dtype=torch.float64)
    found = lattice_sums(cell, positions, batch, [Coulomb()], 1e-9, periodic=FLAGS)
    first, second = found.pair_index
    pairs = 0.5 * charges[first] * charges[second] * found.values[:, 0]
    energy = torch.zeros(2, dtype=torch.float64).index_add(0, batch[first], pairs)
    known = lattice_energies(cell, positions, batch, charges[:, None], [Coulomb()], 1e-9, periodic=FLAGS)
    assert torch.allclose(energy, known.crystal[:, 0], rtol=0, atol=1e-8)


def test_the_frame_has_no_meaning():
    """No third vector, another order and orientation; atoms along the normal stay where they are."""
    cell, positions, batch = slabs()
    potentials = [Coulomb(), *SHORT]
    found = lattice_sums(cell, positions, batch, potentials, 1e-9, periodic=FLAGS).values
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    other = torch.stack([cell[:, 1] + cell[:, 0], cell[:, 2], cell[:, 0]], 1) @ turn
    other[:, 1] = 0.0
    moved = (positions + cell[batch, 0] * torch.tensor([[2.0], [0], [-1], [3], [0]])) @ turn + 4.0 * turn[2]
    again = lattice_sums(other, moved, batch, potentials, 1e-9, periodic=(True, False, True)).values
    assert torch.allclose(again, found, rtol=0, atol=3e-9)


def test_gradients_and_parameters():
    cell, positions, batch = slabs()
    alpha = torch.tensor([1.3, 1.6], dtype=torch.float64, requires_grad=True)

    def sums(cell, positions, alpha):
        potentials = [Coulomb(), London(), Pauli(alpha), lattice.ScreenedCoulomb(alpha)]
        return lattice_sums(cell, positions, batch, potentials, 1e-10, eta=0.4, periodic=FLAGS).values

    inputs = (cell.requires_grad_(), positions.requires_grad_(), alpha)
    assert torch.autograd.gradcheck(sums, inputs, eps=1e-5, atol=1e-5, rtol=1e-4, fast_mode=True)
    assert torch.autograd.grad(sums(*inputs).sum(), cell)[0][:, 2].abs().max() < 1e-8  # not used


def test_what_slabs_cannot_do():
    cell, positions, batch = slabs()
    for potential in (InversePower(1.0), Pauli(3.0, convention="published")):
        with pytest.raises(ValueError, match="slabs: powers are 1/r or steeper than 1/r³"):
            lattice_sums(cell, positions, batch, [potential], periodic=FLAGS)
    with pytest.raises(ValueError, match="periodic must be three flags"):
        lattice_sums(cell, positions, batch, [London()], periodic=(True, False, False))
    empty = lattice_sums(cell[:0], positions[:0], batch[:0], [London()], periodic=FLAGS)
    assert empty.values.shape == (0, 1)
    with pytest.raises(ValueError, match="relative accuracy is for crystals"):
        lattice_sums(cell, positions, batch, [London()], relative=True, periodic=FLAGS)
