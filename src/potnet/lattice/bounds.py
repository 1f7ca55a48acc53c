"""Cutoffs that guarantee an accuracy, and the bounds themselves.

Let N(s) be an upper bound for the number of points of a lattice, shifted or not, in a ball of radius s.
With the Gram-Schmidt
lengths h_i of a basis, N(s) = prod(1 + 2 s / h_i): in each direction the points lie in layers h_i apart.
For a decreasing f, summation by parts gives

    sum over |x| > R of f(|x|)  <=  f(R) N(R) + ∫_R^∞ f(s) N'(s) ds.

The real part of every kernel falls at least as fast as its slowest Gaussian, -f'/f >= 2 eta s, and the
reciprocal part likewise, -F'/F
>= G / 2 eta. So f(s) <= f(R) exp(-kappa (s - R)) with kappa taken at the cutoff, and the integral is
elementary:

    tail(R) <= f(R) * sum over j = 0..3 of N^(j)(R) / kappa^j.

The bound is rigorous for every lattice, kernel and R > 0, decreases in R, and needs nothing of a kernel
but an upper bound of its value.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from potnet.lattice.kernels import Kernel

_Function = Callable[[Tensor], Tensor]

# Points of a grid, and how often it is made finer: a cutoff's exponent, about 25, is then less than a tenth
# of a percent too large. In a large batch on a CPU smaller grids cost less than the calls they add.
FEW_CALLS, FEW_POINTS = (40, 2), (6, 4)
# What multiplies exp(-exponent), the number of lattice points within reach above all: less than exp of this.
_PREFACTOR = 40.0
# Shells of points come at once where a density would have them come gradually: this factor keeps more than
# 99.9 % of the sums within the accuracy (fitted: `benchmarks/lattice_sums.py`; checked on other crystals:
# `benchmarks/estimate_mode.py`).
_SAFETY = 3.0


def _count(radius: Tensor, kappa: Tensor, inverse_heights: Tensor) -> Tensor:
    """Sum over j of N^(j)(s) / kappa^j at s = `radius` (B,), N(s) = prod(1 + 2 s q_i), q = 1 / h (B, 3)."""
    p, q, r = (2 * inverse_heights).unbind(-1)
    first, second, third = p + q + r, p * q + p * r + q * r, p * q * r
    zeroth = 1 + radius * (first + radius * (second + radius * third))
    slope = first + radius * (2 * second + 3 * radius * third)
    return zeroth + (slope + (2 * second + 6 * radius * third + 6 * third / kappa) / kappa) / kappa


def _likely_count(radius: Tensor, kappa: Tensor, inverse_heights: Tensor) -> Tensor:
    """The same sum without its first term, and with the volume of a ball for the number of points in it.

    What is left is ∫ f(s) N'(s) ds / f(R), the sum itself where the points are as dense as on average:
    N(s) is the number of points of the line, the plane and the space that the vectors span.
    """
    p, q, r = inverse_heights.unbind(-1)
    first, second, third = 2 * p, math.pi * p * q, 4 / 3 * math.pi * p * q * r
    slope = first + radius * (2 * second + 3 * radius * third)
    return _SAFETY * (slope + (2 * second + 6 * radius * third + 6 * third / kappa) / kappa) / kappa


def real_tail(kernel: Kernel, cutoff: Tensor, eta: Tensor, heights: Tensor) -> Tensor:
    """Bound of the real-space terms beyond `cutoff` (B,) Å, for eta (B,) and cell heights (B, 3). (B,)."""
    return kernel.real_upper(cutoff, eta) * _count(cutoff, 2 * eta * cutoff, 1 / heights)


def reciprocal_tail(kernel: Kernel, cutoff: Tensor, eta: Tensor, heights: Tensor) -> Tensor:
    """Bound of the reciprocal terms beyond `cutoff` (B,) 1/Å: (B,). The reciprocal heights are 2π / h."""
    value = kernel.reciprocal_upper(cutoff, eta, heights.prod(-1))
    return value * _count(cutoff, cutoff / (2 * eta), heights / (2 * math.pi))


def cutoffs(
    kernels: list[Kernel],
    weights: Tensor,
    tolerance: Tensor,
    eta: Tensor,
    heights: Tensor,
    *,
    likely: bool = False,
    strictest: float | None = None,
    grid: tuple[int, int] = FEW_CALLS,
) -> tuple[Tensor, Tensor, Tensor]:
    """Smallest cutoffs whose tails stay within the tolerance, half of it on each side.

    Args:
        kernels: Q kernels.
        weights: (P, Q), absolute coefficients of the kernels in each potential.
        tolerance: (P,) or (B, P), permitted truncation error of each potential.
        eta: (B,) splitting parameters, 1/Å².
        heights: (B, 3) Gram-Schmidt lengths of the reduced cells, Å.
        likely: Estimate the tails, in place of bounding them.
        strictest: Largest sum of weights over tolerance, where it is known without asking a GPU.
        grid: `FEW_CALLS` or `FEW_POINTS`.

    Returns:
        Real cutoffs (B,) Å, reciprocal cutoffs (B,) 1/Å, and truncation bounds (B, P).
    """
    if strictest is None:
        strictest = float((weights.sum(1) / tolerance).amax())
    largest = _PREFACTOR + max(0.0, math.log(strictest))
    count = _likely_count if likely else _count
    volume, dual = heights.prod(-1), heights / (2 * math.pi)

    def real_tails(cutoff: Tensor) -> Tensor:
        upper = torch.stack([kernel.real_upper(cutoff, eta) for kernel in kernels], -1)
        return upper @ weights.T * count(cutoff, 2 * eta * cutoff, 1 / heights)[..., None]

    def reciprocal_tails(cutoff: Tensor) -> Tensor:
        upper = torch.stack([kernel.reciprocal_upper(cutoff, eta, volume) for kernel in kernels], -1)
        return upper @ weights.T * count(cutoff, cutoff / (2 * eta), dual)[..., None]

    points, rounds = grid
    steps = torch.arange(1, points + 1, dtype=eta.dtype, device=eta.device)[:, None] / (points + 1)

    def solve(tails: _Function, radius: _Function) -> tuple[Tensor, Tensor]:
        low, width = torch.zeros_like(eta), largest
        for _ in range(rounds):
            # Tails fall with the cutoff: the points that don't fit come first.
            fits = (tails(radius(low + width * steps)) <= 0.5 * tolerance).all(-1)
            width = width / (points + 1)
            low = low + width * (~fits).sum(0)
        high = low + width
        return radius(high), tails(radius(high))

    # Solved for the exponent, eta R² or G² / 4 eta: of the order of -log(accuracy) for every crystal.
    real, real_bound = solve(real_tails, lambda exponent: (exponent / eta).sqrt())
    reciprocal, reciprocal_bound = solve(reciprocal_tails, lambda exponent: (4 * eta * exponent).sqrt())
    return real, reciprocal, real_bound + reciprocal_bound


def derivative_tails(
    kernels: list[Kernel],
    weights: Tensor,
    eta: Tensor,
    heights: Tensor,
    real_cutoff: Tensor,
    reciprocal_cutoff: Tensor,
) -> Tensor:
    """Bounds of what truncation leaves out of dS/dv and of dS/dstrain, (B, P, 2) in phi/Å and phi.

    R and F are convex in r, respectively G², wherever a cutoff lies: |R'(r)| <= R(r - d) / d for any d, and
    |F'(G²)| <= F(sqrt(G² - c)) / c. With d = 1 / 2 eta R and c = 4 eta the slope of the logarithm is known
    as for the sums themselves, less what the factors r, G and G² add.

    Args:
        kernels: Q kernels.
        weights: (P, Q), absolute coefficients.
        eta: (B,) 1/Å².
        heights: (B, 3) of the reduced cells, Å.
        real_cutoff: (B,) Å; eta times its square must be above 2.
        reciprocal_cutoff: (B,) 1/Å; its square over 4 eta must be above 2.
    """
    volume, dual = heights.prod(-1), heights / (2 * math.pi)
    step = 1 / (2 * eta * real_cutoff)
    kappa = 1 / step - 1 / real_cutoff
    slope = torch.stack([k.real_upper(real_cutoff - step, eta) for k in kernels], -1) / step[:, None]
    force = slope * _count(real_cutoff, kappa, 1 / heights)[:, None]
    further = _count(real_cutoff, kappa - 1 / real_cutoff, 1 / heights)
    stress = slope * (real_cutoff * further)[:, None]

    g, kappa = reciprocal_cutoff, reciprocal_cutoff / (2 * eta)
    upper = torch.stack([k.reciprocal_upper(g, eta, volume) for k in kernels], -1)
    nearer = (g * g - 4 * eta).clamp(min=0).sqrt()
    slope = torch.stack([k.reciprocal_upper(nearer, eta, volume) for k in kernels], -1) / (4 * eta)[:, None]
    force = force + upper * (g * _count(g, kappa - 1 / g, dual))[:, None]
    stress = stress + upper * _count(g, kappa, dual)[:, None]
    stress = stress + slope * (2 * g * g * _count(g, kappa - 2 / g, dual))[:, None]
    # Parameters that follow the volume add a part of the trace.
    following = 1 + 3 * torch.tensor([abs(k.volume_exponent) for k in kernels], dtype=eta.dtype)
    both = torch.stack([force, stress * following.to(eta.device)], 1) @ weights.T
    return both.transpose(1, 2)


def steepness(kernels: list[Kernel], nearest: Tensor) -> Tensor:
    """-phi'/phi at the shortest distances `nearest` (B,) Å, in 1/Å, (B, Q).

    By differences, so that nothing depends on whether gradients are on. Where phi has vanished in float64,
    so has its sum.
    """
    farther = nearest * (1 + 1e-4)
    steep = torch.stack([1 - kernel.value(farther) / kernel.value(nearest) for kernel in kernels], -1)
    return (steep / (farther - nearest)[:, None]).nan_to_num(0.0)


def rounding(
    kernels: list[Kernel],
    real: Tensor,
    smooth: Tensor,
    nearest: Tensor,
    blur: Tensor,
    edges: Tensor,
    eta: Tensor,
    cutoff: Tensor,
    heights: Tensor,
) -> Tensor:
    """Estimate of what float64 loses, (B, Q).

    A sum of K positive terms loses up to K/2 times eps times its size when small terms are lost one by one,
    in practice a tenth of that. Coordinates lose eps times their largest part, `blur`, and a distance that is
    off by d changes the terms by d times their slope: relative to the terms -phi'/phi at the shortest
    distance, or about sqrt(eta) where the Gaussians decide. The volume is off by eps times edges / heights.

    Args:
        kernels: Q kernels.
        real: (B, Q), the largest real-space sum.
        smooth: (B, Q), sum of absolute reciprocal terms, background and limit at zero distance.
        nearest: (B,) shortest distance, Å.
        blur: (B,) largest of the numbers that coordinates are made from, Å.
        edges: (B,) the same for the reduced cell, Å.
        eta: (B,) splitting parameters, 1/Å².
        cutoff: (B,) real cutoffs, Å.
        heights: (B, 3) Gram-Schmidt lengths of the reduced cells, Å.
    """
    steep = steepness(kernels, nearest)
    gaussian = 2 * eta.sqrt()[:, None]
    # Errors of many coordinates partly cancel: half was never reached in trials.
    moved = 0.5 * blur[:, None] * (steep * real + gaussian * (real + smooth))
    stretched = (edges / heights.amin(-1))[:, None] * smooth
    terms = 4 / 3 * math.pi * cutoff**3 / heights.prod(-1)
    summed = (4 + 0.1 * terms)[:, None] * real + 4 * smooth
    return torch.finfo(torch.float64).eps * (summed + moved + stretched)


def rounding_in_single(
    kernels: list[Kernel],
    real: Tensor,
    smooth: Tensor,
    nearest: Tensor,
    corner: Tensor,
    eta: Tensor,
    cutoff: Tensor,
    heights: Tensor,
) -> Tensor:
    """Estimate of what float32 loses of terms whose distances are made in float64, (B, Q).

    As in `rounding`, but a distance, and a parameter, is off by eps times itself, and so is a phase: at most
    `corner` times a wave number, which is about sqrt(eta) where waves count. Terms below 1e-38 vanish.

    Args:
        kernels: Q kernels.
        real: (B, Q), as for `rounding`, like all others.
        smooth: (B, Q).
        nearest: (B,) Å.
        corner: (B,) half of the longest diagonal of the reduced cell, Å.
        eta: (B,) 1/Å².
        cutoff: (B,) Å.
        heights: (B, 3) Å.
    """
    slope = nearest[:, None] * steepness(kernels, nearest)
    terms = 4 / 3 * math.pi * cutoff**3 / heights.prod(-1)
    summed = (4 + 0.1 * terms)[:, None] * real + 4 * smooth
    moved = 2 * slope * real + (corner * eta.sqrt())[:, None] * smooth
    precision = torch.finfo(torch.float32)
    return precision.eps * (summed + moved) + precision.tiny * (1 + terms)[:, None]
