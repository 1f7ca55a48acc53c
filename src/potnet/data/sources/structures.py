"""Every file that holds crystals, whatever its kind: one reader for prediction and for tables."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from potnet.crystals import Crystal, CrystalError, Plausibility, iterate_crystals, unique_id
from potnet.crystals.reading.names import STRUCTURE_KEYS
from potnet.data.errors import DataError
from potnet.data.sources.table import TableSource

log = logging.getLogger(__name__)

#: Endings of files that hold structures alone; each may be compressed (.gz).
ENDINGS = (".cif", ".mcif", ".vasp", ".poscar", ".xyz", ".extxyz")
#: Endings of files that hold structures or other things, which is found out.
TABLES = (".jsonl", ".csv", ".parquet", ".db")
OTHERS = (".json", ".traj")

Outcome = Crystal | CrystalError


def open_structures(
    path: str | PathLike[str], box: float | None = None, plausibility: Plausibility = "refuse"
) -> Iterator[Outcome]:
    """The crystals of a file, or of all files of a folder, one by one, each with an id of its own.

    Files: CIF, POSCAR, extended XYZ, JSON, whatever else ASE reads (`.traj`), and the tables that
    `TableSource`
    reads: JSON lines, CSV, Parquet, ASE databases. Of folders, those below are read as well.

    Args:
        path: A file or a folder.
        box: Å of vacuum around molecules; None refuses them.
        plausibility: What to do with a structure that cannot be right; see `read_crystals`.

    Yields:
        A `Crystal` (labels of tables are in its `properties`), or what is wrong with one. Ids that are taken
        are told apart by their file (see `unique_id`).

    Raises:
        CrystalError: There is no such file, or no structure file in the folder.
    """
    taken: dict[str, Path | None] = {}
    for file in structure_files(path):
        for outcome in _of_file(file, box, plausibility):
            if isinstance(outcome, Crystal):
                id = unique_id(outcome.id, taken, file)
                taken[id] = file
                if id != outcome.id:
                    outcome = replace(outcome, id=id)
            yield outcome


def structure_files(path: str | PathLike[str]) -> list[Path]:
    """The file itself, or the files of a folder and of those below that hold structures, sorted.

    Tables and JSON files of a folder that hold something else, such as `id_prop.csv`, are passed over.

    Raises:
        CrystalError: There is no such file, or no structure file in the folder.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CrystalError(f"no such file or folder (working folder: {Path.cwd()})", str(path))
    return sorted(walk_structures(path))


def walk_structures(folder: Path, leave_out: Path | None = None) -> Iterator[Path]:
    """The same files one by one, as the file system lists them, so that a folder may have any number.

    Args:
        folder: Where to look, and below.
        leave_out: A folder below that is not looked into, absolute.

    Raises:
        CrystalError: There is no structure file, or a folder that cannot be read.
    """
    empty = True
    folders = [folder]
    try:
        while folders:
            # Not by os.walk, which has all names of a folder in memory.
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    path = Path(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        if leave_out is None or path.absolute() != leave_out:
                            folders.append(path)
                    elif entry.is_file() and _holds_structures(path):
                        empty = False
                        yield path
    except OSError as error:
        raise CrystalError(f"can't be read ({error.strerror or error})", str(error.filename)) from error
    if empty:
        kinds = ", ".join((*ENDINGS, *TABLES, *OTHERS))
        raise CrystalError(
            f"there is no structure file in this folder (looked for {kinds}, POSCAR*)", str(folder)
        )


def _of_file(file: Path, box: float | None, plausibility: Plausibility) -> Iterator[Outcome]:
    name = file.name.lower().removesuffix(".gz")
    if not name.endswith(TABLES):
        yield from iterate_crystals(file, box, plausibility)
        return
    try:
        table = TableSource(file, box=box, plausibility=plausibility)
        yield from table.outcomes()
    except DataError as error:
        yield CrystalError(str(error).removeprefix(f"{file}: "), str(file))


def _holds_structures(file: Path) -> bool:
    """Whether a file of a folder is to be read: by its name, or by its content if that says too little."""
    name = file.name.lower().removesuffix(".gz")
    if name.endswith(ENDINGS) or name.startswith(("poscar", "contcar")):
        return True
    if name.endswith((".jsonl", ".parquet", ".db", ".traj")):
        return True
    if not name.endswith((".csv", ".json")):
        return False
    try:
        with gzip.open(file, "rt") if file.name.endswith(".gz") else file.open(encoding="utf-8-sig") as text:
            if name.endswith(".csv"):
                held = _has_structure({cell.strip().lower() for cell in next(csv.reader(text), [])})
            else:
                held = _is_structure(json.load(text))
    except (OSError, ValueError, csv.Error):
        held = True  # whoever reads it says what is wrong
    if not held:
        log.info("%s holds no structures: it is passed over", file)
    return held


def _has_structure(columns: Set[str]) -> bool:
    return not columns.isdisjoint(STRUCTURE_KEYS) or {"lattice", "z"} <= columns


def _is_structure(content: Any) -> bool:
    """Whether JSON is a structure of some program, a list of them, or a database of ASE."""
    entry = content[0] if isinstance(content, list) and content else content
    if not isinstance(entry, Mapping):
        return False
    keys = {"lattice", "lattice_mat", "sites", "numbers", "positions", "frac", "ids", "atoms", "structure"}
    return not keys.isdisjoint(entry)
