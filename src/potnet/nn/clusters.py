"""Invariants of an atom's surroundings, of up to six bodies: those of the atomic cluster expansion.

Neighbours of atom i make densities on the sphere, one for each radial function n and degree l,

    rho_nl(u) = sum_j R_n(r_ij) P_l(u_ij . u) = sum_m A_nlm Y_lm(u),    A_nlm = sum_j R_n(r_ij) Y_lm(u_ij).

The mean over the sphere of a product of v of them depends on v neighbours at a time and not on the
orientation (the invariants of Drautz, Phys. Rev. B 99, 014104, 2019, and of Shapeev, Multiscale Model. Simul.
14, 1153, 2016). A quadrature with enough points is exact for it, so that no coupling coefficients are needed.
Four densities have further invariants, which this mean does not tell apart; they are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from potnet.nn.aggregate import aggregate
from potnet.nn.angular import harmonics

LARGEST_ORDER = 5

OFFSET = 0.5
"""Radial functions are polynomials of 1 / (r / cutoff + this), which resolves short distances better."""

INNERMOST = 0.2
"""In cutoffs: at shorter distances radial functions are constant. Atoms do not come so near."""

INNER_WIDTH = 0.3
"""Over this part of the shortest distance of the training crystals functions of the distance level off."""

QUADRATURES = (3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
"""Degrees of Lebedev's quadratures."""


class Density(NamedTuple):
    """Of one kind of neighbours, by one radial function, with one degree of harmonics."""

    l: int
    kind: int
    n: int

    @property
    def degree(self) -> int:
        return self.n + self.l


class ClusterBasis(nn.Module):
    """Invariants of each atom: means over the sphere of products of v = 1, 2, ... densities.

    Products are those whose sum of all n and l is at most the degree given for their v.

    Args:
        cutoff: Å. Invariants and two derivatives are continuous there.
        degrees: For v = 1, 2, ...; at most five numbers.
        kinds: Of neighbours, each with densities of its own.
        largest: The largest l.

    Attributes:
        total: (K,) float64, the sum of all n and l of each invariant.

    Raises:
        ValueError: A cutoff that is not positive, no degrees or too many, or one that is negative.
    """

    total: Tensor
    weights: Tensor
    radial_of: Tensor
    kind_of: Tensor
    products_1: Tensor
    pairs: Tensor
    triples: Tensor

    def __init__(
        self, cutoff: float, degrees: Sequence[int] = (12, 12, 12, 10), kinds: int = 1, largest: int = 4
    ) -> None:
        super().__init__()
        if not cutoff > 0 or kinds < 1 or largest < 0:
            raise ValueError(f"cutoff={cutoff}, kinds={kinds}, largest={largest}: give positive numbers")
        if not 1 <= len(degrees) <= LARGEST_ORDER or min(degrees) < 0:
            raise ValueError(
                f"degrees={list(degrees)}: give 1 to {LARGEST_ORDER} numbers, for products of one density, "
                "of two, and so on, none of them negative"
            )
        self.cutoff, self.degrees, self.kinds = float(cutoff), tuple(degrees), kinds
        every = [
            Density(l, kind, n)
            for l in range(min(largest, max(degrees)) + 1)
            for kind in range(kinds)
            for n in range(max(degrees) - l + 1)
        ]
        orders = [list(_products(every, v, degree)) for v, degree in enumerate(degrees, 1)]
        self.densities = sorted({density for order in orders for product in order for density in product})
        place = {density: row for row, density in enumerate(self.densities)}
        self.orders = len(orders)
        for v, order in enumerate(orders, 1):
            table = torch.tensor([[place[density] for density in product] for product in order])
            self.register_buffer(f"products_{v}", table.reshape(-1, v).long(), persistent=False)
        self._tabulate()
        total = [sum(density.degree for density in product) for order in orders for product in order]
        self.register_buffer("total", torch.tensor(total, dtype=torch.float64), persistent=False)
        # Densities of one l are neighbours in the list.
        self.blocks: list[tuple[int, int]] = []
        for l, group in groupby(self.densities, key=lambda density: density.l):
            self.blocks.append((l, len(list(group))))
        largest_sum = max(sum(density.l for density in product) for order in orders for product in order)
        points, weights = half_sphere(largest_sum)
        self.register_buffer("weights", weights, persistent=False)
        for l, directions in enumerate(harmonics(points, self.blocks[-1][0])):
            self.register_buffer(f"harmonics_{l}", directions, persistent=False)
        self.register_buffer("radial_of", torch.tensor([d.n for d in self.densities]), persistent=False)
        self.register_buffer("kind_of", torch.tensor([d.kind for d in self.densities]), persistent=False)

    def __len__(self) -> int:
        """K."""
        return len(self.total)

    def radial(self, r: Tensor, shortest: Tensor | None = None) -> Tensor:
        """R_n(r), (E, n): Chebyshev polynomials of 1 / (r / cutoff + 1 / 2), times an envelope.

        Args:
            r: (E,) Å.
            shortest: (E,) Å, distances below which the functions level off, see `levelled`.
        """
        d = ((r if shortest is None else levelled(r, shortest)) / self.cutoff).clamp(INNERMOST, 1.0)
        near, far = 1 / (INNERMOST + OFFSET), 1 / (1 + OFFSET)
        t = 2 * (1 / (d + OFFSET) - far) / (near - far) - 1
        values = [torch.ones_like(t), t]
        while len(values) <= max(self.degrees):
            values.append(2 * t * values[-1] - values[-2])
        return torch.stack(values, -1) * (1 - d**2)[:, None] ** 3

    def moments(self, vectors: Tensor, kind: Tensor, shortest: Tensor | None = None) -> Tensor:
        """R_n(r) Y_lm(u) of each edge, for all densities and m: (E, M).

        Args:
            vectors: (E, 3), Å, from an atom to its neighbour.
            kind: (E,) int64, of the neighbour, below `kinds`.
            shortest: As for `radial`.
        """
        r = torch.linalg.vector_norm(vectors, dim=1)
        radial = self.radial(r, shortest).index_select(1, self.radial_of)
        if self.kinds > 1:
            radial = radial * (kind[:, None] == self.kind_of)
        directions = harmonics(vectors / r[:, None], self.blocks[-1][0])
        found, first = [], 0
        for l, count in self.blocks:
            part = radial[:, first : first + count, None] * directions[l][:, None]
            found.append(part.flatten(1))
            first += count
        return torch.cat(found, 1)

    def on_sphere(self, moments: Tensor) -> Tensor:
        """Densities at the points of the quadrature, (N, D, points), from the moments (N, M) of atoms."""
        found, first = [], 0
        for l, count in self.blocks:
            part = moments[:, first : first + count * (2 * l + 1)].view(-1, count, 2 * l + 1)
            found.append(part @ self.get_buffer(f"harmonics_{l}").to(moments.dtype).T)
            first += count * (2 * l + 1)
        return torch.cat(found, 1)

    def forward(self, vectors: Tensor, target: Tensor, kind: Tensor, atoms: int) -> Tensor:
        """Invariants (N, K).

        Args:
            vectors: (E, 3), Å, from an atom to its neighbour.
            target: (E,) int64, the atom.
            kind: (E,) int64, of the neighbour, below `kinds`.
            atoms: N.
        """
        return self.invariants(aggregate(self.moments(vectors, kind), target, atoms))

    def invariants(self, moments: Tensor) -> Tensor:
        """(N, K), from the moments (N, M) of atoms."""
        densities, weights = self.on_sphere(moments), self.weights.to(moments.dtype)
        found = []
        for table in self._tables():
            product = densities.index_select(1, table[:, 0])
            for column in table.unbind(1)[1:]:
                product = product * densities.index_select(1, column)
            found.append(product @ weights)
        return torch.cat(found, 1)

    def energies(self, moments: Tensor, coefficients: Tensor) -> Tensor:
        """(N,) sums of all invariants times a coefficient each, much faster than one after the other.

        Products are taken as pairs of densities times the rest, so that the sum over all of them is one of
        products of matrices.

        Args:
            moments: (N, M), of atoms.
            coefficients: (K,).
        """
        densities = self.on_sphere(moments).transpose(0, 1).flatten(1)
        parts = [densities]  # of one density, of two, and of three
        for v, table in enumerate((self.pairs, self.triples), 2):
            first = densities if v == 2 else parts[1]
            parts.append(first.index_select(0, table[:, 0]) * densities.index_select(0, table[:, 1]))
        total = densities.new_zeros(densities.shape[1])
        found = coefficients.split([len(table) for table in self._tables()])
        for v, values in enumerate(found, 1):
            if v == 1:
                total = total + values @ densities.index_select(0, self.products_1[:, 0])
                continue
            left, right = self.get_buffer(f"left_{v}"), self.get_buffer(f"right_{v}")
            ahead, behind = parts[min(v, 4) // 2 - 1], parts[v - min(v, 4) // 2 - 1]
            matrix = values.new_zeros(len(ahead), len(behind)).index_put((left, right), values)
            total = total + (ahead * (matrix @ behind)).sum(0)
        return total.view(len(moments), len(self.weights)) @ self.weights.to(moments.dtype)

    def _tabulate(self) -> None:
        """For `energies`: the pairs and triples of densities that products consist of, and which of them."""
        pairs: dict[tuple[int, int], int] = {}
        triples: dict[tuple[int, int], int] = {}

        def pair(a: int, b: int) -> int:
            return pairs.setdefault((a, b), len(pairs))

        def piece(rows: list[int]) -> int:
            if len(rows) == 1:
                return rows[0]
            if len(rows) == 2:
                return pair(*rows)
            return triples.setdefault((pair(*rows[:2]), rows[2]), len(triples))

        for v, table in enumerate(self._tables(), 1):
            cut = min(v, 4) // 2
            split = [(piece(row[:cut]), piece(row[cut:])) for row in table.tolist()] if v > 1 else []
            for side, name in enumerate(("left", "right")):
                index = torch.tensor([halves[side] for halves in split], dtype=torch.int64)
                self.register_buffer(f"{name}_{v}", index, persistent=False)
        for name, pieces in (("pairs", pairs), ("triples", triples)):
            self.register_buffer(name, torch.tensor(list(pieces)).reshape(-1, 2).long(), persistent=False)

    def slopes(self, moments: Tensor) -> Tensor:
        """Derivatives of the invariants in the moments, (N, K, M), from the moments (N, M) of atoms."""
        densities, weights = self.on_sphere(moments), self.weights.to(moments.dtype)
        found = moments.new_zeros(len(moments), len(self), moments.shape[1])
        starts, first = [], 0
        for l, count in self.blocks:
            starts += [first + row * (2 * l + 1) for row in range(count)]
            first += count * (2 * l + 1)
        start = torch.tensor(starts, device=moments.device)
        degree = torch.tensor([density.l for density in self.densities], device=moments.device)
        row = 0
        for table in self._tables():
            columns = table.unbind(1)
            factors = [densities.index_select(1, column) for column in columns]
            # Of all factors behind each one; those before it are multiplied on the way.
            behind = [torch.ones_like(factors[0])]
            for factor in factors[:0:-1]:
                behind.insert(0, behind[0] * factor)
            before = weights.expand_as(factors[0])
            for number, column in enumerate(columns):
                rest = before * behind[number]
                before = before * factors[number]
                for l, _ in self.blocks:
                    chosen = (degree[column] == l).nonzero()[:, 0]
                    part = rest[:, chosen] @ self.get_buffer(f"harmonics_{l}").to(moments.dtype)
                    place = start[column[chosen]][:, None] + torch.arange(2 * l + 1, device=moments.device)
                    # A factor that is there twice adds to the same place, but in another round.
                    found[:, row + chosen[:, None], place] += part
            row += len(table)
        return found

    def _tables(self) -> Iterator[Tensor]:
        """The densities of each product, (products, v) for v = 1, 2, ..."""
        for v in range(1, self.orders + 1):
            yield self.get_buffer(f"products_{v}")

    def extra_repr(self) -> str:
        given = f"cutoff={self.cutoff:g}, degrees={list(self.degrees)}, kinds={self.kinds}"
        return f"{given}, invariants={len(self)}"


def levelled(r: Tensor, shortest: Tensor) -> Tensor:
    """r where it is at least `shortest`; below, it levels off, with two continuous derivatives.

    Its slope falls from 1 to 0 over `INNER_WIDTH` of the shortest distance. Polynomials that were fitted to
    distances from `shortest` on keep to values that they have there.

    Args:
        r, shortest: (E,) Å.
    """
    width = INNER_WIDTH * shortest
    # Where there is no shortest distance, r itself.
    x = ((r - shortest) / torch.where(width > 0, width, torch.ones_like(width)) + 1).clamp(0, 1)
    return torch.where(r < shortest, shortest - width * (0.5 - x**3 + 0.5 * x**4), r)


def _products(densities: Sequence[Density], v: int, degree: int) -> Iterator[tuple[Density, ...]]:
    """Products of v densities within a degree whose mean over the sphere is not zero by symmetry."""

    def grow(first: int, left: int, chosen: tuple[Density, ...]) -> Iterator[tuple[Density, ...]]:
        if len(chosen) == v:
            yield chosen
            return
        for row in range(first, len(densities)):
            if densities[row].degree <= left:
                yield from grow(row, left - densities[row].degree, (*chosen, densities[row]))

    for product in grow(0, degree, ()):
        degrees = [density.l for density in product]
        if sum(degrees) % 2 == 0 and 2 * max(degrees) <= sum(degrees):
            yield product


def half_sphere(degree: int) -> tuple[Tensor, Tensor]:
    """Points (P, 3) and weights (P,), float64, that average even polynomials over the sphere exactly.

    One of each pair of opposite points of Lebedev's quadrature.

    Args:
        degree: Of the polynomials.

    Raises:
        ValueError: A degree for which there is no such quadrature here.
    """
    from scipy.integrate import lebedev_rule

    order = next((order for order in QUADRATURES if order >= degree), None)
    if order is None:
        raise ValueError(f"harmonics of degrees that add up to {degree}: give smaller degrees")
    points, weights = lebedev_rule(order)
    kept = [tuple(point[::-1].round(9)) > (0.0, 0.0, 0.0) for point in points.T]
    return torch.from_numpy(points.T[kept].copy()), torch.from_numpy(weights[kept] / weights[kept].sum())
