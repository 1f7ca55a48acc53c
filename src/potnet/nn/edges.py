"""Edges of a batch, with features stored and computed once where they are equal."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Edges(NamedTuple):
    """E edges of one kind, whose features are stored once where they are equal.

    Attributes:
        features: (U, width), distinct features.
        target: (E,) int64, the node i that receives: an atom or, of an angle, an edge; or a class of them.
        source: (E,) int64, the node j that sends.
        row: (E,) int64, the features of each edge. None if U = E, in the order of the edges.
        times: (E, 1), so many equal edges of its target each stands for. None: each stands for one.
    """

    features: Tensor
    target: Tensor
    source: Tensor
    row: Tensor | None
    times: Tensor | None = None

    def per_edge(self, values: Tensor) -> Tensor:
        """What was computed from each of the distinct features, (U, C), for each edge: (E, C)."""
        return values if self.row is None else values.index_select(0, self.row)

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
