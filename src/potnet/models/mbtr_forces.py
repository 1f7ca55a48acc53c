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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from potnet.crystals.batch import CrystalBatch, edge_vectors
from potnet.crystals.elements import symbol
from potnet.lattice.real import VOIGT
from potnet.models.network import Network
from potnet.models.pair_splines import Normal
from potnet.nn import Embedding, HeadSpecs
from potnet.nn.heads import head_specs
from potnet.nn.local_mbtr import LocalMBTR

log = logging.getLogger(__name__)

MOST_FEATURES = 3000
"""Of one atom; they grow with the square of the number of elements."""

SEARCH_CRYSTALS = 50
"""So many training crystals choose the length; all of them choose the noise."""


class MBTRForces(Network):
    """The model; `fit_labels` sets its coefficients, and the state dict alone suffices to predict.

    Args:
        cutoff: Å, of the local edges: the cutoff of the features, where weights end smoothly.
        pair_points, triple_points, angle_points, nearest: Grids of the representation, see `LocalMBTR`.
        term_weights: Of k = 2 and 3, each scaled to unit variance before.
        representatives: M, most of them.
        lengths: l to try.
        noises: To try.
        folds: Of the cross-validation.
        seed: Of its division, and of the crystals that choose l.
        heads: One extensive scalar; named "energy" by default.
        fold: Not possible.

    Raises:
        ValueError: A setting that makes no sense, other heads, or `fold=True`.
    """

    needs = frozenset({"edges"})
    smooth = True
    closed_form = True

    elements: Tensor
    center: Tensor
    scale: Tensor
    representative: Tensor
    representative_z: Tensor
    coefficients: Tensor
    linear: Tensor
    lone: Tensor
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
        noises: Sequence[float] = (1e-6, 1e-7, 1e-8, 1e-9, 1e-10),
        folds: int = 5,
        seed: int = 0,
        heads: HeadSpecs | None = None,
        fold: bool = False,
    ) -> None:
        super().__init__(fold)
        if fold:
            raise ValueError("MBTRForces has forces, which equal atoms do not share: set fold=false")
        specs = head_specs({"energy": {"extensive": True}} if heads is None else heads)
        self.key, spec = next(iter(specs.items()))
        if len(specs) > 1 or not spec.extensive or spec.outputs != 1:
            raise ValueError("MBTRForces has one extensive energy: choose target=energy_forces or energy")
        for name, values in (("lengths", lengths), ("noises", noises)):
            if not values or min(values) <= 0:
                raise ValueError(f"model.{name}={list(values)}: give one or more positive numbers")
        if len(term_weights) != 2 or min(term_weights) <= 0:
            raise ValueError(f"model.term_weights={list(term_weights)}: give two positive numbers")
        if folds < 2 or representatives < 1:
            raise ValueError(
                f"model.folds={folds}, model.representatives={representatives}: give at least 2 and 1"
            )
        self.grids = (cutoff, pair_points, triple_points, angle_points, nearest)
        self.term_weights = [float(weight) for weight in term_weights]
        self.representatives, self.folds, self.seed = representatives, folds, seed
        self.lengths, self.noises = [float(x) for x in lengths], [float(x) for x in noises]
        self.descriptor = LocalMBTR(*self.grids)
        empty = torch.empty(0, dtype=torch.float64)
        self.register_buffer("elements", torch.empty(0, dtype=torch.int64))
        for name in ("center", "scale", "coefficients"):
            self.register_buffer(name, empty.clone())
        for name in ("representative", "linear"):
            self.register_buffer(name, empty.clone().view(0, 0))
        self.register_buffer("representative_z", torch.empty(0, dtype=torch.int64))
        # e by atomic number, beside the reference energies of the scaler.
        self.register_buffer("lone", torch.zeros(119, dtype=torch.float64))
        self.register_buffer("length", torch.ones((), dtype=torch.float64))

    def atom_parts(self, batch: CrystalBatch, key: str) -> dict[str, Tensor]:
        """(N,) energies of atoms, float64."""
        if not len(self.coefficients):
            raise ValueError("MBTRForces has no coefficients yet: fit it first")
        around = self._surroundings(batch)
        d = (self.descriptor(around.vectors, around.element) - self.center) * self.scale
        energy = (self._kernel(d, batch.z) * self.coefficients).sum(1)
        energy = energy + (d * self.linear[self._place(batch.z)]).sum(1)
        return {"atoms": energy + self.lone[batch.z]}

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Energies of atoms (N, 1) and their sums (B, 1): there are no other features."""
        atoms = self.atom_parts(batch, self.key)["atoms"]
        crystals = atoms.new_zeros(batch.num_crystals).index_add(0, batch.batch, atoms)
        return Embedding(atoms[:, None], crystals[:, None])

    def forward(self, batch: CrystalBatch) -> dict[str, Tensor]:
        """(B,) energies, by the key of the target.

        Raises:
            ValueError: The model has not been fitted, or an element was not seen.
        """
        return {self.key: self.embed(batch).crystals[:, 0]}

    def fit_labels(
        self,
        batches: Iterable[CrystalBatch],
        labels: Sequence[Mapping[str, Tensor]],
        weights: Mapping[str, float],
    ) -> None:
        """Choose representatives, length and noise, and solve for the coefficients.

        Args:
            batches: With local edges.
            labels: Of each batch by kind: `energy` (B,) and, where they are learned, `forces` (N, 3) and
                `stress` (B, 6); NaN where missing, on the scale of the output.
            weights: Of each kind; the mean squared error of a kind is multiplied by it.

        Raises:
            ValueError: Too many elements, or nothing to fit.
        """
        given = [(batch, label) for batch, label in zip(batches, labels, strict=True)]
        self._prepare([batch for batch, _ in given])
        counts = {kind: sum(int((~one[kind].isnan()).sum()) for _, one in given) for kind in weights}
        if not any(counts.values()):
            raise ValueError("there are no labels to fit")
        scales = {kind: (weights[kind] / max(count, 1)) ** 0.5 for kind, count in counts.items()}
        generator = torch.Generator().manual_seed(self.seed)
        few, seen = [], 0
        for place in torch.randperm(len(given), generator=generator).tolist():
            few.append(given[place])
            seen += given[place][0].num_crystals
            if seen >= SEARCH_CRYSTALS:
                break
        tried = {}
        for length in self.lengths if len(self.lengths) > 1 else ():
            tried[length] = min(self._held_out(self._sums(few, scales, length), length).values())
        length = min(tried, key=lambda one: tried[one], default=self.lengths[0])
        sums = self._sums(given, scales, length)
        errors = self._held_out(sums, length)
        noise = min(errors, key=lambda one: errors[one])
        found = Normal.sum(sums).solve(self._penalty(length), noise)
        m, f = len(self.representative), len(self.center)
        self.length.fill_(length)
        self.coefficients = found[:m].clone()
        self.linear = found[m : m + len(self.elements) * f].view(-1, f).clone()
        self.lone = torch.zeros_like(self.lone)
        self.lone[self.elements] = found[m + len(self.elements) * f :]
        log.info(
            "MBTR: %d features, %d representative atoms, length %g (held-out losses %s), noise %g (%s)",
            f, m, length, ", ".join(f"{one:g}: {error:.4g}" for one, error in tried.items()),
            noise, ", ".join(f"{one:g}: {error:.4g}" for one, error in errors.items()),
        )  # fmt: skip

    def _prepare(self, batches: Sequence[CrystalBatch]) -> None:
        """Elements, scale of the features, and representatives, the farthest from each other."""
        if not batches:
            raise ValueError("there are no crystals to fit")
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
        vectors = edge_vectors(batch, "MBTRForces").double()
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

    def _kernel(self, d: Tensor, z: Tensor, length: float | Tensor | None = None) -> Tensor:
        """(N, M), zero between different elements."""
        length = self.length if length is None else length
        squared = d.square().sum(1)[:, None] + self.representative.square().sum(1)
        squared = (squared - 2 * d @ self.representative.T).clamp(min=0)
        return torch.exp(squared / (-2 * length**2)) * (z[:, None] == self.representative_z)

    def _penalty(self, length: float) -> Tensor:
        """(P, P): K of the representatives, one for linear coefficients; energies of lone atoms are free."""
        kernel = self._kernel(self.representative, self.representative_z, length)
        count = self.scale.numel() * len(self.elements)
        rest = torch.cat([torch.ones(count), torch.zeros(len(self.elements))]).double()
        return torch.block_diag(kernel, torch.diag(rest))

    def _held_out(self, sums: Sequence[Normal], length: float) -> dict[float, float]:
        """The loss of each fold, predicted from the others, by noise."""
        penalty, total = self._penalty(length), Normal.sum(sums)
        without = [total.minus(held) for held in sums]
        return {
            noise: sum(
                held.loss(rest.solve(penalty, noise)) for held, rest in zip(sums, without, strict=True)
            )
            for noise in self.noises
        }

    def _sums(
        self,
        given: Sequence[tuple[CrystalBatch, Mapping[str, Tensor]]],
        scales: Mapping[str, float],
        length: float,
    ) -> list[Normal]:
        """Normal equations of each fold."""
        p = len(self.representative) + len(self.elements) * (len(self.center) + 1)
        generator = torch.Generator().manual_seed(self.seed)
        sums = [Normal.empty(p) for _ in range(self.folds)]
        for batch, label in given:
            fold = torch.randint(self.folds, (batch.num_crystals,), generator=generator)
            places = {
                "energy": fold,
                "stress": fold[:, None].expand(-1, 6),
                "forces": fold[batch.batch][:, None].expand(-1, 3),
            }
            for kind, rows in self._design(batch, frozenset(label), length).items():
                wanted, place = label[kind].double(), places[kind].reshape(-1)
                if kind == "energy":
                    wanted = wanted / batch.num_atoms
                wanted, rows = wanted.reshape(-1), rows.reshape(-1, p)
                for number in place.unique().tolist():
                    chosen = (place == number) & ~wanted.isnan()
                    sums[number] = sums[number].plus(
                        scales[kind] * rows[chosen], scales[kind] * wanted[chosen]
                    )
        return sums

    def _design(self, batch: CrystalBatch, kinds: frozenset[str], length: float) -> dict[str, Tensor]:
        """Derivatives in c, b and e: `energy` per atom (B, P), `forces` (N, 3, P), `stress` (B, 6, P)."""
        around = self._surroundings(batch)
        d, moved = self.descriptor.derivative(around.vectors, around.element)
        d, moved = (d - self.center) * self.scale, moved * self.scale
        kernel = self._kernel(d, batch.z, length)
        place = self._place(batch.z)
        mine = torch.nn.functional.one_hot(place, len(self.elements)).double()
        n, most = around.neighbor.shape
        linear = (mine[:, :, None] * d[:, None, :]).flatten(1)
        atoms = torch.cat([kernel, linear, mine], 1)
        crystals = atoms.new_zeros(batch.num_crystals, atoms.shape[1]).index_add(0, batch.batch, atoms)
        found = {"energy": crystals / batch.num_atoms[:, None]}
        if not {"forces", "stress"} & kinds:
            return found
        # dk/dv = k (d_m - d) . dd/dv / l², for each neighbour, direction and representative.
        pull = moved @ self.representative.T - (moved @ d[:, None, :, None])
        pull *= (kernel / length**2)[:, None, None, :]
        if len(self.elements) > 1:
            moved = (mine[:, None, None, :, None] * moved[:, :, :, None, :]).flatten(3)
        pull = torch.cat([pull, moved, moved.new_zeros(n, most, 3, len(self.elements))], 3)
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

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for what was saved, as its sizes are not among the arguments."""
        for name in (
            "elements",
            "center",
            "scale",
            "representative",
            "representative_z",
            "coefficients",
            "linear",
        ):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.length.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)
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
