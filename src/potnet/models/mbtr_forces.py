"""Kernel ridge regression on energies, forces and stress, with the MBTR of atoms.

    E = sum over atoms i of e_a + b_a . d_i + sum_m c_m k(d_i, d_m),  k(d, d') = exp(-|d - d'|² / 2 l²)

d_i is the scaled local MBTR of atom i (`potnet.nn.local_mbtr`), a its element; m runs over M representative
atoms of the training crystals, of the same element. Coefficients solve one system of equations: least
squares of energies per atom, forces (derivatives of E) and stress, with the penalty noise (c K c + |b|²),
K_mm' = k(d_m, d_m'): the "subset of regressors" of a Gaussian process. Length l and noise are chosen by
cross-validation over crystals. Representation: Huo and Rupp, Mach. Learn.: Sci. Technol. 3, 045017
(2022); energies as sums over atoms with derivatives as labels: Bartók and Csányi, Int. J. Quantum Chem. 115,
1051 (2015).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from potnet.crystals.batch import CrystalBatch
from potnet.crystals.elements import symbol
from potnet.lattice.real import VOIGT
from potnet.models.designs import Designs
from potnet.models.linear_potential import SAME, Kinds, LinearPotential
from potnet.nn import HeadSpecs
from potnet.nn.local_mbtr import LocalMBTR

log = logging.getLogger(__name__)

MOST_FEATURES = 3000
"""Of one atom; they grow with the square of the number of elements."""

SEARCH_CRYSTALS = 50
"""So many training crystals choose the length; all of them choose the noise."""


class MBTRForces(LinearPotential):
    """The model; `fit_labels` sets its coefficients, and the state dict alone suffices to predict.

    Args:
        cutoff: Å, of the local edges: the cutoff of the features, where weights end smoothly.
        pair_points, triple_points, angle_points, nearest: Grids of the representation, see `LocalMBTR`.
        term_weights: Of k = 2 and 3, each scaled to unit variance before.
        representatives: M, most of them.
        lengths: l to try.
        smoothness: Noises to try.
        seed: Of the folds, and of the crystals that choose l.
        tolerances, folds, heads, fold: See `LinearPotential`.

    Raises:
        ValueError: A setting that makes no sense, or as for `LinearPotential`.
    """

    fitted = (
        "elements",
        "center",
        "scale",
        "representative",
        "representative_z",
        "coefficients",
        "linear",
    )

    elements: Tensor
    center: Tensor
    scale: Tensor
    representative: Tensor
    representative_z: Tensor
    coefficients: Tensor
    linear: Tensor
    length: Tensor

    def __init__(
        self,
        cutoff: float = 5.0,
        pair_points: int = 16,
        triple_points: int = 5,
        angle_points: int = 10,
        nearest: float = 1.5,
        term_weights: Sequence[float] = (1.0, 4.0),
        representatives: int = 800,
        lengths: Sequence[float] = (4.0, 8.0, 16.0),
        smoothness: Sequence[float] = (1e-6, 1e-7, 1e-8, 1e-9, 1e-10),
        tolerances: Mapping[str, float] = SAME,
        folds: int = 5,
        seed: int = 0,
        heads: HeadSpecs | None = None,
        fold: bool = False,
    ) -> None:
        super().__init__(cutoff, smoothness, tolerances, folds, seed, heads, fold)
        if not lengths or min(lengths) <= 0:
            raise ValueError(f"model.lengths={list(lengths)}: give one or more positive numbers")
        if len(term_weights) != 2 or min(term_weights) <= 0:
            raise ValueError(f"model.term_weights={list(term_weights)}: give two positive numbers")
        if representatives < 1:
            raise ValueError(f"model.representatives={representatives}: give at least 1")
        self.grids = (cutoff, pair_points, triple_points, angle_points, nearest)
        self.term_weights = [float(weight) for weight in term_weights]
        self.representatives, self.lengths = representatives, [float(x) for x in lengths]
        self.descriptor = LocalMBTR(*self.grids)
        empty = torch.empty(0, dtype=torch.float64)
        self.register_buffer("elements", torch.empty(0, dtype=torch.int64))
        for name in ("center", "scale", "coefficients"):
            self.register_buffer(name, empty.clone())
        for name in ("representative", "linear"):
            self.register_buffer(name, empty.clone().view(0, 0))
        self.register_buffer("representative_z", torch.empty(0, dtype=torch.int64))
        self.register_buffer("length", torch.ones((), dtype=torch.float64))

    def local_energies(self, batch: CrystalBatch) -> Tensor:
        """(N,) float64.

        Raises:
            ValueError: The model has not been fitted, or an element was not seen.
        """
        if not len(self.coefficients):
            raise ValueError("MBTRForces has no coefficients yet: fit it first")
        around = self._surroundings(batch)
        d = (self.descriptor(around.vectors, around.element) - self.center) * self.scale
        energy = (self._kernel(d, batch.z) * self.coefficients).sum(1)
        return energy + (d * self.linear[self._place(batch.z)]).sum(1)

    def choose(
        self,
        given: Sequence[tuple[CrystalBatch, Mapping[str, Tensor]]],
        scales: Mapping[str, float],
        elements: Tensor,
    ) -> None:
        """The length, on some of the crystals; as for `LinearPotential`."""
        generator = torch.Generator().manual_seed(self.seed)
        few, seen = [], 0
        for place in torch.randperm(len(given), generator=generator).tolist():
            few.append(given[place])
            seen += given[place][0].num_crystals
            if seen >= SEARCH_CRYSTALS:
                break
        tried = {}
        for length in self.lengths if len(self.lengths) > 1 else ():
            self.length.fill_(length)
            sums = self.equations(Designs(self, few, elements), scales)
            tried[length] = min(self.held_out(sums, elements).values())
        self.length.fill_(min(tried, key=lambda one: tried[one], default=self.lengths[0]))
        log.info(
            "MBTR: %d features, %d representative atoms, length %g (held-out losses %s)",
            len(self.center), len(self.representative), self.length,
            ", ".join(f"{one:g}: {error:.4g}" for one, error in tried.items()),
        )  # fmt: skip

    def take(self, coefficients: Tensor) -> None:
        """As for `LinearPotential`."""
        m = len(self.representative)
        self.coefficients = coefficients[:m].clone()
        self.linear = coefficients[m:].view(len(self.elements), -1).clone()

    def prepare(self, batches: Sequence[CrystalBatch]) -> int:
        """Elements, scale of the features, and representatives, the farthest from each other."""
        z = torch.cat([batch.z for batch in batches])
        self.elements = z.unique()
        self._set_descriptor()
        if sum(self.descriptor.sizes) > MOST_FEATURES:
            raise ValueError(
                f"{len(self.elements)} elements have {sum(self.descriptor.sizes)} features an atom, more "
                f"than {MOST_FEATURES}: use fewer elements, or smaller grids (model.triple_points)"
            )
        with torch.no_grad():
            d = torch.cat([self.descriptor(a.vectors, a.element) for a in map(self._surroundings, batches)])
        self.center = d.mean(0)
        parts = (d - self.center).square().mean(0).split(list(self.descriptor.sizes))
        self.scale = torch.cat(
            [
                part.new_full((len(part),), weight / math.sqrt(float(part.sum()) or 1.0))
                for part, weight in zip(parts, self.term_weights, strict=True)
            ]
        )
        d = (d - self.center) * self.scale
        chosen = []
        for element in self.elements.tolist():
            rows = (z == element).nonzero()[:, 0]
            share = max(1, round(self.representatives * len(rows) / len(z)))
            chosen.append(rows[farthest(d[rows], share)])
        places = torch.cat(chosen)
        self.representative, self.representative_z = d[places].clone(), z[places].clone()
        return len(self.representative) + len(self.elements) * len(self.center)

    def _set_descriptor(self) -> None:
        self.descriptor = LocalMBTR(*self.grids, elements=max(1, len(self.elements)))
        self.descriptor.to(self.elements.device)

    def _place(self, z: Tensor) -> Tensor:
        """The row of `elements` of each atom.

        Raises:
            ValueError: An element that the fit did not see.
        """
        found = torch.searchsorted(self.elements, z).clamp(max=len(self.elements) - 1)
        wrong = self.elements[found] != z
        if bool(wrong.any()):
            raise ValueError(f"no training crystal has {symbol(int(z[wrong][0]))}")
        return found

    def _surroundings(self, batch: CrystalBatch) -> Surroundings:
        """Neighbours of atoms in rows of equal length, for `LocalMBTR`."""
        vectors = self.vectors(batch)
        assert batch.edge_index is not None
        source, target = batch.edge_index
        order = target.argsort(stable=True)
        source, target = source[order], target[order]
        count = torch.bincount(target, minlength=len(batch.z))
        slot = torch.arange(len(target), device=target.device) - (count.cumsum(0) - count)[target]
        most = max(1, int(count.max()))
        filled = vectors.new_zeros(len(batch.z), most, 3)
        # Where there is no neighbour: beyond the cutoff.
        filled[..., 0] = 2 * self.grids[0]
        filled = filled.index_put((target, slot), vectors[order])
        neighbor = source.new_zeros(len(batch.z), most).index_put((target, slot), source)
        return Surroundings(filled, self._place(batch.z)[neighbor], neighbor)

    def _kernel(self, d: Tensor, z: Tensor) -> Tensor:
        """(N, M), zero between different elements."""
        squared = d.square().sum(1)[:, None] + self.representative.square().sum(1)
        squared = (squared - 2 * d @ self.representative.T).clamp(min=0)
        return torch.exp(squared / (-2 * self.length**2)) * (z[:, None] == self.representative_z)

    def penalty(self, matrix: Tensor) -> Tensor:
        """K of the representatives, and one for linear coefficients; as for `LinearPotential`."""
        kernel = self._kernel(self.representative, self.representative_z)
        ones = torch.ones(self.scale.numel() * len(self.elements), dtype=torch.float64)
        return matrix.diagonal().mean() * torch.block_diag(kernel, torch.diag(ones))

    def design(self, batch: CrystalBatch, kinds: Kinds) -> dict[str, Tensor]:
        """As for `LinearPotential`; columns of c, then of b by element."""
        around = self._surroundings(batch)
        d, moved = self.descriptor.derivative(around.vectors, around.element)
        d, moved = (d - self.center) * self.scale, moved * self.scale
        kernel = self._kernel(d, batch.z)
        place = self._place(batch.z)
        mine = torch.nn.functional.one_hot(place, len(self.elements)).double()
        linear = (mine[:, :, None] * d[:, None, :]).flatten(1)
        atoms = torch.cat([kernel, linear], 1)
        crystals = atoms.new_zeros(batch.num_crystals, atoms.shape[1]).index_add(0, batch.batch, atoms)
        found = {"energy": crystals}
        if not {"forces", "stress"} & kinds:
            return found
        # dk/dv = k (d_m - d) . dd/dv / l², for each neighbour, direction and representative.
        pull = moved @ self.representative.T - (moved @ d[:, None, :, None])
        pull *= (kernel / self.length**2)[:, None, None, :]
        if len(self.elements) > 1:
            moved = (mine[:, None, None, :, None] * moved[:, :, :, None, :]).flatten(3)
        pull = torch.cat([pull, moved], 3)
        if "forces" in kinds:
            forces = pull.sum(1)
            found["forces"] = forces.index_add_(0, around.neighbor.flatten(), -pull.flatten(0, 1))
        if "stress" in kinds:
            # Where there is no neighbour the derivative is zero.
            virial = torch.einsum("nki,nkjp->nijp", around.vectors, pull)
            virial = virial.new_zeros(batch.num_crystals, *virial.shape[1:]).index_add(0, batch.batch, virial)
            volume = torch.linalg.det(batch.cell).abs()
            found["stress"] = (
                torch.stack([(virial[:, i, j] + virial[:, j, i]) / 2 for i, j in VOIGT], 1)
                / volume[:, None, None]
            )
        return found

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._set_descriptor()


class Surroundings(NamedTuple):
    """Neighbours of N atoms, at most K each.

    Attributes:
        vectors: (N, K, 3) Å; beyond the cutoff where there is no neighbour.
        element: (N, K), which of the model's elements the neighbour is.
        neighbor: (N, K), which atom it is.
    """

    vectors: Tensor
    element: Tensor
    neighbor: Tensor


def farthest(points: Tensor, count: int) -> Tensor:
    """Rows of points that are far from each other: each the farthest from those before.

    Args:
        points: (n, F).
        count: At most so many; fewer where points coincide.
    """
    chosen: list[int] = []
    distance = points.new_full((len(points),), math.inf)
    place = int((points - points.mean(0)).square().sum(1).argmax())
    for _ in range(min(count, len(points))):
        chosen.append(place)
        distance = torch.minimum(distance, (points - points[place]).square().sum(1))
        place = int(distance.argmax())
        if float(distance[place]) < 1e-12:
            break
    return torch.tensor(chosen)
