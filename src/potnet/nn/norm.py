"""Batch normalisation that also takes batches of one row, and rows that stand for several."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potnet.nn.aggregate import at_least_float32, occurrences


class BatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over rows (R, C), with a defined result for fewer than two rows.

    In training mode one row (a batch of one crystal with one atom) has no variance, and torch
    raises. Here such a batch is normalised by the running statistics, which it leaves unchanged.
    """

    def forward(self, x: Tensor, row: Tensor | None = None) -> Tensor:
        """Normalise every row.

        Args:
            x: (R, C) rows.
            row: (S,) int64, indices of rows: x stands for the larger x[row], and the result is what would
                be got by normalising that, at the cost of R rows. None if x stands for itself.

        Returns:
            (R, C).
        """
        samples = len(x) if row is None else len(row)
        if not self.training or samples < 2:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if row is None:
            return super().forward(x)
        wide = at_least_float32(x)
        # Products and sums rather than a matrix product, which autocast would do in half precision.
        share = (occurrences(row, len(x), wide.dtype) / samples).unsqueeze(1)
        mean = (share * wide).sum(0)
        centered = wide - mean
        variance = (share * centered.square()).sum(0)
        self._track(mean.detach(), variance.detach() * (samples / (samples - 1)))
        return (centered * (self.weight * torch.rsqrt(variance + self.eps)) + self.bias).to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
