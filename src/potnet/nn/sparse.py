"""Products of long, sparse vectors: what kernels between descriptors are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 2**21
"""Pairs of equal features that are held at a time."""


@dataclass(frozen=True)
class SparseRows:
    """B sparse vectors, one after the other.

    Attributes:
        count: (B,) int64, entries of each.
        index: (K,) int64, which features are not zero; none twice in a vector.
        value: (K,) float64, their values.
    """

    count: Tensor
    index: Tensor
    value: Tensor

    def sums(self, terms: Tensor) -> Tensor:
        """(B,), the sum of `terms` (K,) over the entries of each vector."""
        return terms.new_zeros(len(self.count)).index_add_(0, self.owner, terms)

    @property
    def owner(self) -> Tensor:
        """(K,) int64, the vector that each entry belongs to."""
        rows = torch.arange(len(self.count), device=self.count.device)
        return rows.repeat_interleave(self.count, output_size=len(self.index))

    def columns(self) -> SparseColumns:
        """The same entries ordered by feature."""
        order = self.index.argsort(stable=True)
        feature, count = self.index[order].unique_consecutive(return_counts=True)
        start = torch.nn.functional.pad(count.cumsum(0), (1, 0))
        return SparseColumns(len(self.count), feature, start, self.owner[order], self.value[order])


@dataclass(frozen=True)
class SparseColumns:
    """n sparse vectors, feature by feature.

    Attributes:
        size: n.
        feature: (F,) int64, the features that occur, ascending.
        start: (F + 1,) int64, where the entries of each begin, and the end of all.
        row: (K,) integers, the vector that each entry belongs to.
        value: (K,) floating, their values.
    """

    size: int
    feature: Tensor
    start: Tensor
    row: Tensor
    value: Tensor


def overlaps(
    rows: SparseRows,
    columns: SparseColumns,
    weight: Tensor,
    of: Callable[[Tensor, Tensor], Tensor] = torch.mul,
) -> Tensor:
    """sum over features f of weight_f of(x_f, y_f), for each x of B vectors and y of n others.

    Args:
        rows: The vectors x.
        columns: The vectors y.
        weight: (K,), of the feature of each entry of `rows`.
        of: `torch.mul` for scalar products, `torch.minimum` for what non-negative vectors share, or any other
            function of two (m,) tensors that is zero where one of the two is.

    Returns:
        (B, n) float64. Time grows with the number of features that pairs share, memory does not.
    """
    found = rows.value.new_zeros(len(rows.count) * columns.size)
    if not len(columns.feature) or not len(rows.index):
        return found.view(-1, columns.size)
    place = torch.searchsorted(columns.feature, rows.index).clamp(max=len(columns.feature) - 1)
    shared = columns.feature[place] == rows.index
    place, value, weight, owner = place[shared], rows.value[shared], weight[shared], rows.owner[shared]
    count = (columns.start[1:] - columns.start[:-1])[place]
    total = count.cumsum(0)
    begin = 0
    while begin < len(place):
        before = int(total[begin - 1]) if begin else 0
        end = max(begin + 1, int(torch.searchsorted(total, before + _BLOCK, right=True)))
        part = slice(begin, end)
        repeats, size = count[part], int(total[end - 1]) - before
        # Entry number e of the block is entry e - (first of its feature in the block) of the column.
        shift = columns.start[place[part]] - (total[part] - repeats - before)
        entry = torch.arange(size, device=shift.device) + shift.repeat_interleave(repeats, output_size=size)
        slot = (owner[part] * columns.size).repeat_interleave(repeats, output_size=size) + columns.row[entry]
        left, scale = (x[part].repeat_interleave(repeats, output_size=size) for x in (value, weight))
        found.index_add_(0, slot, scale * of(left, columns.value[entry].to(left.dtype)))
        begin = end
    return found.view(-1, columns.size)
