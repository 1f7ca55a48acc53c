"""Kernel ridge regression on a descriptor: a model that is fitted in closed form, not trained.

    f(x) = m + sum over training crystals i of a_i k(x, x_i),   (K + noise I) a = y - m,   m = mean of y

| kernel | k(x, x') |
|---|---|
| gaussian | exp(-d² / 2 l²), d² = sum over features f of c_f (x_f - x'_f)² |
| laplacian | exp(-d / l), d = sum over features f of c_f abs(x_f - x'_f) |
| linear | sum over features f of c_f x_f x'_f |

The terms of MBTR, k = 1, 2, 3, differ in unit and size. c_f = w / s is the same for all features of a term:
s, the mean over training crystals of the sum of x_f² (laplacian: of x_f), makes the terms alike, and the
weights w are an argument. The length l, a multiple of the median of d, and the noise are those with the least
mean absolute error in cross-validation.

C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning (2006), eq. 2.25, is the same
mean prediction. H. Huo and M. Rupp, Mach. Learn.: Sci. Technol. 3, 045017 (2022), use it with MBTR and the
Gaussian kernel. Everything is float64.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from potnet.crystals import CrystalBatch
from potnet.descriptors import term_of
from potnet.nn.heads import HeadSpec, HeadSpecs, head_specs
from potnet.nn.ridge import Report, Trial, cross_validate, gaussian, laplacian, linear, median_of_pairs, solve
from potnet.nn.sparse import SparseColumns, SparseRows, overlaps

log = logging.getLogger(__name__)

_KERNELS = {"gaussian": gaussian, "laplacian": laplacian, "linear": linear}
_TERMS = 3
_MATRICES = 6
"""Matrices of the size of the kernel's that a fit holds at a time."""


class KernelRidge(nn.Module):
    """Kernel ridge regression; see the head of this file.

    It holds its training crystals: the state dict alone suffices to predict.

    Args:
        kernel: "gaussian", "laplacian" or "linear".
        lengths: Lengths to try, in multiples of the median distance of training crystals; the linear kernel
            has none.
        noises: To try. The targets have about unit variance, unless objective.scale_target is off.
        folds: Parts of the cross-validation.
        term_weights: w of k = 1, 2, 3.
        seed: Of the division into folds.
        memory_gib: Refuse to fit more crystals than this allows.
        heads: One scalar of crystals, by the key of its target.

    Attributes:
        closed_form: True: it is fitted by `fit`, not trained.
        trials: After `fit`, all that was tried.
        chosen: The best of these.

    Raises:
        ValueError: A setting that makes no sense.
    """

    closed_form = True
    needs = frozenset({"descriptors"})
    mean: Tensor
    length: Tensor
    coefficient: Tensor
    norm: Tensor
    feature: Tensor
    start: Tensor
    row: Tensor
    value: Tensor

    def __init__(
        self,
        kernel: Literal["gaussian", "laplacian", "linear"] = "gaussian",
        lengths: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
        noises: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4),
        folds: int = 5,
        term_weights: Sequence[float] = (1.0, 1.0, 1.0),
        seed: int = 0,
        memory_gib: float = 8.0,
        heads: HeadSpecs | None = None,
    ) -> None:
        super().__init__()
        specs = head_specs(heads)
        if list(specs.values()) != [HeadSpec()]:
            asked = ", ".join(f"{key}: {spec}" for key, spec in specs.items())
            raise ValueError(
                "kernel ridge regression learns one number of crystals that does not grow with the cell, not "
                f"{asked}; choose another model or target"
            )
        (self.key,) = specs
        if kernel not in ("gaussian", "laplacian", "linear"):
            raise ValueError(f"model.kernel={kernel}: give gaussian, laplacian or linear")
        for name, values in (("lengths", lengths), ("noises", noises)):
            if not values or min(values) <= 0:
                raise ValueError(f"model.{name}={list(values)}: give one or more positive numbers")
        if folds < 2:
            raise ValueError(f"model.folds={folds}: give at least 2")
        if len(term_weights) != _TERMS or min(term_weights) < 0 or max(term_weights) == 0:
            raise ValueError(
                f"model.term_weights={list(term_weights)}: give three numbers, 0 or more, not all 0"
            )
        self.kernel = kernel
        self.lengths = [1.0] if kernel == "linear" else [float(value) for value in lengths]
        self.noises = [float(value) for value in noises]
        self.folds = folds
        self.term_weights = [float(weight) for weight in term_weights]
        self.seed = seed
        self.memory_gib = memory_gib
        self.trials: list[Trial] = []
        self.chosen: Trial | None = None
        # One for each training crystal: a, and n = k(x, x) of the linear kernel or the sum of c_f x_f.
        self.dual = nn.Parameter(torch.empty(0, dtype=torch.float64), requires_grad=False)
        self.register_buffer("norm", torch.empty(0, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("length", torch.ones((), dtype=torch.float64))
        self.register_buffer("coefficient", torch.ones(_TERMS, dtype=torch.float64))
        # The training crystals, see `SparseColumns`.
        self.register_buffer("feature", torch.empty(0, dtype=torch.int64))
        self.register_buffer("start", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("row", torch.empty(0, dtype=torch.int32))
        self.register_buffer("value", torch.empty(0, dtype=torch.float32))

    def forward(self, batch: CrystalBatch) -> dict[str, Tensor]:
        """(B,) float64 predictions, by the key of the target.

        Raises:
            ValueError: The model has not been fitted, or the batch has no descriptors.
        """
        rows = _rows([batch])
        if not len(self.dual):
            raise ValueError("kernel ridge regression has no training crystals yet: call fit first")
        distance = self._compare(rows)
        return {self.key: _KERNELS[self.kernel](distance, self.length) @ self.dual + self.mean}

    def fit(self, batches: Iterable[CrystalBatch], targets: Tensor, report: Report | None = None) -> None:
        """Choose length and noise by cross-validation, then fit all crystals.

        Args:
            batches: n crystals in all, with descriptors.
            targets: (n,), in the order of the crystals.
            report: Called with the progress.

        Raises:
            ValueError: Fewer than two crystals, or more than the memory allows; no noise is large enough; a
                laplacian kernel on a descriptor with negative values.
        """
        report = report or (lambda stage, done, total: None)
        targets = targets.double()
        n = len(targets)
        if n < 2:
            raise ValueError(f"{n} training crystals: kernel ridge regression needs at least two")
        if (gib := _MATRICES * n * n * 8 / 2**30) > self.memory_gib:
            raise ValueError(
                f"kernel ridge regression of {n} crystals takes {gib:.0f} GiB, more than model.memory_gib="
                f"{self.memory_gib:g}: raise it, or use fewer crystals (data.limit)"
            )
        rows = _rows(batches)
        if self.kernel == "laplacian" and bool((rows.value < 0).any()):
            raise ValueError("model.kernel=laplacian needs a descriptor without negative values")
        report("kernel", 0, 1)
        distance = self._remember(rows)
        median = 1.0 if self.kernel == "linear" else median_of_pairs(distance)
        report("kernel", 1, 1)
        kernel = _KERNELS[self.kernel]
        trials = cross_validate(
            distance / median, targets, kernel, self.lengths, self.noises, self.folds, self.seed, report
        )
        chosen = min(trials, key=lambda trial: trial.mae)
        self._judge(chosen)
        self.trials, self.chosen = trials, chosen
        self.length.fill_(chosen.length * median)
        self.mean.copy_(targets.mean())
        solution = solve(kernel(distance, self.length), targets - self.mean, chosen.noise)
        if solution is None:
            raise _no_noise(self.noises)
        self.dual.data = solution

    def _remember(self, rows: SparseRows) -> Tensor:
        """Keep the training crystals; (n, n), what the kernel sees of each pair of them."""
        power = 1 if self.kernel == "laplacian" else 2
        for term, weight in enumerate(self.term_weights):
            size = rows.value[term_of(rows.index) == term].pow(power).sum() / len(rows.count)
            # A term that no crystal has needs no scale.
            self.coefficient[term] = weight / size if size > 0 else 0.0
        columns = rows.columns()
        self.feature, self.start = columns.feature, columns.start
        self.row, self.value = columns.row.to(torch.int32), columns.value.to(torch.float32)
        self.norm = rows.sums(self._weight(rows) * rows.value**power)
        return self._compare(rows)

    def _weight(self, rows: SparseRows) -> Tensor:
        """(K,), c_f of each entry."""
        return self.coefficient[term_of(rows.index)]

    def _compare(self, rows: SparseRows) -> Tensor:
        """(B, n): d of new and training crystals; of the linear kernel, the kernel itself."""
        training = SparseColumns(len(self.norm), self.feature, self.start, self.row, self.value)
        weight = self._weight(rows)
        if self.kernel == "laplacian":
            # |x - y| = x + y - 2 min(x, y)
            shared = overlaps(rows, training, weight, torch.minimum)
            return (rows.sums(weight * rows.value)[:, None] + self.norm - 2 * shared).clamp(min=0)
        shared = overlaps(rows, training, weight)
        if self.kernel == "linear":
            return shared
        squared = rows.sums(weight * rows.value**2)[:, None] + self.norm - 2 * shared
        return squared.clamp(min=0).sqrt()

    def _judge(self, chosen: Trial) -> None:
        """Refuse a search without a result, and say when the best lies at its edge."""
        if not math.isfinite(chosen.mae):
            raise _no_noise(self.noises)
        for name, value, tried in (
            ("lengths", chosen.length, self.lengths),
            ("noises", chosen.noise, self.noises),
        ):
            if len(tried) > 2 and value in (min(tried), max(tried)):
                log.warning(
                    "model.%s: the best, %g, is the %s that was tried: more may be better",
                    name,
                    value,
                    "smallest" if value == min(tried) else "largest",
                )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for the training crystals that were saved, as their number is not among the arguments."""
        for name in ("norm", "feature", "start", "row", "value"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.mean.device))
        if prefix + "dual" in state_dict:
            self.dual.data = torch.empty_like(state_dict[prefix + "dual"], device=self.mean.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _rows(batches: Iterable[CrystalBatch]) -> SparseRows:
    """The descriptors of all crystals of some batches."""
    counts, indices, values = [], [], []
    for batch in batches:
        if batch.descriptor_index is None or batch.descriptor_value is None or batch.num_descriptors is None:
            raise ValueError("kernel ridge regression reads a descriptor: featurize with features.descriptor")
        counts.append(batch.num_descriptors)
        indices.append(batch.descriptor_index)
        values.append(batch.descriptor_value)
    return SparseRows(torch.cat(counts), torch.cat(indices), torch.cat(values).double())


def _no_noise(noises: Sequence[float]) -> ValueError:
    return ValueError(
        f"model.noises={list(noises)}: the kernel matrix cannot be factorised with any: try larger ones"
    )
