"""Sums and derivatives in one pass, against autograd and finite differences, and their stated errors."""

import numpy as np
import pytest
import torch
from lattice_cases import Case, named_cases, scattered, tensors

from potnet import lattice
from potnet.lattice import (
    Coulomb,
    InversePower,
    London,
    Pauli,
    backward_through,
    block,
    lattice_sums,
    lattice_sums_and_derivatives,
    plan,
)
from potnet.lattice.kernels import Kernel

POTENTIALS = [
    Coulomb(),
    London(),
    Pauli(alpha=1.1),
    lattice.LennardJones(sigma=1.3),
    lattice.Morse(alpha=1.1, r_e=1.4),
    lattice.ScreenedCoulomb(alpha=0.7),
    Pauli(alpha=3.0, convention="published"),
    *(InversePower(p) for p in (0.3, 0.8, 1.0, 2.0, 2.5, 2.7)),
]
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def crystals(sizes=(2, 1, 3, 24)):
    """Crystals of unequal sizes, one too large for a cosine for each pair; one cell is not reduced."""
    rng = np.random.default_rng(3)
    cases = []
    for n in sizes:
        cell = (14 * n) ** (1 / 3) * (np.eye(3) + 0.2 * rng.normal(size=(3, 3)))
        cases.append(Case(str(n), cell, scattered(cell, n, rng, 1.4)))
    cases[0] = Case(
        "skewed", np.array([[1, 0, 0], [2, 1, 0], [0, -1, 1]]) @ cases[0].cell, cases[0].positions
    )
    return tensors(cases)


def strained(cell, positions, batch, strain):
    deformation = torch.eye(3, dtype=torch.float64) + strain
    return cell @ deformation, positions @ deformation, batch


def test_values_are_the_sums():
    inputs = crystals()
    both = lattice_sums_and_derivatives(*inputs, POTENTIALS, 1e-9)
    sums = lattice_sums(*inputs, POTENTIALS, 1e-9)
    assert torch.equal(both.pair_index, sums.pair_index)
    assert torch.allclose(both.values, sums.values, rtol=1e-12, atol=1e-12)
    assert torch.allclose(both.bound, sums.bound, rtol=1e-6)
    assert not both.values.requires_grad


def test_derivatives_against_finite_differences():
    cell, positions, batch = crystals()
    both = lattice_sums_and_derivatives(cell, positions, batch, POTENTIALS, 1e-11, eta=0.3)

    def values(*inputs):
        return lattice_sums(*inputs, POTENTIALS, 1e-11, eta=0.3).values

    first, second = both.pair_index
    step = 1e-4
    for axis in range(3):
        shift = torch.zeros_like(positions)
        shift[::2, axis] = step  # every other atom: pairs of both kinds change
        found = values(cell, positions + shift, batch) - values(cell, positions - shift, batch)
        moved = (first % 2 == 0).double() - (second % 2 == 0).double()
        expected = both.by_vector[..., axis] * moved[:, None]
        assert torch.allclose(found / (2 * step), expected, rtol=1e-5, atol=1e-7)
    for component, (i, j) in enumerate(VOIGT):
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[i, j] = strain[j, i] = step
        found = values(*strained(cell, positions, batch, strain))
        found = found - values(*strained(cell, positions, batch, -strain))
        expected = both.by_strain[..., component] * (1 if i == j else 2)
        assert torch.allclose(found / (2 * step), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("dense", [False, True])
def test_backward_costs_what_autograd_gives(monkeypatch, dense):
    """The fused pass, with terms picked as on a CPU and masked as on a GPU, against autograd through all."""
    if dense:
        monkeypatch.setitem(plan.STYLES, "cpu", plan.Style(None, True, 2.0**22, 64))
    cell, positions, batch = crystals()
    gradients = []
    for fused in (True, False):
        with monkeypatch.context() as patch:
            if not fused:
                patch.setattr(Kernel, "requires_grad", lambda self: True)
            inputs = cell.clone().requires_grad_(), positions.clone().requires_grad_()
            values = lattice_sums(*inputs, batch, POTENTIALS, 1e-9).values
            weight = torch.linspace(-1, 1, values.numel(), dtype=torch.float64).view_as(values)
            gradients.append(torch.autograd.grad((weight * values).sum(), inputs))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


def test_fused_pass_is_used(monkeypatch):
    calls = []
    for_backward = block.Block.for_backward

    def counted(self, *args):
        calls.append(self)
        return for_backward(self, *args)

    monkeypatch.setattr(block.Block, "for_backward", counted)
    cell, positions, batch = crystals((2, 2))
    lattice_sums(cell, positions, batch, [Coulomb()])
    assert not calls
    lattice_sums(cell, positions.requires_grad_(), batch, [Coulomb()])
    assert len(calls) == 1


def test_gradients_from_cached_derivatives():
    cell, positions, batch = crystals()
    both = lattice_sums_and_derivatives(cell, positions, batch, POTENTIALS[:3])
    strain = torch.zeros(len(cell), 3, 3, dtype=torch.float64, requires_grad=True)
    positions.requires_grad_()
    deformation = torch.eye(3, dtype=torch.float64) + 0.5 * (strain + strain.transpose(1, 2))
    moved = (positions[:, None] @ deformation[batch])[:, 0]
    values = lattice_sums(cell @ deformation, moved, batch, POTENTIALS[:3]).values
    energy = values.square().sum()
    by_position, by_strain = torch.autograd.grad(energy, (positions, strain))
    found = backward_through(both, 2 * values.detach(), batch, len(cell))
    assert torch.allclose(found[0], by_position, rtol=1e-9, atol=1e-9)
    voigt = torch.stack([by_strain[:, i, j] for i, j in VOIGT], -1)
    assert torch.allclose(found[1], voigt, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("accuracy", [1e-3, 1e-5, 1e-8])
def test_stated_errors_of_derivatives(accuracy):
    cases = [case for case in named_cases() if len(case.positions) < 13]
    inputs = tensors(cases)
    potentials = [p for p in POTENTIALS if p != InversePower(0.3)]
    found = lattice_sums_and_derivatives(*inputs, potentials, accuracy)
    exact = lattice_sums_and_derivatives(*inputs, potentials, 1e-13)
    crystal = inputs[2][found.pair_index[0]]
    for k, name in enumerate(("by_vector", "by_strain")):
        error = (getattr(found, name) - getattr(exact, name)).abs().amax(-1)
        permitted = found.derivative_bound[..., k] + exact.derivative_bound[..., k]
        assert bool((error <= permitted[crystal]).all()), name
    # In the Å-sized units here they are within a few hundred times the accuracy, where rounding is not all.
    tight = found.derivative_bound[..., 0] < 200 * accuracy + 1e-6
    assert float(tight.double().mean()) > 0.9


def test_slopes_of_the_kernels_are_their_derivatives():
    """The closed forms against the base class, which takes them from autograd."""
    volume = torch.ones(4, dtype=torch.float64)
    kernels = [kernel for potential in POTENTIALS for _, kernel in potential.terms(volume)]
    r = torch.linspace(0.4, 9.0, 40, dtype=torch.float64).expand(4, 40)
    eta = torch.tensor([0.05, 0.3, 1.0, 4.0], dtype=torch.float64)[:, None]
    crystal = torch.arange(4)[:, None]
    x = eta * r * r
    terms = lattice.potentials.RealTerms(r, r * r, x, torch.exp(-x), crystal)
    for kernel in kernels:
        for name, arguments in (
            ("real_slope", (terms, eta)),
            ("reciprocal_slope", (r * r, eta, 50 * volume[:, None])),
        ):
            found, expected = getattr(kernel, name)(*arguments), getattr(Kernel, name)(kernel, *arguments)
            for one, other in zip(found, expected, strict=True):
                assert torch.allclose(one, other, rtol=1e-9, atol=1e-12), (kernel, name)
