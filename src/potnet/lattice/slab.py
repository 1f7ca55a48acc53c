"""Slabs: crystals with two periods. Which direction is free, and the plane of the periods."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from potnet.lattice import cells


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


def free_axis(periodic: Sequence[bool]) -> int | None:
    """The direction that is free, or None.

    Raises:
        ValueError: If more than one is, or it is not three flags.
    """
    # By value, not by type: NumPy's flags, and 0 and 1, are fine; letters are not.
    listed = list(periodic) if isinstance(periodic, Iterable) and not isinstance(periodic, str) else []
    if len(listed) != 3 or any(flag not in (False, True) for flag in listed) or sum(map(bool, listed)) < 2:
        raise ValueError(f"periodic must be three flags, one of them False at most, got {periodic!r}")
    return None if all(listed) else [bool(flag) for flag in listed].index(False)


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
