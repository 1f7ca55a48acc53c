"""The reference itself: its three methods share nothing and agree far beyond float64."""

import numpy as np
import pytest
from lattice_cases import named_cases, random_cases
from lattice_reference import (
    REFERENCE_EPS,
    Real,
    brute_force,
    coulomb_by_planes,
    exponential,
    lennard_jones,
    morse,
    power,
    quadrature_sums,
    screened,
)

CASES = [*named_cases()[:9], *random_cases(6, seed=11, most_atoms=6)]
ALL = [
    power(0.5),
    power(1),
    power(2.5),
    power(6),
    exponential(3.0),
    exponential(0.3),
    screened(0.2),
    lennard_jones(1.2),
    morse(1.0, 1.5),
]


def vectors(case):
    x = case.positions.astype(Real)
    return np.stack([np.zeros(3, Real), *(x[:1] - x[1:3])])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_quadrature_agrees_with_lattice_planes(case):
    sums, scale = quadrature_sums(case.cell, vectors(case), [power(0.5)])
    planes = [coulomb_by_planes(case.cell, v) for v in vectors(case)]
    # The planes are summed to exp(-46) = 1e-20 and share no scale with the quadrature.
    assert np.all(abs(sums[:, 0] - planes) <= 1e-17 + 300 * REFERENCE_EPS * scale[:, 0])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_quadrature_agrees_with_brute_force(case):
    v = vectors(case)[:2]
    fast = [exponential(3.0), exponential(2.0), screened(2.5), morse(2.0, 1.1)]
    slow = [power(6), power(5), lennard_jones(1.2)]
    for specs, radius, largest in ((fast, 35.0, 1e-12), (slow, 45.0, 1e-4)):
        sums, scale = quadrature_sums(case.cell, v, specs)
        for row, size, vector in zip(sums, scale, v, strict=True):
            direct, tail = brute_force(case.cell, vector, specs, radius)
            assert np.all(abs(row - direct) <= tail + 1e-22 + 300 * REFERENCE_EPS * size)
            if np.linalg.norm(case.cell, axis=1).sum() < 20:  # in larger cells the tail bound is poor
                assert np.all(tail < largest)


@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_quadrature_is_converged(case):
    coarse, scale = quadrature_sums(case.cell, vectors(case), ALL)
    fine, _ = quadrature_sums(case.cell, vectors(case), ALL, nodes=24, panel=0.35)
    assert np.all(abs(coarse - fine) <= 1e-24 + 100 * REFERENCE_EPS * scale)


def test_brute_force_tail_is_a_bound():
    case = CASES[5]
    v = vectors(case)[1]
    far, _ = brute_force(case.cell, v, [power(3)], 60.0)
    for radius in (8.0, 15.0, 25.0):
        near, tail = brute_force(case.cell, v, [power(3)], radius)
        assert 0 < far[0] - near[0] <= tail[0]
