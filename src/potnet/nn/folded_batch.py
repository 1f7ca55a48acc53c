"""A batch whose equal atoms, local edges and pairs are computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from potnet.crystals.batch import CrystalBatch
from potnet.nn.edges import Edges, local_vectors
from potnet.nn.symmetry import Scalars, fold, nearly_equal, nearly_equal_rows

SMALL_POTENTIAL = 1e-4
"""Sums below this are compared absolutely: complete London and Pauli potentials span 1e-6 to 1."""


class FoldedBatch:
    """Classes of the atoms, local edges and pairs of a batch, for networks that read these.

    Args:
        batch: With local edges, and with pairs if they are asked for.
        model: Who asks, for messages.
        pairs: Whether the complete potentials count.

    Attributes:
        atoms: Classes of atoms.
        edges: Classes of local edges.
        pairs: Classes of ordered pairs; of none if they are not asked for.
        distance: (U,) Å, lengths of local edges.
        potentials: (V, P), of pairs, and which of them each pair has.

    Raises:
        ValueError: The batch lacks what is asked for.
    """

    def __init__(self, batch: CrystalBatch, model: str, pairs: bool = False) -> None:
        self._batch = batch
        self._lengths = local_distances(batch, model)
        self.distance = self._lengths.values
        self.potentials = pair_potentials(batch, model) if pairs else Scalars(self.distance[:0], None)
        given = self.potentials if pairs else None
        self.atoms, self.edges, _, self.pairs = fold(batch, self._lengths, potentials=given)

    def of_atoms(self, values: Tensor) -> Tensor:
        """(N, ...) of atoms, equal where they are, to (C, ...) of their classes."""
        return values.index_select(0, self.atoms.first)

    def local_edges(self, features: Tensor) -> Edges:
        """One for each class, with features (U, width) of the distances."""
        assert self._batch.edge_index is not None
        return self.edges.edges(self.atoms, features, self._lengths, self._batch.edge_index)

    def pair_edges(self, features: Tensor) -> Edges:
        """One for each class of pairs, with features (V, width) of the potentials."""
        assert self._batch.pair_index is not None
        # Row 0 is the target, in memory order.
        return self.pairs.edges(self.atoms, features, self.potentials, self._batch.pair_index.flip(0))


def local_distances(batch: CrystalBatch, model: str) -> Scalars:
    """Lengths of the local edges of a batch.

    Args:
        batch: With local edges.
        model: Who asks, for the message.

    Returns:
        Å; as for `nearly_equal`.

    Raises:
        ValueError: The batch has no local edges.
    """
    vector = local_vectors(batch, model)
    assert batch.edge_index is not None
    crystal = batch.batch.index_select(0, batch.edge_index[1])
    return nearly_equal(torch.linalg.vector_norm(vector, dim=-1), crystal)


def pair_potentials(batch: CrystalBatch, model: str) -> Scalars:
    """Complete potentials of the ordered pairs of a batch; pairs are alike if all their potentials are.

    Args:
        batch: With pairs.
        model: Who asks, for the message.

    Returns:
        (U, P) potentials, and (M,) int64, the row of each pair; as for `nearly_equal`.

    Raises:
        ValueError: The batch has no pair sums.
    """
    if batch.pair_index is None or batch.pair_sums is None:
        raise ValueError(
            f"{model} needs pair sums, but the batch has none: featurize with potentials, or set pairs=none"
        )
    crystal = batch.batch.index_select(0, batch.pair_index[0])
    return nearly_equal_rows(
        batch.pair_sums, torch.asinh(batch.pair_sums.double() / SMALL_POTENTIAL), crystal
    )
