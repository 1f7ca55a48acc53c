"""Pair potentials one can read: cubic B-splines of the distance for every pair of elements, fitted linearly.

    E = sum over atoms of e_a + 1/2 sum over edges of phi_ab(r),  phi_ab(r) = sum_k c_abk B_k(r)

The energy, forces and stress are linear in c and e (energies of lone atoms), so the best coefficients
solve one system of equations: seconds, where a network takes minutes. The idea is that of UF3 (Xie, Rupp
and Hennig, npj Comput. Mater. 2023); penalising second differences of c (Eilers and Marx 1996) makes a
curve straight where there are no distances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from potnet.crystals.batch import CrystalBatch
from potnet.crystals.elements import symbol
from potnet.lattice.real import VOIGT
from potnet.models.linear_potential import SAME, Kinds, LinearPotential
from potnet.nn import HeadSpecs


class PairSplines(LinearPotential):
    """The model; `fit_labels` sets its coefficients.

    Args:
        cutoff: Å, of the local edges: the cutoff of the features, where curves end with two derivatives zero.
        knots: K, intervals from 0 to the cutoff, and as many coefficients for each pair of elements.
        smoothness, tolerances, folds, seed, heads, fold: See `LinearPotential`.

    Raises:
        ValueError: Fewer than 8 knots, or as for `LinearPotential`.
    """

    fitted = ("pairs", "coefficients")

    coefficients: Tensor
    pairs: Tensor

    def __init__(
        self,
        cutoff: float = 5.0,
        knots: int = 24,
        smoothness: Sequence[float] = (1e-8, 1e-6, 1e-4, 1e-2),
        tolerances: Mapping[str, float] = SAME,
        folds: int = 5,
        seed: int = 0,
        heads: HeadSpecs | None = None,
        fold: bool = False,
    ) -> None:
        super().__init__(cutoff, smoothness, tolerances, folds, seed, heads, fold)
        if knots < 8:
            raise ValueError(f"model.knots={knots}: give at least 8")
        self.knots = knots
        self.register_buffer("pairs", torch.empty(0, 2, dtype=torch.int64))
        self.register_buffer("coefficients", torch.empty(0, knots, dtype=torch.float64))

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

    def local_energies(self, batch: CrystalBatch) -> Tensor:
        """(N,) half the energies of the pairs of each atom, float64.

        Raises:
            ValueError: A pair of elements that the fit did not see.
        """
        vectors = self.vectors(batch)
        value, _ = self.basis(torch.linalg.vector_norm(vectors, dim=1))
        energy = (value * self.coefficients[self.pair_of(batch)]).sum(1) / 2
        assert batch.edge_index is not None
        return energy.new_zeros(len(batch.z)).index_add(0, batch.edge_index[1], energy)

    def prepare(self, batches: Sequence[CrystalBatch]) -> int:
        """Find the pairs of elements within the cutoff; as for `LinearPotential`."""
        codes = []
        for batch in batches:
            if batch.edge_index is None:
                raise ValueError("PairSplines reads local edges: set features.neighbors.cutoff")
            low, high = batch.z[batch.edge_index].sort(0).values
            codes.append((low * 128 + high).unique())
        found = torch.cat(codes).unique()
        self.pairs = torch.stack([found // 128, found % 128], 1)
        return len(found) * self.knots

    def design(self, batch: CrystalBatch, kinds: Kinds) -> dict[str, Tensor]:
        """As for `LinearPotential`; a column for each pair and knot."""
        assert batch.edge_index is not None
        count = len(self.pairs)
        vectors = self.vectors(batch)
        length = torch.linalg.vector_norm(vectors, dim=1)
        value, slope = self.basis(length)
        pair, (source, target) = self.pair_of(batch), batch.edge_index
        of_crystal = batch.batch[target] * count + pair

        def summed(rows: Tensor, place: Tensor, size: int) -> Tensor:
            """(E, ..., K) to (size, ..., count * K)."""
            total = rows.new_zeros(size * count, *rows.shape[1:]).index_add(0, place, rows)
            total = total.view(size, count, *rows.shape[1:]).movedim(1, -2)
            return total.reshape(size, *rows.shape[1:-1], count * self.knots)

        found = {"energy": summed(value / 2, of_crystal, batch.num_crystals)}
        # The vector goes from the target to the source; dE/dv of an edge.
        pull = (vectors / length[:, None])[:, :, None] * slope[:, None, :] / 2
        if "forces" in kinds:
            n = len(batch.z)
            found["forces"] = summed(pull, target * count + pair, n) - summed(pull, source * count + pair, n)
        if "stress" in kinds:
            virial = torch.stack(
                [(pull[:, i] * vectors[:, j, None] + pull[:, j] * vectors[:, i, None]) / 2 for i, j in VOIGT],
                1,
            )
            volume = torch.linalg.det(batch.cell).abs()
            found["stress"] = summed(virial, of_crystal, batch.num_crystals) / volume[:, None, None]
        return found

    def penalty(self, matrix: Tensor) -> Tensor:
        """Second differences of each curve squared, continued by the zeros beyond the cutoff."""
        k = self.knots
        difference = torch.zeros(k, k + 2, dtype=torch.float64)
        for row in range(k):
            difference[row, row : row + 3] = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
        one = difference[:, :k].T @ difference[:, :k]
        return matrix.diagonal().mean() * torch.block_diag(*[one] * len(self.pairs))

    def take(self, coefficients: Tensor) -> None:
        """As for `LinearPotential`."""
        self.coefficients = coefficients.view(-1, self.knots)

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
