"""Cells: validation, lattice reduction, and the lattice points within a distance.

All functions take a batch of cells (B, 3, 3), rows are lattice vectors, Å.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_ROUNDS = 200
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
    for _ in range(_MAX_ROUNDS):
        vectors = transform @ cell
        order = vectors.square().sum(-1).argsort(dim=1, stable=True)
        transform = transform.gather(1, order[:, :, None].expand_as(transform))
        vectors = transform @ cell
        a, b, c = vectors.unbind(1)
        aa, ab, bb = (a * a).sum(-1), (a * b).sum(-1), (b * b).sum(-1)
        ac, bc, cc = (a * c).sum(-1), (b * c).sum(-1), (c * c).sum(-1)

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
        if not bool(changed.any()):
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
    volume = torch.linalg.det(cell).abs()
    return torch.stack([h1, h2, volume / (h1 * h2)], -1)


def squared_norm(vectors: Tensor) -> Tensor:
    """|v|² of (..., 3) vectors."""
    # A product with ones is several times faster than a sum over so short an axis.
    return vectors.square() @ vectors.new_ones(3)


def points_within(basis: Tensor, radius: Tensor, half: bool = False) -> tuple[Tensor, Tensor]:
    """Integer coordinates of all lattice points within a distance of the origin.

    Args:
        basis: (b, 3, 3), rows are basis vectors.
        radius: (b,), in the unit of the basis.
        half: Leave out the origin and one of each pair of opposite points.

    Returns:
        Integer coordinates (b, K, 3) as floats and a mask (b, K) of those that count; the rest is padding.
    """
    with torch.no_grad():
        reach = (radius[:, None] * torch.linalg.inv(basis).norm(dim=1)).floor().amax(0).int().tolist()
        box = torch.cartesian_prod(
            *[torch.arange(-m, m + 1, dtype=basis.dtype, device=basis.device) for m in reach]
        )
        if half:  # lexicographically positive
            box = box[len(box) // 2 + 1 :]
        # |k B|² is linear in the six products of the k: one small matrix product for all points of all cells.
        gram = basis @ basis.transpose(1, 2)
        first, second = torch.triu_indices(3, 3, device=basis.device)
        twice = torch.where(first == second, 1.0, 2.0).to(basis)
        squared = (gram[:, first, second] * twice) @ (box[:, first] * box[:, second]).T
        inside = squared <= (radius * radius * _INCLUSIVE)[:, None]
        count = inside.sum(1)
        width = int(count.max()) if len(box) else 0
        if width == 0:
            return basis.new_zeros(len(basis), 0, 3), inside.new_zeros(len(basis), 0)
        row, column = inside.nonzero(as_tuple=True)
        place = torch.arange(len(row), device=basis.device) - (count.cumsum(0) - count)[row]
        index = torch.zeros(len(basis) * width, dtype=torch.int64, device=basis.device)
        index[row * width + place] = column
        mask = torch.arange(width, device=basis.device) < count[:, None]
        return box.index_select(0, index).view(len(basis), width, 3), mask
