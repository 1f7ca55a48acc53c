"""Means over the crystals of an epoch, whatever the ranks they are on."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class WeightedMean(Metric):
    """sum w x / sum w over all batches and ranks since the last reset.

    Unlike a mean that Lightning logs, it can be kept in a checkpoint amid an epoch.
    """

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: float) -> None:
        """Add a batch.

        Args:
            value: (), its mean.
            weight: Of the mean, such as its number of crystals.
        """
        self.total = self.total + value.detach().double() * weight
        self.weight = self.weight + weight

    def compute(self) -> Tensor:
        """(), NaN if nothing was added on any rank."""
        return self.total / self.weight

    def sums(self) -> list[float]:
        """Total and weight over all ranks, all of which have to call this."""
        with self.sync_context():
            return [float(self.total), float(self.weight)]

    def start_from(self, sums: list[float]) -> None:
        """Begin with these sums; to be called on one rank only."""
        total, weight = sums
        self.reset()
        self.total, self.weight = self.total + total, self.weight + weight
        self._update_count = 1
