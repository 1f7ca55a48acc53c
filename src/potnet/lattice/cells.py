"""Cells: validation, lattice reduction, and the lattice points within a distance.

All functions take a batch of cells (B, 3, 3), rows are lattice vectors, Å.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

try:
    import numpy as _numpy
except ImportError:  # torch runs without it
    _numpy = None  # type: ignore[assignment]

_MAX_ROUNDS = 200
# Boxes of up to this many points are kept.
_CACHED_POINTS = 5000
# A vector is replaced only by one that is shorter by more than rounding, so that ties cannot cycle.
_SHORTER = 1.0 - 1e-12
# Points at just the radius stay inside whatever the rounding.
_INCLUSIVE = 1.0 + 1e-12


@torch.no_grad()
def reduce(cell: Tensor) -> Tensor:
    """Unimodular integer matrices that turn cells into reduced ones.

    Semaev's algorithm (2001): sort by length, reduce the second vector by the first and the third by the
    plane of the first two, until nothing gets shorter. The result is Minkowski-reduced up to rounding.

    Args:
        cell: (B, 3, 3) float64, not singular.

    Returns:
        (B, 3, 3) float64 holding integers; `transform @ cell` is the reduced cell, shortest vector first.
    """
    transform = torch.eye(3, dtype=cell.dtype, device=cell.device).expand_as(cell).clone()
    plane = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=cell.dtype, device=cell.device)] * 2)
    # Asking a GPU whether anything changed makes the host wait: several rounds at a time, which are harmless
    # once nothing changes.
    every = 1 if cell.device.type == "cpu" else 6
    for round_ in range(1, _MAX_ROUNDS + 1):
        vectors = transform @ cell
        order = vectors.square().sum(-1).argsort(dim=1, stable=True)
        order = order[:, :, None].expand_as(transform)
        transform, vectors = transform.gather(1, order), vectors.gather(1, order)
        a, b, c = vectors.unbind(1)
        aa, ab, ac, _, bb, bc, _, _, cc = (vectors @ vectors.transpose(1, 2)).flatten(1).unbind(1)

        step_b = torch.round(ab / aa)
        shorter_b = (b - step_b[:, None] * a).square().sum(-1) < bb * _SHORTER
        step_b = step_b * shorter_b

        # The lattice vector of the plane nearest to c: round the projection, then look at the neighbours.
        determinant = aa * bb - ab * ab
        u = (ac * bb - bc * ab) / determinant
        v = (bc * aa - ac * ab) / determinant
        steps = torch.stack([u, v], -1).round()[:, None, :] + plane
        lengths = (c[:, None] - steps @ torch.stack([a, b], 1)).square().sum(-1)
        best = lengths.argmin(1)
        steps_c = steps[torch.arange(len(cell), device=cell.device), best]
        shorter_c = (lengths.gather(1, best[:, None])[:, 0] < cc * _SHORTER) & ~shorter_b
        steps_c = steps_c * shorter_c[:, None]

        changed = shorter_b | shorter_c
        if round_ % every == 0 and not bool(changed.any()):
            break
        row_a, row_b, row_c = transform.unbind(1)
        transform = torch.stack(
            [
                row_a,
                row_b - step_b[:, None] * row_a,
                row_c - steps_c[:, :1] * row_a - steps_c[:, 1:] * row_b,
            ],
            1,
        )
    return transform


def heights(cell: Tensor) -> Tensor:
    """Gram-Schmidt lengths of the lattice vectors, (B, 3) in Å.

    A ball of radius s around any centre holds at most prod(1 + 2 s / h_i) lattice points, and the
    reciprocal lattice has heights 2π / h_i (in reverse order).
    """
    a, b, _ = cell.unbind(1)
    h1 = a.norm(dim=-1)
    h2 = (b - ((a * b).sum(-1) / h1**2)[:, None] * a).norm(dim=-1)
    return torch.stack([h1, h2, volume(cell) / (h1 * h2)], -1)


def volume(cell: Tensor) -> Tensor:
    """Volumes (B,) in Å³."""
    return (cell[:, 0] * torch.linalg.cross(cell[:, 1], cell[:, 2])).sum(-1).abs()


def inverse(cell: Tensor) -> Tensor:
    """Inverse matrices (B, 3, 3), by cross products: a tenth of the cost of a factorisation each."""
    columns = torch.linalg.cross(cell.roll(-1, 1), cell.roll(-2, 1))
    return (columns / (cell[:, 0] * columns[:, 0]).sum(-1)[:, None, None]).transpose(1, 2)


def squared_norm(vectors: Tensor) -> Tensor:
    """|v|² of (..., 3) vectors."""
    # A product with ones is several times faster than a sum over so short an axis.
    return vectors.square() @ vectors.new_ones(3)


def farthest_corner(cell: Tensor) -> Tensor:
    """Half of the longest diagonal of each cell, (B,) Å: no vector with coordinates in ±1/2 is longer."""
    signs = cell.new_tensor([[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]])
    return 0.5 * (signs @ cell).norm(dim=-1).amax(1)


def reach(basis: Tensor, radius: Tensor) -> Tensor:
    """Largest integer coordinates of lattice points within `radius` (b,) of the origin, (b, 3) as floats."""
    return reach_of(inverse(basis), radius)


def reach_of(inverses: Tensor, radius: Tensor) -> Tensor:
    """The same from the inverse of each basis."""
    return (radius[:, None] * inverses.norm(dim=1)).floor()


def half_box(largest: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """All integer coordinates up to `largest` without the origin and one of each pair of opposite points.

    Args:
        largest: Three numbers.
        like: A tensor with the dtype and device of the result.

    Returns:
        Coordinates (K, 3) as floats, and their nine products (9, K).
    """
    first, second, third = largest
    small = (2 * first + 1) * (2 * second + 1) * (2 * third + 1) <= _CACHED_POINTS
    make = _cached_half_box if small else _half_box
    return make((first, second, third), like.dtype, like.device)


def _half_box(
    largest: tuple[int, int, int], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    points = torch.cartesian_prod(*[torch.arange(-m, m + 1, dtype=dtype, device=device) for m in largest])
    points = points[len(points) // 2 + 1 :]  # lexicographically positive
    return points, (points[:, :, None] * points[:, None]).flatten(1).T.contiguous()


# Batches of like crystals use the same few boxes over and over.
_cached_half_box = functools.lru_cache(maxsize=256)(_half_box)


def inside(products: Tensor, basis: Tensor, radius: Tensor) -> Tensor:
    """Which integer points lie within `radius` (b,) of the origin, (b, K), from their products (9, K)."""
    # |k B|² is linear in the products of the k: one small matrix product for all points of all cells.
    gram = basis @ basis.transpose(1, 2)
    return gram.flatten(1) @ products <= (radius * radius * _INCLUSIVE)[:, None]


def points_within(
    basis: Tensor,
    radius: Tensor,
    half: bool = False,
    *,
    largest: list[int] | None = None,
    width: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Integer coordinates of all lattice points within a distance of the origin.

    Args:
        basis: (b, 3, 3), rows are basis vectors.
        radius: (b,), in the unit of the basis.
        half: Leave out the origin and one of each pair of opposite points.
        largest: Three numbers not below `reach`, and
        width: a number not below the largest count of points in the half. A caller that knows both spares a
            GPU two waits; a smaller width would lose points.

    Returns:
        Integer coordinates (b, K, 3) as floats and a mask (b, K) of those that count; the rest is padding.
    """
    with torch.no_grad():
        if largest is None:
            largest = reach(basis, radius).amax(0).int().tolist()
        points, products = half_box(largest, basis)
        within = inside(products, basis, radius)
        if width is not None:  # what does not count goes to a last column
            count = within.sum(1)
            index = torch.zeros(len(basis), width + 1, dtype=torch.int64, device=basis.device)
            place = torch.where(within, within.cumsum(1) - 1, width)
            index.scatter_(1, place, torch.arange(len(points), device=basis.device).expand_as(place))
            index = index[:, :width]
            mask = torch.arange(width, device=basis.device) < count[:, None]
        else:
            # Places are in order: where each cell's begin says how many it has.
            flat = nonzero(within.view(-1))
            first = torch.arange(len(basis) + 1, device=basis.device) * len(points)
            start = torch.searchsorted(flat, first)
            count, first, start = start.diff(), first[:-1, None], start[:-1, None]
            width = int(count.max()) if len(flat) else 0
            column = torch.arange(width, device=basis.device)
            mask = column < count[:, None]
            place = (start + column).clamp_(max=len(flat) - 1).flatten()
            index = flat.index_select(0, place).view(len(basis), width) - first
        index = index.masked_fill(~mask, 0)
        found = points.index_select(0, index.flatten()) if width else points[:0]
        found = found.view(len(basis), width, 3)
        if half:
            return found, mask
        # The origin, and the opposite points.
        return (
            torch.cat([found.new_zeros(len(basis), 1, 3), found, -found], 1),
            torch.cat([mask.new_ones(len(basis), 1), mask, mask], 1),
        )


def quotient(index: Tensor, divisor: int) -> Tensor:
    """index // divisor, which a product with the inverse gives faster than an integer division."""
    return index.to(torch.float64).add_(0.5).mul_(1.0 / divisor).to(torch.int64)


def nonzero(flags: Tensor) -> Tensor:
    """Where a flat mask is set, (T,). NumPy, where there is one, is four times faster on a CPU."""
    if _numpy is None or flags.device.type != "cpu" or torch.compiler.is_compiling():
        return flags.nonzero()[:, 0]
    return torch.from_numpy(_numpy.flatnonzero(flags.numpy()))
