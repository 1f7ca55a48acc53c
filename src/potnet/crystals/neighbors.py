"""Local edges of a crystal: neighbours within a radius, or the nearest in whole shells; angles between them.

`batched_neighbors` finds the same for many crystals at once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from potnet.crystals.crystal import Crystal

RADIUS_TOLERANCE = 1e-4
"""Å. Added to every radius, so that equivalent neighbours just at it, which differ by the rounding of
coordinates in files, are all kept. A cubic crystal with a = 4 Å has its images exactly at 4 Å."""

MOST_TO_BEGIN_WITH = 6.0
"""Å. The first radius of a search for k neighbours: atoms crowd together when there is vacuum, so the mean
density can ask for far too much."""


def local_edges(
    crystal: Crystal,
    cutoff: float | None = 4.0,
    k: int | None = None,
    shell_tolerance: float = 1e-3,
    symmetric: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the neighbours of every atom, periodic images included.

    With a cutoff alone, all within it (and 1e-4 Å more, see `RADIUS_TOLERANCE`). With k alone, the k
    nearest, and those of the same shell: going outwards from the k-th, neighbours are kept until two
    consecutive distances differ by more than `shell_tolerance`. So symmetry-equivalent neighbours are
    kept or left together, and an atom can have more than k. With both, the same among those within the
    cutoff.

    An atom neighbours its own images. Every image is one edge, so two atoms may share several; none
    occurs twice. An atom without neighbours has no edge.

    Args:
        crystal: Any crystal, in any cell.
        cutoff: Å, or None.
        k: Number of neighbours, or None.
        shell_tolerance: Å, largest gap inside a shell.
        symmetric: Add the reverse of every edge that lacks it: among k nearest neighbours j can be one of
            i without i being one of j. The undirected graph of ALIGNN and its successors.

    Returns:
        edge_index: (2, E) int64; row 0 is the source j, row 1 the target i. Sorted by target, then
            distance, then source.
        edge_shift: (E, 3) int64, the image of the source j in whole lattice vectors: the edge from i to it is
            x_j + edge_shift @ cell - x_i, with positions and cell of the crystal as they are given.

    Raises:
        ValueError: If neither cutoff nor k is given, or one makes no sense.
    """
    check_neighbors(cutoff, k, shell_tolerance)
    compact = _compact(crystal)
    cell, positions = compact.cell, compact.positions
    if k is None:
        assert cutoff is not None
        index, _, shift = _within(cell, positions, cutoff + RADIUS_TOLERANCE)
        return index, compact.shift_as_given(index, shift)
    limit = math.inf if cutoff is None else cutoff + RADIUS_TOLERANCE
    volume = abs(float(np.linalg.det(cell)))
    radius = min(limit, MOST_TO_BEGIN_WITH, mean_radius(volume, len(positions), k))
    while True:
        index, distance, shift = _within(cell, positions, radius)
        keep, complete = _whole_shells(index[1], distance, len(positions), k, shell_tolerance, radius)
        if complete or radius >= limit:
            if symmetric:
                keep = keep | keep[_reverses(index, shift)]
            index, shift = index[:, keep], shift[keep]
            return index, compact.shift_as_given(index, shift)
        radius = min(limit, 1.25 * radius)


def check_neighbors(cutoff: float | None, k: int | None, shell_tolerance: float) -> None:
    """Raise a ValueError for settings of `local_edges` that make no sense."""
    if cutoff is None and k is None:
        raise ValueError("neighbours need a cutoff (Å), a number k, or both")
    if cutoff is not None and not 0 < cutoff < math.inf:
        raise ValueError(f"cutoff must be a positive number of Å, got {cutoff}")
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not 0 <= shell_tolerance < math.inf:
        raise ValueError(f"shell_tolerance must be a number of Å, 0 or more, got {shell_tolerance}")


def local_vectors(
    crystal: Crystal, edge_index: NDArray[np.int64], edge_shift: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Vectors of local edges, from the target i to the image of the source j.

    Args:
        crystal: That of `local_edges`.
        edge_index: (2, E) source and target.
        edge_shift: (E, 3).

    Returns:
        (E, 3) float64, x_j + edge_shift @ cell - x_i, Å. For batches see `edge_vectors`.
    """
    source, target = edge_index
    vectors: NDArray[np.float64] = (
        crystal.positions[source] - crystal.positions[target] + edge_shift @ crystal.cell
    )
    return vectors


def line_graph(edge_index: NDArray[np.int64], num_atoms: int) -> NDArray[np.int64]:
    """All pairs of edges that follow each other, which are the angles between them.

    The edges e' = (u -> v) and e = (v -> w) meet in v, at the angle between the bonds from v to u and from v
    to w. An edge and its own reverse are such a pair too, at angle zero, as in ALIGNN (Choudhary and DeCost
    2021).

    Args:
        edge_index: (2, E) source and target, sorted by target, as `local_edges` returns them.
        num_atoms: n.

    Returns:
        (2, A) int64, e' and e, sorted by e, then e'. A is the sum over atoms of incoming times outgoing
            edges.
    """
    source, target = edge_index
    incoming = np.bincount(target, minlength=num_atoms)
    count = incoming[source]
    second = np.repeat(np.arange(len(source)), count)
    place = np.arange(len(second)) - np.repeat(count.cumsum() - count, count)
    first = (incoming.cumsum() - incoming)[source][second] + place
    return np.stack([first, second]).astype(np.int64)


class _Compact(NamedTuple):
    """A crystal in its reduced cell with all atoms inside: kind to any neighbour search.

    Attributes:
        cell: (3, 3) float64, `change @` the cell as given.
        positions: (n, 3) float64, those as given less `wrapped @ cell`.
        change: (3, 3) int64.
        wrapped: (n, 3) int64.
    """

    cell: NDArray[np.float64]
    positions: NDArray[np.float64]
    change: NDArray[np.int64]
    wrapped: NDArray[np.int64]

    def shift_as_given(self, index: NDArray[np.int64], shift: NDArray[np.int32]) -> NDArray[np.int64]:
        """(E, 3) shifts for the positions and the cell as given, exactly: all of it is integers.

        Args:
            index: (2, E) source and target.
            shift: (E, 3), in reduced lattice vectors, for the wrapped positions.
        """
        source, target = index
        return (shift - self.wrapped[source] + self.wrapped[target]) @ self.change


def _compact(crystal: Crystal) -> _Compact:
    import moyopy

    _, columns = moyopy.minkowski_reduce(crystal.cell.tolist())
    change = np.array(columns, dtype=np.int64).T  # columns are the new vectors in terms of the old ones
    reduced = change @ crystal.cell
    fractional = np.linalg.solve(reduced.T, crystal.positions.T).T
    wrapped = np.floor(fractional)
    return _Compact(reduced, (fractional - wrapped) @ reduced, change, wrapped.astype(np.int64))


def _within(
    cell: NDArray[np.float64], positions: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]]:
    """Sorted edges (2, E), distances (E,) and cell shifts (E, 3) up to a radius."""
    import vesin

    search = vesin.NeighborList(cutoff=radius, full_list=True, n_threads=1)
    target, source, distance, shift = search.compute(positions, cell, True, "ijdS")
    index = np.stack([source, target]).astype(np.int64)
    # Distances of equivalent neighbours differ in the last digits: rounded, they tie and the source decides.
    order = np.lexsort((index[0], distance.round(6), index[1]))
    return index[:, order], distance[order], shift[order]


def _reverses(index: NDArray[np.int64], shift: NDArray[np.int32]) -> NDArray[np.int64]:
    """(E,) the reverse of each edge, among all edges within a radius."""
    reverse = np.empty(len(shift), dtype=np.int64)
    reverse[np.lexsort((*shift.T, *index))] = np.lexsort((*-shift.T, *index[::-1]))
    return reverse


def mean_radius(volume: Any, num_atoms: Any, k: int) -> Any:
    """Radius of the sphere that holds k atoms, and some more, at the mean density, of numbers or tensors."""
    return (0.75 * (k + 1) * volume / (math.pi * num_atoms)) ** (1 / 3) * 1.15


def _whole_shells(
    target: NDArray[np.int64],
    distance: NDArray[np.float64],
    num_atoms: int,
    k: int,
    tolerance: float,
    radius: float,
) -> tuple[NDArray[np.bool_], bool]:
    """Choose the k nearest of each target with the rest of their shell.

    Returns:
        (E,) which edges to keep, and whether the search radius was large enough to know.
    """
    count = np.bincount(target, minlength=num_atoms)
    start = count.cumsum() - count
    rank = np.arange(len(target)) - start[target]
    # An edge from rank k on stays while no gap since rank k - 1 exceeds the tolerance.
    gap = np.diff(distance, prepend=distance[:1])
    breaks = (rank >= k) & (gap > tolerance)
    broken = breaks.cumsum()
    before = np.concatenate([[0], broken])[start]  # breaks of earlier targets
    keep = broken == before[target]
    kept = np.bincount(target[keep], minlength=num_atoms)
    last = distance[np.maximum(start + kept - 1, 0)] if len(distance) else np.zeros(num_atoms)
    complete = bool(np.all((kept >= k) & ((kept < count) | (last + tolerance < radius))))
    return keep, complete
