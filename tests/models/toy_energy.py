"""A small smooth energy model: what a force model of this package has to look like, and no more."""

from __future__ import annotations

import torch
from torch import nn

from potnet.crystals import CrystalBatch, edge_vectors
from potnet.models.network import Network
from potnet.nn import (
    BesselBasis,
    ElementEmbedding,
    Embedding,
    Envelope,
    Head,
    Heads,
    HeadSpecs,
    SmoothBasis,
    aggregate,
)


class ToyEnergy(Network):
    """One layer of messages within a radius, and a sum over the atoms."""

    needs = frozenset({"edges"})
    smooth = True

    def __init__(
        self, width: int = 8, cutoff: float = 4.0, heads: HeadSpecs | None = None, fold: bool = False
    ) -> None:
        super().__init__(fold)
        self.elements = ElementEmbedding(width)
        self.basis = SmoothBasis(BesselBasis(cutoff, width), Envelope(cutoff, 6))
        self.filter = nn.Linear(width, width, bias=False)  # without a bias it vanishes at the cutoff
        self.update = nn.Linear(width, width)
        heads = {"energy": {"extensive": True}} if heads is None else heads
        self.heads = Heads(heads, lambda spec: Head(spec, width, width, [width], nn.SiLU))

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Features of atoms and their mean."""
        vectors = edge_vectors(batch, "ToyEnergy")
        assert batch.edge_index is not None
        source, target = batch.edge_index
        x = self.elements(batch)
        message = x[source] * self.filter(self.basis(torch.linalg.vector_norm(vectors, dim=-1)))
        x = x + torch.tanh(self.update(aggregate(message, target, len(x))))
        return Embedding(x, aggregate(x, batch.batch, batch.num_crystals, "mean"))
