"""Local edges of many crystals at once, on the device of their tensors.

vesin, which finds them for one crystal (`local_edges`), takes one at a time, and nvalchemi-toolkit-ops
batches with one radius for all crystals, on CUDA. The energies need a list of pairs with a radius for each
crystal on any device (`potnet.lattice.neighbours`), which serves here too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from potnet.crystals.neighbors import MOST_TO_BEGIN_WITH, RADIUS_TOLERANCE, check_neighbors, mean_radius
from potnet.lattice import cells
from potnet.lattice.neighbours import find_pairs


class _Edges(NamedTuple):
    """Edges of all crystals, sorted by target, distance and source.

    Attributes:
        source: (E,) int64.
        target: (E,) int64.
        distance: (E,) Å.
        shift: (E, 3) float64 integers, as `local_edges` returns them.
        reverse: (E,) int64, the place of each edge's reverse.
    """

    source: Tensor
    target: Tensor
    distance: Tensor
    shift: Tensor
    reverse: Tensor


@torch.no_grad()
def batched_edges(
    cell: Tensor,
    positions: Tensor,
    batch: Tensor,
    cutoff: float | None = 4.0,
    k: int | None = None,
    shell_tolerance: float = 1e-3,
    symmetric: bool = False,
) -> tuple[Tensor, Tensor]:
    """`local_edges` of every crystal of a batch, with atoms counted through the batch.

    Args:
        cell: (B, 3, 3) float64, rows are lattice vectors, Å.
        positions: (N, 3) float64, Å; atoms need not lie inside the cell.
        batch: (N,) int64, sorted.
        cutoff: As for `local_edges`, like all that follow.
        k: Number of neighbours, or None.
        shell_tolerance: Å.
        symmetric: Add missing reverses.

    Returns:
        edge_index (2, E) int64 and edge_shift (E, 3) int64, as `local_edges` returns them.

    Raises:
        ValueError: As `local_edges`.
    """
    check_neighbors(cutoff, k, shell_tolerance)
    num_atoms = torch.bincount(batch, minlength=len(cell))
    limit = math.inf if cutoff is None else cutoff + RADIUS_TOLERANCE
    if k is None:
        edges = _within(cell, positions, batch, cell.new_full((len(cell),), limit))
        return torch.stack([edges.source, edges.target]), edges.shift.long()
    radius = mean_radius(cells.volume(cell), num_atoms, k).clamp(max=min(limit, MOST_TO_BEGIN_WITH))
    pieces = []
    left = torch.arange(len(cell), device=cell.device)
    while len(left):
        # Crystals whose shells were not complete, once more with a larger radius.
        number = torch.full_like(num_atoms, -1)
        number[left] = torch.arange(len(left), device=cell.device)
        atoms = (number[batch] >= 0).nonzero()[:, 0]
        some = number[batch[atoms]]
        edges = _within(cell[left], positions[atoms], some, radius[left])
        keep, complete = _whole_shells(edges, some, len(left), k, shell_tolerance, radius[left])
        complete |= radius[left] >= limit
        if symmetric:
            keep = keep | keep[edges.reverse]
        keep = keep & complete[some[edges.target]]
        pieces.append((atoms[edges.source[keep]], atoms[edges.target[keep]], edges.shift[keep]))
        left = left[~complete]
        radius[left] = (1.25 * radius[left]).clamp(max=limit)
    source, target, shift = (torch.cat(part) for part in zip(*pieces, strict=True))
    order = target.argsort(stable=True)
    return torch.stack([source[order], target[order]]), shift[order].long()


def _within(cell: Tensor, positions: Tensor, batch: Tensor, radius: Tensor) -> _Edges:
    """All edges within a radius (B,) Å."""
    change = cells.reduce(cell)
    reduced = change @ cell
    fractional = (positions[:, None] @ cells.inverse(reduced)[batch])[:, 0]
    wrapped = fractional.floor()
    pairs = find_pairs(reduced, fractional - wrapped, batch, radius)
    inside = positions - (wrapped[:, None] @ reduced[batch])[:, 0]
    x, y, z = pairs.vectors(reduced, inside)
    distance = (x * x + y * y + z * z).sqrt().repeat(2)
    # Each pair is two edges, one from either side.
    source, target = torch.cat([pairs.second, pairs.first]), torch.cat([pairs.first, pairs.second])
    shift = pairs.images[pairs.image]
    shift = torch.cat([shift, -shift]) - wrapped[source] + wrapped[target]
    shift = (shift[:, None] @ change[batch[target]])[:, 0]
    # Distances of equivalent neighbours differ in the last digits: rounded, they tie and the source decides.
    order = source.argsort(stable=True)
    for key in ((distance * 1e6).round(), target):
        order = order[key[order].argsort(stable=True)]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    reverse = place[(order + len(order) // 2) % len(order)] if len(order) else order
    return _Edges(source[order], target[order], distance[order], shift[order], reverse)


def _whole_shells(
    edges: _Edges, batch: Tensor, num_crystals: int, k: int, tolerance: float, radius: Tensor
) -> tuple[Tensor, Tensor]:
    """The k nearest of each target with the rest of their shell.

    Returns:
        (E,) which edges to keep, and (B,) whether the search radius was large enough to know.
    """
    target, distance = edges.target, edges.distance
    count = torch.bincount(target, minlength=len(batch))
    start = count.cumsum(0) - count
    rank = torch.arange(len(target), device=target.device) - start[target]
    # An edge from rank k on stays while no gap since rank k - 1 exceeds the tolerance.
    gap = distance.diff(prepend=distance[:1])
    broken = ((rank >= k) & (gap > tolerance)).cumsum(0)
    before = torch.cat([broken.new_zeros(1), broken])[start]  # breaks of earlier targets
    keep = broken == before[target]
    kept = torch.bincount(target[keep], minlength=len(batch))
    # Of an atom without any edge the distance has no meaning, and kept < k says all.
    padded = torch.cat([distance, distance.new_zeros(1)])
    last = padded[(start + kept - 1).clamp(min=0)]
    known = (kept >= k) & ((kept < count) | (last + tolerance < radius[batch]))
    complete = torch.ones(num_crystals, dtype=torch.bool, device=target.device)
    return keep, complete.scatter_reduce(0, batch, known, "amin") if len(batch) else complete
