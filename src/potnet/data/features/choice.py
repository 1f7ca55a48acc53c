"""Which of the crystals of a source are used: unique ids, sizes, and a limit on their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from potnet.data.errors import DataError
from potnet.data.features.staging import Stage, strings
from potnet.data.table import (
    TOO_LARGE,
    CrystalTable,
    Removal,
    SomeRows,
    check_any,
    check_ids,
    check_parts,
    limited_rows,
    repeated_id,
)


@dataclass(frozen=True)
class Choice:
    """The crystals that are used.

    Attributes:
        rows: (n,) int64, ascending, their rows in the stage.
        atoms: (n,) int64, atoms of each.
        table: Their ids, labels, parts and formulas; what was left out.
    """

    rows: np.ndarray
    atoms: np.ndarray
    table: CrystalTable


def choose(
    stage: Stage, name: str, max_atoms: int | None = None, limit: int | None = None, on_error: str = "raise"
) -> Choice:
    """Choose crystals by what is known of them without their structures.

    Args:
        stage: All crystals of a source.
        name: Of the data set, for messages.
        max_atoms: Leave out cells with more atoms, as the source gives them; None keeps all.
        limit: Then keep this many, in the proportions of the source's split; None keeps all.
        on_error: "skip" keeps the first of several crystals with one id, "raise" refuses them.

    Raises:
        DataError: Duplicate ids, an unknown part of the split, a setting below 1, or no crystal left.
    """
    for setting, value in (("max_atoms", max_atoms), ("limit", limit)):
        if value is not None and value < 1:
            raise DataError(f"data.{setting}={value}: give at least 1, or null for no limit")
    column = stage.texts("id")
    repeated = _repeated(column)
    ids = column.to_pylist()
    if on_error != "skip":
        check_ids(name, ids, repeated)
    parts = strings(stage.texts("part")) if stage.has_split else None
    if parts is not None:
        check_parts(name, ids, parts)
    left_out = [(row, repeated_id(ids[row])) for row in np.flatnonzero(repeated).tolist()] + stage.removed
    removed = [removal for _, removal in sorted(left_out, key=lambda entry: entry[0])]
    rows = np.flatnonzero(~repeated)
    check_any(name, len(rows), removed)
    if max_atoms is not None:
        atoms = stage.atoms[rows]
        large = atoms > max_atoms
        if large.all():
            raise DataError(
                f"data.max_atoms={max_atoms}: none of the {len(rows)} crystals of {name} is as small as "
                f"that, the smallest has {atoms.min()} atoms"
            )
        removed += [
            Removal(ids[row], TOO_LARGE, f"{size} atoms, more than data.max_atoms={max_atoms}")
            for row, size in zip(rows[large].tolist(), atoms[large].tolist(), strict=True)
        ]
        rows = rows[~large]
    if limit is not None and limit < len(rows):
        own = None if parts is None else [parts[row] for row in rows]
        rows = rows[limited_rows(own, len(rows), limit)]
    formulas = strings(stage.texts("formula"))
    table = CrystalTable(
        ids=[ids[row] for row in rows],
        targets=SomeRows(stage.columns(), rows),
        units={key: stage.units.get(key, "") for key in stage.keys},
        split=None if parts is None else [parts[row] for row in rows],
        formulas=[formulas[row] for row in rows],
        removed=tuple(removed),
        arrays=stage.arrays,
        structures=lambda some: stage.structures(rows[some]),
    )
    return Choice(rows, stage.atoms[rows], table)


def _repeated(ids: pa.ChunkedArray) -> np.ndarray:
    """(n,) bool, whether an earlier row has the same text."""
    if not len(ids):
        return np.zeros(0, dtype=bool)
    # Codes are numbered as they first appear, so a new text has a code above all before.
    codes = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    highest = np.maximum.accumulate(codes)
    new = np.concatenate([[True], codes[1:] > highest[:-1]])
    return ~new
