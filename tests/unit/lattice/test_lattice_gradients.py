"""First and second derivatives in positions and cell, for every potential, inside a batch of unequal
crystals.
"""

import numpy as np
import pytest
import torch
from lattice_cases import POTENTIALS, Case, scattered, tensors

from potnet import lattice
from potnet.lattice import Coulomb, London, Pauli, lattice_sums

POTENTIAL = [
    *(potential for potential, _ in POTENTIALS[:6]),
    *(lattice.InversePower(p) for p in (1.0, 2.0, 2.5, 6.0)),
    Pauli(alpha=3.0, convention="published"),
    Pauli(alpha=0.3),
    lattice.ScreenedCoulomb(alpha=0.1),
]


def crystals():
    """Two atoms, one, and three; one cell needs reduction, one is left-handed."""
    rng = np.random.default_rng(1)
    first = np.array([[4.0, 0.3, 0.1], [9.2, 4.4, 0.2], [-0.3, 0.5, 3.7]])
    third = np.array([[0.2, 4.1, 0.3], [3.9, 0.4, -0.2], [0.3, 0.1, 4.6]])
    return [
        Case("unreduced", first, scattered(first, 2, rng, 1.5)),
        Case(
            "one", np.array([[2.4, 0.1, 0.0], [0.3, 2.9, 0.2], [0.1, 0.2, 3.3]]), np.array([[9.0, -4.0, 0.2]])
        ),
        Case("left-handed", third, scattered(third, 3, rng, 1.5)),
    ]


def function(potential, accuracy=1e-10):
    """Sums as a function of cells and positions. Eta is fixed, or a step of the trial could change it."""
    batch = tensors(crystals())[2]

    def sums(cell, positions):
        return lattice_sums(cell, positions, batch, [potential], accuracy, eta=0.35).values

    return sums


@pytest.fixture
def inputs():
    cell, positions, _ = tensors(crystals())
    return cell.requires_grad_(), positions.requires_grad_()


@pytest.mark.parametrize("potential", POTENTIAL, ids=str)
def test_first_derivatives(potential, inputs):
    """Every entry of the Jacobian for two potentials, random projections of it for the others."""
    fast = potential not in (Coulomb(), Pauli())
    assert torch.autograd.gradcheck(
        function(potential), inputs, eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=fast
    )


@pytest.mark.parametrize("potential", POTENTIAL, ids=str)
def test_second_derivatives(potential, inputs):
    assert torch.autograd.gradgradcheck(
        function(potential), inputs, eps=1e-5, atol=1e-5, rtol=1e-4, fast_mode=True
    )


@pytest.mark.parametrize("potential", [Coulomb(), London(), Pauli()], ids=str)
def test_both_branches_of_structure_factors(potential):
    """Many atoms go through matrix products: their gradients too."""
    rng = np.random.default_rng(4)
    cell = np.diag([5.0, 5.5, 6.0]) + 0.3 * rng.normal(size=(3, 3))
    case = Case("12 atoms", cell, scattered(cell, 12, rng, 1.2))
    cell, positions, batch = tensors([case])

    def sums(cell, positions):
        return lattice_sums(cell, positions, batch, [potential], 1e-10, eta=0.3).values

    inputs = (cell.requires_grad_(), positions.requires_grad_())
    assert torch.autograd.gradcheck(sums, inputs, eps=1e-5, atol=1e-6, rtol=1e-4, fast_mode=True)
    assert torch.autograd.gradgradcheck(sums, inputs, eps=1e-5, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_derivatives_of_small_chunks(inputs):
    cell, positions = inputs
    batch = tensors(crystals())[2]
    gradients = []
    for memory_mib in (None, 1e-4):
        values = lattice_sums(cell, positions, batch, POTENTIAL, 1e-10, memory_mib=memory_mib).values
        weight = torch.linspace(-1, 1, values.numel(), dtype=torch.float64).view_as(values)
        gradients.append(torch.autograd.grad((weight * values).sum(), inputs))
    for whole, parts in zip(*gradients, strict=True):
        assert torch.allclose(whole, parts, rtol=1e-11, atol=1e-11)


def test_a_batch_has_the_gradients_of_a_loop(inputs):
    values = lattice_sums(*inputs, tensors(crystals())[2], POTENTIAL, 1e-10).values
    together = torch.autograd.grad(values.square().sum(), inputs)
    start = 0
    for number, case in enumerate(crystals()):
        cell, positions, batch = tensors([case])
        cell.requires_grad_(), positions.requires_grad_()
        values = lattice_sums(cell, positions, batch, POTENTIAL, 1e-10).values
        alone = torch.autograd.grad(values.square().sum(), (cell, positions))
        stop = start + len(case.positions)
        assert torch.allclose(alone[0][0], together[0][number], rtol=1e-9, atol=1e-9)
        assert torch.allclose(alone[1], together[1][start:stop], rtol=1e-9, atol=1e-9)
        start = stop


def test_forces_of_a_crystal_add_up_to_zero(inputs):
    """Translation: the gradient in all positions of a crystal together vanishes. Rotation: the virial is
    symmetric.
    """
    batch = tensors(crystals())[2]
    values = lattice_sums(*inputs, batch, [Coulomb(), London(), Pauli()], 1e-11).values
    weight = torch.rand(values.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    in_cell, in_positions = torch.autograd.grad((weight * values).sum(), inputs)
    total = torch.zeros(3, 3, dtype=torch.float64).index_add(0, batch, in_positions)
    assert float(total.abs().amax()) < 1e-9
    virial = inputs[0].detach().transpose(1, 2) @ in_cell
    virial = virial.index_add(0, batch, inputs[1].detach()[:, :, None] * in_positions[:, None])
    assert torch.allclose(virial, virial.transpose(1, 2), atol=1e-8)


def test_close_to_where_an_atom_wraps():
    """Gradients do not jump where a coordinate passes the boundary of the cell."""
    cell = 3.0 * torch.eye(3, dtype=torch.float64)[None]
    batch = torch.zeros(2, dtype=torch.int64)
    gradients = []
    for x in (-1e-9, 0.0, 1e-9, 1.5 - 1e-9, 1.5, 1.5 + 1e-9):
        positions = torch.tensor([[0.0, 0.0, 0.0], [x, 1.1, 0.4]], dtype=torch.float64, requires_grad=True)
        values = lattice_sums(cell, positions, batch, [Coulomb(), London()], 1e-11).values
        gradients.append(torch.autograd.grad(values.sum(), positions)[0])
    assert torch.allclose(gradients[0], gradients[2], atol=1e-6)
    assert torch.allclose(gradients[1], gradients[2], atol=1e-6)
    assert torch.allclose(gradients[3], gradients[5], atol=1e-6)


def test_no_graph_when_no_gradient_is_wanted():
    cell, positions, batch = tensors(crystals())
    assert not lattice_sums(cell, positions, batch, POTENTIAL).values.requires_grad
    cell.requires_grad_()
    with torch.no_grad():
        assert not lattice_sums(cell, positions, batch, POTENTIAL).values.requires_grad
    sums = lattice_sums(cell, positions, batch, POTENTIAL)
    assert sums.values.requires_grad
    assert not sums.bound.requires_grad


def test_gradients_of_float32_inputs_are_float32():
    cell, positions, batch = tensors(crystals())
    positions = positions.float().requires_grad_()
    lattice_sums(cell, positions, batch, [Coulomb()]).values.sum().backward()
    assert positions.grad is not None
    assert positions.grad.dtype == torch.float32
    assert bool(positions.grad.isfinite().all())
