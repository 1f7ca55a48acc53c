"""What a cell of a table, or an object of ASE, says about a crystal: a number, an array, or a word."""

from __future__ import annotations

import json
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from potnet.crystals.reading.text import number

if TYPE_CHECKING:
    from ase import Atoms

Label = float | str | np.ndarray

LONGEST_TEXT = 64
"""Characters. Longer text is a structure or a remark, and no class."""

_STRUCTURE_ARRAYS = ("numbers", "positions", "species", "pos")


def label_of(value: Any, key: str = "", from_text: bool = False) -> Label | None:
    """The label in a cell.

    Args:
        value: Numbers (truth values are 0 and 1), lists or arrays of numbers, and short text are labels;
            null, empty text, dictionaries and long text are none.
        key: Name of the column: a stress is brought to (6,), see `voigt`.
        from_text: Whether numbers and lists may be written as text, as in CSV.

    Returns:
        A float, a float64 array, text; or None.
    """
    if from_text and isinstance(value, str):
        found = number(value)
        if found is not None:
            return found
        if value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except ValueError:
                return None
    if isinstance(value, numbers.Real | np.bool_):
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        return text if 0 < len(text) <= LONGEST_TEXT else None
    if isinstance(value, list | tuple | np.ndarray):
        return _array(value, key)
    return None


def number_of(value: Any, from_text: bool = False) -> float | None:
    """A number as a float; None for everything else (truth values and, unless asked for, text too).

    Text is strict: `1_5` is not a number, though Python takes it for 15.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    return number(value) if from_text and isinstance(value, str) else None


def _array(value: Any, key: str) -> np.ndarray | None:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if not array.ndim or not array.size:
        return None
    return voigt(array) if key.lower().endswith("stress") else array


def voigt(stress: np.ndarray) -> np.ndarray:
    """A stress as (6,): xx yy zz yz xz xy, as ASE orders it. (3, 3) and (9,) are converted."""
    if stress.shape == (9,):
        stress = stress.reshape(3, 3)
    if stress.shape != (3, 3):
        return stress
    symmetric = (stress + stress.T) / 2
    return symmetric[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def labels_of_atoms(atoms: Atoms) -> dict[str, Any]:
    """What an ASE Atoms object knows besides the structure.

    Energy (eV), forces (n, 3) (eV/Å) and stress (6,) (eV/Å³, xx yy zz yz xz xy, tension positive) are in the
    results of its calculator, where the readers of ASE put them; others in `info`, and per atom in `arrays`.

    Returns:
        By key; values are for `label_of`. Results of a calculation come before entries of the same name.
    """
    arrays = {key: value for key, value in atoms.arrays.items() if key not in _STRUCTURE_ARRAYS}
    results: Mapping[str, Any] = getattr(atoms.calc, "results", {})
    return {**arrays, **atoms.info, **results}
