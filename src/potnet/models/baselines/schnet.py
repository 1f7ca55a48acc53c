"""SchNet for crystals (Schütt et al., J. Chem. Phys. 148, 241722, 2018; arXiv:1712.06113).

With the settings that the authors published for the Materials Project in SchNetPack
(`schnetpack_matproj.py`, versions before 1.0): 64 features, six interactions, neighbours within 5 Å,
25 Gaussians, sums normalised by the number of neighbours, as the paper recommends for periodic systems, and
the mean over the atoms.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from potnet.crystals.batch import CrystalBatch
from potnet.models.network import Network
from potnet.nn import (
    Edges,
    ElementEmbedding,
    Embedding,
    FoldedBatch,
    GaussianBasis,
    Head,
    Heads,
    HeadSpecs,
    ShiftedSoftplus,
    aggregate,
    glorot_,
)


class SchNet(Network):
    """Continuous-filter convolutions.

    x_i <- x_i + A ssp(B sum_j (C x_j) * w(r_ij) / n_i), w(r) = f(r) D' ssp(D g(r)), with g Gaussians of the
    distance, f(r) = (1 + cos(pi r / cutoff)) / 2 and n_i neighbours of i; then two layers atom by atom, and
    their mean.

    Deviations: none known from the released code. The paper's text has Gaussians every 0.1 Å and no
    smooth cutoff f; the settings of the released code are used.

    Equal atoms and edges are computed once (`potnet.nn.symmetry`): the same function, in less time.

    Args:
        width: Features of an atom, and filters.
        layers: Number of interactions.
        cutoff: Å, where the filters end; that of the neighbours.
        bins: Number of Gaussians, from 0 to the cutoff.
        reduce: How messages are reduced: "mean", over the neighbours, or "sum", as for molecules.
        heads: What to give for each target, by its key; None is one scalar of crystals named "value".
        fold: See `Network`.

    Attributes:
        needs: The features that `forward` reads: "edges".

    Raises:
        ValueError: If an option has an unknown value, or a size is not positive.
    """

    needs = frozenset({"edges"})

    def __init__(
        self,
        width: int = 64,
        layers: int = 6,
        cutoff: float = 5.0,
        bins: int = 25,
        reduce: Literal["mean", "sum"] = "mean",
        heads: HeadSpecs | None = None,
        fold: bool = True,
    ) -> None:
        super().__init__(fold)
        if min(width // 2, layers) < 1 or not cutoff > 0:
            raise ValueError(
                "width must be at least 2, layers at least 1 and cutoff positive, "
                f"got {width}, {layers} and {cutoff}"
            )
        if reduce not in ("mean", "sum"):
            raise ValueError(f"reduce must be 'mean' or 'sum', got {reduce!r}")
        self.cutoff = cutoff
        self.embedding = ElementEmbedding(width)
        # exp(-((r - c) / spacing)² / 2)
        self.basis = GaussianBasis(0.0, cutoff, bins, width=math.sqrt(2) * cutoff / (bins - 1))
        self.interactions = nn.ModuleList(Interaction(width, bins, reduce) for _ in range(layers))
        self.reduce = reduce
        self.heads = Heads(
            heads, lambda spec: Head(spec, width, width, [width // 2], ShiftedSoftplus, pool="outputs")
        )
        glorot_(self)

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """With sums: the filters end smoothly, but the number of neighbours that a mean divides by jumps."""
        return self.reduce == "sum"

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Features of atoms (N, width), and their mean over each crystal; see `Network.embed`."""
        folded = FoldedBatch(batch, "SchNet", self.fold)
        edges = folded.local_edges(self.basis(folded.distance))
        # Neighbours are found up to the rounding of coordinates beyond the cutoff.
        window = 0.5 + 0.5 * torch.cos(math.pi / self.cutoff * folded.distance.clamp(max=self.cutoff))
        x = folded.of_atoms(self.embedding(batch))
        for interaction in self.interactions:
            x = x + interaction(x, edges, window.unsqueeze(-1))
        x = folded.atoms.spread(x)
        return Embedding(x, aggregate(x, batch.batch, batch.num_crystals, "mean"))


class Interaction(nn.Module):
    """One interaction block: the change of the features of atoms.

    Args:
        width: Features of an atom, and filters.
        bins: Features of an edge.
        reduce: "mean" or "sum" over neighbours.
    """

    def __init__(self, width: int, bins: int, reduce: str) -> None:
        super().__init__()
        self.reduce = reduce
        self.filter = nn.Sequential(nn.Linear(bins, width), ShiftedSoftplus(), nn.Linear(width, width))
        self.of_source = nn.Linear(width, width, bias=False)
        self.update = nn.Sequential(nn.Linear(width, width), ShiftedSoftplus(), nn.Linear(width, width))

    def forward(self, x: Tensor, edges: Edges, window: Tensor) -> Tensor:
        """The change of the features of atoms.

        Args:
            x: (C, width), of each class of atoms.
            edges: With U distinct features.
            window: (U, 1), the smooth cutoff.
        """
        weight = edges.per_edge(self.filter(edges.features) * window)
        message = self.of_source(x).index_select(0, edges.source) * weight
        return self.update(aggregate(message, edges.target, len(x), self.reduce, edges.times))
