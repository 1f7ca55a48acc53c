"""The many-body tensor representation of Huo and Rupp.

H. Huo and M. Rupp, Unified representation of molecules and crystals for machine learning, Mach. Learn.: Sci.
Technol. 3, 045017 (2022), arXiv:1704.06439. Their f_k, for a periodic crystal of n atoms in the cell:

    f_k(x, channel) = 1/n * sum over k-tuples of the channel of w_k(tuple) N(x; g_k(tuple), sigma²)

| k | tuple | g | w | channel: elements of |
|---|---|---|---|---|
| 1 | an atom | its atomic number | 1 | the atom |
| 2 | a pair of atoms | 1 / r | exp(-scale r) | both |
| 3 | a vertex and two more atoms | cosine of the angle | exp(-scale perimeter) | both ends, and the vertex |

Every tuple counts once, however often the crystal repeats it. Tuples whose weight is below `threshold` are
left out, so the sums end. x runs over a grid. A channel exists only where its elements occur together, so a
crystal has some hundreds of features of a hundred million possible ones, and only those are kept.

Deviations from the paper: elements are alike or not (its element correlation matrix is the identity), and the
division by n, without which a crystal and its supercell would differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potnet.crystals import Crystal, Descriptor, local_edges, local_vectors
from potnet.crystals.elements import MAX_Z
from potnet.crystals.neighbors import RADIUS_TOLERANCE
from potnet.descriptors.grid import Grid

FIRST_FEATURE = (0, 2**29, 2**30, 2**31)
"""Number of the first feature of k = 1, 2, 3, whatever the grids, and the end of all."""

_BLOCK = 2**18
"""Triples of atoms that are held at a time."""

Tuples = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
"""Channel (counted within the crystal), g and weight of some tuples of atoms, each (m,)."""


@dataclass(frozen=True)
class Weighting:
    """Exponential weights of tuples, and where the tuples end.

    Args:
        scale: 1/Å; times the distance of two atoms, or the perimeter of three.
        threshold: Smallest weight that counts.

    Raises:
        ValueError: A setting that makes no sense.
    """

    scale: float
    threshold: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale={self.scale}: give a positive number of 1/Å")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold={self.threshold}: give a number between 0 and 1, such as 1e-3")
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "threshold", float(self.threshold))

    @property
    def longest(self) -> float:
        """The length whose weight is the threshold, Å."""
        return -math.log(self.threshold) / self.scale


@dataclass(frozen=True)
class MBTR(Descriptor):
    """Many-body tensor representation with element channels; see the head of this file.

    Args:
        k1: `Grid`, or its arguments, of the atomic numbers; None leaves the term out.
        k2: The same of the inverse distances, 1/Å.
        k3: The same of the cosines.
        pair_weighting: `Weighting`, or its arguments, of pairs by their distance.
        triple_weighting: The same of triples by their perimeter.

    Raises:
        ValueError: A setting that makes no sense, or no term at all.
    """

    k1: Grid | Mapping[str, Any] | None
    k2: Grid | Mapping[str, Any] | None
    k3: Grid | Mapping[str, Any] | None
    pair_weighting: Weighting | Mapping[str, Any]
    triple_weighting: Weighting | Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in ("k1", "k2", "k3"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _built(name, Grid, getattr(self, name)))
        for name in ("pair_weighting", "triple_weighting"):
            object.__setattr__(self, name, _built(name, Weighting, getattr(self, name)))
        if not any(grid for _, grid in self._grids):
            raise ValueError("no term is left: give a grid for at least one of k1, k2, k3")
        every = _channels(np.arange(1, MAX_Z + 1))
        for term, grid in self._grids:
            most = (FIRST_FEATURE[term + 1] - FIRST_FEATURE[term]) // (int(every[term][-1]) + 1)
            if grid.n > most:
                raise ValueError(f"k{term + 1}.n={grid.n}: give {most} points or fewer")

    def __call__(self, crystal: Crystal) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The features that are not zero: numbers (see `FIRST_FEATURE`), ascending, and values."""
        elements, kind = np.unique(crystal.z, return_inverse=True)
        channels = _channels(elements.astype(np.int64))
        tuples = (self._atoms, self._pairs, self._triples)
        index, value = [], []
        for term, grid in self._grids:
            found = np.zeros((len(channels[term]), grid.n))
            for channel, g, weight in tuples[term](crystal, kind):
                found += grid.histogram(g, weight, channel, len(found))
            row, point = found.nonzero()
            index.append(FIRST_FEATURE[term] + channels[term][row] * grid.n + point)
            value.append(found[row, point] / len(crystal))
        return np.concatenate(index), np.concatenate(value).astype(np.float32)

    @property
    def _grids(self) -> list[tuple[int, Grid]]:
        """The terms that are there, counted from 0, and their grids."""
        return [(term, g) for term, g in enumerate((self.k1, self.k2, self.k3)) if isinstance(g, Grid)]

    def _atoms(self, crystal: Crystal, kind: NDArray[np.int64]) -> Iterator[Tuples]:
        """Atomic numbers."""
        yield kind, crystal.z.astype(np.float64), np.ones(len(crystal))

    def _pairs(self, crystal: Crystal, kind: NDArray[np.int64]) -> Iterator[Tuples]:
        """Inverse distances. Each pair is found from both its atoms, so each finding counts half."""
        assert isinstance(self.pair_weighting, Weighting)
        (j, i), shift = local_edges(crystal, cutoff=self.pair_weighting.longest)
        distance = np.linalg.norm(local_vectors(crystal, np.stack([j, i]), shift), axis=1)
        weight = 0.5 * np.exp(-self.pair_weighting.scale * distance)
        yield pair_number(kind[i], kind[j]), 1.0 / distance, weight

    def _triples(self, crystal: Crystal, kind: NDArray[np.int64]) -> Iterator[Tuples]:
        """Cosines at every vertex between all pairs of its neighbours, some at a time."""
        assert isinstance(self.triple_weighting, Weighting)
        scale, longest = self.triple_weighting.scale, self.triple_weighting.longest
        # No side of a triangle is longer than half its perimeter.
        (end, vertex), shift = local_edges(crystal, cutoff=longest / 2)
        vector = local_vectors(crystal, np.stack([end, vertex]), shift)
        distance = np.linalg.norm(vector, axis=1)
        num_kinds = int(kind.max()) + 1
        for e, f in edges_at_one_vertex(vertex):
            perimeter = distance[e] + distance[f] + np.linalg.norm(vector[e] - vector[f], axis=1)
            # The tolerance keeps equivalent triples together, as it does for neighbours.
            near = perimeter <= longest + RADIUS_TOLERANCE
            e, f, perimeter = e[near], f[near], perimeter[near]
            cosine = np.einsum("ij,ij->i", vector[e], vector[f]) / (distance[e] * distance[f])
            channel = pair_number(kind[end[e]], kind[end[f]]) * num_kinds + kind[vertex[e]]
            yield channel, cosine, np.exp(-scale * perimeter)


def pair_number(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each unordered pair of numbers from 0, in the order (0, 0), (0, 1), (1, 1), (0, 2)."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    return high * (high + 1) // 2 + low


def edges_at_one_vertex(
    vertex: NDArray[np.int64], block: int = _BLOCK
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Every unordered pair of edges that meet at a vertex, once.

    Args:
        vertex: (E,), ascending: the vertex of each edge.
        block: About as many pairs at a time, more only if one edge has more partners.

    Yields:
        The later and the earlier edge of each pair, both (m,).
    """
    # Each edge is paired with those before it at its vertex.
    partners = np.arange(len(vertex)) - np.searchsorted(vertex, vertex)
    total = partners.cumsum()
    start = 0
    while start < len(vertex):
        before = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + block, side="right")))
        count = partners[start:stop]
        later = np.repeat(np.arange(start, stop), count)
        rank = np.arange(len(later)) - np.repeat(count.cumsum() - count, count)
        yield later, later - partners[later] + rank
        start = stop


def term_of(index: Any) -> Any:
    """The term of features, 0, 1, 2 for k = 1, 2, 3. `index` is an array or tensor of any shape."""
    return (index >= FIRST_FEATURE[1]) * 1 + (index >= FIRST_FEATURE[2]) * 1


def _channels(elements: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """The numbers, the same in all crystals, of the channels of k = 1, 2, 3 that some elements have.

    Ascending, in the order in which `pair_number` counts within a crystal.
    """
    high, low = np.tril_indices(len(elements))
    pairs = pair_number(elements[low], elements[high])
    return elements, pairs, (pairs[:, None] * (MAX_Z + 1) + elements).ravel()


def _built(name: str, kind: type, value: Any) -> Any:
    """A grid or weighting from its arguments."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}={value}: give {', '.join(kind.__annotations__)}")
    try:
        return kind(**value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
