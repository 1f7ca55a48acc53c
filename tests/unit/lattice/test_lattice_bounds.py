"""The lemma behind the cutoffs, and the tails themselves, against explicit sums."""

import math

import numpy as np
import pytest
import torch
from lattice_cases import from_parameters, random_cases
from lattice_reference import Real, points, shortened
from torch import Tensor

from potnet.lattice import bounds, cells
from potnet.lattice.potentials import ExponentialKernel, PowerKernel, RealTerms, ScreenedKernel

KERNELS = [
    *(PowerKernel(p) for p in (0.5, 1.0, 2.0, 2.5, 3.0, 3.5, 6.0)),
    ExponentialKernel(0.05),
    ExponentialKernel(3.0),
    ExponentialKernel(50.0),
    ScreenedKernel(0.05),
    ScreenedKernel(1.0),
    ScreenedKernel(20.0),
]
LATTICES = [
    *(case.cell for case in random_cases(12, seed=21, most_atoms=1)),
    np.eye(3) * 2.0,
    np.diag([60.0, 60.0, 2.0]),
    np.diag([2.0, 2.0, 60.0]),
    from_parameters(3.0, 3.0, 45.0, 90, 90, 120),
]


def reduced(cell):
    cell = torch.from_numpy(cell)[None]
    return cells.reduce(cell) @ cell


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def test_points_in_a_ball():
    """At most prod(1 + 2 s / h) lattice points in any ball of radius s, for a lattice and its reciprocal."""
    rng = np.random.default_rng(0)
    for lattice in LATTICES:
        cell = reduced(lattice)
        heights = cells.heights(cell)[0].numpy()
        direct, dual = cell[0].numpy(), 2 * np.pi * np.linalg.inv(cell[0].numpy()).T
        for basis, h in ((direct, heights), (dual, 2 * np.pi / heights)):
            for _ in range(6):
                s = h[rng.integers(3)] * rng.choice([0.01, 0.3, 0.5, 1.0, 2.0]) * (1 + 1e-12)
                s = min(s, 4 * np.cbrt(np.prod(h)))
                centre = rng.choice([0.0, 0.5, rng.random()], 3) @ basis
                count = len(points(shortened(basis), centre.astype(Real), s))
                assert count <= np.prod(1 + 2 * s / h) * (1 + 1e-9)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_upper_bounds_of_the_kernels(kernel):
    """What the tails rest on: an upper bound, and logarithmic slopes of at least 2 eta r and G / 2 eta."""
    for eta in (0.001, 0.03, 0.3, 5.0):
        r = torch.linspace(0.05, 40.0, 4000, dtype=torch.float64)
        etas = torch.full_like(r, eta)
        terms = RealTerms(
            r, r * r, eta * r * r, torch.exp(-eta * r * r), torch.zeros(len(r), dtype=torch.int64)
        )
        upper = kernel.real_upper(r, etas)
        exact = kernel.real(terms, eta)
        assert bool((exact <= upper * (1 + 1e-10) + 1e-200).all())
        assert bool(
            (
                upper[1:] <= upper[:-1] * torch.exp(-eta * (r[1:] ** 2 - r[:-1] ** 2)) * (1 + 1e-9) + 1e-200
            ).all()
        )
        g = torch.linspace(0.02, 20.0, 4000, dtype=torch.float64)
        volume = torch.full_like(g, 55.0)
        upper = kernel.reciprocal_upper(g, torch.full_like(g, eta), volume)
        exact = kernel.reciprocal((g * g)[None], eta, volume[:1, None])[0]
        # The recursion for high powers keeps absolute, not relative, digits.
        size = float(kernel.background(eta, volume[:1]).abs()[0])
        assert bool((exact <= upper * (1 + 1e-10) + 1e-15 * size).all())
        assert bool(
            (
                upper[1:]
                <= upper[:-1] * torch.exp(-(g[1:] ** 2 - g[:-1] ** 2) / (4 * eta)) * (1 + 1e-9) + 1e-200
            ).all()
        )


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_real_tail(kernel):
    """The bound is above the terms beyond the cutoff, all of one sign, wherever the lattice is shifted to."""
    rng = np.random.default_rng(5)
    for cell in LATTICES[::3]:
        basis = reduced(cell)
        heights = cells.heights(basis)
        size = float(heights.prod()) ** (1 / 3)
        for eta in (3.0 / size**2, 0.5 / size**2):
            cutoff = rng.uniform(1.0, 3.0) / math.sqrt(eta)
            beyond = np.concatenate(
                [
                    points(
                        basis[0].numpy().astype(Real),
                        (rng.random(3) @ cell).astype(Real),
                        6.5 / math.sqrt(eta),
                    ),
                ]
            )
            r = np.sqrt((beyond**2).sum(1)).astype(float)
            r = torch.from_numpy(r[r > cutoff])
            terms = RealTerms(
                r, r * r, eta * r * r, torch.exp(-eta * r * r), torch.zeros(len(r), dtype=torch.int64)
            )
            true = float(kernel.real(terms, eta).sum())
            bound = float(bounds.real_tail(kernel, one(cutoff), one(eta), heights))
            assert true <= bound


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_reciprocal_tail(kernel):
    rng = np.random.default_rng(6)
    for cell in LATTICES[::3]:
        basis = reduced(cell)
        heights = cells.heights(basis)
        volume = float(heights.prod())
        dual = 2 * np.pi * np.linalg.inv(basis[0].numpy()).T
        for eta in (3.0 / volume ** (2 / 3), 10.0 / volume ** (2 / 3)):
            cutoff = rng.uniform(1.0, 3.0) * 2 * math.sqrt(eta)
            beyond = points(dual.astype(Real), np.zeros(3, Real), 13 * math.sqrt(eta))
            g2 = torch.from_numpy((beyond**2).sum(1).astype(float))
            g2 = g2[g2 > cutoff**2]
            true = float(
                kernel.reciprocal(g2[None], eta, torch.tensor([[volume]], dtype=torch.float64)).sum()
            )
            bound = float(bounds.reciprocal_tail(kernel, one(cutoff), one(eta), heights))
            assert true <= bound


def test_tails_fall_with_the_cutoff():
    heights = torch.tensor([[2.0, 5.0, 40.0]], dtype=torch.float64).expand(200, 3)
    eta = torch.full((200,), 0.1, dtype=torch.float64)
    for kernel in KERNELS:
        real = bounds.real_tail(kernel, torch.linspace(0.3, 30, 200, dtype=torch.float64), eta, heights)
        reciprocal = bounds.reciprocal_tail(
            kernel, torch.linspace(0.05, 8, 200, dtype=torch.float64), eta, heights
        )
        assert bool((real.diff() <= 0).all())
        assert bool((reciprocal.diff() <= 0).all())


@pytest.mark.parametrize("accuracy", [1e-4, 1e-8, 1e-12])
def test_cutoffs_meet_the_tolerance_and_hardly_more(accuracy):
    basis = torch.cat([reduced(cell) for cell in LATTICES])
    heights = cells.heights(basis)
    eta = torch.pi / heights.prod(-1) ** (2 / 3)
    weights = torch.eye(len(KERNELS), dtype=torch.float64)
    tolerance = torch.full((len(KERNELS),), accuracy, dtype=torch.float64)
    real, reciprocal, bound = bounds.cutoffs(KERNELS, weights, tolerance, eta, heights)
    assert bool((bound <= tolerance).all())
    # A hundredth less would not do.
    for cutoff, tail in ((real, bounds.real_tail), (reciprocal, bounds.reciprocal_tail)):
        tails = torch.stack([tail(kernel, 0.99 * cutoff, eta, heights) for kernel in KERNELS], -1)
        assert bool((tails > 0.5 * accuracy).any(1).all())
