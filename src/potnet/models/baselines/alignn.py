"""ALIGNN: atomistic line graph neural network (Choudhary and DeCost, npj Comput. Mater. 7, 185, 2021).

Messages pass along the bonds and, in turn, along the pairs of bonds that meet in an atom (the line graph),
whose features begin as the angle between them.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from potnet.crystals.batch import CrystalBatch
from potnet.models.network import Network, check_sizes
from potnet.nn import (
    BatchNorm,
    Classes,
    Edges,
    ElementFeatures,
    Embedding,
    FoldedBatch,
    GaussianBasis,
    Head,
    Heads,
    HeadSpecs,
    aggregate,
)

FURTHEST = 8.0
"""Å, the last center of the Gaussians of a distance."""


class ALIGNN(Network):
    """Four updates of bonds and angles, four of bonds alone, the mean over the atoms, and a linear layer.

    With atoms x, bonds y (from u to v) and angles z (from the bond e' = (u -> v) to e = (v -> w)), an ALIGNN
    layer is

        x, m = EdgeGated(bonds; x, y),    y, z = EdgeGated(angles; m, z),

    (eqs. 8 and 7 of the paper) and a GCN layer the first of these alone (see `EdgeGatedConvolution`).
    80 Gaussians of the bond length and 40 of the cosine of the angle go through layers of width 64 and 256,
    the 92 features of the element through one of width 256; each of these is linear, batch norm, SiLU.

    As in the released code (github.com/usnistgov/alignn), with whose package this is compared: bonds come
    before angles in a layer, where the text of the paper has them the other way round; Gaussians are
    exp(-(s - c)² / spacing), not of the squared spacing; neighbours are the twelve nearest of an atom with
    the whole of the last shell, and every bond is there in both directions; a bond and its own reverse
    are a pair, at angle zero.

    Deviations. Edges: that code lists a bond between an atom and its own image twice, this one once. Angles:
    its line graph lacks the straight angle at an atom between two of its own images; here it is there, as it
    is in any larger cell. Parameters: the two batch norms after the last use of bonds and of angles,
    whose result nothing reads, are left out (1 024 of 4 026 753).

    Equal atoms, bonds and angles are computed once (`potnet.nn.symmetry`): the same function, in about a
    tenth of the time on crystals with as much symmetry as those of the Materials Project.

    Args:
        width: Features of atoms, bonds and angles.
        embedding: Width of the first layer of bonds and of angles.
        alignn_layers: Layers that update atoms, bonds and angles.
        gcn_layers: Layers after these that update atoms and bonds.
        bins: Gaussians of the bond length, from 0 to 8 Å.
        angle_bins: Gaussians of the cosine, from -1 to 1.
        heads: What to give for each target, by its key; None is one scalar of crystals named "value".
        fold: See `Network`.

    Attributes:
        needs: The features that `forward` reads: "edges" and "angles".

    Raises:
        ValueError: If a size is not positive.
    """

    needs = frozenset({"edges", "angles"})

    def __init__(
        self,
        width: int = 256,
        embedding: int = 64,
        alignn_layers: int = 4,
        gcn_layers: int = 4,
        bins: int = 80,
        angle_bins: int = 40,
        heads: HeadSpecs | None = None,
        fold: bool = True,
    ) -> None:
        super().__init__(fold)
        check_sizes(width=width, embedding=embedding, alignn_layers=alignn_layers, gcn_layers=gcn_layers)
        self.elements = ElementFeatures()
        self.atom_embedding = NormedLayer(self.elements.features, width)
        self.bond_embedding = ScalarEmbedding(0.0, FURTHEST, bins, embedding, width)
        self.angle_embedding = ScalarEmbedding(-1.0, 1.0, angle_bins, embedding, width)
        self.bond_layers = nn.ModuleList(EdgeGatedConvolution(width) for _ in range(alignn_layers))
        self.angle_layers = nn.ModuleList(
            EdgeGatedConvolution(width, updates_edges=i + 1 < alignn_layers) for i in range(alignn_layers)
        )
        self.gcn_layers = nn.ModuleList(
            EdgeGatedConvolution(width, updates_edges=i + 1 < gcn_layers) for i in range(gcn_layers)
        )
        self.heads = Heads(heads, lambda spec: Head(spec, width, width, [], nn.Identity))

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Features of atoms (N, width), and their mean over each crystal; see `Network.embed`."""
        folded = FoldedBatch(batch, "ALIGNN", self.fold, angles=True)
        atoms, bonds_of, angles_of = folded.atoms, folded.edges, folded.angles
        bonds = folded.local_edges(self.bond_embedding(*folded.lengths))
        angles = folded.angle_edges(self.angle_embedding(*folded.cosines))
        x = self.atom_embedding(folded.of_atoms(self.elements(batch)), atoms.of)
        for of_bonds, of_angles in zip(self.bond_layers, self.angle_layers, strict=True):
            x, bonds = of_bonds(x, bonds, atoms, bonds_of)
            y, angles = of_angles(bonds.features, angles, bonds_of, angles_of)
            bonds = bonds._replace(features=y)
        for layer in self.gcn_layers:
            x, bonds = layer(x, bonds, atoms, bonds_of)
        x = atoms.spread(x)
        return Embedding(x, aggregate(x, batch.batch, batch.num_crystals, "mean"))


class EdgeGatedConvolution(nn.Module):
    """Edge-gated graph convolution with residuals (Bresson and Laurent 2017), eqs. 2 to 4 of the paper.

    As in the released code the gate is of m_e, where eq. 3 of the paper has y_e.

    For edges e from j to i, with all weights linear layers with bias and norms over the whole batch,

        m_e = source(x_j) + target(x_i) + edge(y_e),
        x_i <- x_i + SiLU(BN(own(x_i) + sum_e sigmoid(m_e) * message(x_j) / (sum_e sigmoid(m_e) + 1e-6))),
        y_e <- y_e + SiLU(BN(m_e)).

    Args:
        width: Features of nodes and of edges.
        updates_edges: False where nothing reads y afterwards.
    """

    def __init__(self, width: int, updates_edges: bool = True) -> None:
        super().__init__()
        self.source, self.target, self.edge = (nn.Linear(width, width) for _ in range(3))
        self.own, self.message = (nn.Linear(width, width) for _ in range(2))
        self.node_norm = BatchNorm(width)
        self.edge_norm = BatchNorm(width) if updates_edges else None

    def forward(self, x: Tensor, edges: Edges, nodes_of: Classes, edges_of: Classes) -> tuple[Tensor, Edges]:
        """Features of nodes, and edges, to the same.

        Args:
            x: (C, width), of each class of nodes.
            edges: One for each class.
            nodes_of: The nodes in each class, which the norms count.
            edges_of: The edges in each class.
        """
        gate = edges.per_edge(self.edge(edges.features))
        # In place: a pass over new memory costs a fair part of the product.
        gate += self.source(x).index_select(0, edges.source)
        gate += self.target(x).index_select(0, edges.target)
        openness = gate.sigmoid()
        if edges.times is not None:  # counted here, once for both sums
            openness = openness * edges.times.to(openness.dtype)
        message = openness * self.message(x).index_select(0, edges.source)
        total = aggregate(message, edges.target, len(x))
        mean = total / (aggregate(openness, edges.target, len(x)) + 1e-6)
        x = x + F.silu(self.node_norm(self.own(x) + mean, nodes_of.of))
        if self.edge_norm is None:
            return x, edges
        y = edges.per_edge(edges.features) + F.silu(self.edge_norm(gate, edges_of.of))
        return x, edges._replace(features=y, row=None)


class NormedLayer(nn.Module):
    """Linear, batch norm, SiLU."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, width)
        self.norm = BatchNorm(width)

    def forward(self, x: Tensor, row: Tensor | None = None) -> Tensor:
        """(R, features) to (R, width); `row` as for `BatchNorm`."""
        return F.silu(self.norm(self.linear(x), row))


class ScalarEmbedding(nn.Module):
    """Gaussians of a scalar, then two `NormedLayer`s.

    Args:
        start: First center of the Gaussians.
        stop: Last center.
        bins: Number of Gaussians.
        hidden: Width of the first layer.
        width: Width of the second.
    """

    def __init__(self, start: float, stop: float, bins: int, hidden: int, width: int) -> None:
        super().__init__()
        # exp(-(s - c)² / spacing): the width of a Gaussian is the square root of the spacing.
        spacing = (stop - start) / max(bins - 1, 1)
        self.basis = GaussianBasis(start, stop, bins, width=spacing**0.5)
        self.first = NormedLayer(bins, hidden)
        self.second = NormedLayer(hidden, width)

    def forward(self, values: Tensor, row: Tensor | None) -> Tensor:
        """(U,) distinct values to (U, width); `row` (R,) says which of them each edge has, None if U = R."""
        return self.second(self.first(self.basis(values), row), row)
