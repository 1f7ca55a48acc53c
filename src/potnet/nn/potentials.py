"""The potentials of a pair, one channel each or combined into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PotentialChannels(nn.Module):
    """Sums of P potentials as they are, or as one number with fixed weights.

    Args:
        channels: P, potentials of a pair.
        coefficients: P weights that combine the potentials into one; None keeps them apart.

    Attributes:
        outputs: 1 if they are combined, else P.

    Raises:
        ValueError: There are not P coefficients.
    """

    coefficients: Tensor | None

    def __init__(self, channels: int, coefficients: Sequence[float] | None = None) -> None:
        super().__init__()
        if coefficients is not None and len(coefficients) != channels:
            raise ValueError(
                f"{channels} potentials a pair but {len(coefficients)} coefficients {list(coefficients)}: "
                "give one for each potential, or coefficients=null for separate channels"
            )
        self.channels = channels
        self.outputs = channels if coefficients is None else 1
        weights = None if coefficients is None else torch.tensor(list(coefficients), dtype=torch.float32)
        self.register_buffer("coefficients", weights, persistent=False)

    def forward(self, sums: Tensor) -> Tensor:
        """(U, P) to (U, outputs).

        Raises:
            ValueError: The batch has another number of potentials.
        """
        if sums.shape[1] != self.channels:
            raise ValueError(
                f"the batch has {sums.shape[1]} potentials a pair, the model was built for {self.channels}: "
                "set pair_channels to the number of potentials"
            )
        return sums if self.coefficients is None else (sums * self.coefficients).sum(-1, keepdim=True)
