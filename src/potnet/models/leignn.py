"""LEIGNN: scalars, vectors and one virtual node a crystal (Yang et al., arXiv 2311.02869)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from potnet.crystals.batch import CrystalBatch, edge_vectors
from potnet.models.network import Network
from potnet.nn import (
    ElementEmbedding,
    Embedding,
    Envelope,
    GaussianBasis,
    Head,
    HeadSpecs,
    SmoothBasis,
    aggregate,
)
from potnet.nn.equivariant import VectorHead, VectorMessage, VectorUpdate, mlp, vector_norm
from potnet.nn.heads import head_specs


class LEIGNN(Network):
    """Equivariant message passing, with a virtual node that exchanges messages with every atom in each layer.

    In each layer: distribute, s_i += MLP([s_i, S]), v_i += W (v_i + G); message and update as in
    `potnet.nn.equivariant`; aggregate, S += MLP([mean s, S]), G += W (mean v + G). S begins learned, G as
    zero. An energy is the sum over atoms of an MLP of s. A head of atoms with three outputs is a vector, a
    linear map of v: forces given so ("direct", as published) are cheap and not the gradient of an energy.

    Args:
        width: h, an even number; published 512.
        layers: Published 3, and 4 in all training scripts.
        cutoff: Å, of the local edges: the cutoff of the features.
        bins: Gaussians of a distance.
        virtual_node: Whether there is one; it sees all atoms, whatever their distance.
        heads: What it gives, by key; one scalar of crystals by default.
        fold: Not possible: atoms that symmetry makes equal have different vectors.

    Raises:
        ValueError: A size that is not positive, an odd width, or `fold=True`.
    """

    needs = frozenset({"edges"})
    smooth = True

    def __init__(
        self,
        width: int = 512,
        layers: int = 4,
        cutoff: float = 5.0,
        bins: int = 128,
        virtual_node: bool = True,
        heads: HeadSpecs | None = None,
        fold: bool = False,
    ) -> None:
        super().__init__(fold)
        if fold:
            raise ValueError("LEIGNN has vectors, which equal atoms do not share: set fold=false")
        if layers < 1 or width < 2 or width % 2:
            raise ValueError(f"width must be even and layers positive, got {width} and {layers}")
        self.width = width
        self.elements = ElementEmbedding(width)
        self.basis = SmoothBasis(GaussianBasis(0.0, cutoff, bins), Envelope(cutoff, 5))
        self.messages = nn.ModuleList(VectorMessage(width, bins) for _ in range(layers))
        self.updates = nn.ModuleList(VectorUpdate(width) for _ in range(layers))
        self.virtual = nn.ModuleList(VirtualNode(width) for _ in range(layers if virtual_node else 0))
        for layer in list(self.virtual)[-1:]:
            # Nothing reads the virtual node after the last layer, and distributed training waits for the
            # gradient of every parameter that is not frozen. They are kept, as the published network has
            # them.
            for unread in (layer.from_scalars, layer.from_vectors):
                unread.requires_grad_(False)
        self.start = nn.Parameter(torch.zeros(width)) if virtual_node else None
        self.heads = nn.ModuleDict()  # type: ignore[assignment]
        self.vector_heads = nn.ModuleDict()
        for key, spec in head_specs(heads).items():
            if spec.per == "atom" and spec.outputs == 3:
                self.vector_heads[key] = VectorHead(width)
            else:
                self.heads[key] = Head(spec, width, width, [width // 2], nn.SiLU)

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Scalars of atoms (N, h), and their mean over each crystal."""
        scalars, _ = self.features(batch)
        return Embedding(scalars, aggregate(scalars, batch.batch, batch.num_crystals, "mean"))

    def features(self, batch: CrystalBatch) -> tuple[Tensor, Tensor]:
        """Scalars (N, h) and vectors (N, 3, h) of atoms.

        Raises:
            ValueError: The batch has no local edges, or an element is unknown.
        """
        vectors = edge_vectors(batch, "LEIGNN")
        assert batch.edge_index is not None
        length = vector_norm(vectors)
        basis, unit = self.basis(length), vectors / length.unsqueeze(1)
        s = self.elements(batch)
        v = s.new_zeros(len(s), 3, self.width)
        node: tuple[Tensor, Tensor] | None = None
        if self.start is not None:
            node = self.start.expand(batch.num_crystals, -1), s.new_zeros(batch.num_crystals, 3, self.width)
        for i, (message, update) in enumerate(zip(self.messages, self.updates, strict=True)):
            if node is not None:
                s, v = self.virtual[i].distribute(s, v, node, batch)  # type: ignore[operator]
            s, v = message(s, v, batch.edge_index, basis, unit, first=i == 0)
            s, v = update(s, v)
            if node is not None:
                node = self.virtual[i].aggregate(s, v, node, batch)  # type: ignore[operator]
        return s, v

    def forward(self, batch: CrystalBatch) -> dict[str, Tensor]:
        """The output of each head; vectors of atoms are (N, 3)."""
        s, v = self.features(batch)
        embedding = Embedding(s, aggregate(s, batch.batch, batch.num_crystals, "mean"))
        found = {key: head(embedding, batch) for key, head in self.heads.items()}
        return found | {key: head(v) for key, head in self.vector_heads.items()}


class VirtualNode(nn.Module):
    """What atoms hear from the virtual node of their crystal, and what it hears from them.

    Args:
        width: h.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_scalars = mlp(2 * width, width, width)
        self.to_vectors = nn.Linear(width, width, bias=False)
        self.from_scalars = mlp(2 * width, width, width)
        self.from_vectors = nn.Linear(width, width, bias=False)

    def distribute(
        self, s: Tensor, v: Tensor, node: tuple[Tensor, Tensor], batch: CrystalBatch
    ) -> tuple[Tensor, Tensor]:
        """Scalars (N, h) and vectors (N, 3, h) that know the virtual node, (B, h) and (B, 3, h)."""
        scalar, vector = (part.index_select(0, batch.batch) for part in node)
        return s + self.to_scalars(torch.cat([s, scalar], -1)), v + self.to_vectors(v + vector)

    def aggregate(
        self, s: Tensor, v: Tensor, node: tuple[Tensor, Tensor], batch: CrystalBatch
    ) -> tuple[Tensor, Tensor]:
        """The virtual node that knows the means of its atoms."""
        scalar, vector = node
        mean_s, mean_v = (aggregate(part, batch.batch, batch.num_crystals, "mean") for part in (s, v))
        scalar = scalar + self.from_scalars(torch.cat([mean_s, scalar], -1))
        return scalar, vector + self.from_vectors(mean_v + vector)
