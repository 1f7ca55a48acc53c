"""Matformer: periodic graph transformer (Yan et al., NeurIPS 2022).

Elementwise attention along the bonds, and along edges from each atom to its own images one lattice vector
away, which tell the network how the cell repeats without any angle.
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

FURTHEST = 8.0
"""Å, the last center of the Gaussians of a distance."""

RIGHT_ANGLE = 1e-3
"""Cosines below this count as zero when the signs of the lattice vectors are chosen."""


class Matformer(Network):
    """Five `MatformerConvolution`s, the mean over the atoms, Linear, SiLU, Linear.

    x is the 92 features of the element times a matrix; an edge is Linear, softplus, Linear of 128 Gaussians
    of its length. Edges are the twelve nearest neighbours of each atom with the whole of the last shell, each
    in both directions, and the self-connecting edges: from every atom to its images at plus and minus each of
    l1, l2, l3, l1 + l2, l1 + l3, l2 + l3, with the lattice vectors l.

    As in the released code (github.com/YKQ98/Matformer): lengths are expanded as they are, in Gaussians
    exp(-(r - c)² / spacing) between 0 and 8 Å, and the attention is that of its `MatformerConv`. It has
    layers that nothing uses, 97 792 of its 2 880 641 parameters: they are kept, frozen, so that parameters
    count as published (2.9 M) and its weights load.

    Deviations. Lattice vectors are those of the primitive Niggli cell, up to signs that do not hang on
    rounding (see `lattice_lengths`), where that code takes the cell as given: so a prediction does not depend
    on the choice of cell. Of the edges between an atom and its own images that are among the nearest
    neighbours, that code lists each twice; here each is listed once, and those along lattice vectors once
    more, as self-connecting edges.

    Equal atoms and edges are computed once (`potnet.nn.symmetry`): the same function, in less time.

    Args:
        width: Features of atoms and edges.
        layers: Number of convolutions.
        attention_heads: Of each.
        bins: Gaussians of a length, from 0 to 8 Å.
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
        width: int = 128,
        layers: int = 5,
        attention_heads: int = 4,
        bins: int = 128,
        heads: HeadSpecs | None = None,
        fold: bool = True,
    ) -> None:
        super().__init__(fold)
        check_sizes(width=width, layers=layers, attention_heads=attention_heads)
        self.elements = ElementFeatures()
        self.atom_embedding = nn.Linear(self.elements.features, width)
        # exp(-(r - c)² / spacing): the width of a Gaussian is the square root of the spacing.
        spacing = FURTHEST / max(bins - 1, 1)
        self.edge_embedding = nn.Sequential(
            GaussianBasis(0.0, FURTHEST, bins, width=spacing**0.5),
            nn.Linear(bins, width),
            nn.Softplus(),
            nn.Linear(width, width),
        )
        self.convolutions = nn.ModuleList(MatformerConvolution(width, attention_heads) for _ in range(layers))
        self.heads = Heads(heads, lambda spec: Head(spec, width, width, [width], nn.SiLU))
        self.unused = nn.ModuleDict(
            {
                "edge_init": nn.Sequential(
                    nn.Linear(3 * width, width), nn.Softplus(), nn.Linear(width, width)
                ),
                "angle_init": nn.Sequential(nn.Linear(120, width), nn.Softplus(), nn.Linear(width, width)),
            }
        ).requires_grad_(False)

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Features of atoms (N, width), and their mean over each crystal; see `Network.embed`."""
        folded = FoldedBatch(batch, "Matformer", self.fold)
        atoms = folded.atoms
        local = folded.local_edges(self.edge_embedding(folded.distance))
        edges = local.joined(self._self_edges(batch, folded))
        x = self.atom_embedding(folded.of_atoms(self.elements(batch)))
        for convolution in self.convolutions:
            x = convolution(x, edges, atoms)
        x = atoms.spread(x)
        return Embedding(x, aggregate(x, batch.batch, batch.num_crystals, "mean"))

    def _self_edges(self, batch: CrystalBatch, folded: FoldedBatch) -> Edges:
        """One for each class of atoms and each distinct of the six lengths; opposite vectors have one."""
        atoms = folded.atoms
        lengths = lattice_lengths(batch.cell).to(batch.dtype)
        crystals = torch.arange(len(lengths), device=lengths.device)
        length = folded.equal(lengths.flatten(), crystals.repeat_interleave(6))
        row = length.colours().view(-1, 6).index_select(0, batch.batch.index_select(0, atoms.first)).flatten()
        atom = torch.arange(len(atoms.first), device=row.device).repeat_interleave(6)
        times = lengths.new_full((len(row), 1), 2.0)
        if length.row is not None:
            size = len(length.values)
            edge, count = torch.unique(atom * size + row, return_counts=True)
            atom, row = edge // size, edge % size
            times = 2.0 * count.to(lengths.dtype).unsqueeze(1)
        return Edges(self.edge_embedding(length.values), atom, atom, row, times)


def lattice_lengths(cell: Tensor) -> Tensor:
    """Lengths of l1, l2, l3, l1 + l2, l1 + l3, l2 + l3, Å.

    A Niggli cell has all angles acute, or none. With a right angle the choice hangs on the last digit, so
    signs of the vectors are chosen here: the sums are the long diagonals of all three faces if all angles can
    be acute at once and none is right, and otherwise the short ones.

    Args:
        cell: (B, 3, 3), rows are the lattice vectors of a Niggli cell in any signs, Å.

    Returns:
        (B, 6).
    """
    length = torch.linalg.vector_norm(cell, dim=-1)
    first, second = cell[:, [0, 0, 1]], cell[:, [1, 2, 2]]
    product = (first * second).sum(-1)
    scale = length[:, [0, 0, 1]] * length[:, [1, 2, 2]]
    acute = (product.prod(1) > 0) & (product.abs() > RIGHT_ANGLE * scale).all(1)
    sign = torch.where(acute, 1.0, -1.0).unsqueeze(1)
    squares = length.square()
    diagonal = squares[:, [0, 0, 1]] + squares[:, [1, 2, 2]] + 2 * sign * product.abs()
    return torch.cat([length, diagonal.clamp(min=0).sqrt()], 1)


class MatformerConvolution(nn.Module):
    """Attention without softmax, so that the number of neighbours is not lost: eqs. 2 to 4 of the paper.

    With queries q, keys k and values v of the atoms, e = Linear(edge), [,] concatenation, * elementwise, for
    each of the heads

        alpha_ij = [q_i, q_i, q_i] * [k_i, k_j, e_ij] / sqrt(3 width),
        m_ij = LN(Linear(sigmoid(LN(alpha_ij)) * Linear([v_i, v_j, e_ij]))),

    and x_i <- Linear(x_i) + SiLU(BN(Linear([heads of sum_j m_ij]))).

    Args:
        width: Features of atoms, edges and heads.
        heads: Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, heads * width) for _ in range(3))
        self.edge = nn.Linear(width, heads * width, bias=False)
        self.update = EdgeLinear(width, width, 3 * width)
        self.attention_norm = nn.LayerNorm(3 * width)
        self.message = nn.Linear(3 * width, width)
        self.message_norm = nn.LayerNorm(width)
        self.merge = nn.Linear(heads * width, width)
        self.norm = BatchNorm(width)
        self.skip = nn.Linear(width, width)

    def forward(self, x: Tensor, edges: Edges, atoms: Classes) -> Tensor:
        """Features of atoms to the same.

        Args:
            x: (C, width), of each class of atoms.
            edges: Between classes.
            atoms: The atoms in each class, which the norm counts.
        """
        by_head = (self.heads, x.shape[1])
        query = (self.query(x) * (3 * x.shape[1]) ** -0.5).unflatten(1, by_head)
        key, value = self.key(x).unflatten(1, by_head), self.value(x).unflatten(1, by_head)
        edge = self.edge(edges.features).unflatten(1, by_head)
        at_target = query.index_select(0, edges.target)
        alpha = torch.cat(
            [
                (query * key).index_select(0, edges.target),
                at_target * key.index_select(0, edges.source),
                at_target * edges.per_edge(edge),
            ],
            -1,
        )
        gate = self.attention_norm(alpha).sigmoid()
        message = self.message_norm(self.message(gate * self.update(value, edges._replace(features=edge))))
        total = aggregate(message.flatten(1), edges.target, len(x), times=edges.times)
        return self.skip(x) + F.silu(self.norm(self.merge(total), atoms.of))
