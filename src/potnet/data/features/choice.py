"""Which of the crystals of a source are used: unique ids, sizes, and a limit on their number."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from potnet.data.errors import DataError
from potnet.data.features.staging import Stage
from potnet.data.table import (
    TOO_LARGE,
    CrystalTable,
    Removals,
    check_any,
    check_parts,
    limited_rows,
    refuse_repeated,
    repeated_id,
    repeated_rows,
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
    units = {key: stage.units.get(key, "") for key in stage.keys}
    everything = CrystalTable(
        stage.texts(), stage.columns(), units, arrays=stage.arrays, structures=stage.structures
    )
    ids = everything.texts["id"]
    repeated = repeated_rows(ids)
    if on_error != "skip":
        refuse_repeated(name, ids.take(pa.array(repeated)))
    if everything.split is not None:
        check_parts(name, ids, everything.split)
    left_out = [(row, repeated_id(ids[row].as_py())) for row in repeated.tolist()] + stage.removed
    removed = Removals.listed(removal for _, removal in sorted(left_out, key=lambda entry: entry[0]))
    rows = np.delete(np.arange(len(ids)), repeated)
    check_any(name, len(rows), removed)
    atoms = stage.atoms()[rows]
    if max_atoms is not None:
        large = atoms > max_atoms
        if large.all():
            raise DataError(
                f"data.max_atoms={max_atoms}: none of the {len(rows)} crystals of {name} is as small as "
                f"that, the smallest has {atoms.min()} atoms"
            )
        sizes, which = np.unique(atoms[large], return_inverse=True)
        said = [f"{size} atoms, more than data.max_atoms={max_atoms}" for size in sizes.tolist()]
        details = pa.DictionaryArray.from_arrays(pa.array(which, pa.int32()), said)
        removed += Removals.of(ids.take(pa.array(rows[large])), TOO_LARGE, details)
        rows, atoms = rows[~large], atoms[~large]
    if limit is not None and limit < len(rows):
        own = None if everything.split is None else everything.split.take(pa.array(rows))
        chosen = limited_rows(own, len(rows), limit)
        rows, atoms = rows[chosen], atoms[chosen]
    return Choice(rows, atoms, replace(everything.take(rows), removed=removed))
