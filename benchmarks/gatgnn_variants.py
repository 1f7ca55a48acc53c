"""What holds GATGNN back on the bulk modulus: the published layers with one thing changed.

    PYTHONPATH=benchmarks potnet train experiment=mp_bulk_modulus model=gatgnn seed=0 data.batch_size=32 \
      callbacks.early_stopping=null optimizer.weight_decay=1e-2 optimizer.learning_rate=5e-3 \
      trainer.max_epochs=16 model._target_=gatgnn_variants.ResidualCounting

`Residual` adds what an atom was to what its neighbours send. `Counting` has gates between 0 and 1 in place of
shares that add up to 1 for each atom, so that an atom can count its neighbours. `ResidualCounting` has both,
and without `model._target_` it is GATGNN as published. `Padded` is for 16 neighbours within 4 Å
(features.neighbors.cutoff=4 features.neighbors.k=16 model.bins=9): as in its authors' code for the Materials
Project, an atom with fewer than 16 is filled up with edges that take shares too, here with a learned score
and without a message. docs/comparison.md has the results.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from potnet.models import GATGNN
from potnet.models.baselines.gatgnn import AugmentedAttention
from potnet.nn import Edges, FoldedBatch, HeadSpecs, aggregate, softmax

USUAL_GATE = 0.25
"""Scale of the gates, so that sums over a dozen neighbours begin near one."""


SLOTS = 16
"""Edges of an atom after filling up."""


class _Gates(AugmentedAttention):
    def shares(self, score: Tensor, edges: Edges, count: int) -> Tensor:
        gates = USUAL_GATE * torch.sigmoid(score)
        return gates if edges.times is None else gates * edges.times.to(gates.dtype).reshape(-1, 1)


class _OwnAttention(GATGNN):
    """GATGNN with another attention over the neighbours."""

    attention: type[AugmentedAttention]

    def __init__(
        self, width: int = 64, attention_heads: int = 4, heads: HeadSpecs | None = None, **others: Any
    ) -> None:
        super().__init__(width=width, attention_heads=attention_heads, heads=heads, **others)
        self.attentions = nn.ModuleList(self.attention(width, attention_heads) for _ in self.attentions)


class Counting(_OwnAttention):
    """GATGNN with gates in place of shares."""

    attention = _Gates


class _PaddedShares(AugmentedAttention):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.pad = nn.Parameter(torch.zeros(heads))

    def shares(self, score: Tensor, edges: Edges, count: int) -> Tensor:
        times = torch.ones_like(score[:, :1]) if edges.times is None else edges.times.to(score.dtype)
        missing = (SLOTS - aggregate(times, edges.target, count)).clamp(min=0)
        every = torch.arange(count, device=score.device)
        scores = torch.cat([score, self.pad.expand(count, -1)])
        found = softmax(scores, torch.cat([edges.target, every]), count, torch.cat([times, missing]))
        return found[: len(score)]


class Padded(_OwnAttention):
    """GATGNN whose atoms with fewer than `SLOTS` neighbours give the rest of their shares away."""

    attention = _PaddedShares


class Residual(GATGNN):
    """GATGNN whose layers add to what an atom was."""

    def layer(self, number: int, x: Tensor, edges: Edges, folded: FoldedBatch) -> Tensor:
        return x + super().layer(number, x, edges, folded)


class ResidualCounting(Residual, Counting):
    """Both."""
