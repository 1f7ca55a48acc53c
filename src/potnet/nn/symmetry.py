"""Atoms, edges, angles and pairs of a crystal that symmetry makes equal, computed once.

Two atoms that a symmetry of the crystal maps onto each other have the same neighbourhood, and so the same
features after any number of messages. A network on the classes of equal atoms, edges, angles and pairs, each
counted as often as it occurs, gives what the network on all of them gives.

Classes are found by colour refinement (Weisfeiler and Leman 1968), which needs no symmetry search: atoms
begin as their element and their crystal; edges are alike if lengths and ends are, and the angles before them;
pairs if their potentials and ends are; atoms stay alike if their edges and pairs are; until nothing changes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from potnet.crystals.batch import CrystalBatch
from potnet.nn.aggregate import occurrences
from potnet.nn.edges import Edges

TOLERANCE = 1e-5
"""Lengths (Å), cosines and scaled potentials that are closer than this are equal.

Structures are written with about so many digits; Gaussians are 1e4 times as wide.
"""


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

    def joined(self, other: Classes) -> Classes:
        """The classes of the rows of both, which have none in common."""
        first = torch.cat([self.first, other.first + len(self.colours())])
        if self.of is None and other.of is None:
            return Classes(None, first)
        return Classes(torch.cat([self.colours(), other.colours() + len(self.first)]), first)

    def spread(self, values: Tensor) -> Tensor:
        """(C, ...) to the rows, (R, ...)."""
        return values if self.of is None else values.index_select(0, self.of)

    def sizes(self) -> Tensor:
        """(C,) float32, rows of each class."""
        if self.of is None:
            return torch.ones(len(self.first), device=self.first.device)
        return occurrences(self.of, len(self.first), torch.float32)


class Scalars(NamedTuple):
    """R scalars, or rows of P of them, of which equal ones are kept once.

    Attributes:
        values: (U,) or (U, P), the mean of those that count as equal.
        row: (R,) int64, the value of each. None if U = R, in the same order.
    """

    values: Tensor
    row: Tensor | None

    def colours(self) -> Tensor:
        """(R,) int64, equal where the scalars are."""
        return torch.arange(len(self.values), device=self.values.device) if self.row is None else self.row


class Fold(NamedTuple):
    """Classes of atoms, edges, angles and pairs of a batch.

    Attributes:
        atoms: Of N atoms.
        edges: Of E local edges.
        angles: Of A angles; of none without cosines.
        pairs: Of M ordered pairs; of none without potentials.
    """

    atoms: Classes
    edges: Classes
    angles: Classes
    pairs: Classes


def nearly_equal(scalars: Tensor, crystal: Tensor) -> Scalars:
    """Find the scalars of each crystal that differ by rounding.

    In ascending order, a gap of more than `TOLERANCE` begins a new value; so does that distance from the
    smallest of a value, so that many small gaps do not add up. What is equal does not depend on the rest of
    the batch.

    Args:
        scalars: (R,), on a scale of which `TOLERANCE` is small.
        crystal: (R,) int64, the crystal of each.

    Returns:
        The distinct values, which move in steps of `TOLERANCE`: too coarse for finite differences, and equal
        ones share one gradient.
    """
    if not len(scalars):
        return Scalars(scalars, None)
    wide = scalars.double()
    # Crystals one after the other, too far apart to be taken together.
    order = (wide + crystal * (wide.max() - wide.min() + 1.0)).argsort()
    ascending, owner = wide[order], crystal[order]
    breaks = torch.ones_like(owner, dtype=torch.bool)
    breaks[1:] = (ascending.diff() > TOLERANCE) | (owner.diff() != 0)
    start = ascending[breaks][breaks.cumsum(0) - 1]
    # The order above is that of the values up to rounding, so differences may be a little below zero.
    part = ((ascending - start) / TOLERANCE).floor().clamp(min=0)
    breaks[1:] |= part.diff() != 0
    row = torch.empty_like(order).scatter_(0, order, breaks.cumsum(0) - 1)
    return Scalars(_means(scalars, row, int(row.max()) + 1), row)


def nearly_equal_rows(values: Tensor, scaled: Tensor, crystal: Tensor) -> Scalars:
    """Find the rows of each crystal that differ by rounding in every column.

    Args:
        values: (R, P).
        scaled: (R, P), the same on scales of which `TOLERANCE` is small.
        crystal: (R,) int64, the crystal of each.

    Returns:
        As for `nearly_equal`.
    """
    if not len(values):
        return Scalars(values, None)
    columns = [nearly_equal(column, crystal).colours() for column in scaled.unbind(1)]
    row = _classes(_mixed(*columns)).colours()
    return Scalars(_means(values, row, int(row.max()) + 1), row)


def fold(
    batch: CrystalBatch,
    distance: Scalars,
    cosine: Scalars | None = None,
    potentials: Scalars | None = None,
    invariants: Tensor | None = None,
) -> Fold:
    """Find equal atoms, edges, angles and pairs.

    Args:
        batch: With local edges, and with angles or pairs if their scalars are given.
        distance: Of the local edges.
        cosine: Of the angles; None for a network that reads none.
        potentials: Of the ordered pairs; None for a network that reads none.
        invariants: (N, F), what else a network reads of the surroundings of each atom, on scales of which a
            hundred times `TOLERANCE` is small; None for nothing.
    """
    assert batch.edge_index is not None
    angle_index = batch.angle_index if cosine is not None else None
    pair_index = batch.pair_index if potentials is not None else None
    parts = (batch.edge_index, angle_index, pair_index)
    sizes = [len(batch.z), *(0 if index is None else index.shape[1] for index in parts)]
    source, target = batch.edge_index
    edge, atom = distance.colours(), _mixed(batch.batch, batch.z)
    if invariants is not None:
        columns = [nearly_equal(column, batch.batch).colours() for column in _shadows(invariants).unbind(1)]
        atom = _mixed(atom, *columns)
    before, found = (0, 0), (len(atom.unique()), 0)
    # Classes are only ever divided, so equal numbers mean equal classes.
    while found != before:
        before = found
        of_edge = [edge, atom.index_select(0, source), atom.index_select(0, target)]
        if cosine is not None and angle_index is not None:
            of_angle = _mixed(cosine.colours(), edge.index_select(0, angle_index[0]))
            of_edge.append(_sums(of_angle, angle_index[1], sizes[1]))
        edge = _mixed(*of_edge)
        of_atom = [atom, _sums(edge, target, sizes[0])]
        if potentials is not None and pair_index is not None:
            of_pair = _mixed(potentials.colours(), atom.index_select(0, pair_index[1]))
            of_atom.append(_sums(of_pair, pair_index[0], sizes[0]))
        atom = _mixed(*of_atom)
        # Without angles, edges are alike as soon as their ends are.
        found = (len(atom.unique()), 0 if cosine is None else len(edge.unique()))
    angles = pairs = Classes(None, source[:0])
    if cosine is not None and angle_index is not None:
        ends = [edge.index_select(0, row) for row in angle_index]
        angles = _classes(_mixed(cosine.colours(), *ends))
    if potentials is not None and pair_index is not None:
        ends = [atom.index_select(0, row) for row in pair_index]
        pairs = _classes(_mixed(potentials.colours(), *ends))
    return Fold(_classes(atom), _classes(edge), angles, pairs)


def _shadows(rows: Tensor) -> Tensor:
    """(R, F) to (R, 2), small: rows that differ differ in these, too, but for a set of measure zero."""
    column = torch.arange(1, rows.shape[1] + 1, device=rows.device, dtype=torch.float64)
    # Without a generator, which would be another on every device.
    directions = torch.stack([torch.sin(column * column), torch.cos(3 * column * column)], 1)
    return 0.01 * rows.detach().double() @ directions


def _classes(keys: Tensor) -> Classes:
    """Classes of equal keys (R,), in the order in which they first occur."""
    rows = torch.arange(len(keys), device=keys.device)
    found, of = torch.unique(keys, return_inverse=True)
    first = torch.full_like(found, len(keys)).scatter_reduce_(0, of, rows, "amin")
    first, order = first.sort()
    rank = torch.empty_like(order).scatter_(0, order, rows[: len(order)])
    return Classes(rank[of], first)


def _means(values: Tensor, row: Tensor, size: int) -> Tensor:
    """(size, ...), means of the values (R, ...) with the same row (R,), taken in float64."""
    wide = values.double()
    total = wide.new_zeros(size, *wide.shape[1:]).index_add_(0, row, wide)
    return (total / occurrences(row, size, wide.dtype).view(-1, *[1] * (wide.dim() - 1))).to(values.dtype)


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
