"""GATGNN: graph attention with global attention (Louis et al., Phys. Chem. Chem. Phys. 22, 18141, 2020).

Attention over the neighbours of each atom, then attention over the atoms of each crystal, in the light of its
composition.
"""

from __future__ import annotations

import torch
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
    softmax,
)

ELEMENTS = 103
"""Entries of a composition, H to Lr."""


class GATGNN(Network):
    """Augmented graph attention (AGAT) layers, composition attention (GI-M1), and the sum over the atoms.

    x is the 92 features of the element times a matrix; u_ij is LeakyReLU(0.2) of Gaussians of the distance
    times a matrix. After each AGAT layer come batch norm and softplus; then

        a_i = softmax over the atoms of a crystal of w · softplus(W [x_i, composition]),    y = sum_i a_i x_i,

    and a network of two hidden layers with softplus. Widths, layers and heads are the defaults of the
    released code (github.com/superlouis/GATGNN), with which it reports 0.045 and 0.075 for the logarithms of
    the bulk and shear moduli.

    That code has layers that nothing uses, 11 280 of its 134 154 parameters: they are kept, frozen, so that
    parameters count as published.

    Deviations: the shell of the twelfth neighbour is kept whole, and an atom with fewer neighbours within 8 Å
    has fewer, where that code fills up with edges to atom 0 at 9 Å.

    Equal atoms and edges are computed once (`potnet.nn.symmetry`): the same function, in less time.

    Args:
        width: Features of atoms, edges and of the network after the sum.
        layers: Number of AGAT layers.
        attention_heads: Of each.
        attention_width: Hidden layer of the composition attention.
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
        attention_heads: int = 4,
        attention_width: int = 32,
        cutoff: float = 8.0,
        bins: int = 41,
        heads: HeadSpecs | None = None,
        fold: bool = True,
    ) -> None:
        super().__init__(fold)
        check_sizes(
            width=width, layers=layers, attention_heads=attention_heads, attention_width=attention_width
        )
        self.elements = ElementFeatures()
        self.atom_embedding = nn.Linear(self.elements.features, width)
        self.basis = GaussianBasis(0.0, cutoff, bins)
        self.edge_embedding = nn.Linear(bins, width)
        self.attentions = nn.ModuleList(AugmentedAttention(width, attention_heads) for _ in range(layers))
        self.norms = nn.ModuleList(BatchNorm(width) for _ in range(layers))
        self.composition_attention = CompositionAttention(width, attention_width)
        self.heads = Heads(heads, lambda spec: Head(spec, width, width, [width, width], nn.Softplus))
        if self.heads.read_atoms_alone:
            # Distributed training waits for the gradient of every parameter that is not frozen.
            self.composition_attention.requires_grad_(False)
        self.unused = nn.ModuleDict(
            {
                "composition": nn.Linear(ELEMENTS, width),
                "cluster": nn.Linear(2 * width + 3, 3),
                "cluster_hidden": nn.Linear(width, width),
                "cluster_score": nn.Linear(width, 1),
                "slopes": nn.ModuleList(nn.PReLU() for _ in range(layers)),
            }
        ).requires_grad_(False)

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Features of atoms (N, width), and their sum weighted by attention; see `Network.embed`."""
        folded = FoldedBatch(batch, "GATGNN", self.fold)
        edges = folded.local_edges(F.leaky_relu(self.edge_embedding(self.basis(folded.distance)), 0.2))
        x = self.atom_embedding(folded.of_atoms(self.elements(batch)))
        for number in range(len(self.attentions)):
            x = self.layer(number, x, edges, folded)
        x = folded.atoms.spread(x)
        weighted = x * self.composition_attention(x, batch)
        return Embedding(x, aggregate(weighted, batch.batch, batch.num_crystals))

    def layer(self, number: int, x: Tensor, edges: Edges, folded: FoldedBatch) -> Tensor:
        """Features of atoms (C, width) after one AGAT layer."""
        found = self.attentions[number](x, edges, folded.edges)
        return F.softplus(self.norms[number](found, folded.atoms.of))


class AugmentedAttention(nn.Module):
    """AGAT: attention over the neighbours whose keys hold the features of the edge.

    For each head, with p_i = softplus(W [x_i, u_ij]) and p_j = softplus(W [x_j, u_ij]), W shared,

        s_ij = softplus(BN(softplus(a · [p_i, p_j]))),
        x_i <- mean over heads of sum_j softmax_j(s_ij) p_j, plus a bias.

    Batch norm is over all edges, one channel a head.

    Args:
        width: Features of atoms and edges.
        heads: Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads * width, 2 * width)))
        self.attention = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, 2 * width)))
        self.bias = nn.Parameter(torch.zeros(width))
        self.norm = BatchNorm(heads)

    def forward(self, x: Tensor, edges: Edges, edges_of: Classes) -> Tensor:
        """Features of atoms to the same; an atom without neighbours gets the bias.

        Args:
            x: (C, width), of each class of atoms.
            edges: One for each class.
            edges_of: The edges in each class, which the norm counts.
        """
        width = x.shape[1]
        of_atom, of_edge = self.weight.split(width, 1)
        # W [x, u] = W_x x + W_u u: a product over the atoms and one over the distinct edges.
        atom = F.linear(x, of_atom)
        edge = edges.per_edge(F.linear(edges.features, of_edge))
        near = F.softplus(edge + atom.index_select(0, edges.target))
        far = F.softplus(edge + atom.index_select(0, edges.source))
        # One row a head, which reads the features of that head: a matrix product rather than a masked sum.
        for_near, for_far = (torch.block_diag(*part) for part in self.attention.split(width, 1))
        score = F.linear(near, for_near) + F.linear(far, for_far)
        score = F.softplus(self.norm(F.softplus(score), edges_of.of))
        share = self.shares(score, edges, len(x)) / self.heads
        # Heads are added up before the sum over the neighbours, which is then shorter.
        message = (far.unflatten(1, (self.heads, width)) * share.unsqueeze(-1)).sum(1)
        return aggregate(message, edges.target, len(x)) + self.bias

    def shares(self, score: Tensor, edges: Edges, count: int) -> Tensor:
        """Of each edge and head in what its target gets: (E, heads) to the same, adding up to 1 for each of
        `count` targets."""
        return softmax(score, edges.target, count, edges.times)


class CompositionAttention(nn.Module):
    """GI-M1 of the paper: how much each atom counts, given the composition of its crystal.

    Args:
        width: Features of an atom.
        hidden: Width of the hidden layer.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width + ELEMENTS, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, batch: CrystalBatch) -> Tensor:
        """(N, width) features of atoms to (N, 1) shares, which add up to 1 in each crystal."""
        of_atom, of_composition = self.hidden.weight.split([x.shape[1], ELEMENTS], 1)
        composition = F.linear(compositions(batch).to(x.dtype), of_composition, self.hidden.bias)
        hidden = F.softplus(F.linear(x, of_atom) + composition.index_select(0, batch.batch))
        return softmax(self.score(hidden), batch.batch, batch.num_crystals)


def compositions(batch: CrystalBatch) -> Tensor:
    """Fraction of each element in each crystal: (B, 103), column Z - 1; every row adds up to 1."""
    one_hot = F.one_hot(batch.z - 1, ELEMENTS).to(torch.float32)
    return aggregate(one_hot, batch.batch, batch.num_crystals, "mean")
