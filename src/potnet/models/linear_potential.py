"""`LinearPotential`: energies that are linear in their coefficients, which least squares finds."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from potnet.crystals.batch import CrystalBatch, edge_vectors
from potnet.models.designs import Designs
from potnet.models.network import Network
from potnet.nn import Embedding, HeadSpecs
from potnet.nn.clusters import INNER_WIDTH
from potnet.nn.derivatives import derivatives
from potnet.nn.heads import head_specs
from potnet.nn.repulsion import repulsion
from potnet.nn.ridge import Normal, Report

log = logging.getLogger(__name__)

Kinds = frozenset[str]

SAME = {"energy": 1.0, "forces": 1.0, "stress": 1.0}

SOFT = 0.3
"""In `trust`: of the mean error, below which errors of forces count as in least squares."""

MOST_COEFFICIENTS = 6000
"""Their matrix of normal equations, float64, and one for each fold, then take 2 GiB."""


class LinearPotential(Network):
    """E = sum over atoms of e_a + sum_k c_k B_k, where a subclass says what the B are.

    Energy, forces and stress are linear in c and e (energies of lone atoms, by element), so the best
    coefficients solve one system of equations: seconds or minutes, where a network takes longer.

    Pairs of atoms nearer than any of the same elements in the training crystals repel each other as screened
    nuclei do (`potnet.nn.repulsion`): of such pairs the fit knows nothing.

    A subclass defines `prepare`, `design`, `penalty`, `take` and `local_energies`, and may define `choose`.

    Args:
        cutoff: Å, of the local edges: the cutoff of the features.
        smoothness: Weights of the penalty that are tried; the best on held-out crystals is taken.
        tolerances: Errors of the energy per atom (eV), forces (eV/Å) and stress (eV/Å³) that count the same.
        folds: Of the cross-validation.
        seed: Of its division.
        robust: Whether absolute errors count in place of squared ones: held-out crystals are compared by
            them, and a second fit follows in which forces count the less the larger their error was (see
            `trust`).
        heads: One extensive scalar; named "energy" by default.
        fold: Not possible.

    Attributes:
        tried: Losses on held-out crystals, by smoothness, of the last fit.

    Raises:
        ValueError: Fewer than 2 folds, a smoothness or tolerance that is not positive, other heads, or
            `fold=True`.
    """

    needs = frozenset({"edges"})
    smooth = True
    closed_form = True

    lone: Tensor
    shortest: Tensor
    unit: Tensor

    def __init__(
        self,
        cutoff: float,
        smoothness: Sequence[float],
        tolerances: Mapping[str, float],
        folds: int,
        seed: int,
        heads: HeadSpecs | None,
        fold: bool,
        robust: bool = False,
    ) -> None:
        super().__init__(fold)
        name = type(self).__name__
        if fold:
            raise ValueError(f"{name} has forces, which equal atoms do not share: set fold=false")
        specs = head_specs({"energy": {"extensive": True}} if heads is None else heads)
        self.key, spec = next(iter(specs.items()))
        if len(specs) > 1 or not spec.extensive or spec.outputs != 1:
            raise ValueError(f"{name} has one extensive energy: choose target=energy_forces or energy")
        if folds < 2:
            raise ValueError(f"model.folds={folds}: give at least 2")
        if not smoothness or min(smoothness) <= 0:
            raise ValueError(f"model.smoothness={list(smoothness)}: give positive numbers")
        if set(tolerances) != {"energy", "forces", "stress"} or min(tolerances.values()) <= 0:
            raise ValueError(
                f"model.tolerances={dict(tolerances)}: give a positive number for energy, forces and stress"
            )
        self.cutoff = cutoff
        self.smoothness, self.tolerances = [float(x) for x in smoothness], dict(tolerances)
        self.folds, self.seed, self.robust = folds, seed, robust
        self.tried: dict[float, float] = {}
        # e by atomic number, beside the reference energies of the scaler.
        self.register_buffer("lone", torch.zeros(119, dtype=torch.float64))
        # The shortest distance of two atoms, Å, by their numbers; and eV, of one unit of the output.
        self.register_buffer("shortest", torch.zeros(119, 119))
        self.register_buffer("unit", torch.ones((), dtype=torch.float64))

    def prepare(self, batches: Sequence[CrystalBatch]) -> int:
        """Get ready for the elements of the training crystals.

        Returns:
            The number of coefficients, without those of lone atoms.

        Raises:
            ValueError: There are no local edges.
        """
        raise NotImplementedError

    def design(self, batch: CrystalBatch, kinds: Kinds) -> dict[str, Tensor]:
        """Derivatives of the labels in the K coefficients, float64.

        Args:
            batch: B crystals of N atoms.
            kinds: Of labels: "energy" and perhaps "forces" and "stress".

        Returns:
            `energy` (B, K) of the whole crystal, `forces` (N, 3, K), `stress` (B, 6, K).
        """
        raise NotImplementedError

    def penalty(self, matrix: Tensor) -> Tensor:
        """(K, K), the matrix of the penalty c P c of coefficients that are not smooth.

        Args:
            matrix: (K, K), the normal equations without a penalty, which tell the scale.
        """
        raise NotImplementedError

    def choose(
        self,
        given: Sequence[tuple[CrystalBatch, Mapping[str, Tensor]]],
        scales: Mapping[str, float],
        elements: Tensor,
    ) -> None:
        """Settle what else depends on the data, before the fit: nothing here.

        Args:
            given, scales, elements: As for `equations`.
        """

    def take(self, coefficients: Tensor) -> None:
        """Keep the solution, (K,) float64."""
        raise NotImplementedError

    def local_energies(self, batch: CrystalBatch) -> Tensor:
        """(N,) float64, without those of lone atoms."""
        raise NotImplementedError

    def vectors(self, batch: CrystalBatch) -> Tensor:
        """(E, 3) of the local edges, Å, float64 whatever networks compute in: sums of many terms cancel."""
        return edge_vectors(replace(batch, dtype=torch.float64), type(self).__name__)

    def atom_parts(self, batch: CrystalBatch, key: str) -> dict[str, Tensor]:
        """(N,) energies of atoms, float64."""
        return {"atoms": self.lone[batch.z] + self.local_energies(batch) + self.repulsion(batch)}

    def repulsion(self, batch: CrystalBatch) -> Tensor:
        """(N,) float64, half of the repulsion of each pair that is nearer than the training crystals have."""
        vectors = self.vectors(batch)
        assert batch.edge_index is not None
        shortest = self.shortest_of(batch)
        close = (vectors.detach().norm(dim=1) < shortest).nonzero()[:, 0]
        source, target = batch.edge_index[:, close]
        r = torch.linalg.vector_norm(vectors[close], dim=1)
        pairs = repulsion(r, batch.z[source], batch.z[target], shortest[close], INNER_WIDTH)
        return vectors.new_zeros(len(batch.z)).index_add(0, target, pairs / (2 * self.unit))

    def shortest_of(self, batch: CrystalBatch) -> Tensor:
        """(E,) float64, Å, the shortest distance in training crystals of the two elements of each edge."""
        assert batch.edge_index is not None
        first, second = batch.z[batch.edge_index]
        return self.shortest[first, second].double()

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Energies of atoms (N, 1) and their sums (B, 1): there are no other features."""
        atoms = self.atom_parts(batch, self.key)["atoms"]
        crystals = atoms.new_zeros(batch.num_crystals).index_add(0, batch.batch, atoms)
        return Embedding(atoms[:, None], crystals[:, None])

    def forward(self, batch: CrystalBatch) -> dict[str, Tensor]:
        """(B,) energies, by the key of the target.

        Raises:
            ValueError: The model has not been fitted, or was fitted to other elements.
        """
        return {self.key: self.embed(batch).crystals[:, 0]}

    def fit_labels(
        self,
        batches: Iterable[CrystalBatch],
        labels: Sequence[Mapping[str, Tensor]],
        weights: Mapping[str, float],
        report: Report | None = None,
        unit: float = 1.0,
    ) -> None:
        """Solve for the coefficients: least squares of energies per atom, forces and stress.

        Args:
            batches: With local edges.
            labels: Of each batch by kind: `energy` (B,) and, where they are learned, `forces` (N, 3) and
                `stress` (B, 6); NaN where missing, on the scale of the output.
            weights: Of each kind; the mean squared error of a kind, over its tolerance, is multiplied by it.
            report: Called with a stage, the batches done and their number.
            unit: eV, of one unit of the labels.

        Raises:
            ValueError: Too many coefficients, or nothing to fit.
        """
        given = list(zip(batches, labels, strict=True))
        counts = {kind: sum(int((~label[kind].isnan()).sum()) for _, label in given) for kind in weights}
        if not any(counts.values()):
            raise ValueError("there are no labels to fit")
        scales = {
            kind: (weight / max(counts[kind], 1)) ** 0.5 / self.tolerances[kind]
            for kind, weight in weights.items()
        }
        elements = torch.cat([batch.z for batch, _ in given]).unique()
        p = self.prepare([batch for batch, _ in given]) + len(elements)
        if p > MOST_COEFFICIENTS:
            raise ValueError(
                f"{type(self).__name__} has {p} coefficients for {len(elements)} elements, more than "
                f"{MOST_COEFFICIENTS}: use fewer elements, or smaller settings of the model"
            )
        self.unit.fill_(unit)
        self.shortest = self._closest(batch for batch, _ in given)
        self.choose(given, scales, elements)
        designs = Designs(self, given, elements, report, keep=self.robust)
        sums = self.equations(designs, scales)
        total = Normal.sum(sums)
        if not bool(total.matrix[: -len(elements)].any()):
            raise ValueError("no two atoms are within the cutoff")
        if self.robust:
            errors = self.held_out_absolute(sums, designs, scales)
        else:
            errors = self.held_out(sums, elements)
        best = min(errors, key=lambda weight: errors[weight])
        self.tried = errors
        self._take(total, best, elements)
        if self.robust and "forces" in scales:
            total = Normal.sum(self.equations(designs, scales, self.trust(given)))
            self._take(total, best, elements)
        log.info(
            "%s: %d coefficients, smoothness %g (held-out losses %s)",
            type(self).__name__, p, best, ", ".join(f"{w:g}: {e:.4g}" for w, e in errors.items()),
        )  # fmt: skip

    def _take(self, total: Normal, smoothness: float, elements: Tensor) -> None:
        found = total.solve(self._penalty(total, elements), smoothness)
        self.take(found[: -len(elements)])
        self.lone = torch.zeros_like(self.lone)
        self.lone[elements] = found[-len(elements) :]

    def _closest(self, batches: Iterable[CrystalBatch]) -> Tensor:
        """(119, 119) Å, of atoms by their numbers; 0 for those that are not within the cutoff anywhere."""
        found = torch.full((119 * 119,), math.inf)
        for batch in batches:
            if batch.edge_index is None:
                continue
            first, second = batch.z[batch.edge_index]
            r = self.vectors(batch).detach().norm(dim=1).float()
            found = found.to(r.device).scatter_reduce(0, first * 119 + second, r, "amin")
        return found.nan_to_num(posinf=0.0).view(119, 119)

    def trust(self, given: Sequence[tuple[CrystalBatch, Mapping[str, Tensor]]]) -> list[Tensor]:
        """(N,) weights of the forces of the atoms of each batch, from their errors d with these coefficients.

        In proportion to 1 / (d + 0.3 mean d), as in iteratively reweighted least squares for absolute
        errors, and such that the sum of all d² w is that of d²: other labels count as much as before.
        """
        errors = []
        for batch, label in given:
            found = derivatives(lambda b: self(b)[self.key], batch, stress=False)["forces"]
            errors.append((found - label["forces"]).norm(dim=1))
        d = torch.cat(errors)
        known = ~d.isnan()
        mean = d[known].mean()
        weight = 1 / (d + SOFT * mean).clamp(min=1e-12)
        square = d[known].square()
        weight *= square.sum() / (square * weight[known]).sum().clamp(min=1e-300)
        return list(weight.nan_to_num().split([len(one) for one in errors]))

    def equations(
        self, designs: Designs, scales: Mapping[str, float], trust: Sequence[Tensor] | None = None
    ) -> list[Normal]:
        """Normal equations of the crystals of each fold.

        Args:
            designs: Of the training crystals.
            scales: What the equations of each kind of label are multiplied by.
            trust: (N,) weights of forces, of each batch.
        """
        sums: list[Normal] = []
        for number, rows in enumerate(designs):
            for kind, (matrix, wanted, fold) in rows.items():
                sums = sums or [Normal.empty(matrix.shape[1]) for _ in range(self.folds)]
                scale = torch.full_like(wanted, scales[kind])
                if kind == "forces" and trust is not None:
                    scale *= trust[number].sqrt().repeat_interleave(3)
                for part in fold.unique().tolist():
                    chosen = (fold == part) & ~wanted.isnan()
                    factor = scale[chosen]
                    sums[part].add(factor[:, None] * matrix[chosen], factor * wanted[chosen])
        return sums

    def held_out(self, sums: Sequence[Normal], elements: Tensor) -> dict[float, float]:
        """The loss of each fold, predicted from the others, by smoothness.

        Args:
            sums: From `equations`.
            elements: As there.
        """
        total = Normal.sum(sums)
        penalty = self._penalty(total, elements)
        return {
            weight: sum(held.loss(total.minus(held).solve(penalty, weight)) for held in sums)
            for weight in self.smoothness
        }

    def held_out_absolute(
        self, sums: Sequence[Normal], designs: Designs, scales: Mapping[str, float]
    ) -> dict[float, float]:
        """As `held_out`: absolute errors, of all kinds and over their tolerances, with the weights of kinds.

        Args:
            sums: From `equations`.
            designs: As there.
            scales: As there.
        """
        total = Normal.sum(sums)
        penalty = self._penalty(total, designs.elements)
        # (folds, P, weights); of the matrices without a fold, one at a time.
        found = torch.stack(
            [
                torch.stack([rest.solve(penalty, weight) for weight in self.smoothness], 1)
                for rest in map(total.minus, sums)
            ]
        )
        loss = found.new_zeros(len(self.smoothness))
        for rows in designs:
            for kind, (matrix, wanted, fold) in rows.items():
                factor = scales[kind] ** 2 * self.tolerances[kind]
                for part in fold.unique().tolist():
                    chosen = (fold == part) & ~wanted.isnan()
                    errors = matrix[chosen].double() @ found[part] - wanted[chosen, None]
                    loss += factor * errors.abs().sum(0)
        return dict(zip(self.smoothness, loss.tolist(), strict=True))

    def _penalty(self, total: Normal, elements: Tensor) -> Tensor:
        bare = self.penalty(total.matrix[: -len(elements), : -len(elements)])
        # Energies of lone atoms are free.
        return torch.block_diag(bare, bare.new_zeros(len(elements), len(elements)))

    #: Buffers whose size the fit decides, which loading makes room for.
    fitted: tuple[str, ...] = ()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in self.fitted:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.lone.device))
        # Checkpoints from before there was a repulsion.
        for name in ("shortest", "unit"):
            state_dict.setdefault(prefix + name, getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *rest)
