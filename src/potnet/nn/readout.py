"""From features of atoms to one number a crystal."""

from __future__ import annotations

from torch import Tensor, nn

from potnet.crystals.batch import CrystalBatch
from potnet.nn.aggregate import aggregate


class Readout(nn.Module):
    """Pool over the atoms of each crystal, then Linear, activation, Linear to one number.

    Args:
        width: Features of an atom, and of the hidden layer.
        activation: Between the two linear layers.
        reduce: "mean" for properties that don't grow with the cell, "sum" for those that do.
    """

    def __init__(self, width: int, activation: nn.Module, reduce: str = "mean") -> None:
        super().__init__()
        self.reduce = reduce
        self.hidden = nn.Linear(width, width)
        self.activation = activation
        self.output = nn.Linear(width, 1)

    def forward(self, x: Tensor, batch: CrystalBatch) -> Tensor:
        """(N, width) features of atoms to (B,)."""
        pooled = aggregate(x, batch.batch, batch.num_crystals, self.reduce)
        return self.output(self.activation(self.hidden(pooled))).squeeze(-1)
