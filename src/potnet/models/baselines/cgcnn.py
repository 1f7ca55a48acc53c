"""CGCNN: crystal graph convolutional neural networks (Xie and Grossman, Phys. Rev. Lett. 120, 145301, 2018).

The improved convolution, eq. 5 of the paper, with the batch norms and the readout of the authors' released
code (github.com/txie-93/cgcnn), which the paper does not spell out.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from potnet.crystals.batch import CrystalBatch
from potnet.models.network import Network, check_sizes
from potnet.nn import (
    BatchNorm,
    Classes,
    EdgeLinear,
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


class CGCNN(Network):
    """Gated sums over the twelve nearest neighbours.

    v_i <- softplus(v_i + BN(sum_j sigmoid(f_ij) * softplus(c_ij))),
    [f_ij, c_ij] = BN(W [v_i, v_j, u_ij] + b), with u_ij Gaussians of the distance and v the
    92 features of the element times a matrix to begin with; then the mean over the atoms, softplus, and a
    network with softplus.

    Deviations from the released code: the shell of the twelfth neighbour is kept whole, where that code
    takes as many of its equal neighbours as make twelve, in whichever order they come; an atom with fewer
    neighbours within the cutoff has fewer, where that code adds rows of zeros (and a warning).

    Equal atoms and edges are computed once (`potnet.nn.symmetry`): the same function, in less time.

    Args:
        width: Features of an atom.
        layers: Number of convolutions.
        hidden: Width of the network after the mean.
        hidden_layers: Its hidden layers, at least 1.
        cutoff: Å, the last center of the Gaussians, which begin at 0; that of the neighbours.
        bins: Number of Gaussians; 41 up to 8 Å are 0.2 Å wide and apart.
        heads: What to give for each target, by its key; None is one scalar of crystals named "value".
        fold: See `Network`.

    Attributes:
        needs: The features that `forward` reads: "edges".

    Raises:
        ValueError: If a size is not positive.
    """

    needs = frozenset({"edges"})

    def __init__(
        self,
        width: int = 64,
        layers: int = 3,
        hidden: int = 128,
        hidden_layers: int = 1,
        cutoff: float = 8.0,
        bins: int = 41,
        heads: HeadSpecs | None = None,
        fold: bool = True,
    ) -> None:
        super().__init__(fold)
        check_sizes(width=width, layers=layers, hidden=hidden, hidden_layers=hidden_layers)
        self.elements = ElementFeatures()
        self.atom_embedding = nn.Linear(self.elements.features, width)
        self.basis = GaussianBasis(0.0, cutoff, bins)
        self.convolutions = nn.ModuleList(CrystalGraphConvolution(width, bins) for _ in range(layers))
        widths = [hidden] * hidden_layers
        self.heads = Heads(heads, lambda spec: Head(spec, width, width, widths, nn.Softplus))

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Features of atoms (N, width), and softplus of their mean over each crystal; see `Network.embed`."""
        folded = FoldedBatch(batch, "CGCNN", self.fold)
        edges = folded.local_edges(self.basis(folded.distance))
        x = self.atom_embedding(folded.of_atoms(self.elements(batch)))
        for convolution in self.convolutions:
            x = convolution(x, edges, folded.atoms, folded.edges)
        x = folded.atoms.spread(x)
        return Embedding(x, F.softplus(aggregate(x, batch.batch, batch.num_crystals, "mean")))


class CrystalGraphConvolution(nn.Module):
    """Eq. 5 of the paper, with the batch norms of the released code.

    Args:
        width: Features of an atom.
        bins: Features of an edge.
    """

    def __init__(self, width: int, bins: int) -> None:
        super().__init__()
        self.gate_and_core = EdgeLinear(width, bins, 2 * width)
        self.edge_norm = BatchNorm(2 * width)
        self.atom_norm = BatchNorm(width)

    def forward(self, x: Tensor, edges: Edges, atoms: Classes, edges_of: Classes) -> Tensor:
        """Features of atoms to the same.

        Args:
            x: (C, width), of each class of atoms.
            edges: One for each class.
            atoms: The atoms in each class, which the norms count.
            edges_of: The edges in each class.
        """
        gate, core = self.edge_norm(self.gate_and_core(x, edges), edges_of.of).chunk(2, 1)
        message = gate.sigmoid() * F.softplus(core)
        total = aggregate(message, edges.target, len(x), times=edges.times)
        return F.softplus(x + self.atom_norm(total, atoms.of))
