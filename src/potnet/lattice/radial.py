"""Both halves of every kernel with their slopes, for an eta of its own for each crystal.

A kernel is phi(r) = R(r) + (the transform of F(G)), see `potentials`. Energies need the two halves, forces
R'(r)/r and stresses dF/d(G²); all in closed form, made of differentiable torch operations, so that a second
derivative is one call of autograd away.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from potnet.lattice.potentials import ExponentialKernel, Kernel, PowerKernel, ScreenedKernel
from potnet.lattice.special import exponential_integral, gamma_q

# exp of more than this overflows; what it multiplies has then long been exactly zero.
_MAX_EXPONENT = 700.0


class Distances(NamedTuple):
    """What all kernels share about T pairs.

    Attributes:
        r: (T,) distances, Å.
        r2: (T,) their squares.
        x: (T,) eta r².
        gauss: (T,) exp(-eta r²).
        eta: (T,) or (), 1/Å².
        crystal: (T,) int64, the crystal of each pair.
    """

    r: Tensor
    r2: Tensor
    x: Tensor
    gauss: Tensor
    eta: Tensor
    crystal: Tensor


def real_part(kernel: Kernel, at: Distances) -> tuple[Tensor, Tensor]:
    """R(r) and R'(r) / r, (T,) each.

    Raises:
        TypeError: If the kernel is of a type without closed forms here.
    """
    if isinstance(kernel, PowerKernel):
        # R = Γ(p, x) / (Γ(p) r^2p); by d Γ(p, x)/dx = -x^(p-1) e^-x, R'/r = -2 (p R + eta^p e^-x / Γ(p)) / r².
        p = kernel.p
        numerator = gamma_q(p, at.x, at.gauss)
        value = numerator / (at.r if p == 0.5 else at.r2**p)
        slope = (p * value + at.eta**p * at.gauss / math.gamma(p)) * (-2.0 / at.r2)
        return value, slope
    if isinstance(kernel, ExponentialKernel | ScreenedKernel):
        alpha = _of_pairs(kernel.alpha, at.crystal)
        root = at.eta.sqrt()
        shift, scaled = alpha / (2 * root), root * at.r
        # (√eta r + α/2√eta)² >= 2αr: where the exponent is clamped, the product is below exp(-350).
        shrunk = torch.exp(-alpha * at.r) * torch.erfc(scaled - shift)
        grown = torch.exp((alpha * at.r).clamp(max=_MAX_EXPONENT)) * torch.erfc(scaled + shift)
        if isinstance(kernel, ExponentialKernel):  # the derivatives of the two erfc cancel
            return 0.5 * (shrunk - grown), -0.5 * alpha * (shrunk + grown) / at.r
        value = 0.5 * (shrunk + grown) / at.r
        gaussian = 2 * root / math.sqrt(math.pi) * torch.exp(-at.x - shift * shift)
        return value, -(0.5 * alpha * (shrunk - grown) + gaussian + value) / at.r2
    raise TypeError(_unknown(kernel))


def reciprocal_part(kernel: Kernel, g2: Tensor, eta: Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
    """F(G) and dF/d(G²), (b, K) each.

    Args:
        kernel: Parameters one number, or (b,).
        g2: (b, K) squared wave vectors > 0, 1/Å².
        eta: (b,) 1/Å².
        volume: (b,) Å³.

    Raises:
        TypeError: If the kernel is of a type without closed forms here.
    """
    eta, volume = eta[:, None], volume[:, None]
    if isinstance(kernel, PowerKernel):
        order, y = kernel.p - 0.5, g2 / (4 * eta)
        factor = math.pi**1.5 / math.gamma(kernel.p) * eta ** (kernel.p - 1.5) / volume
        if order == 0:  # Coulomb
            value = factor * torch.exp(-y) / y
            return value, -value * (1 / g2 + 1 / (4 * eta))
        value = exponential_integral(order, y)
        # E_n' = -E_(n-1), and y E_(n-1) = e^-y - (n - 1) E_n (DLMF 8.19.12 and 8.19.13).
        slope = (torch.exp(-y) - (order - 1) * value) / g2
        return factor * value, -factor * slope
    if isinstance(kernel, ExponentialKernel | ScreenedKernel):
        alpha = kernel.alpha
        alpha = alpha[:, None] if isinstance(alpha, Tensor) and alpha.ndim else alpha
        c = g2 + alpha * alpha
        scaled = c / (4 * eta)
        if isinstance(kernel, ExponentialKernel):
            base = 8 * math.pi * alpha / volume * torch.exp(-scaled) / (c * c)
            return base * (1 + scaled), -base * (scaled / (4 * eta) + 2 * (1 + scaled) / c)
        value = 4 * math.pi / volume * torch.exp(-scaled) / c
        return value, -value * (1 / c + 1 / (4 * eta))
    raise TypeError(_unknown(kernel))


def background(kernel: Kernel, eta: Tensor, volume: Tensor) -> Tensor:
    """F(0), (b,), for eta (b,) and volumes (b,)."""
    if isinstance(kernel, PowerKernel):
        factor = math.pi**1.5 / math.gamma(kernel.p) * eta ** (kernel.p - 1.5) / volume
        return factor / (kernel.p - 1.5)
    return reciprocal_part(kernel, torch.zeros_like(eta)[:, None], eta, volume)[0][:, 0]


def origin(kernel: Kernel, eta: Tensor) -> Tensor:
    """What the reciprocal part holds of the term at zero distance, (b,), for eta (b,)."""
    if isinstance(kernel, PowerKernel):
        return eta**kernel.p / math.gamma(kernel.p + 1)
    if isinstance(kernel, ExponentialKernel | ScreenedKernel):
        shift = kernel.alpha / (2 * eta.sqrt())
        if isinstance(kernel, ExponentialKernel):
            return torch.erfc(shift)
        return 2 * (eta / math.pi).sqrt() * torch.exp(-shift * shift) - kernel.alpha * torch.erfc(shift)
    raise TypeError(_unknown(kernel))


def _of_pairs(parameter: float | Tensor, crystal: Tensor) -> float | Tensor:
    if isinstance(parameter, Tensor) and parameter.ndim:
        return parameter.index_select(0, crystal)
    return parameter


def _unknown(kernel: Kernel) -> str:
    return f"{type(kernel).__name__} has no closed-form slopes: sum it with lattice_sums"
