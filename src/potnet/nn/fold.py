"""Atoms, edges and angles of a crystal that symmetry makes equal, computed once.

Two atoms that a symmetry of the crystal maps onto each other have the same neighbourhood, and so the same
features after any number of messages. A network on the classes of equal atoms, edges and angles, each
counted as often as it occurs, gives what the network on all of them gives.

Classes are found by colour refinement (Weisfeiler and Leman 1968), which needs no symmetry search: atoms
begin as their element and their crystal; edges are alike if lengths and ends are, and the angles before them;
atoms stay alike if their edges are; until nothing changes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from potnet.crystals.graph import CrystalBatch
from potnet.nn.aggregate import occurrences
from potnet.nn.edges import Edges, local_vectors

TOLERANCE = 1e-5
"""Å, and of cosines. Structures are written with about so many digits; Gaussians are 1e4 times as wide."""


class Classes(NamedTuple):
    """R rows in C classes of equal ones.

    Attributes:
        of: (R,) int64, the class of each row. None if every row is a class of its own, in the same order.
        first: (C,) int64, ascending, the first row of each class.
    """

    of: Tensor | None
    first: Tensor

    def label(self, rows: Tensor) -> Tensor:
        """The class of each of these rows, (S,) to (S,)."""
        return rows if self.of is None else self.of.index_select(0, rows)

    def colours(self) -> Tensor:
        """(R,) int64, equal where the rows are."""
        return self.first if self.of is None else self.of

    def edges(self, ends: Classes, features: Tensor, scalars: Scalars, index: Tensor) -> Edges:
        """One edge for each class.

        Args:
            ends: Classes of what the edges lead from and to, N rows.
            features: (U, width), of the distinct scalars.
            scalars: Of all R edges.
            index: (2, R) int64 into the N rows, source and target.
        """
        row = None if scalars.row is None else scalars.row.index_select(0, self.first)
        source, target = index.index_select(1, self.first)
        to = ends.label(target)
        times = None
        if self.of is not None:
            times = (self.sizes() / ends.sizes().index_select(0, to)).unsqueeze(1)
        return Edges(features, to, ends.label(source), row, times)

    def spread(self, values: Tensor) -> Tensor:
        """(C, ...) to the rows, (R, ...)."""
        return values if self.of is None else values.index_select(0, self.of)

    def sizes(self) -> Tensor:
        """(C,) float32, rows of each class."""
        if self.of is None:
            return torch.ones(len(self.first), device=self.first.device)
        return occurrences(self.of, len(self.first), torch.float32)


class Scalars(NamedTuple):
    """R scalars, of which equal ones are kept once.

    Attributes:
        values: (U,), the mean of those that count as equal.
        row: (R,) int64, the value of each. None if U = R, in the same order.
    """

    values: Tensor
    row: Tensor | None

    def colours(self) -> Tensor:
        """(R,) int64, equal where the scalars are."""
        return torch.arange(len(self.values), device=self.values.device) if self.row is None else self.row


class Fold(NamedTuple):
    """Classes of atoms, edges and angles of a batch.

    Attributes:
        atoms: Of N atoms.
        edges: Of E local edges.
        angles: Of A angles; of none without cosines.
    """

    atoms: Classes
    edges: Classes
    angles: Classes


def nearly_equal(scalars: Tensor, crystal: Tensor) -> Scalars:
    """Find the scalars of each crystal that differ by rounding.

    In ascending order, a gap of more than `TOLERANCE` begins a new value; so does that distance from the
    smallest of a value, lest many small gaps add up. What is equal does not depend on the rest of the batch.

    Args:
        scalars: (R,), Å or a cosine.
        crystal: (R,) int64, the crystal of each.

    Returns:
        Under `torch.compile`, whose graphs need sizes that don't depend on data, each scalar by itself.
    """
    if torch.compiler.is_compiling() or not len(scalars):
        return Scalars(scalars, None)
    wide = scalars.detach().double()
    # Crystals one after the other, too far apart to be taken together.
    order = (wide + crystal * (wide.max() - wide.min() + 1.0)).argsort()
    ascending, owner = wide[order], crystal[order]
    breaks = torch.ones_like(owner, dtype=torch.bool)
    breaks[1:] = (ascending.diff() > TOLERANCE) | (owner.diff() != 0)
    start = ascending[breaks][breaks.cumsum(0) - 1]
    part = ((ascending - start) / TOLERANCE).floor()
    breaks[1:] |= part.diff() != 0
    row = torch.empty_like(order).scatter_(0, order, breaks.cumsum(0) - 1)
    size = int(row.max()) + 1
    total = wide.new_zeros(size).index_add_(0, row, wide)
    return Scalars((total / occurrences(row, size, wide.dtype)).to(scalars.dtype), row)


def folded_distances(batch: CrystalBatch, model: str) -> tuple[Scalars, Classes, Classes]:
    """Lengths of the local edges of a batch, and the classes of its atoms and edges.

    Args:
        batch: With local edges.
        model: Who asks, for the message.

    Returns:
        Å, of the E local edges; classes of atoms, and of edges.

    Raises:
        ValueError: The batch has no local edges.
    """
    vector = local_vectors(batch, model)
    assert batch.edge_index is not None
    crystal = batch.batch.index_select(0, batch.edge_index[1])
    distance = nearly_equal(torch.linalg.vector_norm(vector, dim=-1), crystal)
    atoms, edges, _ = fold(batch, distance)
    return distance, atoms, edges


def fold(batch: CrystalBatch, distance: Scalars, cosine: Scalars | None = None) -> Fold:
    """Find equal atoms, edges and angles.

    Args:
        batch: With local edges, and with angles if cosines are given.
        distance: Of the local edges.
        cosine: Of the angles; None for a network that reads none.

    Returns:
        Under `torch.compile` every row is a class of its own, as for `nearly_equal`.
    """
    assert batch.edge_index is not None
    index = batch.angle_index if cosine is not None else None
    sizes = [len(batch.z), len(batch.edge_index[0]), 0 if index is None else len(index[0])]
    if torch.compiler.is_compiling():
        return Fold(*(Classes(None, torch.arange(size, device=batch.z.device)) for size in sizes))
    source, target = batch.edge_index
    atoms = _classes(_mixed(batch.batch, batch.z))
    edges = _classes(_mixed(distance.colours(), atoms.label(source), atoms.label(target)))
    before = (-1, -1)
    # Classes are only ever divided, so equal numbers mean equal classes.
    while before != (len(atoms.first), len(edges.first)):
        before = (len(atoms.first), len(edges.first))
        keys = [edges.colours(), atoms.label(source), atoms.label(target)]
        if cosine is not None and index is not None:
            keys.append(_sums(_mixed(cosine.colours(), edges.label(index[0])), index[1], sizes[1]))
        edges = _classes(_mixed(*keys))
        atoms = _classes(_mixed(atoms.colours(), _sums(_mixed(edges.colours()), target, sizes[0])))
    if cosine is None or index is None:
        return Fold(atoms, edges, Classes(None, source[:0]))
    angles = _classes(_mixed(cosine.colours(), edges.label(index[0]), edges.label(index[1])))
    return Fold(atoms, edges, angles)


def _classes(keys: Tensor) -> Classes:
    """Classes of equal keys (R,), in the order in which they first occur."""
    rows = torch.arange(len(keys), device=keys.device)
    found, of = torch.unique(keys, return_inverse=True)
    first = torch.full_like(found, len(keys)).scatter_reduce_(0, of, rows, "amin")
    first, order = first.sort()
    rank = torch.empty_like(order).scatter_(0, order, rows[: len(order)])
    return Classes(rank[of], first)


def _sums(keys: Tensor, index: Tensor, size: int) -> Tensor:
    """(size,), a key of the set of keys (R,) at each index (R,), whichever their order."""
    return keys.new_zeros(size).index_add_(0, index, keys)


def _mixed(*keys: Tensor) -> Tensor:
    """(R,) int64 from several such: different, but for a chance of 2^-64, where one of them is.

    The mixing is that of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), whose sums and products wrap.
    """
    mixed = torch.zeros_like(keys[0])
    for key in keys:
        mixed = mixed + key - 0x61C8864680B583EB
        for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
            mixed = (mixed ^ _shifted(mixed, shift)) * factor
        mixed = mixed ^ _shifted(mixed, 31)
    return mixed


def _shifted(x: Tensor, bits: int) -> Tensor:
    """To the right, zeros in: integers of torch carry their sign along."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
