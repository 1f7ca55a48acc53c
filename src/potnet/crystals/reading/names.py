"""Ids of crystals that have none of their own: the name of their file."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

_ENDINGS = (".cif", ".mcif", ".vasp", ".poscar", ".xyz", ".extxyz", ".jsonl")
_POSCAR = ("POSCAR", "CONTCAR")


def file_id(file: Path) -> str:
    """Name of a file without its ending; that of a POSCAR or CONTCAR has its folder before it.

    What follows the dot in `POSCAR.1` or `CONTCAR.relaxed` is no ending.

    >>> file_id(Path("runs/a/Si.cif.gz")), file_id(Path("runs/a/POSCAR.1"))
    ('Si', 'a/POSCAR.1')
    """
    name = file.name.removesuffix(".gz")
    if name.upper().startswith(_POSCAR):
        name = next((name[: -len(end)] for end in _ENDINGS if name.lower().endswith(end)), name)
        folder = file.absolute().parent.name
        return f"{folder}/{name}" if folder else name
    return Path(name).stem


def unique_id(id: str, taken: Set[str], file: Path | None = None) -> str:
    """An id that is not taken, as near to the given one as possible.

    Tried in turn: the id; with the full name of its file in place of the name without ending (`Si.cif` and
    `Si.vasp`); with the folder before it; with a number behind it.

    Args:
        id: As read.
        taken: Ids given before.
        file: Where the crystal is from.
    """
    options = [id]
    if file is not None:
        stem = file_id(file)
        rest = id.removeprefix(stem) if id.startswith(stem) else None
        if rest is not None:
            options.append(f"{file.name}{rest}")
            options.append(f"{file.parent / file.name}{rest}")
        else:
            options += [f"{stem}/{id}", f"{file.parent}/{id}"]
    for option in options:
        if option not in taken:
            return option
    number = 2
    while f"{options[-1]} ({number})" in taken:
        number += 1
    return f"{options[-1]} ({number})"
