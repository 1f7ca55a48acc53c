"""Sums of pairs with two periodic directions and a free one, from sums with three.

    S(v) = sum over all k in Z² of phi(|v + k L|)

is the sum over a lattice with a long period H along the normal, less that over the layers m H, m not 0.
A layer at a distance z is the sum over the waves G of the plane of

    cos(G v) phi(G, z),    phi(0, z) = 2π/A ∫_z^∞ phi(r) r dr,
    phi(G, z) <= exp(-s G z) phi(0, z sqrt(1 - s²))

for a mixture of Gaussians and any s < 1, as exp(-G²/4t - t s² z²) <= exp(-s G z) for each of them (2π/AG
exp(-G z) for 1/r). Its gradient, G in the plane and 2 t z along the normal, is at most

    (1/d + 2/a) / (e z) exp(-(s - d) G z) phi(0, z sqrt(1 - s² - a))

by G exp(-d G z) <= 1 / (e d z) and t exp(-a t z²) <= 1 / (e a z²). With H long enough only G = 0 counts,
which has a closed form for all m together (Yeh and Berkowitz 1999, J. Chem. Phys. 111, 3155, for 1/r).
1/r, whose sum does not converge, is neutralised such that S becomes -2π|z|/A far from the plane, as in
Parry's sum (1975, Surf. Sci. 49, 433).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from potnet.lattice.kernels import ExponentialKernel, Kernel, PowerKernel, ScreenedKernel
from potnet.lattice.potentials import Potential
from potnet.lattice.slab import Plane, plane_of

# s, d and a, see above, and exponents G (H - thickness) that are tried: beyond the last, exp(-exponent) is
# below anything asked for.
_SHARE, _LESS, _WIDER = 0.9, 0.1, 0.09
_EXPONENTS = (1.0, 90.0, 179)


class LongCells(NamedTuple):
    """Slabs with a period along the normal.

    Attributes:
        cell: (B, 3, 3), the third vector along the normal, Å.
        plane: The two periods.
        period: (B,) along the normal, Å.
        bound: (B, P), what the layers beyond their average add to the sum of a pair at most.
        slope: (B, P), and to its gradient, per Å.
    """

    cell: Tensor
    plane: Plane
    period: Tensor
    bound: Tensor
    slope: Tensor


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
    slope_tolerance: Tensor | None = None,
) -> LongCells:
    """Give slabs a period along their normal, the shortest that keeps the tolerance.

    Args:
        cell: (B, 3, 3) Å; the vector `axis` is not used.
        positions: (N, 3) Å, taken as they are along the normal.
        batch: (N,) int64.
        axis: The free direction.
        kernels: Q kernels.
        weights: (P, Q), absolute coefficients.
        tolerance: (P,) or (B, P) permitted errors of the sum of a pair.
        slope_tolerance: The same of its gradient, per Å; None for any.
    """
    plane = plane_of(cell, positions, batch, axis)
    with torch.no_grad():
        low, high, count = _EXPONENTS
        exponent = torch.linspace(low, high, count, dtype=cell.dtype, device=cell.device)[:, None]  # (E, 1)
        distance = exponent / plane.wave  # (E, B), of the nearest layer from any atom
        beyond = [_beyond(kernel.detached(), plane, distance) for kernel in kernels]
        bound, slope = (torch.stack(parts, -1) @ weights.T for parts in zip(*beyond, strict=True))
        fits = (bound <= tolerance).all(-1)
        if slope_tolerance is not None:
            fits = fits & (slope <= slope_tolerance).all(-1)
        at = (~fits).sum(0).clamp(max=count - 1)
        index = torch.arange(len(cell), device=cell.device)
        period = plane.thickness + distance[at, index]
    complete = torch.stack([plane.first, plane.second, plane.normal * period[:, None]], 1)
    return LongCells(complete, plane, period, bound[at, index], slope[at, index])


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
    period = cells.period.index_select(0, crystal)
    scale = 2 * math.pi / cells.plane.area.index_select(0, crystal)
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
            # Σ over m >= 1 of exp(-alpha (m H -+ z)); exp(alpha z) alone may overflow.
            grown = torch.exp(alpha * (z - period)) / (1 - shrunk)
            shrinking = torch.exp(-alpha * (z + period)) / (1 - shrunk)
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


def _beyond(kernel: Kernel, plane: Plane, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of what all layers add apart from G = 0, and of its gradient, (E, B) each.

    Args:
        kernel: Without gradients.
        plane: The two periods.
        distance: (E, B) Å, of the nearest layer.
    """
    area, wave = plane.area.detach(), plane.wave
    p, q = plane.heights.unbind(-1)
    p, q = p / math.pi, q / math.pi

    def waves(share: float) -> Tensor:
        """Σ over layers and G of exp(-share G z), by parts, from a bound of the waves in a circle."""
        kappa = share * distance
        number = (1 + p * wave) * (1 + q * wave) + (p + q + 2 * p * q * wave) / kappa + 2 * p * q / kappa**2
        shrunk = torch.exp(-kappa * wave)
        return 2 * shrunk * number / (1 - shrunk)

    if isinstance(kernel, PowerKernel) and kernel.p == 0.5:
        size = 2 * math.pi / area * waves(1.0)
        return size / wave, math.sqrt(2) * size
    value = waves(_SHARE) * _flat(kernel, distance * math.sqrt(1 - _SHARE**2), area)
    slope = waves(_SHARE - _LESS) * _flat(kernel, distance * math.sqrt(1 - _SHARE**2 - _WIDER), area)
    return value, slope * ((1 / _LESS + 2 / _WIDER) / math.e / distance)


def _flat(kernel: Kernel, z: Tensor, area: Tensor) -> Tensor:
    """phi(0, z) at `z` (E, B) Å, (E, B)."""
    if isinstance(kernel, PowerKernel):
        integral = z ** (2 - 2 * kernel.p) / (2 * kernel.p - 2)
    else:
        assert isinstance(kernel, ExponentialKernel | ScreenedKernel)
        scaled = kernel.alpha * z
        integral = torch.exp(-scaled) / kernel.alpha
        if isinstance(kernel, ExponentialKernel):
            integral = integral * (1 + scaled) / kernel.alpha
    return 2 * math.pi / area * integral
