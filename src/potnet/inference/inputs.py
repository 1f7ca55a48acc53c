"""Inputs of a prediction: files, folders, patterns and objects, as crystals with distinct names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from potnet.crystals import (
    Crystal,
    CrystalError,
    Plausibility,
    from_serialized,
    unique_id,
)
from potnet.data.sources.structures import open_structures, structure_files

Inputs = str | os.PathLike[str] | Crystal | Any | Sequence[Any]
"""A file, a folder, a pattern, a `Crystal`, ASE Atoms, a pymatgen Structure, or a list of these."""

Outcome = tuple[int, Crystal | CrystalError]
"""The number of an input, and a crystal of it or what is wrong with it."""


def expand(inputs: Inputs) -> list[Any]:
    """The files and objects that inputs mean: folders and patterns become sorted lists of files.

    Raises:
        CrystalError: Nothing matches; the path or pattern is named.
    """
    # A structure of pymatgen is a sequence, too: of its sites.
    if isinstance(inputs, Iterator) or (
        isinstance(inputs, Sequence)
        and not isinstance(inputs, str | bytes | Mapping)
        and not hasattr(inputs, "sites")
    ):
        return [item for entry in inputs for item in expand(entry)]
    if not isinstance(inputs, str | os.PathLike):
        return [inputs]
    path = Path(inputs).expanduser()
    if path.exists():
        return list(structure_files(path))
    files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
    if not files:
        raise CrystalError(f"no such file, and no file matches (working folder: {Path.cwd()})", str(path))
    return list(files)


def crystals_of(items: Sequence[Any], box: float | None, plausibility: Plausibility) -> Iterator[Outcome]:
    """The crystals of files and objects, in order, each with an id of its own.

    Args:
        items: From `expand`.
        box: Å of vacuum around molecules; None refuses them.
        plausibility: See `read_crystals`.
    """
    taken: dict[str, Path | None] = {}
    for number, item in enumerate(items):
        for outcome in _outcomes(item, box, plausibility, number):
            if isinstance(outcome, Crystal):
                file = item if isinstance(item, Path) else None
                if outcome.id in taken:
                    outcome = replace(outcome, id=unique_id(outcome.id, taken, file))
                taken[outcome.id] = file
            yield number, outcome


def name_of(item: Any, number: int) -> str:
    """What an item is called in a list of failures."""
    return str(item) if isinstance(item, Path) else f"input {number}"


def _outcomes(
    item: Any, box: float | None, plausibility: Plausibility, number: int
) -> Iterator[Crystal | CrystalError]:
    if isinstance(item, Path):
        yield from open_structures(item, box, plausibility)
        return
    try:
        yield _from_object(item, box, plausibility, str(number))
    except CrystalError as error:
        yield error


def _from_object(item: Any, box: float | None, plausibility: Plausibility, name: str) -> Crystal:
    """A crystal from an object or dictionary of ours or another library, named by its place in the list.

    A `Crystal` is taken as it is.
    """
    if isinstance(item, Crystal):
        return item if item.id else replace(item, id=name)
    return from_serialized(item, name, box, plausibility)
