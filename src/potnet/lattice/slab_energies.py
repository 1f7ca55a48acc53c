"""Energies of slabs from those of a long cell, in time that grows with the number of atoms.

    E(2D) = E(3D) - 1/2 sum over a, b of c_a c_b f(z_a - z_b),

f what all layers of the long cell but the home one add to the sum of a pair (`slab_pairs`). Of charges whose
sum is zero in 1/r that is 2π/V M², M = sum of c z (Yeh and Berkowitz 1999, J. Chem. Phys. 111, 3155). In
general f is smooth, as the next layer is far, so that a short sum of products of Chebyshev polynomials,

    f(z - z') = sum over j, k of T_j(z) F_jk T_k(z'),

is f to rounding: no table of pairs of atoms is made.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from potnet.lattice.energy_plan import charge_norms
from potnet.lattice.inputs import LatticeError
from potnet.lattice.kernels import Kernel, PowerKernel
from potnet.lattice.slab_pairs import LongCells, layers_of, long_cells

# Charges whose sum is larger than this part of the sum of their sizes are no neutral slab.
_NEUTRAL = 1e-6
# The error of the polynomials is of the order of exp(-this).
_DIGITS = 40.0
# Atoms are taken to spread over this part of the vacuum at least, so that a flat layer has an interval.
_LEAST_SPREAD = 0.05


def slab_cells(
    cell: Tensor,
    positions: Tensor,
    batch: Tensor,
    charges: Tensor,
    axis: int,
    kernels: list[Kernel],
    weights: Tensor,
    tolerance: Tensor,
) -> LongCells:
    """Long cells whose images change no energy of an atom and no force by more than the tolerance.

    Args:
        cell: (B, 3, 3) Å; the vector `axis` is not used.
        positions: (N, 3) Å, taken as they are along the normal.
        batch: (N,) int64.
        charges: (N, P).
        axis: The free direction.
        kernels: Q kernels.
        weights: (P, Q), absolute coefficients.
        tolerance: (P,) permitted errors of energies of atoms and of forces.

    Raises:
        LatticeError: If charges in 1/r do not sum to zero.
    """
    with torch.no_grad():
        largest, size = charge_norms(charges, batch, len(cell))
        net = torch.zeros_like(size).index_add(0, batch, charges)
        coulomb = [isinstance(kernel, PowerKernel) and kernel.p == 0.5 for kernel in kernels]
        bare = (weights[:, coulomb] > 0).any(1)
        wrong = ((net.abs() > _NEUTRAL * size) & bare).any(1)
        if bool(wrong.any()):
            which = int(wrong.nonzero()[0])
            raise LatticeError(
                f"crystal {which}: a slab must be neutral, its charges sum to {net[which].tolist()}: "
                "subtract their mean",
                which,
            )
        pair = tolerance / (largest * size).clamp(min=1e-300)
    return long_cells(cell, positions, batch, axis, kernels, weights, 2 * pair, pair)


def layer_energies(
    long: LongCells, kernels: list[Kernel], coefficients: Tensor, batch: Tensor, charges: Tensor
) -> tuple[Tensor, Tensor]:
    """What to add to energies of atoms (N, P) and to forces (N, P, 3), differentiable.

    Args:
        long: What `slab_cells` returned.
        kernels: Q kernels.
        coefficients: (P, Q), or (B, P, Q).
        batch: (N,) int64.
        charges: (N, P).
    """
    plane, number = long.plane, len(long.cell)
    vacuum = long.period - plane.thickness
    half = torch.maximum(0.5 * plane.thickness, _LEAST_SPREAD * vacuum)  # (B,) Å
    # f is finite up to the next layer. Halfway there, the ellipse with foci at the atoms' ends says how many
    # polynomials are needed (Bernstein).
    end = 1 + (0.5 * (long.period - 2 * half) / half).clamp(min=0.01)
    rate = float(torch.log(end + (end * end - 1).sqrt()).amin())
    order = math.ceil(_DIGITS / rate)
    nodes = torch.cos(math.pi * (torch.arange(order, dtype=half.dtype, device=half.device) + 0.5) / order)
    transform = 2 / order * _chebyshev(nodes, order)[0].T  # (K, K), values at nodes to coefficients
    transform[0] *= 0.5
    z = half[:, None, None] * (nodes[:, None] - nodes)
    crystal = torch.arange(number, device=z.device).repeat_interleave(order * order)
    layers = layers_of(kernels, z.flatten(), crystal, long).view(number, order * order, -1)
    layers = (layers @ coefficients.transpose(-1, -2)).view(number, order, order, -1).permute(0, 3, 1, 2)
    layers = transform @ layers @ transform.T  # (B, P, K, K)

    place = (plane.height - plane.middle.index_select(0, batch)) / half.index_select(0, batch)
    basis, slope = _chebyshev(place, order)  # (N, K)
    moments = charges[..., None] * basis[:, None]
    moments = moments.new_zeros(number, *moments.shape[1:]).index_add(0, batch, moments)  # (B, P, K)
    answer = (layers @ moments[..., None])[..., 0].index_select(0, batch)  # (N, P, K)
    atom = -0.5 * charges * (answer @ basis[..., None])[..., 0]
    pull = charges * (answer @ slope[..., None])[..., 0] / half.index_select(0, batch)[:, None]
    return atom, pull[..., None] * plane.normal.index_select(0, batch)[:, None]


def _chebyshev(x: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Chebyshev polynomials 0 .. order - 1 and their derivatives at `x` (N,), (N, order) each."""
    values, slopes = [torch.ones_like(x), x], [torch.zeros_like(x), torch.ones_like(x)]
    for _ in range(order - 2):
        slopes.append(2 * values[-1] + 2 * x * slopes[-1] - slopes[-2])
        values.append(2 * x * values[-1] - values[-2])
    return torch.stack(values[:order], -1), torch.stack(slopes[:order], -1)
