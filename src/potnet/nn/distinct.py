"""Doing the work of equal inputs once."""

from __future__ import annotations

import torch
from torch import Tensor


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
