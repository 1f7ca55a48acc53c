"""Batch normalisation that also takes batches of one row, and rows that stand for several."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from potnet.nn.aggregate import at_least_float32, occurrences


class BatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over rows (R, C), with a defined result for fewer than two rows.

    In training mode one row (a batch of one crystal with one atom) has no variance, and torch
    raises. Here such a batch is normalised by the running statistics, which it leaves unchanged.

    Attributes:
        across_ranks: Whether, in distributed training, the statistics are those of the rows of all ranks, all
            of which then have to call this layer equally often. Otherwise each rank has its own.
    """

    across_ranks = False

    def forward(self, x: Tensor, row: Tensor | None = None) -> Tensor:
        """Normalise every row.

        Args:
            x: (R, C) rows.
            row: (S,) int64, indices of rows: x stands for the larger x[row], and the result is what would
                be got by normalising that, at the cost of R rows. None if x stands for itself.

        Returns:
            (R, C).
        """
        if self.training and self.across_ranks and dist.is_available() and dist.is_initialized():
            return self._forward_across_ranks(x, row)
        samples = len(x) if row is None else len(row)
        if not self.training or samples < 2:
            return self._by_running_statistics(x)
        if row is None:
            return super().forward(x)
        wide = at_least_float32(x)
        share = occurrences(row, len(x), wide.dtype) / samples
        result, mean, variance = _NormOfShares.apply(wide, self.weight, self.bias, share, self.eps)
        self._track(mean, variance * (samples / (samples - 1)))
        return result.to(x.dtype)

    def _forward_across_ranks(self, x: Tensor, row: Tensor | None) -> Tensor:
        wide = at_least_float32(x)
        count = wide.new_ones(len(x)) if row is None else occurrences(row, len(x), wide.dtype)
        count = count.unsqueeze(1)
        sums = _SumOverRanks.apply(torch.cat([(count * wide).sum(0), count.sum(0)]))
        samples = sums[-1].detach()
        mean = sums[:-1] / samples.clamp(min=1)
        centered = wide - mean
        variance = _SumOverRanks.apply((count * centered.square()).sum(0)) / samples.clamp(min=1)
        # Whether there are rows at all is not asked on the host: a GPU would have to be waited for.
        rest = (samples - 1).clamp(min=1)
        self._track(mean.detach(), variance.detach() * (samples / rest), (samples > 1).to(wide.dtype))
        return (centered * (self.weight * torch.rsqrt(variance + self.eps)) + self.bias).to(x.dtype)

    def _by_running_statistics(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )

    def _track(self, mean: Tensor, variance: Tensor, share: Tensor | float = 1.0) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum * share)
        self.running_var.lerp_(variance, self.momentum * share)


class _NormOfShares(torch.autograd.Function):
    """Batch norm of rows (R, C) that are shares (R,) of the batch, with mean and variance (C,).

    Written out, as that takes half the time and memory of its single steps.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, share: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Sums of many terms need more digits than autocast leaves them.
        with torch.autocast(x.device.type, enabled=False):
            mean = share @ x
            normal = x - mean
            variance = share @ normal.square()
            scale = torch.rsqrt(variance + eps)
            normal.mul_(scale)
        ctx.save_for_backward(x, share, weight, mean, scale)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(bias, normal, weight), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, share, weight, mean, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives, all of it has to follow from x
            mean = share @ x
            scale = torch.rsqrt(share @ (x - mean).square() + ctx.eps)
        normal = (x - mean) * scale
        of_bias = gradient.sum(0)
        of_weight = (gradient * normal).sum(0)
        # Each row moves the mean and the variance by its share.
        common = torch.addcmul(of_bias, normal, of_weight)
        if torch.is_grad_enabled():
            of_x = (gradient - share.unsqueeze(1) * common) * (weight * scale)
        else:  # in place, as a pass over new memory costs more than the arithmetic
            of_x = torch.addcmul(gradient, share.unsqueeze(1), common, value=-1, out=common)
            of_x.mul_(weight * scale)
        return of_x, of_weight, of_bias, None, None


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks; its gradient is the sum of the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _SumOverRanks.apply(gradient)
