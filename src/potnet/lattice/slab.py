"""Neutral slabs: Coulomb energies with two periodic directions and a free one.

A slab in a three-dimensional lattice feels its images across the vacuum. What they do has a closed form but
for terms that fall exponentially with the vacuum (Yeh and Berkowitz 1999, J. Chem. Phys. 111, 3155;
de Joannis, Arnold and Holm 2002, J. Chem. Phys. 117, 2503):

    E(2D) = E(3D) + 2π/V M²,    M = sum of q z,

with the energy in three dimensions under tin-foil boundary, z along the normal, and errors of the order of
exp(-G (H - thickness)), G the shortest wave vector of the plane and H the period along the normal. Nothing
depends on H otherwise, so it is chosen here: long enough for the accuracy, whatever vacuum the given cell
has.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from potnet.lattice import cells
from potnet.lattice.inputs import LatticeError

# What multiplies the exponential, beside (4π/A) q_max sum |q|: the few shortest waves, at both faces.
_WAVES = 50.0
# Charges whose sum is larger than this part of the sum of their sizes are no neutral slab.
_NEUTRAL = 1e-6


class Slab(NamedTuple):
    """Slabs made three-dimensional.

    Attributes:
        cell: (B, 3, 3), the third vector along the normal, Å.
        normal: (B, 3) unit vectors.
        height: (N,) coordinates along the normal, from the middle of each slab, Å.
        volume: (B,) of those cells, Å³.
    """

    cell: Tensor
    normal: Tensor
    height: Tensor
    volume: Tensor


def free_axis(periodic: tuple[bool, bool, bool]) -> int | None:
    """The direction that is free, or None.

    Raises:
        ValueError: If more than one is.
    """
    if len(periodic) != 3 or sum(map(bool, periodic)) < 2:
        raise ValueError(f"periodic must be three flags, one of them False at most, got {periodic}")
    return None if all(periodic) else [bool(flag) for flag in periodic].index(False)


def make_slab(
    cell: Tensor, positions: Tensor, batch: Tensor, charges: Tensor, axis: int, tolerance: float
) -> Slab:
    """Give slabs a period along their normal that is long enough.

    Args:
        cell: (B, 3, 3) Å; the vector `axis` is not used.
        positions: (N, 3) Å, taken as they are along the normal.
        batch: (N,) int64.
        charges: (N, P).
        axis: The free direction.
        tolerance: Smallest permitted error.

    Raises:
        LatticeError: If a slab is not neutral.
    """
    number = len(cell)
    first, second = (cell[:, (axis + step) % 3] for step in (1, 2))
    cross = torch.linalg.cross(first, second)
    area = cross.norm(dim=-1)
    normal = cross / area[:, None]
    height = (positions * normal.index_select(0, batch)).sum(-1)
    with torch.no_grad():
        net = charges.new_zeros(number, charges.shape[1]).index_add(0, batch, charges)
        size = charges.new_zeros(number, charges.shape[1]).index_add(0, batch, charges.abs())
        wrong = (net.abs() > _NEUTRAL * size).any(1)
        if bool(wrong.any()):
            which = int(wrong.nonzero()[0])
            raise LatticeError(
                f"crystal {which}: a slab must be neutral, its charges sum to {net[which].tolist()}: "
                "subtract their mean",
                which,
            )
        top = height.new_full((number,), -math.inf).scatter_reduce(0, batch, height, "amax")
        bottom = height.new_full((number,), math.inf).scatter_reduce(0, batch, height, "amin")
        # The shortest wave vector of the plane from its reduced basis: 2π times the shortest vector / area.
        far = normal * (first.norm(dim=-1) + second.norm(dim=-1))[:, None]
        plane = torch.stack([first, second, far], 1)
        reduced = cells.reduce(plane) @ plane
        wave = 2 * math.pi * reduced[:, 0].norm(dim=-1) / area
        largest = charges.abs().amax() * size.amax(1)
        factor = _WAVES * 4 * math.pi / area * largest * torch.maximum(1 / wave, torch.ones_like(wave))
        vacuum = (factor / tolerance).clamp(min=math.e).log() / wave
        period = top - bottom + vacuum
        middle = 0.5 * (top + bottom)
    complete = torch.stack([first, second, normal * period[:, None]], 1)
    return Slab(complete, normal, height - middle.index_select(0, batch), area * period)


def slab_correction(slab: Slab, batch: Tensor, charges: Tensor) -> tuple[Tensor, Tensor]:
    """What to add to energies of atoms (N, P) and to forces (N, P, 3)."""
    moments = charges * slab.height[:, None]
    total = moments.new_zeros(len(slab.cell), charges.shape[1]).index_add(0, batch, moments)
    field = (2 * math.pi / slab.volume[:, None] * total).index_select(0, batch)
    normal = slab.normal.index_select(0, batch)
    return field * moments, -2 * (field * charges)[..., None] * normal[:, None]
