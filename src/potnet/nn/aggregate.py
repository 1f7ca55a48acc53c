"""Sums, means and extrema over the rows that share an index (edges of an atom, atoms of a crystal)."""

from __future__ import annotations

import torch
from torch import Tensor

REDUCTIONS = ("sum", "mean", "max", "min")


def aggregate(values: Tensor, index: Tensor, size: int, reduce: str = "sum") -> Tensor:
    """Reduce rows with the same index.

    Args:
        values: (R, ...) rows.
        index: (R,) int64 in [0, size), in any order.
        size: Number of rows of the result.
        reduce: "sum", "mean", "max" or "min".

    Returns:
        (size, ...), zero where no row has that index.

    Raises:
        ValueError: If `reduce` is none of the above.
    """
    if reduce in ("max", "min"):
        # torch-geometric uses torch-scatter here when it is installed; for sums there is nothing faster
        # than index_add, and importing torch-geometric takes seconds.
        from torch_geometric.utils import scatter

        return scatter(values, index, dim=0, dim_size=size, reduce=reduce)
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)}, got {reduce!r}")
    total = values.new_zeros(size, *values.shape[1:]).index_add(0, index, values)
    if reduce == "sum":
        return total
    count = occurrences(index, size, values.dtype).clamp_(min=1)
    return total / count.view(-1, *[1] * (values.dim() - 1))


def occurrences(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """How often each number of [0, size) is in index (R,): (size,).

    Unlike `torch.bincount` it neither waits for a GPU nor depends on the order of its threads.
    """
    return torch.zeros(size, dtype=dtype, device=index.device).index_add_(
        0, index, torch.ones(len(index), dtype=dtype, device=index.device)
    )
