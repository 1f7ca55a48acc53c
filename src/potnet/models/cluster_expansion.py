"""The atomic cluster expansion, fitted linearly: the accuracy of a network on small sets of data in a minute.

    E = sum over atoms i of e_a + sum_k c_ak B_k(surroundings of i),  a the element of atom i,

with the invariants B of `potnet.nn.clusters`, of up to six bodies (Drautz, Phys. Rev. B 99, 014104, 2019).
There may be several sets of them with a cutoff each: those of many bodies need a fine resolution of near
neighbours, and those of two and three bodies reach farther.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from potnet.crystals.batch import CrystalBatch
from potnet.crystals.elements import symbol
from potnet.lattice.real import VOIGT
from potnet.models.linear_potential import Kinds, LinearPotential
from potnet.nn import HeadSpecs
from potnet.nn.aggregate import aggregate
from potnet.nn.clusters import ClusterBasis

TOLERANCES = {"energy": 0.02, "forces": 0.05, "stress": 0.0125}

ATOMS_AT_ONCE = 32
"""In the derivatives of the fit, whose memory grows with it: some 2 MB an atom."""


class ClusterExpansion(LinearPotential):
    """The model; `fit_labels` sets its coefficients.

    Args:
        cutoff: Å, of the local edges: the cutoff of the features.
        degrees: Of products of one density, of two, and so on; see `ClusterBasis`.
        largest: The largest l.
        more: Further sets of invariants, each a `cutoff` (at most that of the features), `degrees` and
            `largest`.
        smoothness: Weights of the penalty sum_k c_k² M_kk (1 + degree_k)², M the normal equations.
        tolerances, folds, seed, robust, heads, fold: See `LinearPotential`.

    Raises:
        ValueError: As for `ClusterBasis` and `LinearPotential`.
    """

    fitted = ("species", "coefficients")

    coefficients: Tensor
    species: Tensor

    def __init__(
        self,
        cutoff: float = 5.0,
        degrees: Sequence[int] = (12, 12, 12, 10),
        largest: int = 4,
        more: Sequence[Mapping[str, Any]] = (),
        smoothness: Sequence[float] = (1e-11, 1e-10, 1e-9, 1e-8, 1e-7),
        tolerances: Mapping[str, float] = TOLERANCES,
        folds: int = 5,
        seed: int = 0,
        robust: bool = False,
        heads: HeadSpecs | None = None,
        fold: bool = False,
    ) -> None:
        super().__init__(cutoff, smoothness, tolerances, folds, seed, heads, fold, robust)
        self.spheres = [{"cutoff": cutoff, "degrees": degrees, "largest": largest}, *map(dict, more)]
        for sphere in self.spheres:
            if set(sphere) != {"cutoff", "degrees", "largest"} or sphere["cutoff"] > cutoff:
                raise ValueError(
                    f"model.more has {sphere}: give cutoff, degrees and largest, the cutoff at most that of "
                    f"the edges, {cutoff:g} Å (features.neighbors.cutoff)"
                )
        self.of_spheres = self._bases(1)
        self.register_buffer("species", torch.empty(0, dtype=torch.int64))
        self.register_buffer("coefficients", torch.empty(0, 0, dtype=torch.float64))

    @property
    def bases(self) -> list[ClusterBasis]:
        """One for each cutoff."""
        return cast("list[ClusterBasis]", list(self.of_spheres))

    @property
    def invariants(self) -> int:
        """Their number, of an atom."""
        return sum(len(basis) for basis in self.bases)

    def _bases(self, kinds: int) -> nn.ModuleList:
        return nn.ModuleList(ClusterBasis(kinds=kinds, **sphere) for sphere in self.spheres)

    def species_of(self, batch: CrystalBatch) -> Tensor:
        """(N,) the row of `species` of each atom.

        Raises:
            ValueError: An element that the fit did not see.
        """
        found = torch.searchsorted(self.species, batch.z).clamp(max=max(len(self.species) - 1, 0))
        wrong = self.species[found] != batch.z if len(self.species) else torch.ones_like(found).bool()
        if bool(wrong.any()):
            raise ValueError(f"no training crystal has {symbol(int(batch.z[wrong][0]))}")
        return found

    def local_energies(self, batch: CrystalBatch) -> Tensor:
        """(N,) float64.

        Raises:
            ValueError: An element that the fit did not see.
        """
        kind = self.species_of(batch)
        vectors, shortest = self.vectors(batch), self.shortest_of(batch)
        assert batch.edge_index is not None
        found = vectors.new_zeros(len(batch.z))
        parts = self.coefficients.split([len(basis) for basis in self.bases], 1)
        for basis, coefficients in zip(self.bases, parts, strict=True):
            edges = within(vectors, basis.cutoff)
            source, target = batch.edge_index[:, edges]
            moments = basis.moments(vectors[edges], kind[source], shortest[edges])
            moments = aggregate(moments, target, len(batch.z))
            for number, of_kind in enumerate(coefficients):
                rows = (kind == number).nonzero()[:, 0]
                found = found.index_add(0, rows, basis.energies(moments[rows], of_kind))
        return found

    def prepare(self, batches: Sequence[CrystalBatch]) -> int:
        """Find the elements; as for `LinearPotential`."""
        if any(batch.edge_index is None for batch in batches):
            raise ValueError("ClusterExpansion reads local edges: set features.neighbors.cutoff")
        self.species = torch.cat([batch.z.unique() for batch in batches]).unique()
        self._fit_bases()
        return len(self.species) * self.invariants

    def _fit_bases(self) -> None:
        """Bases with densities of each element."""
        if self.bases[0].kinds != len(self.species):
            self.of_spheres = self._bases(len(self.species)).to(self.species.device)

    def design(self, batch: CrystalBatch, kinds: Kinds) -> dict[str, Tensor]:
        """As for `LinearPotential`; a column for each element and invariant."""
        parts = [self._design(basis, batch, kinds) for basis in self.bases]
        return {kind: torch.cat([part[kind] for part in parts], -1).flatten(-2) for kind in parts[0]}

    def _design(self, basis: ClusterBasis, batch: CrystalBatch, kinds: Kinds) -> dict[str, Tensor]:
        """Of the S elements and the invariants of one basis: `design` with (S, K) in place of S K columns."""
        assert batch.edge_index is not None
        kind, vectors = self.species_of(batch), self.vectors(batch).detach()
        edges = within(vectors, basis.cutoff)
        vectors, (source, target) = vectors[edges], batch.edge_index[:, edges]
        species, atoms, invariants = len(self.species), len(batch.z), len(basis)

        def moments(v: Tensor) -> Tensor:
            return basis.moments(v, kind[source])

        of_edges = moments(vectors)
        of_atoms = of_edges.new_zeros(atoms, of_edges.shape[1]).index_add(0, target, of_edges)
        energy = of_edges.new_zeros(batch.num_crystals * species, invariants)
        energy = energy.index_add(0, batch.batch * species + kind, basis.invariants(of_atoms))
        found = {"energy": energy.view(batch.num_crystals, species, invariants)}
        if not kinds & {"forces", "stress"}:
            return found
        # Derivatives of the moments of each edge in its vector: (E, 3, M).
        ahead = [
            torch.func.jvp(moments, (vectors,), (axis.expand_as(vectors).contiguous(),))[1]
            for axis in torch.eye(3, dtype=vectors.dtype, device=vectors.device)
        ]
        steps = torch.stack(ahead, 1)
        x = vectors[:, :, None]
        turns = torch.stack([(steps[:, i] * x[:, j] + steps[:, j] * x[:, i]) / 2 for i, j in VOIGT], 1)
        # What an atom feels of its own energy, and its virial, need no sum over edges of all invariants.
        own = steps.new_zeros(atoms, 9, steps.shape[2])
        own.index_add_(0, target, torch.cat([steps, turns], 1))
        forces = vectors.new_zeros(atoms * species, 3, invariants)
        virial = vectors.new_zeros(batch.num_crystals * species, 6, invariants)
        order = target.argsort(stable=True)
        counts = torch.bincount(target, minlength=atoms)
        ends = counts.cumsum(0)
        for first in range(0, atoms, ATOMS_AT_ONCE):
            some = slice(first, min(first + ATOMS_AT_ONCE, atoms))
            edges = order[int(ends[first] - counts[first]) : int(ends[some.stop - 1])]
            slopes = basis.slopes(of_atoms[some]).mT
            mine = own[some] @ slopes
            place = torch.arange(some.start, some.stop, device=kind.device) * species + kind[some]
            forces.index_add_(0, place, mine[:, :3])
            virial.index_add_(0, batch.batch[some] * species + kind[some], mine[:, 3:])
            # What it feels of the energies of its neighbours.
            row = target[edges] - first
            slot = torch.arange(len(row), device=row.device) - (counts[some].cumsum(0) - counts[some])[row]
            neighbours = max(int(counts[some].max()), 1)
            filled = steps.new_zeros(len(place), neighbours, 3, steps.shape[2])
            filled[row, slot] = steps[edges]
            neighbour = torch.zeros(len(place), neighbours, dtype=torch.int64, device=row.device)
            neighbour[row, slot] = source[edges]
            pull = torch.bmm(filled.flatten(1, 2), slopes).view(-1, 3, invariants)
            whose = neighbour * species + kind[some][:, None]
            forces.index_add_(0, whose.flatten(), pull, alpha=-1)
        if "forces" in kinds:
            found["forces"] = forces.view(atoms, species, 3, invariants).transpose(1, 2)
        if "stress" in kinds:
            volume = torch.linalg.det(batch.cell).abs()
            virial = virial.view(batch.num_crystals, species, 6, invariants).transpose(1, 2)
            found["stress"] = virial / volume[:, None, None, None]
        return found

    def penalty(self, matrix: Tensor) -> Tensor:
        """Invariants of high degree cost more, each on the scale of its own equations."""
        total = torch.cat([basis.total for basis in self.bases])
        degree = total.to(matrix.device).repeat(len(self.species))
        return torch.diag(matrix.diagonal() * (1 + degree) ** 2)

    def take(self, coefficients: Tensor) -> None:
        """As for `LinearPotential`."""
        self.coefficients = coefficients.view(len(self.species), -1)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._fit_bases()


def within(vectors: Tensor, cutoff: float) -> Tensor:
    """Rows of (E, 3) vectors shorter than a cutoff, Å."""
    return (vectors.detach().norm(dim=1) < cutoff).nonzero()[:, 0]
