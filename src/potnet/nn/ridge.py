"""Ridge regression: normal equations; kernels and the choice of their two numbers by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Report = Callable[[str, int, int], None]
"""Called with a stage, the steps done and the number of steps."""


@dataclass(frozen=True)
class Trial:
    """One point of the cross-validation.

    Attributes:
        length: Length of the kernel.
        noise: Added to the diagonal of the kernel matrix.
        mae: Mean absolute error over all folds, in the unit of the targets; infinite if a matrix could not be
            factorised.
    """

    length: float
    noise: float
    mae: float


def gaussian(distance: Tensor, length: float | Tensor) -> Tensor:
    """exp(-d² / 2 l²), elementwise."""
    return (-0.5 * (distance / length) ** 2).exp()


def laplacian(distance: Tensor, length: float | Tensor) -> Tensor:
    """exp(-d / l), elementwise."""
    return (-distance / length).exp()


def linear(product: Tensor, length: float | Tensor) -> Tensor:
    """The scalar product itself: it has no length."""
    return product


def median_of_pairs(distance: Tensor) -> float:
    """The median of an (n, n) matrix of distances, n at least 2, without its diagonal; 1 if that is 0."""
    n = len(distance)
    # Without the first entry, rows of n + 1 end in a diagonal entry each.
    return float(distance.flatten()[1:].view(n - 1, n + 1)[:, :-1].median()) or 1.0


def solve(matrix: Tensor, wanted: Tensor, noise: float) -> Tensor | None:
    """a in (matrix + noise I) a = wanted, by Cholesky's factorisation.

    Args:
        matrix: (n, n) float64, of a kernel.
        wanted: (n,) float64.
        noise: Positive.

    Returns:
        (n,); None where rounding makes the matrix not positive definite.
    """
    regular = matrix.clone()
    regular.diagonal().add_(noise)
    factor, failed = torch.linalg.cholesky_ex(regular)
    return None if failed else torch.cholesky_solve(wanted[:, None], factor)[:, 0]


def cross_validate(
    distance: Tensor,
    targets: Tensor,
    kernel: Callable[[Tensor, float], Tensor],
    lengths: Iterable[float],
    noises: Sequence[float],
    folds: int,
    seed: int,
    report: Report,
) -> list[Trial]:
    """Try all lengths and noises on the same folds.

    Args:
        distance: (n, n) float64, of the training crystals.
        targets: (n,) float64.
        kernel: Of distance and length.
        lengths: In the unit of the distances.
        noises: To be tried with each length.
        folds: Parts that are held out in turn; at most n.
        seed: Of the division.
        report: Called with the progress.
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    parts = order.tensor_split(min(folds, len(targets)))
    lengths = list(lengths)
    trials: list[Trial] = []
    total = len(lengths) * len(noises)
    for length in lengths:
        matrix = kernel(distance, length)
        for noise in noises:
            report("cross-validation", len(trials), total)
            errors = 0.0
            for number, held in enumerate(parts):
                kept = torch.cat([*parts[:number], *parts[number + 1 :]])
                errors += _errors(matrix, targets, held, kept, noise)
            trials.append(Trial(length, noise, errors / len(targets)))
    report("cross-validation", total, total)
    return trials


def _errors(matrix: Tensor, targets: Tensor, held: Tensor, kept: Tensor, noise: float) -> float:
    """Sum of the absolute errors of held-out crystals, predicted from those kept."""
    mean = targets[kept].mean()
    dual = solve(matrix[kept][:, kept], targets[kept] - mean, noise)
    if dual is None:
        return math.inf
    return float((matrix[held][:, kept] @ dual + mean - targets[held]).abs().sum())


@dataclass
class Normal:
    """Normal equations of least squares: |A c - y|² = c M c - 2 v c + s, float64.

    Those of several parts of the data are added, so cross-validation needs no second pass.

    Attributes:
        matrix: M, (P, P).
        vector: v, (P,).
        square: s.
    """

    matrix: Tensor
    vector: Tensor
    square: float

    @classmethod
    def empty(cls, size: int) -> Normal:
        """Of no data, for `size` coefficients."""
        return cls(torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64), 0.0)

    def add(self, rows: Tensor, wanted: Tensor) -> None:
        """Further rows of A and y."""
        self.matrix.addmm_(rows.T, rows)
        self.vector.addmv_(rows.T, wanted)
        self.square += float(wanted @ wanted)

    def minus(self, part: Normal) -> Normal:
        """Without a part of the data."""
        return Normal(self.matrix - part.matrix, self.vector - part.vector, self.square - part.square)

    @staticmethod
    def sum(parts: Sequence[Normal]) -> Normal:
        """Of all parts of the data."""
        return Normal(
            torch.stack([one.matrix for one in parts]).sum(0),
            torch.stack([one.vector for one in parts]).sum(0),
            sum(one.square for one in parts),
        )

    def solve(self, penalty: Tensor, weight: float) -> Tensor:
        """The c that minimises |A c - y|² + weight c penalty c.

        The smallest part of a ridge keeps coefficients without data finite.
        """
        regular = self.matrix + weight * penalty
        regular.diagonal().add_(1e-12 * self.matrix.diagonal().mean())
        # Of coefficients in units of their own, which differ by orders of magnitude.
        unit = regular.diagonal().rsqrt()
        return unit * torch.linalg.solve(unit[:, None] * regular * unit, unit * self.vector)

    def loss(self, c: Tensor) -> float:
        """|A c - y|²."""
        return float(c @ self.matrix @ c - 2 * self.vector @ c) + self.square
