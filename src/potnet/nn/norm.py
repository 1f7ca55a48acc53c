"""Batch normalisation that also takes batches of one row."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over rows (R, C), with a defined result for fewer than two rows.

    In training mode one row (a batch of one crystal with one atom) has no variance, and torch
    raises. Here such a batch is normalised by the running statistics, which it leaves unchanged.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(R, C) to (R, C)."""
        if self.training and len(x) < 2:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)
