"""Edges of a batch, with features stored and computed once where they are equal."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from potnet.crystals.graph import CrystalBatch


class Edges(NamedTuple):
    """E edges of one kind, whose features are stored once where they are equal.

    Attributes:
        features: (U, width), distinct features.
        target: (E,) int64, the atom i that receives.
        source: (E,) int64, the atom j that sends.
        row: (E,) int64, the features of each edge. None if U = E, in the order of the edges.
        times: (E, 1), so many equal edges of its target each stands for. None if each is one.
    """

    features: Tensor
    target: Tensor
    source: Tensor
    row: Tensor | None
    times: Tensor | None = None

    def per_edge(self, values: Tensor) -> Tensor:
        """What was computed from each of the distinct features, (U, C), for each edge: (E, C)."""
        return values if self.row is None else values.index_select(0, self.row)

    def counted(self, values: Tensor) -> Tensor:
        """(E, C) to the same, for a sum over all edges that these stand for."""
        return values if self.times is None else values * self.times.to(values.dtype)

    def joined(self, other: Edges) -> Edges:
        """The edges of both."""
        row = times = None
        if self.row is not None or other.row is not None:
            row = torch.cat([self._rows(), other._rows() + len(self.features)])
        if self.times is not None or other.times is not None:
            times = torch.cat([self._times(), other._times()])
        return Edges(
            torch.cat([self.features, other.features]),
            torch.cat([self.target, other.target]),
            torch.cat([self.source, other.source]),
            row,
            times,
        )

    def _rows(self) -> Tensor:
        return torch.arange(len(self.target), device=self.target.device) if self.row is None else self.row

    def _times(self) -> Tensor:
        return (
            torch.ones(len(self.target), 1, device=self.target.device) if self.times is None else self.times
        )


def distinct(values: Tensor) -> tuple[Tensor, Tensor | None]:
    """Distinct values, so that a layer runs once on each instead of on all.

    The edges i -> j and j -> i have one distance, the pairs (a, b) and (b, a) one potential, and
    symmetry makes many more equal: half of the values or fewer remain.

    Args:
        values: (R,). Values are equal if every bit is.

    Returns:
        (U,) distinct values, and (R,) int64, the distinct one of each: `values` is the first indexed by
        the second. Under `torch.compile`, whose graphs need sizes that don't depend on data, `values`
        itself and None.
    """
    if torch.compiler.is_compiling():
        return values, None
    return torch.unique(values, return_inverse=True)


def local_vectors(batch: CrystalBatch, model: str) -> Tensor:
    """Vectors of the local edges of a batch, (E, 3), Å.

    Args:
        batch: With local edges.
        model: Who asks, for the message.

    Raises:
        ValueError: The batch has no local edges.
    """
    if batch.edge_index is None or batch.edge_vector is None:
        raise ValueError(f"{model} needs local edges, but the batch has none: featurize with neighbors")
    return batch.edge_vector


def unordered_pairs(num_atoms: Tensor, pair_index: Tensor) -> tuple[Tensor, Tensor | None]:
    """One of (a, b) and (b, a), for what is equal on both: `distinct` for pairs with several channels.

    Args:
        num_atoms: (B,) int64.
        pair_index: (2, M) int64, all ordered pairs of each crystal, row-major.

    Returns:
        (U,) int64, the pairs a <= b among the M; and (M,) int64, the place of every pair in that list.
        Under `torch.compile` all pairs and None, as for `distinct`.
    """
    first, second = pair_index
    if torch.compiler.is_compiling():
        return torch.arange(len(first), device=first.device), None
    pairs = num_atoms * num_atoms
    n = num_atoms.repeat_interleave(pairs)
    start = (pairs.cumsum(0) - pairs).repeat_interleave(pairs)
    atom = (num_atoms.cumsum(0) - num_atoms).repeat_interleave(pairs)
    upper = first <= second
    place = upper.cumsum(0) - 1
    mirror = start + (second - atom) * n + first - atom
    return upper.nonzero()[:, 0], torch.where(upper, place, place[mirror])
