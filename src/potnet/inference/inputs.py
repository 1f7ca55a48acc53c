"""What a prediction is asked of: files, folders, patterns and objects, as crystals with distinct names."""

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
    from_ase,
    from_jarvis,
    from_pymatgen,
    iterate_crystals,
)

Inputs = str | os.PathLike[str] | Crystal | Any | Sequence[Any]
"""A file, a folder, a pattern, a `Crystal`, ASE Atoms, a pymatgen Structure, or a list of these."""

_ENDINGS = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz", ".jsonl")


def expand(inputs: Inputs) -> list[Any]:
    """The files and objects that inputs mean: folders and patterns become sorted lists of files.

    Raises:
        CrystalError: Nothing matches; the path or pattern is named.
    """
    if isinstance(inputs, Iterator) or (
        isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes | Mapping)
    ):
        return [item for entry in inputs for item in expand(entry)]
    if not isinstance(inputs, str | os.PathLike):
        return [inputs]
    path = Path(inputs).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and _is_structure(file))
        if not files:
            raise CrystalError(
                f"there is no structure file in this folder (looked for {', '.join(_ENDINGS)}, POSCAR...)",
                str(path),
            )
        return list(files)
    files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
    if not files:
        raise CrystalError(f"no such file, and no file matches (working folder: {Path.cwd()})", str(path))
    return list(files)


def _is_structure(file: Path) -> bool:
    name = file.name.removesuffix(".gz")
    return name.lower().endswith(_ENDINGS) or name.startswith(("POSCAR", "CONTCAR"))


def crystals_of(items: Sequence[Any], box: float | None) -> Iterator[tuple[int, Crystal | CrystalError]]:
    """The crystals of files and objects, in order.

    A name that is taken gets its folder before it, and a number behind it if that is taken, too.

    Args:
        items: From `expand`.
        box: Å of vacuum around molecules; None refuses them.

    Yields:
        The number of the item, and a crystal or what is wrong with it.
    """
    taken: set[str] = set()
    for number, item in enumerate(items):
        for outcome in _outcomes(item, box, number):
            if isinstance(outcome, CrystalError):
                yield number, outcome
                continue
            name = outcome.id
            if name in taken and isinstance(item, Path):
                name = f"{item.parent}/{name}"
            free, count = name, 2
            while free in taken:
                free, count = f"{name} ({count})", count + 1
            taken.add(free)
            yield number, outcome if free == outcome.id else replace(outcome, id=free)


def name_of(item: Any, number: int) -> str:
    """What an item is called in a list of failures."""
    return str(item) if isinstance(item, Path) else f"input {number}"


def _outcomes(item: Any, box: float | None, number: int) -> Iterator[Crystal | CrystalError]:
    if isinstance(item, Path):
        yield from iterate_crystals(item, box)
        return
    try:
        yield _from_object(item, box, str(number))
    except CrystalError as error:
        yield error


def _from_object(item: Any, box: float | None, name: str) -> Crystal:
    """A crystal from an object of ours, of ASE, of pymatgen or of JARVIS, named by its place in the list."""
    if isinstance(item, Crystal):
        return item if item.id else replace(item, id=name)
    if hasattr(item, "get_scaled_positions"):
        return from_ase(item, box=box, id=name)
    if hasattr(item, "lattice") and hasattr(item, "frac_coords"):
        return from_pymatgen(item, id=name)
    if isinstance(item, Mapping):
        return from_jarvis(item, id=name)
    raise CrystalError(
        f"cannot make a crystal of {type(item).__name__}: give a file, Crystal, Atoms or Structure", name
    )
