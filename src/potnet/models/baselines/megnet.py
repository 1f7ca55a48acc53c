"""MEGNet: graph networks with a state (Chen et al., Chem. Mater. 31, 3564, 2019; arXiv:1812.05055).

With the widths of the authors' released code (github.com/materialsvirtuallab/megnet) for crystals.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from potnet.crystals.batch import CrystalBatch
from potnet.models.network import Network, check_sizes
from potnet.nn import (
    EdgeLinear,
    Edges,
    ElementEmbedding,
    Embedding,
    FoldedBatch,
    GaussianBasis,
    Head,
    Heads,
    HeadSpecs,
    Set2Set,
    ShiftedSoftplus,
    aggregate,
    glorot_,
)

STATE = 2
"""Features of the state of a crystal, zeros as in the released code: it has no temperature or charge."""


class Features(NamedTuple):
    """Features of classes of atoms (C, width), of edges, and of the states of crystals (B, width)."""

    atoms: Tensor
    edges: Edges
    states: Tensor


class Members(NamedTuple):
    """Where C classes of atoms and D classes of edges belong.

    Attributes:
        of_atom: (C,) int64, the crystal of each class of atoms.
        of_edge: (D,) int64, the same of edges.
        atom_times: (C, 1), atoms in each class.
        edge_times: (D, 1), edges in each class.
    """

    of_atom: Tensor
    of_edge: Tensor
    atom_times: Tensor
    edge_times: Tensor


class MEGNet(Network):
    """Blocks that update edges, atoms and states in turn, then Set2Set.

    e' = phi_e([x_i, x_j, e, u]), x' = phi_v([x_i, mean_j e', u]), u' = phi_u([u, mean e', mean x'])
    (eqs. 1 to 6 of arXiv:1812.05055v2; eq. 2 is the mean over the edges of an atom). A block is two dense
    layers on each of the three, which the first block shares with the embedding, this update, and the sum
    with the block's input. phi (eq. 7) are three linear layers with ssp between them.

    Equal atoms and edges are computed once (`potnet.nn.symmetry`): the same function, in less time.

    Deviations from the released code: the gates of the LSTM in Set2Set are sigmoids, not Keras's piecewise
    linear "hard" ones; elements up to Z = 100 are embedded, not 94, and the embedding begins with unit
    variance (as in matgl), which half precision needs; a crystal whose atoms have no neighbours
    within the cutoff is predicted (its sums over edges are zero), not refused.

    The package matgl, by the same group, differs from the released code and from this: its phi end in an
    ssp, its Set2Set has no projection and two steps, and its Gaussians are exp(-(r - c)² / 2). With these
    taken alike the numbers are equal (tests/models/test_megnet.py).

    Args:
        width: Features of atoms, edges and states between the blocks.
        hidden: Width of the hidden layers.
        layers: Number of blocks.
        atom_features: Of the embedding of an element.
        memory: Width of Set2Set, and of the last hidden layer; None reads the features as they are, with
            a last hidden layer half of `width`.
        steps: Steps of Set2Set.
        basis_end: Å, last center of the Gaussians, which begin at 0.
        bins: Number of Gaussians.
        basis_width: Å, their width sigma in exp(-((r - c) / sigma)²).
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
        width: int = 32,
        hidden: int = 64,
        layers: int = 3,
        atom_features: int = 16,
        memory: int | None = 16,
        steps: int = 3,
        basis_end: float = 5.0,
        bins: int = 100,
        basis_width: float = 0.5,
        heads: HeadSpecs | None = None,
        fold: bool = True,
    ) -> None:
        super().__init__(fold)
        check_sizes(width=width, hidden=hidden, layers=layers, atom_features=atom_features, steps=steps)
        self.embedding = ElementEmbedding(atom_features)
        self.basis = GaussianBasis(0.0, basis_end, bins, basis_width)
        self.of_atoms = dense(atom_features, hidden, width)
        self.of_edges = dense(bins, hidden, width)
        self.of_states = dense(STATE, hidden, width)
        self.blocks = nn.ModuleList(Block(width, hidden, first=i == 0) for i in range(layers))
        self.pool_atoms = Set2Set(width, memory, steps)
        self.pool_edges = Set2Set(width, memory, steps)
        last = width // 2 if memory is None else memory
        pooled = 2 * self.pool_atoms.features + width
        self.heads = Heads(heads, lambda spec: Head(spec, width, pooled, [width, last], ShiftedSoftplus))
        glorot_(self)
        if self.heads.read_atoms_alone:
            # Distributed training waits for the gradient of every parameter that is not frozen.
            for pools in (self.pool_atoms, self.pool_edges, self.blocks[-1].state_update):
                pools.requires_grad_(False)

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Features of atoms (N, width), and Set2Set of atoms and edges with the state of each crystal.

        Raises:
            ValueError: As for `Network.embed`.
        """
        folded = FoldedBatch(batch, "MEGNet", self.fold)
        x = self.of_atoms(folded.of_atoms(self.embedding(batch)))
        edges = folded.local_edges(self.of_edges(self.basis(folded.distance)))
        features = Features(x, edges, self.of_states(x.new_zeros(batch.num_crystals, STATE)))
        crystal = folded.of_atoms(batch.batch)
        members = Members(
            crystal,
            crystal.index_select(0, edges.target),
            folded.atoms.sizes().unsqueeze(1),
            folded.edges.sizes().unsqueeze(1),
        )
        for block in self.blocks:
            features = block(features, members)
        pooled = [
            self.pool_atoms(features.atoms, crystal, batch.num_crystals, members.atom_times),
            self.pool_edges(features.edges.features, members.of_edge, batch.num_crystals, members.edge_times),
            features.states,
        ]
        return Embedding(folded.atoms.spread(features.atoms), torch.cat(pooled, 1))


class Block(nn.Module):
    """Two dense layers on atoms, edges and states, their update, and the sum with the input.

    Args:
        width: Features of atoms, edges and states.
        hidden: Width of the hidden layers.
        first: Leaves the dense layers out: the embedding has just had them.
    """

    def __init__(self, width: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.dense = None if first else nn.ModuleList(dense(width, hidden, width) for _ in range(3))
        # phi_e without its first layer, which is linear on [x_i, x_j, e, u].
        self.edge_input = EdgeLinear(width, width, hidden)
        self.edge_state = nn.Linear(width, hidden, bias=False)
        self.edge_update = nn.Sequential(ShiftedSoftplus(), mlp([hidden, hidden, width]))
        self.atom_update = mlp([3 * width, hidden, hidden, width])
        self.state_update = mlp([3 * width, hidden, hidden, width])

    def forward(self, features: Features, members: Members) -> Features:
        """Features to features of the same widths."""
        atoms, edges, states = features
        if self.dense is not None:
            atoms, states = self.dense[0](atoms), self.dense[2](states)
            edges = edges._replace(features=self.dense[1](edges.features))
        # What the state adds to an edge is one row for each crystal, and so for each atom.
        of_atoms = self.edge_state(states).index_select(0, members.of_atom)
        new_edges = self.edge_update(self.edge_input(atoms, edges, of_atoms))
        at_atoms = aggregate(new_edges, edges.target, len(atoms), "mean", edges.times)
        of_states = states.index_select(0, members.of_atom)
        new_atoms = self.atom_update(torch.cat([atoms, at_atoms, of_states], 1))
        means = [
            aggregate(new_edges, members.of_edge, len(states), "mean", members.edge_times),
            aggregate(new_atoms, members.of_atom, len(states), "mean", members.atom_times),
        ]
        new_states = self.state_update(torch.cat([states, *means], 1))
        before = features.edges
        return Features(
            features.atoms + new_atoms,
            before._replace(features=before.per_edge(before.features) + new_edges, row=None),
            features.states + new_states,
        )


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with ssp between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [ShiftedSoftplus(), nn.Linear(before, after)]
    return nn.Sequential(*layers[1:])


def dense(features: int, hidden: int, width: int) -> nn.Sequential:
    """Two linear layers, each followed by ssp."""
    return nn.Sequential(mlp([features, hidden, width]), ShiftedSoftplus())
