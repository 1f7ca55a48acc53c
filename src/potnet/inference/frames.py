"""Rows of a pandas DataFrame as inputs of a prediction."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potnet.config import ConfigError
from potnet.crystals import Crystal, unique_id
from potnet.crystals.reading.names import ID_KEYS, STRUCTURE_KEYS

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Named:
    """A structure with the name that its crystal gets.

    Attributes:
        name: Of the crystal.
        structure: See `from_serialized`.
    """

    name: str
    structure: Any


def is_frame(inputs: object) -> bool:
    """Whether this is a pandas DataFrame."""
    pandas = sys.modules.get("pandas")  # without it there is none
    return pandas is not None and isinstance(inputs, pandas.DataFrame)


def frame_rows(frame: pandas.DataFrame) -> list[Named]:
    """The structures of a frame.

    They are in the column that is called `structure`, `cif`, `atoms`, ..., or else in the first column of
    objects that are structures. Names are those of the column `id`, `material_id`, ..., or else of the index.

    Raises:
        ConfigError: There is no such column.
    """
    lower = {str(column).lower(): column for column in reversed(list(frame.columns))}
    column = next((lower[key] for key in STRUCTURE_KEYS if key in lower), None)
    if column is None:
        column = next((name for name in frame.columns if _holds_structures(frame[name])), None)
    if column is None:
        names = ", ".join(map(str, list(frame.columns)[:8])) or "none"
        raise ConfigError(
            f"the DataFrame has no column of structures (columns: {names}): call it `structure`, with "
            "pymatgen Structures, ASE Atoms, CIF text or dictionaries in it"
        )
    named = next((lower[key] for key in ID_KEYS if key in lower), None)
    taken: dict[str, Path | None] = {}
    found = []
    for label, structure in zip(frame.index if named is None else frame[named], frame[column], strict=True):
        name = unique_id(str(label), taken)
        taken[name] = None
        found.append(Named(name, structure))
    return found


def index_of(frame: pandas.DataFrame) -> dict[str, Hashable]:
    """The label in the index of a frame for each name that `frame_rows` gives."""
    return {row.name: label for row, label in zip(frame_rows(frame), frame.index, strict=True)}


def _holds_structures(column: Any) -> bool:
    first = next((value for value in column if value is not None and value == value), None)
    return isinstance(first, Crystal) or hasattr(first, "get_chemical_symbols") or hasattr(first, "lattice")
