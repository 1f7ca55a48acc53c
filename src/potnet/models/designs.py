"""Rows of the equations that a `LinearPotential` solves, batch after batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from potnet.crystals.batch import CrystalBatch
from potnet.nn.ridge import Report

if TYPE_CHECKING:
    from potnet.models.linear_potential import LinearPotential

KEPT_BYTES = 2 * 2**30
"""Rows of the equations are kept for a second round up to this size, and computed again beyond."""


class Rows(NamedTuple):
    """Of one batch and kind of label.

    Attributes:
        matrix: (n, P), derivatives of the labels in the coefficients; of the energy, that of an atom.
        wanted: (n,), NaN where a label is missing.
        fold: (n,) int64, of the cross-validation.
    """

    matrix: Tensor
    wanted: Tensor
    fold: Tensor

    def single(self) -> Rows:
        """The matrix in single precision."""
        return self._replace(matrix=self.matrix.float())


class Designs:
    """The rows of all batches, kept after the first round where they are few enough.

    Iterating gives the `Rows` of each batch by kind of label.

    Args:
        model: Prepared.
        given: Batches with their labels, as for `LinearPotential.fit_labels`.
        elements: Those of the last columns, energies of lone atoms.
        report: As for `LinearPotential.fit_labels`.
        keep: Whether there will be a second round.
    """

    def __init__(
        self,
        model: LinearPotential,
        given: Sequence[tuple[CrystalBatch, Mapping[str, Tensor]]],
        elements: Tensor,
        report: Report | None = None,
        keep: bool = False,
    ) -> None:
        self.model, self.given, self.elements, self.report = model, given, elements, report
        generator = torch.Generator().manual_seed(model.seed)
        self.folds = [
            torch.randint(model.folds, (batch.num_crystals,), generator=generator) for batch, _ in given
        ]
        self.keep = keep
        self.kept: list[dict[str, Rows]] = []

    def __iter__(self) -> Iterator[dict[str, Rows]]:
        if self.kept:
            yield from self.kept
            return
        kept, size = [], 0
        for number, fold in enumerate(self.folds):
            self._tell(number)
            rows = self._rows(number, fold)
            yield rows
            if self.keep:
                kept.append({kind: one.single() if kind == "forces" else one for kind, one in rows.items()})
                size += sum(one.matrix.nbytes for one in kept[-1].values())
                if size > KEPT_BYTES:
                    self.keep = False
                    kept = []
        self._tell(len(self.given))
        self.kept = kept

    def _tell(self, done: int) -> None:
        if self.report is not None:
            self.report("equations", done, len(self.given))

    def _rows(self, number: int, fold: Tensor) -> dict[str, Rows]:
        batch, label = self.given[number]
        folds = {
            "energy": fold,
            "stress": fold.repeat_interleave(6),
            "forces": fold[batch.batch.cpu()].repeat_interleave(3),
        }
        found = {}
        for kind, rows in self._with_lone(self.model.design(batch, frozenset(label)), batch).items():
            wanted = label[kind].double()
            if kind == "energy":
                wanted = wanted / batch.num_atoms
            found[kind] = Rows(rows.reshape(-1, rows.shape[-1]), wanted.reshape(-1), folds[kind])
        return found

    def _with_lone(self, design: dict[str, Tensor], batch: CrystalBatch) -> dict[str, Tensor]:
        """Energies per atom, and the columns of lone atoms, which move nothing."""
        alone = (batch.z[:, None] == self.elements).double()
        counts = alone.new_zeros(batch.num_crystals, alone.shape[1]).index_add(0, batch.batch, alone)
        found = {"energy": torch.cat([design["energy"], counts], 1) / batch.num_atoms[:, None]}
        for kind in design.keys() - {"energy"}:
            rows = design[kind]
            found[kind] = torch.cat([rows, rows.new_zeros(*rows.shape[:-1], alone.shape[1])], -1)
        return found
