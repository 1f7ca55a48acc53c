"""Activations that torch lacks."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F


class ShiftedSoftplus(nn.Module):
    """log(1 + exp(x)) - log(2): a smooth ReLU through the origin (SchNet, Schütt et al. 2017)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        return F.softplus(x).sub_(math.log(2.0))  # in place: one pass over memory less
