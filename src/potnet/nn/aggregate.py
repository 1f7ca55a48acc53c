"""Sums, means and extrema over the rows that share an index (edges of an atom, atoms of a crystal)."""

from __future__ import annotations

import torch
from torch import Tensor

REDUCTIONS = ("sum", "mean", "max", "min")


def aggregate(
    values: Tensor, index: Tensor, size: int, reduce: str = "sum", times: Tensor | None = None
) -> Tensor:
    """Reduce rows with the same index.

    Args:
        values: (R, ...) rows.
        index: (R,) int64 in [0, size), in any order.
        size: Number of rows of the result.
        reduce: "sum", "mean", "max" or "min".
        times: (R, 1), rows that each stands for. None: each stands for one.

    Returns:
        (size, ...) in the precision of the values, summed in float32 or better. Zero where no row has
        that index.

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
    wide = at_least_float32(values)
    if times is not None:
        wide = wide * times.to(wide.dtype).view(-1, *[1] * (values.dim() - 1))
    total = wide.new_zeros(size, *values.shape[1:]).index_add(0, index, wide)
    if reduce == "mean":
        if times is None:
            count = occurrences(index, size, total.dtype)
        else:
            count = total.new_zeros(size).index_add_(0, index, times.squeeze(1).to(total.dtype))
        # Counts are at least one where there are rows.
        total = total / count.clamp_(min=1).view(-1, *[1] * (values.dim() - 1))
    return total.to(values.dtype)


def softmax(score: Tensor, index: Tensor, size: int, times: Tensor | None = None) -> Tensor:
    """Softmax among the rows that share an index.

    Args:
        score: (R, C), each column on its own.
        index: (R,) int64 in [0, size).
        size: Number of sets of rows; they may be empty.
        times: (R, 1), equal rows that each stands for. None: each stands for one.

    Returns:
        (R, C), positive, with sum 1 over the rows of each set. A row that stands for several has their sum.
    """
    # The largest score of a set changes nothing but the range of exp.
    largest = aggregate(score.detach(), index, size, "max")
    weight = (score - largest.index_select(0, index)).exp()
    if times is not None:
        weight = weight * times.to(weight.dtype)
    return weight / aggregate(weight, index, size).index_select(0, index)


def at_least_float32(x: Tensor) -> Tensor:
    """Widen the half precisions: sums of many terms need more digits than they have."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def occurrences(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """How often each number of [0, size) is in index (R,): (size,).

    Unlike `torch.bincount` it neither waits for a GPU nor depends on the order of its threads.
    """
    return torch.zeros(size, dtype=dtype, device=index.device).index_add_(
        0, index, torch.ones(len(index), dtype=dtype, device=index.device)
    )
