"""Sums of pairs with two periodic directions and a free one, from sums with three.

    S(v) = sum over all k in Z² of phi(|v + k L|)

is the sum over a lattice with a long period H along the normal, less that over the layers m H, m not 0.
A layer at a distance z is the sum over the waves G of the plane of

    cos(G v) phi(G, z),    phi(0, z) = 2π/A ∫_z^∞ phi(r) r dr,
    phi(G, z) <= exp(-s G z) phi(0, z sqrt(1 - s²))

for a mixture of Gaussians and any s < 1, as exp(-G²/4t - t s² z²) <= exp(-s G z) for each of them (2π/AG
exp(-G z) for 1/r). With H long enough only G = 0 counts, which has a closed form for all m together
(Yeh and Berkowitz 1999, J. Chem. Phys. 111, 3155, for 1/r). 1/r, whose sum does not converge, is neutralised
such that S becomes -2π|z|/A far from the plane, as in Parry's sum (1975, Surf. Sci. 49, 433).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from potnet.lattice.kernels import ExponentialKernel, Kernel, PowerKernel, ScreenedKernel
from potnet.lattice.potentials import Potential
from potnet.lattice.slab import plane_of

# s, and exponents s G (H - thickness) that are tried: beyond the last, exp(-exponent) is below anything asked
# for.
_SHARE = 0.9
_EXPONENTS = (1.0, 80.0, 159)


class LongCells(NamedTuple):
    """Slabs with a period along the normal.

    Attributes:
        cell: (B, 3, 3), the third vector along the normal, Å.
        area: (B,) Å².
        period: (B,) Å.
        height: (N,) coordinates along the normal, Å.
        bound: (B, P), what the layers beyond their average add at most.
    """

    cell: Tensor
    area: Tensor
    period: Tensor
    height: Tensor
    bound: Tensor


def refuse_unknown(potentials: Sequence[Potential], kernels: list[Kernel]) -> None:
    """Raise a ValueError for potentials whose layers have no closed form here."""
    for kernel in kernels:
        power = isinstance(kernel, PowerKernel) and (kernel.p == 0.5 or kernel.p > 1.5)
        known = power or (
            isinstance(kernel, ExponentialKernel | ScreenedKernel) and not kernel.volume_exponent
        )
        if not known:
            raise ValueError(
                "slabs: powers are 1/r or steeper than 1/r³, and no potential may depend on the volume of "
                f"the cell; got {', '.join(str(potential) for potential in potentials)}"
            )


def long_cells(
    cell: Tensor,
    positions: Tensor,
    batch: Tensor,
    axis: int,
    kernels: list[Kernel],
    weights: Tensor,
    tolerance: Tensor,
) -> LongCells:
    """Give slabs a period along their normal, the shortest that keeps the tolerance.

    Args:
        cell: (B, 3, 3) Å; the vector `axis` is not used.
        positions: (N, 3) Å, taken as they are along the normal.
        batch: (N,) int64.
        axis: The free direction.
        kernels: Q kernels.
        weights: (P, Q), absolute coefficients.
        tolerance: (P,) permitted errors.
    """
    plane = plane_of(cell, positions, batch, axis)
    with torch.no_grad():
        area, wave = plane.area.detach(), plane.wave
        low, high, count = _EXPONENTS
        exponent = torch.linspace(low, high, count, dtype=cell.dtype, device=cell.device)[:, None]  # (E, 1)
        distance = exponent / (_SHARE * wave)  # (E, B), of the nearest layer from any atom
        # Σ over G of exp(-kappa G) by parts, from a bound of the number of waves in a circle; see `bounds`.
        kappa = _SHARE * distance
        p, q = plane.heights.unbind(-1)
        p, q = p / math.pi, q / math.pi
        number = (1 + p * wave) * (1 + q * wave) + (p + q + 2 * p * q * wave) / kappa + 2 * p * q / kappa**2
        layers = 2 * torch.exp(-exponent) * number / (1 - torch.exp(-exponent))
        upper = torch.stack([_layer_upper(k.detached(), distance, wave, area) for k in kernels], -1)
        bound = layers[..., None] * (upper @ weights.T)  # (E, B, P)
        fits = (bound <= tolerance).all(-1)
        at = (~fits).sum(0).clamp(max=count - 1)
        index = torch.arange(len(cell), device=cell.device)
        period = plane.thickness + distance[at, index]
    complete = torch.stack([plane.first, plane.second, plane.normal * period[:, None]], 1)
    return LongCells(complete, plane.area, period, plane.height, bound[at, index])


def layers_of(kernels: list[Kernel], z: Tensor, crystal: Tensor, cells: LongCells) -> Tensor:
    """What all layers but the home one add to the sums of pairs, apart from `bound`.

    Args:
        kernels: Q kernels.
        z: (M,) components of the pairs along the normal, Å.
        crystal: (M,) int64.
        cells: What `long_cells` returned.

    Returns:
        (M, Q), differentiable.
    """
    period, scale = cells.period.index_select(0, crystal), 2 * math.pi / cells.area.index_select(0, crystal)
    columns = []
    for kernel in kernels:
        if isinstance(kernel, PowerKernel):
            layers = _powers(kernel.p, z, period)
        else:
            assert isinstance(kernel, ExponentialKernel | ScreenedKernel)
            alpha = kernel.alpha
            if isinstance(alpha, Tensor) and alpha.ndim:
                alpha = alpha.index_select(0, crystal)
            shrunk = torch.exp(-alpha * period)
            once = shrunk / (1 - shrunk)  # Σ over m >= 1 of exp(-alpha m H)
            grown, shrinking = torch.exp(alpha * z) * once, torch.exp(-alpha * z) * once
            if isinstance(kernel, ScreenedKernel):
                layers = (grown + shrinking) / alpha
            else:
                twice = 1 + alpha * period / (1 - shrunk)
                layers = ((twice - alpha * z) * grown + (twice + alpha * z) * shrinking) / alpha**2
        columns.append(scale * layers)
    return torch.stack(columns, -1)


def _powers(p: float, z: Tensor, period: Tensor) -> Tensor:
    """Σ over m != 0 of ∫ r^(1 - 2p) dr from |z + m H| on; for 1/r with a background."""
    if p == 0.5:
        return z * z / period + period / 6
    order = 2 * p - 2
    power = torch.tensor(order, dtype=z.dtype, device=z.device)
    ratio = z / period
    both = torch.special.zeta(power, 1 + ratio) + torch.special.zeta(power, 1 - ratio)
    return both * period**-order / order


def _layer_upper(kernel: Kernel, distance: Tensor, wave: Tensor, area: Tensor) -> Tensor:
    """phi(G, z) exp(s G z) at most, for z from `distance` (E, B) Å and G from `wave` (B,) on: (E, B)."""
    if isinstance(kernel, PowerKernel) and kernel.p == 0.5:
        return (2 * math.pi / (area * wave)).expand_as(distance)
    z = distance * math.sqrt(1 - _SHARE**2)
    if isinstance(kernel, PowerKernel):
        integral = z ** (2 - 2 * kernel.p) / (2 * kernel.p - 2)
    else:
        assert isinstance(kernel, ExponentialKernel | ScreenedKernel)
        scaled = kernel.alpha * z
        integral = torch.exp(-scaled) / kernel.alpha
        if isinstance(kernel, ExponentialKernel):
            integral = integral * (1 + scaled) / kernel.alpha
    return 2 * math.pi / area * integral
