"""Pair potentials one can read: cubic B-splines of the distance for every pair of elements, fitted linearly.

    E = sum over atoms of e_a + 1/2 sum over edges of phi_ab(r),  phi_ab(r) = sum_k c_abk B_k(r)

The energy, forces and stress are linear in c and e (energies of lone atoms), so the best coefficients
solve one system of equations: seconds, where a network takes minutes. The idea is that of UF3 (Xie, Rupp
and Hennig, npj Comput. Mater. 2023); penalising second differences of c (Eilers and Marx 1996) makes a
curve straight where there are no distances.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potnet.crystals.batch import CrystalBatch, edge_vectors
from potnet.crystals.elements import symbol
from potnet.lattice.real import VOIGT
from potnet.models.network import Network
from potnet.nn import Embedding, HeadSpecs
from potnet.nn.heads import head_specs
from potnet.nn.ridge import Normal

log = logging.getLogger(__name__)

MOST_COEFFICIENTS = 6000
"""Their matrix of normal equations, float64, and one for each fold, then take 2 GiB."""


class PairSplines(Network):
    """The model; `fit_labels` sets its coefficients.

    Args:
        cutoff: Å, of the local edges: the cutoff of the features, where curves end with two derivatives zero.
        knots: K, intervals from 0 to the cutoff, and as many coefficients for each pair of elements.
        smoothness: Weights of the penalty that are tried; the best on held-out crystals is taken.
        folds: Of the cross-validation.
        seed: Of its division.
        heads: One extensive scalar; named "energy" by default.
        fold: Not possible.

    Raises:
        ValueError: Fewer than 8 knots, no smoothness or one not positive, other heads, or `fold=True`.
    """

    needs = frozenset({"edges"})
    smooth = True
    closed_form = True

    coefficients: Tensor
    pairs: Tensor
    lone: Tensor

    def __init__(
        self,
        cutoff: float = 5.0,
        knots: int = 24,
        smoothness: Sequence[float] = (1e-8, 1e-6, 1e-4, 1e-2),
        folds: int = 5,
        seed: int = 0,
        heads: HeadSpecs | None = None,
        fold: bool = False,
    ) -> None:
        super().__init__(fold)
        if fold:
            raise ValueError("PairSplines has forces, which equal atoms do not share: set fold=false")
        specs = head_specs({"energy": {"extensive": True}} if heads is None else heads)
        self.key, spec = next(iter(specs.items()))
        if len(specs) > 1 or not spec.extensive or spec.outputs != 1:
            raise ValueError("PairSplines has one extensive energy: choose target=energy_forces or energy")
        if knots < 8 or folds < 2:
            raise ValueError(f"model.knots={knots}, model.folds={folds}: give at least 8 and 2")
        if not smoothness or min(smoothness) <= 0:
            raise ValueError(f"model.smoothness={list(smoothness)}: give positive numbers")
        self.cutoff, self.knots = cutoff, knots
        self.smoothness, self.folds, self.seed = [float(x) for x in smoothness], folds, seed
        self.register_buffer("pairs", torch.empty(0, 2, dtype=torch.int64))
        self.register_buffer("coefficients", torch.empty(0, knots, dtype=torch.float64))
        # e by atomic number, beside the reference energies of the scaler.
        self.register_buffer("lone", torch.zeros(119, dtype=torch.float64))

    def basis(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """B_k(r) and its derivative, (E, K) each: cardinal B-splines at k h, k = -1 ... K - 2.

        Args:
            r: (E,) distances, Å.
        """
        h = self.cutoff / self.knots
        centres = torch.arange(-1, self.knots - 1, dtype=r.dtype, device=r.device)
        t = r[:, None] / h - centres
        a = t.abs()
        outer = (2 - a).clamp(min=0)
        value = torch.where(a < 1, 2 / 3 - t**2 + a**3 / 2, outer**3 / 6)
        slope = torch.where(a < 1, -2 * t + 1.5 * t * a, -t.sign() * outer**2 / 2)
        return value, slope / h

    def pair_of(self, batch: CrystalBatch) -> Tensor:
        """(E,) the row of `pairs` of each edge.

        Raises:
            ValueError: A pair of elements that the fit did not see.
        """
        assert batch.edge_index is not None
        low, high = batch.z[batch.edge_index].sort(0).values
        code, codes = low * 128 + high, self.pairs[:, 0] * 128 + self.pairs[:, 1]
        found = torch.searchsorted(codes, code).clamp(max=max(len(codes) - 1, 0))
        wrong = codes[found] != code if len(codes) else torch.ones_like(code, dtype=torch.bool)
        if bool(wrong.any()):
            a, b = int(low[wrong][0]), int(high[wrong][0])
            raise ValueError(
                f"there is no curve for {symbol(a)}-{symbol(b)}: no training crystal has them within "
                f"{self.cutoff:g} Å"
            )
        return found

    def atom_parts(self, batch: CrystalBatch, key: str) -> dict[str, Tensor]:
        """(N,) half the energies of the pairs of each atom, float64."""
        vectors = edge_vectors(batch, "PairSplines").double()
        value, _ = self.basis(torch.linalg.vector_norm(vectors, dim=1))
        energy = (value * self.coefficients[self.pair_of(batch)]).sum(1) / 2
        assert batch.edge_index is not None
        return {"atoms": self.lone[batch.z].index_add(0, batch.edge_index[1], energy)}

    def embed(self, batch: CrystalBatch) -> Embedding:
        """Energies of atoms (N, 1) and their sums (B, 1): there are no other features."""
        atoms = self.atom_parts(batch, self.key)["atoms"]
        crystals = atoms.new_zeros(batch.num_crystals).index_add(0, batch.batch, atoms)
        return Embedding(atoms[:, None], crystals[:, None])

    def forward(self, batch: CrystalBatch) -> dict[str, Tensor]:
        """(B,) energies, by the key of the target.

        Raises:
            ValueError: The model has not been fitted, or a pair of elements was not seen.
        """
        return {self.key: self.embed(batch).crystals[:, 0]}

    def fit_labels(
        self,
        batches: Iterable[CrystalBatch],
        labels: Sequence[Mapping[str, Tensor]],
        weights: Mapping[str, float],
    ) -> None:
        """Solve for the coefficients: least squares of energies per atom, forces and stress.

        Args:
            batches: With local edges.
            labels: Of each batch by kind: `energy` (B,) and, where they are learned, `forces` (N, 3) and
                `stress` (B, 6); NaN where missing, on the scale of the output.
            weights: Of each kind; the mean squared error of a kind is multiplied by it.

        Raises:
            ValueError: Too many pairs of elements, or nothing to fit.
        """
        batches = list(batches)
        self._find_pairs(batches)
        elements = torch.cat([batch.z for batch in batches]).unique()
        p = self.pairs.shape[0] * self.knots + len(elements)
        generator = torch.Generator().manual_seed(self.seed)
        counts = {kind: sum(int((~one[kind].isnan()).sum()) for one in labels) for kind in weights}
        sums = [Normal.empty(p) for _ in range(self.folds)]
        for batch, label in zip(batches, labels, strict=True):
            fold = torch.randint(self.folds, (batch.num_crystals,), generator=generator)
            design = self._design(batch, frozenset(label), elements)
            places = {
                "energy": fold,
                "stress": fold[:, None].expand(-1, 6),
                "forces": fold[batch.batch][:, None].expand(-1, 3),
            }
            for kind, rows in design.items():
                wanted, place = label[kind].double(), places[kind].reshape(-1)
                if kind == "energy":
                    wanted = wanted / batch.num_atoms
                wanted, rows = wanted.reshape(-1), rows.reshape(-1, p)
                scale = (weights[kind] / max(counts[kind], 1)) ** 0.5
                for number in range(self.folds):
                    chosen = (place == number) & ~wanted.isnan()
                    sums[number] = sums[number].plus(scale * rows[chosen], scale * wanted[chosen])
        total = Normal.sum(sums)
        if not bool(total.matrix.any()):
            raise ValueError("there are no labels to fit, or no two atoms within the cutoff")
        penalty = self._penalty(len(elements))
        errors = {}
        for weight in self.smoothness:
            errors[weight] = sum(
                held.loss(Normal.sum([s for s in sums if s is not held]).solve(penalty, weight))
                for held in sums
            )
        best = min(errors, key=lambda weight: errors[weight])
        found = total.solve(penalty, best)
        self.coefficients = found[: -len(elements)].view(-1, self.knots)
        self.lone = torch.zeros_like(self.lone)
        self.lone[elements] = found[-len(elements) :]
        log.info(
            "pair splines: %d curves of %d coefficients, smoothness %g (held-out losses %s)",
            len(self.pairs), self.knots, best, ", ".join(f"{w:g}: {e:.4g}" for w, e in errors.items()),
        )  # fmt: skip

    def _find_pairs(self, batches: Sequence[CrystalBatch]) -> None:
        codes = []
        for batch in batches:
            if batch.edge_index is None:
                raise ValueError("PairSplines reads local edges: set features.neighbors.cutoff")
            low, high = batch.z[batch.edge_index].sort(0).values
            codes.append((low * 128 + high).unique())
        found = torch.cat(codes).unique()
        self.pairs = torch.stack([found // 128, found % 128], 1)
        if len(found) * self.knots > MOST_COEFFICIENTS:
            raise ValueError(
                f"{len(found)} pairs of elements with {self.knots} knots each are "
                f"{len(found) * self.knots} coefficients, more than {MOST_COEFFICIENTS}: use fewer elements "
                "or model.knots"
            )

    def _design(self, batch: CrystalBatch, kinds: frozenset[str], elements: Tensor) -> dict[str, Tensor]:
        """Derivatives in c and e: `energy` per atom (B, P), `forces` (N, 3, P), `stress` (B, 6, P)."""
        assert batch.edge_index is not None
        count = len(self.pairs)
        vectors = edge_vectors(batch, "PairSplines").double()
        length = torch.linalg.vector_norm(vectors, dim=1)
        value, slope = self.basis(length)
        pair, (source, target) = self.pair_of(batch), batch.edge_index
        of_crystal = batch.batch[target] * count + pair

        def summed(rows: Tensor, place: Tensor, size: int) -> Tensor:
            """(E, ..., K) to (size, ..., count * K)."""
            total = rows.new_zeros(size * count, *rows.shape[1:]).index_add(0, place, rows)
            total = total.view(size, count, *rows.shape[1:]).movedim(1, -2)
            return total.reshape(size, *rows.shape[1:-1], count * self.knots)

        def without_lone(rows: Tensor) -> Tensor:
            """Energies of lone atoms move no atom."""
            return torch.cat([rows, rows.new_zeros(*rows.shape[:-1], len(elements))], -1)

        energy = summed(value / 2, of_crystal, batch.num_crystals)
        alone = (batch.z[:, None] == elements).double()
        alone = energy.new_zeros(batch.num_crystals, len(elements)).index_add(0, batch.batch, alone)
        found = {"energy": torch.cat([energy, alone], 1) / batch.num_atoms[:, None]}
        # The vector goes from the target to the source; dE/dv of an edge.
        pull = (vectors / length[:, None])[:, :, None] * slope[:, None, :] / 2
        if "forces" in kinds:
            n = len(batch.z)
            both = summed(pull, target * count + pair, n) - summed(pull, source * count + pair, n)
            found["forces"] = without_lone(both)
        if "stress" in kinds:
            virial = torch.stack(
                [(pull[:, i] * vectors[:, j, None] + pull[:, j] * vectors[:, i, None]) / 2 for i, j in VOIGT],
                1,
            )
            volume = torch.linalg.det(batch.cell).abs()
            stress = summed(virial, of_crystal, batch.num_crystals) / volume[:, None, None]
            found["stress"] = without_lone(stress)
        return found

    def _penalty(self, elements: int) -> Tensor:
        """(P, P): second differences of each curve squared, continued by the zeros beyond the cutoff.

        Energies of lone atoms are free.
        """
        k = self.knots
        difference = torch.zeros(k, k + 2, dtype=torch.float64)
        for row in range(k):
            difference[row, row : row + 3] = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
        one = difference[:, :k].T @ difference[:, :k]
        return torch.block_diag(
            *[one] * len(self.pairs), torch.zeros(elements, elements, dtype=torch.float64)
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for the curves that were saved, as their number is not among the arguments."""
        for name in ("pairs", "coefficients"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.pairs.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def draw(self, path: Path, scale: float, unit: str) -> None:
        """A picture of the curves.

        Args:
            path: Of the picture.
            scale: One of the output is this many of the unit.
            unit: Of energies.
        """
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        r = torch.linspace(0.3 * self.cutoff, self.cutoff, 400, dtype=torch.float64)
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        for (a, b), row in zip(self.pairs.tolist(), self.coefficients, strict=True):
            axes.plot(r, scale * (self.basis(r)[0] @ row), label=f"{symbol(a)}-{symbol(b)}")
        axes.axhline(0, color="0.7", linewidth=0.8)
        axes.set(xlabel="distance, Å", ylabel=f"pair potential, {unit}", ylim=(-2, 3))
        if len(self.pairs) <= 20:
            axes.legend(frameon=False)
        figure.savefig(path, dpi=150)
        plt.close(figure)
