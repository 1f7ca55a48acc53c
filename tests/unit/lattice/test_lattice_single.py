"""Terms in float32 from an accuracy of 1e-4 on: within the bound, which says so; else float64."""

import numpy as np
import pytest
import torch
from lattice_cases import POTENTIALS, Case, named_cases, random_cases, tensors

from potnet.lattice import Coulomb, London, Pauli, lattice_sums, lattice_sums_and_derivatives, plan, task

POTENTIAL = [potential for potential, _ in POTENTIALS]
SOME = [Coulomb(), London(), Pauli(3.0)]


@pytest.fixture(scope="module")
def crystals():
    inputs = tensors([*named_cases(), *random_cases(24, seed=7, most_atoms=9)])
    return inputs, lattice_sums(*inputs, POTENTIAL, 1e-13)


def in_double(monkeypatch, function, *args):
    with monkeypatch.context() as patch:
        patch.setattr(task, "SINGLE_FROM", float("inf"))
        return function(*args)


@pytest.mark.parametrize(("accuracy", "dense"), [(1e-4, False), (1e-3, True), (1e-2, False)])
def test_errors_are_within_the_bound_and_the_bound_within_the_accuracy(
    monkeypatch, crystals, accuracy, dense
):
    if dense:  # as on a GPU
        monkeypatch.setitem(plan.STYLES, "cpu", plan.STYLES["cuda"])
    inputs, exact = crystals
    rounded = 0
    for column, potential in list(enumerate(POTENTIAL))[:: 3 if dense else 1]:
        found = lattice_sums(*inputs, [potential], accuracy)
        double = in_double(monkeypatch, lattice_sums, *inputs, [potential], accuracy)
        crystal = inputs[2][found.pair_index[0]]
        error = (found.values[:, 0] - exact.values[:, column]).abs()
        assert bool((error <= found.bound[crystal, 0] + exact.bound[crystal, column]).all())
        assert bool((found.bound <= accuracy).all())
        # What float32 adds to the bound covers what it changes.
        changed = (found.values - double.values).abs()[:, 0]
        assert bool((changed <= (found.bound - double.bound)[crystal, 0] + 1e-12 + 1e-12 * error).all())
        rounded += int((changed > 1e-10).sum())
    assert rounded > 100  # it is float32 indeed


def test_close_atoms_are_computed_again_in_float64(monkeypatch):
    cell = 4.0 * np.eye(3)
    near = Case("near", cell, np.array([[0.0, 0, 0], [0.3, 0, 0], [2.0, 2, 2], [0.0, 2, 2]]))
    far = Case("far", cell, np.array([[0.0, 0, 0], [2.0, 2, 2]]))
    # As on a GPU, where crystals of 2 and 4 atoms are never summed together.
    monkeypatch.setitem(plan.STYLES, "cpu", plan.STYLES["cuda"])
    inputs = tensors([near, far])
    found = lattice_sums(*inputs, SOME, 1e-4)
    double = in_double(monkeypatch, lattice_sums, *inputs, SOME, 1e-4)
    crystal = inputs[2][found.pair_index[0]]
    assert torch.equal(found.values[crystal == 0], double.values[crystal == 0])
    assert torch.equal(found.bound[0], double.bound[0])
    assert not torch.equal(found.values[crystal == 1], double.values[crystal == 1])
    assert bool((found.bound <= 1e-4).all())


def test_sums_with_gradients_are_in_float64(monkeypatch, crystals):
    """Forces are derivatives of the sums themselves, which finite differences of float32 would not show."""
    cell, positions, batch = crystals[0]
    double = in_double(monkeypatch, lattice_sums, cell, positions, batch, SOME, 1e-4)
    found = lattice_sums(cell, positions.clone().requires_grad_(), batch, SOME, 1e-4)
    assert torch.allclose(found.values, double.values, rtol=1e-12, atol=1e-12)
    assert torch.allclose(found.bound, double.bound, rtol=1e-6)


def test_better_accuracies_are_in_float64(monkeypatch, crystals):
    inputs, _ = crystals
    for accuracy in (9e-5, [1e-3, 1e-5, 1e-3]):
        found = lattice_sums(*inputs, SOME, accuracy)
        assert torch.equal(found.values, in_double(monkeypatch, lattice_sums, *inputs, SOME, accuracy).values)


@pytest.mark.parametrize("dense", [False, True])
def test_derivatives_have_the_stated_error(monkeypatch, crystals, dense):
    if dense:
        monkeypatch.setitem(plan.STYLES, "cpu", plan.STYLES["cuda"])
    inputs, _ = crystals
    exact = lattice_sums_and_derivatives(*inputs, SOME, 1e-12)
    found = lattice_sums_and_derivatives(*inputs, SOME, 1e-4)
    crystal = inputs[2][found.pair_index[0]]
    for i, name in enumerate(("by_vector", "by_strain")):
        error = (getattr(found, name) - getattr(exact, name)).abs().amax(-1)
        assert bool((error <= found.derivative_bound[crystal, :, i]).all())
    assert bool(((found.values - exact.values).abs() <= found.bound[crystal]).all())
    assert not torch.equal(found.values, lattice_sums(*inputs, SOME, 9e-5).values)
