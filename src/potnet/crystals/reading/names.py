"""Ids of crystals that have none of their own: the name of their file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ID_KEYS = ("id", "material_id", "jid", "mp_id", "identifier", "name", "unique_id")
"""Keys of a record or a comment line, or columns of a table, that name a crystal; the first one counts."""

STRUCTURE_KEYS = ("structure", "cif", "atoms", "poscar", "final_structure", "crystal")
"""Keys of a record, or columns of a table, that hold a structure, likewise."""

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


def unique_id(id: str, taken: Mapping[str, Path | None], file: Path | None = None) -> str:
    """An id that is not taken, as near to the given one as possible.

    In the folder of the file whose crystal has the id, the file's full name tells them apart (`Si.cif` and
    `Si.vasp`); elsewhere its folder; else a number.

    Args:
        id: As read.
        taken: Ids given before, and their files.
        file: Where the crystal is from.
    """
    if id not in taken:
        return id
    options = []
    if file is not None:
        stem, other = file_id(file), taken[id]
        full = f"{file.name}{id.removeprefix(stem)}" if id.startswith(stem) else f"{file.name}/{id}"
        beside = other is not None and other.parent.absolute() == file.parent.absolute()
        options = [full] if beside and other != file else [f"{file.parent}/{id}"]
        options.append(str(file.parent / full))
    for option in options:
        if option not in taken:
            return option
    number, last = 2, [id, *options][-1]
    while f"{last} ({number})" in taken:
        number += 1
    return f"{last} ({number})"
