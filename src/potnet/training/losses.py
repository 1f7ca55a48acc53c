"""What training minimises: for each target a loss over the labels that are there, and their weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potnet.crystals.batch import CrystalBatch
from potnet.data.targets import Targets
from potnet.training.outputs import per_atom
from potnet.training.scaling import scaler_of


class Objective:
    """The loss of a run.

    Of numbers: the loss of (value - label) / scale, where the scale is that of the target's scaler (of an
    extensive target per atom, of derived targets that of their energy). Of classes: cross-entropy.

    Args:
        loss: Squared error, absolute error, or Huber's, which is quadratic up to `huber_delta` and linear
            beyond; a target may choose its own.
        huber_delta: On the scale of what is compared.
        scale_target: Whether scalers are set from the training part; else they stay the identity.
    """

    def __init__(
        self,
        loss: Literal["mse", "mae", "huber"] = "huber",
        huber_delta: float = 1.0,
        scale_target: bool = True,
    ) -> None:
        self.scale_target = scale_target
        self.functions: dict[str, Callable[..., Tensor]] = {
            "mse": F.mse_loss,
            "mae": F.l1_loss,
            "huber": partial(F.huber_loss, delta=huber_delta),
        }
        self.loss = loss

    def sums(
        self,
        targets: Targets,
        scalers: nn.ModuleDict,
        values: Mapping[str, Tensor],
        labels: Mapping[str, Tensor],
        batch: CrystalBatch,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Sum of the loss over the labels that are there, and how many these are, for each target.

        Args:
            targets: Of the run.
            scalers: Of the direct targets.
            values: From `outputs.values_of`.
            labels: From `outputs.labels_of`.
            batch: Whose values and labels these are.

        Returns:
            () float64 and () int64 each.
        """
        found = {}
        for key, target in targets.items():
            value, label = values[key], labels[key]
            there = ~label.isnan()
            if target.is_class:
                losses = F.cross_entropy(value, label.nan_to_num().long(), reduction="none")
            else:
                scale = scaler_of(scalers, target.derived_from or key).std
                value, label = (per_atom(targets, key, x, batch) / scale for x in (value, label))
                function = self.functions[target.loss or self.loss]
                losses = function(value, torch.where(there, label, value.detach()), reduction="none")
            found[key] = torch.where(there, losses, 0.0).sum(), there.sum()
        return found

    def total(
        self, targets: Targets, sums: Mapping[str, tuple[Tensor, Tensor]], counts: Mapping[str, Tensor]
    ) -> Tensor:
        """(): the weighted sum over targets of the mean over `counts` labels."""
        terms = [
            target.weight * sums[key][0] / torch.where(counts[key] > 0, counts[key], 1)
            for key, target in targets.items()
        ]
        return torch.stack(terms).sum()
