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


class Plane(NamedTuple):
    """Two periods of B slabs.

    Attributes:
        first: (B, 3) one of the periods, Å.
        second: (B, 3) the other.
        normal: (B, 3) unit vectors.
        area: (B,) Å².
        height: (N,) coordinates along the normal, Å.
        middle: (B,) Å, of each slab.
        thickness: (B,) Å.
        wave: (B,) shortest wave vector of the plane, 1/Å.
        heights: (B, 2) Gram-Schmidt lengths of its reduced periods, Å.
    """

    first: Tensor
    second: Tensor
    normal: Tensor
    area: Tensor
    height: Tensor
    middle: Tensor
    thickness: Tensor
    wave: Tensor
    heights: Tensor


def free_axis(periodic: tuple[bool, bool, bool]) -> int | None:
    """The direction that is free, or None.

    Raises:
        ValueError: If more than one is.
    """
    if len(periodic) != 3 or sum(map(bool, periodic)) < 2:
        raise ValueError(f"periodic must be three flags, one of them False at most, got {periodic}")
    return None if all(periodic) else [bool(flag) for flag in periodic].index(False)


def without_free_vector(cell: Tensor, axis: int) -> Tensor:
    """Cells (B, 3, 3) with a vector along the normal in the place of the unused one, which may be zero."""
    if cell.ndim != 3 or cell.shape[1:] != (3, 3) or cell.is_complex():
        return cell  # refused later on
    first, second = (cell[:, (axis + step) % 3].detach() for step in (1, 2))
    normal = torch.linalg.cross(first, second) / second.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    rows = list(cell.unbind(1))
    rows[axis] = normal
    return torch.stack(rows, 1)


def plane_of(cell: Tensor, positions: Tensor, batch: Tensor, axis: int) -> Plane:
    """The plane of each slab; the last four attributes carry no gradient.

    Args:
        cell: (B, 3, 3) Å; the vector `axis` is not used.
        positions: (N, 3) Å, taken as they are along the normal.
        batch: (N,) int64.
        axis: The free direction.
    """
    first, second = (cell[:, (axis + step) % 3] for step in (1, 2))
    cross = torch.linalg.cross(first, second)
    area = cross.norm(dim=-1)
    normal = cross / area[:, None]
    height = (positions * normal.index_select(0, batch)).sum(-1)
    with torch.no_grad():
        top = height.new_full((len(cell),), -math.inf).scatter_reduce(0, batch, height, "amax")
        bottom = height.new_full((len(cell),), math.inf).scatter_reduce(0, batch, height, "amin")
        # The shortest wave vector of the plane from its reduced basis: 2π times the shortest vector / area.
        far = normal * (first.norm(dim=-1) + second.norm(dim=-1))[:, None]
        plane = torch.stack([first, second, far], 1)
        shortest = (cells.reduce(plane) @ plane)[:, 0].norm(dim=-1)
        heights = torch.stack([shortest, area / shortest], -1)
        return Plane(
            first,
            second,
            normal,
            area,
            height,
            0.5 * (top + bottom),
            top - bottom,
            2 * math.pi * shortest / area,
            heights,
        )


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
    plane, number = plane_of(cell, positions, batch, axis), len(cell)
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
        wave, largest = plane.wave, charges.abs().amax() * size.amax(1)
        factor = _WAVES * 4 * math.pi / plane.area * largest * torch.maximum(1 / wave, torch.ones_like(wave))
        vacuum = (factor / tolerance).clamp(min=math.e).log() / wave
        period = plane.thickness + vacuum
    complete = torch.stack([plane.first, plane.second, plane.normal * period[:, None]], 1)
    height = plane.height - plane.middle.index_select(0, batch)
    return Slab(complete, plane.normal, height, plane.area * period)


def slab_correction(slab: Slab, batch: Tensor, charges: Tensor) -> tuple[Tensor, Tensor]:
    """What to add to energies of atoms (N, P) and to forces (N, P, 3)."""
    moments = charges * slab.height[:, None]
    total = moments.new_zeros(len(slab.cell), charges.shape[1]).index_add(0, batch, moments)
    field = (2 * math.pi / slab.volume[:, None] * total).index_select(0, batch)
    normal = slab.normal.index_select(0, batch)
    return field * moments, -2 * (field * charges)[..., None] * normal[:, None]
