"""Cutoffs that guarantee the accuracy of energies and forces, and the bounds themselves.

The number of atoms in a ball of radius s is at most n N(s), N(s) = prod(1 + 2 s / h_i) as in `bounds`, and a sum of
decreasing terms f beyond R is at most f(R) (N + N'/kappa + N''/kappa² + N'''/kappa³) where f falls at least like
exp(-kappa (s - R)). A kernel is a mixture of Gaussians, exp(-t r²) with t >= eta in real space and exp(-G²/4t) with
t <= eta in reciprocal space, so that

    terms                        |term| <=                                 kappa
    energy, real                 R(R)                                      2 eta R
    force, real     |R'(r)|      (2 eta r / e) R(sqrt(r² - 1/eta))         2 eta r - 1/r
    virial, real    r |R'(r)|    r times that                              2 eta r - 2/r
    energy, wave    F(G)         F(G)                                      G / 2 eta
    force, wave     G F(G)       G F(G)                                    G / 2 eta - 1/G
    virial, wave    G |F'(G)|    (G² / (2 eta e)) F(sqrt(G² - 4 eta))      G / 2 eta - 2/G

The two slopes follow from t exp(-t d) <= (eta / e) exp(0) at d = 1/eta, t >= eta, and its like for the waves. With
|charges| summed to q1 and at most q_max, an atom's energy is off by at most q_max q1 / 2 and its force by q_max q1
times the bound of a pair. All of it is rigorous, for the truncation; float64 rounding comes on top.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from potnet.lattice.bounds import _count
from potnet.lattice.potentials import Kernel

# Exponents eta R² and G² / 4 eta that are tried: beyond the last, exp(-exponent) is below anything asked for.
_EXPONENTS = (2.0, 62.0, 161)


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
    coefficients: Tensor,
    charges_max: Tensor,
    charges_sum: Tensor,
    tolerance: Tensor,
    eta: Tensor,
    heights: Tensor,
) -> tuple[Tensor, Tensor, EnergyBound]:
    """Smallest cutoffs that keep energies of atoms and forces within the tolerance.

    Args:
        kernels: Q kernels.
        coefficients: (P, Q).
        charges_max: (B, P) largest |charge|.
        charges_sum: (B, P) sum of |charges|.
        tolerance: (P,).
        eta: (B,) 1/Å².
        heights: (B, 3) Gram-Schmidt lengths of the reduced cells, Å.

    Returns:
        Real cutoffs (B,) Å, reciprocal cutoffs (B,) 1/Å, and the bounds they guarantee.
    """
    low, high, count = _EXPONENTS
    exponent = torch.linspace(low, high, count, dtype=eta.dtype, device=eta.device)[:, None]  # (E, 1)
    weights = coefficients.abs()
    scale = charges_max * charges_sum  # (B, P)
    real = (exponent / eta).sqrt()  # (E, B)
    wave = (4 * eta * exponent).sqrt()
    real_tails = _real_tails(kernels, weights, real, eta, heights) * scale  # (3, E, B, P)
    wave_tails = _wave_tails(kernels, weights, wave, eta, heights) * scale
    half = 0.5 * tolerance
    chosen = []
    for tails in (real_tails, wave_tails):
        fits = ((tails[0] <= half) & (tails[1] <= half)).all(-1)  # (E, B)
        # The first of the exponents from which on all fit; the last if none does, and the bound says so.
        steps = (~fits).flip(0).to(torch.int64).cummax(0).values.flip(0).sum(0)
        chosen.append(steps.clamp(max=count - 1))
    pick = [at[None, None, :, None].expand(3, 1, -1, len(weights)) for at in chosen]
    total = real_tails.gather(1, pick[0])[:, 0] + wave_tails.gather(1, pick[1])[:, 0]
    crystal = torch.arange(len(eta), device=eta.device)
    virial = total[2] * charges_sum / charges_max.clamp(min=1e-300)
    bound = EnergyBound(total[0], total[1], virial)
    return real[chosen[0], crystal], wave[chosen[1], crystal], bound


def _real_tails(
    kernels: list[Kernel], weights: Tensor, cutoff: Tensor, eta: Tensor, heights: Tensor
) -> Tensor:
    """Bounds of the energy of a pair (half), force and virial (half), (3, E, B, P), beyond cutoffs (E, B)."""
    inside = (cutoff * cutoff - 1 / eta).sqrt()
    value = torch.stack([kernel.real_upper(cutoff, eta.expand_as(cutoff)) for kernel in kernels], -1)
    closer = torch.stack([kernel.real_upper(inside, eta.expand_as(cutoff)) for kernel in kernels], -1)
    slope = (2 / math.e * eta * cutoff)[..., None] * (closer @ weights.T)
    kappa = 2 * eta * cutoff
    inverse = 1 / heights
    energy = 0.5 * (value @ weights.T) * _count(cutoff, kappa, inverse)[..., None]
    force = slope * _count(cutoff, kappa - 1 / cutoff, inverse)[..., None]
    virial = 0.5 * slope * (cutoff * _count(cutoff, kappa - 2 / cutoff, inverse))[..., None]
    return torch.stack([energy, force, virial])


def _wave_tails(
    kernels: list[Kernel], weights: Tensor, cutoff: Tensor, eta: Tensor, heights: Tensor
) -> Tensor:
    """The same for the waves beyond cutoffs (E, B) 1/Å; the virial includes what comes from the volume."""
    inside = (cutoff * cutoff - 4 * eta).sqrt()
    volume = heights.prod(-1)
    value = torch.stack([kernel.reciprocal_upper(cutoff, eta, volume) for kernel in kernels], -1) @ weights.T
    closer = torch.stack([kernel.reciprocal_upper(inside, eta, volume) for kernel in kernels], -1) @ weights.T
    kappa = cutoff / (2 * eta)
    inverse = heights / (2 * math.pi)
    energy = 0.5 * value * _count(cutoff, kappa, inverse)[..., None]
    force = value * (cutoff * _count(cutoff, kappa - 1 / cutoff, inverse))[..., None]
    slope = closer * (cutoff * cutoff / (2 * math.e * eta))[..., None]
    virial = 0.5 * slope * _count(cutoff, kappa - 2 / cutoff, inverse)[..., None] + energy
    return torch.stack([energy, force, virial])

