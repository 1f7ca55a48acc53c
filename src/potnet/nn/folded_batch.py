"""What networks read of a batch: lengths, cosines and potentials, with equal rows computed once or not."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from potnet.crystals.batch import CrystalBatch, edge_vectors
from potnet.nn.edges import Edges
from potnet.nn.symmetry import Classes, Fold, Scalars, fold, nearly_equal, nearly_equal_rows

SMALL_POTENTIAL = 1e-4
"""Sums below this are compared absolutely: complete London and Pauli potentials span 1e-6 to 1."""


class FoldedBatch:
    """Atoms, local edges, angles and pairs of a batch, and the scalars that networks read of them.

    Args:
        batch: With local edges, and with angles or pairs if they are asked for.
        model: Name of the network, for messages.
        fold: Whether rows that symmetry makes equal are put into one class; otherwise each row is a class.
        angles: Whether the angles between edges count.
        pairs: Whether the complete potentials count.
        invariants: (N, F), what else is read of the surroundings of each atom; None for nothing.

    Attributes:
        atoms: Classes of atoms.
        edges: Classes of local edges.
        angles: Classes of angles; of none if they are not asked for.
        pairs: Classes of ordered pairs; of none if they are not asked for.
        lengths: Of local edges, Å: U distinct ones, and which of them each edge has.
        cosines: Of angles.
        potentials: (V, P), of pairs.

    Raises:
        ValueError: The batch lacks what is asked for, or `fold` is on where a gradient in the geometry is
            asked for or `torch.compile` traces.
    """

    def __init__(
        self,
        batch: CrystalBatch,
        model: str,
        fold: bool = True,
        angles: bool = False,
        pairs: bool = False,
        invariants: Tensor | None = None,
    ) -> None:
        if fold:
            _check_foldable(batch, model)
        self._batch, self._fold = batch, fold
        vectors = edge_vectors(batch, model)
        assert batch.edge_index is not None
        crystal = batch.batch.index_select(0, batch.edge_index[1])
        self.lengths = self.equal(torch.linalg.vector_norm(vectors, dim=-1), crystal)
        self.cosines = self.potentials = Scalars(vectors[:0, 0], None)
        if angles:
            cosines = bond_cosines(batch, vectors, model)
            assert batch.angle_index is not None
            self.cosines = self.equal(cosines, crystal.index_select(0, batch.angle_index[1]))
        if pairs:
            self.potentials = pair_potentials(batch, model, fold)
        self.atoms, self.edges, self.angles, self.pairs = self._classes(angles, pairs, invariants)

    @property
    def distance(self) -> Tensor:
        """(U,) Å, distinct lengths of local edges."""
        return self.lengths.values

    def equal(self, scalars: Tensor, crystal: Tensor) -> Scalars:
        """Scalars (R,) of which equal ones are kept once if `fold` is on; (R,) the crystal of each."""
        return nearly_equal(scalars, crystal) if self._fold else Scalars(scalars, None)

    def of_atoms(self, values: Tensor) -> Tensor:
        """(N, ...) of atoms, equal where they are, to (C, ...) of their classes."""
        return values.index_select(0, self.atoms.first)

    def local_edges(self, features: Tensor) -> Edges:
        """One for each class, with features (U, width) of the lengths."""
        assert self._batch.edge_index is not None
        return self.edges.edges(self.atoms, features, self.lengths, self._batch.edge_index)

    def angle_edges(self, features: Tensor) -> Edges:
        """Angles as edges between local edges, one for each class; features (U, width) of the cosines."""
        assert self._batch.angle_index is not None
        return self.angles.edges(self.edges, features, self.cosines, self._batch.angle_index)

    def pair_edges(self, features: Tensor) -> Edges:
        """One for each class of pairs, with features (V, width) of the potentials."""
        assert self._batch.pair_index is not None
        # Row 0 is the target, in memory order.
        return self.pairs.edges(self.atoms, features, self.potentials, self._batch.pair_index.flip(0))

    def _classes(self, angles: bool, pairs: bool, invariants: Tensor | None) -> Fold:
        batch = self._batch
        if self._fold:
            cosines, potentials = self.cosines if angles else None, self.potentials if pairs else None
            return fold(batch, self.lengths, cosines, potentials, invariants)
        assert batch.edge_index is not None
        sizes = [len(batch.z), batch.edge_index.shape[1]]
        sizes.append(batch.angle_index.shape[1] if angles and batch.angle_index is not None else 0)
        sizes.append(batch.pair_index.shape[1] if pairs and batch.pair_index is not None else 0)
        return Fold(*(Classes(None, torch.arange(size, device=batch.z.device)) for size in sizes))


def pair_potentials(batch: CrystalBatch, model: str, fold: bool = True) -> Scalars:
    """Complete potentials of the ordered pairs of a batch; pairs are alike if all their potentials are.

    Args:
        batch: With pairs.
        model: Name of the network, for the message.
        fold: Whether equal ones are kept once.

    Returns:
        (U, P) potentials, and (M,) int64, the row of each pair.

    Raises:
        ValueError: The batch has no pair sums.
    """
    if batch.pair_index is None or batch.pair_sums is None:
        raise ValueError(
            f"{model} needs pair sums, but the batch has none: featurize with potentials, or set pairs=none"
        )
    sums = batch.pair_sums.to(batch.dtype)
    if not fold:
        return Scalars(sums, None)
    crystal = batch.batch.index_select(0, batch.pair_index[0])
    return nearly_equal_rows(sums, torch.asinh(sums.double() / SMALL_POTENTIAL), crystal)


def bond_cosines(batch: CrystalBatch, vectors: Tensor, model: str = "the network") -> Tensor:
    """Cosines of the angles between the bonds of each pair of edges, as seen from the atom they share: (A,).

    Args:
        batch: With angles.
        vectors: (E, 3), of the local edges, see `edge_vectors`.
        model: Name of the network, for the message.

    Raises:
        ValueError: The batch has no angles.
    """
    if batch.angle_index is None:
        raise ValueError(f"{model} needs angles, but the batch has none: featurize with neighbors and angles")
    direction = F.normalize(vectors, dim=-1)
    first, second = batch.angle_index
    # Vectors point from target to source: the first away from the shared atom, the second towards it.
    cosine = -(direction.index_select(0, first) * direction.index_select(0, second)).sum(-1)
    return cosine.clamp(-1.0, 1.0)


def _check_foldable(batch: CrystalBatch, model: str) -> None:
    if torch.compiler.is_compiling():
        raise ValueError(
            f"{model} has fold=true, whose sizes depend on the data, which torch.compile cannot trace: build "
            "it with fold=false (model.fold=false)"
        )
    for name in ("positions", "cell", "pair_sums"):
        value = getattr(batch, name)
        if value is None:
            continue
        if value.requires_grad or forward_ad.unpack_dual(value).tangent is not None:
            raise ValueError(
                f"a gradient in {name} is asked for, but {model} has fold=true: atoms and edges that "
                "symmetry makes equal are computed once and share one gradient; build it with fold=false "
                "(model.fold=false)"
            )
