"""Edges of a batch, with features stored and computed once where they are equal."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Edges(NamedTuple):
    """E edges of one kind, whose features are stored once where they are equal.

    Attributes:
        features: (U, width), distinct features.
        target: (E,) int64, the atom i that receives.
        source: (E,) int64, the atom j that sends.
        row: (E,) int64, the features of each edge. None if U = E, in the order of the edges.
    """

    features: Tensor
    target: Tensor
    source: Tensor
    row: Tensor | None

    def per_edge(self, values: Tensor) -> Tensor:
        """What was computed from each of the distinct features, (U, C), for each edge: (E, C)."""
        return values if self.row is None else values.index_select(0, self.row)

    def joined(self, other: Edges) -> Edges:
        """The edges of both."""
        row = None
        if self.row is not None or other.row is not None:
            row = torch.cat([self._rows(), other._rows() + len(self.features)])
        return Edges(
            torch.cat([self.features, other.features]),
            torch.cat([self.target, other.target]),
            torch.cat([self.source, other.source]),
            row,
        )

    def _rows(self) -> Tensor:
        return torch.arange(len(self.target), device=self.target.device) if self.row is None else self.row


def distinct(values: Tensor) -> tuple[Tensor, Tensor | None]:
    """Distinct rows, so that a layer runs once on each instead of on all.

    The edges i -> j and j -> i have one distance, the pairs (a, b) and (b, a) one potential, and
    symmetry makes many more equal: half of the rows or fewer remain.

    Args:
        values: (R,) or (R, C). Rows are equal if every bit is.

    Returns:
        (U,) or (U, C) distinct rows, and (R,) int64, the distinct row of each: `values` is the first
        indexed by the second. Under `torch.compile`, whose graphs need sizes that don't depend on data,
        `values` itself and None.
    """
    if torch.compiler.is_compiling():
        return values, None
    rows, inverse = torch.unique(values, return_inverse=True, dim=None if values.dim() == 1 else 0)
    return rows, inverse
