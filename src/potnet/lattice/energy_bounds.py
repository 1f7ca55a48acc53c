"""Cutoffs that guarantee the accuracy of energies and forces, and the bounds themselves.

The number of atoms in a ball of radius s is at most n N(s), N(s) = prod(1 + 2 s / h_i) as in `bounds`, and a
sum of decreasing terms f beyond R is at most f(R) (N + N'/kappa + N''/kappa² + N'''/kappa³) where f falls at
least like exp(-kappa (s - R)). A kernel is a mixture of Gaussians, exp(-t r²) with t >= eta in real space and
exp(-G²/4t) with t <= eta in reciprocal space, so that

    terms                        |term| <=                                 kappa
    energy, real                 R(R)                                      2 eta R
    force, real     |R'(r)|      (2 eta r / e) R(sqrt(r² - 1/eta))         2 eta r - 1/r
    virial, real    r |R'(r)|    r times that                              2 eta r - 2/r
    energy, wave    F(G)         F(G)                                      G / 2 eta
    force, wave     G F(G)       G F(G)                                    G / 2 eta - 1/G
    virial, wave    G |F'(G)|    (G² / (2 eta e)) F(sqrt(G² - 4 eta))      G / 2 eta - 2/G

The two slopes follow from t exp(-t d) <= (eta / e) exp(0) at d = 1/eta, t >= eta, and its like for the waves.
With |charges| summed to q1 and at most q_max, an atom's energy is off by at most q_max q1 / 2 and its force
by q_max q1 times the bound of a pair. All of it is rigorous, for the truncation; float64 rounding comes on
top.

An estimate in place of the bound takes the terms left out as independent (Kolafa and Perram 1992, Mol. Simul.
9, 351): the root of the sum of their squares, with points as dense as on average and the sum of squared
charges in place of the square of their sum, times five.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from potnet.lattice.bounds import _count, _likely_count
from potnet.lattice.kernels import Kernel

# Standard deviations that an estimate allows for.
_DEVIATIONS = 5.0
# Exponents eta R² and G² / 4 eta that are tried: beyond the last, exp(-exponent) is below anything asked for.
_EXPONENTS = (2.0, 62.0, 121)


class EnergyBound(NamedTuple):
    """Bounds of the truncation errors of a crystal, (B, P) each, for charges and potentials without units.

    Attributes:
        energy: Of the energy of any one atom; a crystal's is off by at most n times as much.
        force: Of each component of the force on any one atom.
        virial: Of each component of stress times volume.
    """

    energy: Tensor
    force: Tensor
    virial: Tensor


def choose_cutoffs(
    kernels: list[Kernel],
    weights: Tensor,
    charges_max: Tensor,
    charges_sum: Tensor,
    charges_squared: Tensor,
    tolerance: Tensor,
    eta: Tensor,
    heights: Tensor,
    likely: bool = False,
) -> tuple[Tensor, Tensor, EnergyBound, EnergyBound]:
    """Smallest cutoffs that keep energies of atoms and forces within the tolerance.

    Args:
        kernels: Q kernels.
        weights: (P, Q) absolute coefficients.
        charges_max: (B, P) largest |charge|.
        charges_sum: (B, P) sum of |charges|.
        charges_squared: (B, P) sum of squared charges.
        tolerance: (P,).
        eta: (B,) 1/Å².
        heights: (B, 3) Gram-Schmidt lengths of the reduced cells, Å.
        likely: Estimate in place of bounding, see the top.

    Returns:
        Real cutoffs (B,) Å, reciprocal cutoffs (B,) 1/Å, and what they leave out at most, in real space and
        among the waves.
    """
    low, high, count = _EXPONENTS
    exponent = torch.linspace(low, high, count, dtype=eta.dtype, device=eta.device)[:, None]  # (E, 1)
    scale = charges_max * (_DEVIATIONS * charges_squared.sqrt() if likely else charges_sum)  # (B, P)
    real = (exponent / eta).sqrt()  # (E, B)
    wave = (4 * eta * exponent).sqrt()
    # Rows of the table: energies, forces, virials; real space, waves.
    kinds = torch.arange(3, dtype=eta.dtype, device=eta.device)[:, None, None]
    tails = []
    for cutoff, rate, inverse, upper in (
        (real, 2 * eta * real, 1 / heights, _real_upper),
        (wave, wave / (2 * eta), heights / (2 * math.pi), _wave_upper),
    ):
        terms = upper(kernels, weights, cutoff, eta, heights.prod(-1))  # (3, E, B, P)
        rate = rate - kinds / cutoff
        terms = terms * scale
        count_of = (
            _likely_count(cutoff, 2 * rate, inverse).sqrt() if likely else _count(cutoff, rate, inverse)
        )
        tails.append(terms * count_of[..., None])
    half = 0.5 * tolerance
    chosen = []
    for tail in tails:
        fits = (tail[:2] <= half).all(0).all(-1)  # (E, B)
        # Tails fall: the first of the exponents that fits, or the last if none does, and the bound says so.
        chosen.append((~fits).sum(0).clamp(max=count - 1))
    crystal = torch.arange(len(eta), device=eta.device)
    bounds = []
    for tail, at in zip(tails, chosen, strict=True):
        energy, force, virial = tail[:, at, crystal]
        bounds.append(EnergyBound(energy, force, virial * charges_sum / charges_max.clamp(min=1e-300)))
    # Waves carry 1/V, which a strain changes too.
    bounds[1] = bounds[1]._replace(
        virial=bounds[1].virial + bounds[1].energy * charges_sum / charges_max.clamp(min=1e-300)
    )
    return real[chosen[0], crystal], wave[chosen[1], crystal], bounds[0], bounds[1]


def _real_upper(
    kernels: list[Kernel], weights: Tensor, cutoff: Tensor, eta: Tensor, volume: Tensor
) -> Tensor:
    """Upper bounds of a pair's energy (half), force and virial (half) at `cutoff` (E, B) Å: (3, E, B, P)."""
    both = torch.stack([cutoff, (cutoff * cutoff - 1 / eta).sqrt()])
    upper = torch.stack([kernel.real_upper(both, eta.expand_as(both)) for kernel in kernels], -1) @ weights.T
    slope = (2 / math.e * eta * cutoff)[..., None] * upper[1]
    return torch.stack([0.5 * upper[0], slope, 0.5 * cutoff[..., None] * slope])


def _wave_upper(
    kernels: list[Kernel], weights: Tensor, cutoff: Tensor, eta: Tensor, volume: Tensor
) -> Tensor:
    """The same for a wave at `cutoff` (E, B) 1/Å."""
    both = torch.stack([cutoff, (cutoff * cutoff - 4 * eta).sqrt()])
    upper = torch.stack([kernel.reciprocal_upper(both, eta, volume) for kernel in kernels], -1) @ weights.T
    rate = cutoff[..., None]
    virial = 0.5 * upper[1] * rate * rate / (2 * math.e * eta)[:, None]
    return torch.stack([0.5 * upper[0], rate * upper[0], virial])
