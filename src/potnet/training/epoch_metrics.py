"""Metrics that are collected over the batches and processes of an epoch."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection

from potnet.data.targets import Target


class WeightedMean(Metric):
    """sum w x / sum w over all batches and processes since the last reset.

    Unlike a mean that Lightning logs, it can be kept in a checkpoint in the middle of an epoch.
    """

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: float | Tensor) -> None:
        """Add a batch.

        Args:
            value: (), its mean; not counted where the weight is zero.
            weight: Of the mean, such as its number of crystals.
        """
        value = value.detach().double()
        self.total = self.total + torch.where(torch.as_tensor(weight) > 0, value * weight, 0.0)
        self.weight = self.weight + weight

    def compute(self) -> Tensor:
        """(), NaN if nothing was added on any process."""
        return self.total / self.weight

    def sums(self) -> list[float]:
        """Total and weight over all processes, all of which have to call this."""
        with self.sync_context():
            return [float(self.total), float(self.weight)]

    def start_from(self, sums: list[float]) -> None:
        """Begin with these sums; to be called in one process only."""
        total, weight = sums
        self.reset()
        self.total, self.weight = self.total + total, self.weight + weight
        self._update_count = 1


class Accuracy(Metric):
    """The part of the crystals whose most probable class is the right one."""

    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("correct", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Add (B, classes) logits and (B,) classes."""
        self.correct = self.correct + (logits.argmax(-1) == label).sum()
        self.total = self.total + len(label)

    def compute(self) -> Tensor:
        """(), NaN without a crystal."""
        return self.correct / self.total


def epoch_metrics(target: Target) -> MetricCollection:
    """What is logged of a target after each epoch: `mae` and `rmse`, or `accuracy`."""
    found: dict[str, Metric | MetricCollection] = (
        {"accuracy": Accuracy()}
        if target.is_class
        else {"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False)}
    )
    return MetricCollection(found).set_dtype(torch.float64)
