"""Radius-cut sums, against the reference's images in a ball and against the complete sums."""

import numpy as np
import pytest
import torch
from lattice_cases import (
    POTENTIALS,
    Case,
    named_cases,
    random_cases,
    rotation,
    some_pairs,
    tensors,
    unimodular,
)
from lattice_reference import Real, points, shortened, value

from potnet.lattice import Coulomb, LatticeError, London, Pauli, lattice_sums, truncated_sums

POTENTIAL = [potential for potential, _ in POTENTIALS]
CASES = [
    case for case in [*named_cases(), *random_cases(6, seed=61, most_atoms=8)] if len(case.positions) <= 12
]


def pick(sums, cases, number, pairs):
    sizes = [len(case.positions) for case in cases]
    start = sum(n * n for n in sizes[:number])
    return sums.values[[start + a * sizes[number] + b for a, b in pairs]].numpy()


@pytest.mark.parametrize("cutoff", [1.0, 4.321, 9.137])
def test_images_in_a_ball(cutoff):
    sums = truncated_sums(*tensors(CASES), POTENTIAL, cutoff)
    assert float(sums.bound.abs().amax()) == 0
    for number, case in enumerate(CASES):
        pairs = some_pairs(case, 3, np.random.default_rng(number))
        for (a, b), found in zip(pairs, pick(sums, CASES, number, pairs), strict=True):
            v = case.positions[a].astype(Real) - case.positions[b].astype(Real)
            r = np.sqrt((points(shortened(case.cell), v, cutoff + 1e-4) ** 2).sum(1))
            r = r[r > 1e-9]
            for (_, spec), column in zip(POTENTIALS, found, strict=True):
                terms = [Real(c) * value(kind, q, r) for c, kind, q in spec.terms]
                size = float(sum(abs(t).sum() for t in terms))
                assert abs(column - float(sum(t.sum() for t in terms))) <= 1e-12 * size


def test_fast_potentials_are_complete_at_a_large_radius():
    """exp(-3 r) beyond 14 Å: 1e-18 times the number of images."""
    complete = lattice_sums(*tensors(CASES), [Pauli(3.0), Pauli(20.0)], 1e-12)
    cut = truncated_sums(*tensors(CASES), [Pauli(3.0), Pauli(20.0)], 14.0)
    assert torch.equal(complete.pair_index, cut.pair_index)
    assert float((complete.values - cut.values).abs().amax()) < 2e-12


def test_what_a_radius_leaves_out():
    """For 1/r^6 about 4π/3 / (V R³); a check that "complete" and "cut" are the same sum."""
    case = named_cases()[0]
    complete = lattice_sums(*tensors([case]), [London()], 1e-12).values
    for cutoff in (15.0, 30.0):
        missing = complete - truncated_sums(*tensors([case]), [London()], cutoff).values
        expected = 4 * np.pi / 3 / (np.linalg.det(case.cell) * cutoff**3)
        assert bool((missing > 0).all())
        assert float(missing.mean() / expected) == pytest.approx(1.0, abs=0.1)


def test_choice_of_cell_does_not_matter():
    rng = np.random.default_rng(8)
    turn = rotation(rng)
    moved = [
        Case(
            c.name,
            unimodular(rng) @ c.cell @ turn,
            (c.positions + rng.integers(-2, 3, c.positions.shape) @ c.cell) @ turn,
        )
        for c in CASES
    ]
    before = truncated_sums(*tensors(CASES), POTENTIAL, 6.0).values
    assert torch.allclose(
        before, truncated_sums(*tensors(moved), POTENTIAL, 6.0).values, rtol=1e-9, atol=1e-10
    )


def test_whole_shells_are_counted():
    """The cutoff may be the very length of an edge: rounding must not split a shell."""
    case = Case("cubic", 3.3 * np.eye(3), np.array([[0.1, 0.2, 0.3]]))
    rng = np.random.default_rng(0)
    for _ in range(5):
        turned = Case("turned", case.cell @ rotation(rng), case.positions)
        sums = truncated_sums(*tensors([turned]), [Coulomb()], 3.3)
        assert float(sums.values) == pytest.approx(6 / 3.3, rel=1e-12)


def test_nothing_within_reach():
    sums = truncated_sums(*tensors([named_cases()[14]]), [Coulomb(), London()], 5.0)
    assert sums.values.tolist() == [[0.0, 0.0]]


def test_published_convention_counts_the_atom_itself():
    case = named_cases()[1]
    sums = truncated_sums(*tensors([case]), [Pauli(3.0, convention="published")], 20.0)
    complete = lattice_sums(*tensors([case]), [Pauli(3.0, convention="published")], 1e-12)
    far = 4 * np.pi / np.linalg.det(case.cell) * 20.0**2 * np.exp(-3.0 * 0.4 * 20)
    assert float((sums.values - complete.values).abs().amax()) < max(1e-6, 10 * abs(far))
    assert float(sums.values[0]) > 1.0
    assert float(sums.values[1]) < float(sums.values[0])


def test_derivatives():
    case = CASES[1]
    cell, positions, batch = tensors([case])

    def sums(cell, positions):
        return truncated_sums(cell, positions, batch, [Coulomb(), Pauli()], 6.1).values

    inputs = (cell.requires_grad_(), positions.requires_grad_())
    assert torch.autograd.gradcheck(sums, inputs, eps=1e-6, atol=1e-6)
    assert torch.autograd.gradgradcheck(sums, inputs, eps=1e-6, atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan")])
def test_cutoff_must_be_positive(cutoff):
    with pytest.raises(ValueError, match="cutoff must be positive"):
        truncated_sums(*tensors(CASES[:1]), [Coulomb()], cutoff)


def test_bad_crystals():
    cell, positions, batch = tensors(CASES[:3])
    spoilt = cell.clone()
    spoilt[1, 2] = spoilt[1, 1]
    with pytest.raises(LatticeError, match="crystal 1: the cell is singular"):
        truncated_sums(spoilt, positions, batch, [Coulomb()], 4.0)
    positions[9] = positions[8]
    with pytest.raises(LatticeError, match="crystal 1: sites 0 and 1"):
        truncated_sums(cell, positions, batch, [Coulomb()], 4.0)
