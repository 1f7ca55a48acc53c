"""Crystals from files: CIF, POSCAR, extended XYZ, JSON, and whatever else ASE reads."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import Any

from potnet.crystals.crystal import Crystal, CrystalError
from potnet.crystals.reading.check import Plausibility, checked
from potnet.crystals.reading.cif import crystals_from_cif
from potnet.crystals.reading.foreign import format_of, iterate_ase, open_binary
from potnet.crystals.reading.names import ID_KEYS, STRUCTURE_KEYS, file_id
from potnet.crystals.reading.objects import from_ase, from_record
from potnet.crystals.reading.poscar import crystal_from_poscar
from potnet.crystals.reading.serialized import from_serialized
from potnet.crystals.reading.text import decode
from potnet.crystals.reading.xyz import xyz_frames

Outcome = Crystal | CrystalError
_CIF = re.compile(rb"^\s*data_", flags=re.IGNORECASE | re.MULTILINE)

_Record = tuple[str, Outcome]
"""Where in the file ("line 3", "frame 0"), and what came of it."""


def read_crystals(
    path: str | PathLike[str], box: float | None = None, plausibility: Plausibility = "refuse"
) -> list[Crystal]:
    """Read all crystals of a file.

    Formats: `.cif` and `.mcif`; POSCAR, CONTCAR, `.vasp`; `.xyz` and `.extxyz`, many frames; `.jsonl`, one
    record a line (see `from_record`), or a structure in `structure`, `cif`, `atoms` ...; `.json`, a structure
    or a list of them (see `from_serialized`); anything else that ASE recognises. Each may be compressed as
    `.gz`.

    The id is the record's own in JSON lines and in extended XYZ (`id=...` in the comment). Elsewhere it is
    the name of the file without its ending (for POSCAR and CONTCAR with the folder's), followed by `:0`,
    `:1` ... if the file holds several.

    Args:
        path: The file.
        box: Vacuum in Å around a molecule; None refuses molecules. See `from_ase`.
        plausibility: What to do with a structure that cannot be right: atoms closer than 0.5 Å (0.4 with
            hydrogen), a density over 30 or under 0.01 g/cm³, and for a CIF a formula, a cell or operations
            that contradict the atoms. "refuse", "warn" (a line in the log), or "ignore".

    Returns:
        At least one crystal.

    Raises:
        CrystalError: At the first one that can't be used, naming file, record and site; also if there is
            no such file or nothing in it.
    """
    crystals = []
    for outcome in iterate_crystals(path, box, plausibility):
        if isinstance(outcome, CrystalError):
            raise outcome
        crystals.append(outcome)
    return crystals


def iterate_crystals(
    path: str | PathLike[str], box: float | None = None, plausibility: Plausibility = "refuse"
) -> Iterator[Outcome]:
    """Read the crystals of a file one by one; what can't be used comes as an error in its place.

    A bad record doesn't cost the others, as far as one can tell where the next one begins. Only one crystal
    is in memory at a time, but the text of a CIF or `.json` is there as a whole.

    Args:
        path: The file.
        box: As for `read_crystals`.
        plausibility: As for `read_crystals`.

    Yields:
        A `Crystal`, or the `CrystalError` that `read_crystals` would raise; at least one of either.
    """
    file = Path(path)
    empty = True
    try:
        for outcome in _named(file, _records(file, box, plausibility)):
            empty = False
            yield outcome
    except OSError as error:
        yield CrystalError(f"can't be read ({error.strerror or error})", str(file))
    except (EOFError, UnicodeDecodeError, zlib.error) as error:
        yield CrystalError(f"is damaged or no text ({error})", str(file))
    else:
        if empty:
            yield CrystalError("there is no crystal in it", str(file))


def _records(file: Path, box: float | None, plausibility: Plausibility) -> Iterator[_Record]:
    name = file.name.lower().removesuffix(".gz")
    if name.endswith(".jsonl"):
        return _judged(file, _from_jsonl(file, box, plausibility), plausibility, box)
    if name.endswith((".cif", ".mcif")):
        return _from_cif(file, plausibility)
    if name.endswith((".xyz", ".extxyz")):
        return _judged(file, _from_xyz(file, box), plausibility, box)
    if name.startswith(("poscar", "contcar")) or name.endswith((".vasp", ".poscar")):
        return _judged(file, _from_poscar(file), plausibility)
    return _others(file, box, plausibility)


def _others(file: Path, box: float | None, plausibility: Plausibility) -> Iterator[_Record]:
    """A file whose name says nothing: by its content, and by ASE where we have no reader."""
    with open_binary(file) as binary:
        head = binary.read(100_000)  # which also tells a missing file from one that ASE can't read
    if _CIF.search(head) and b"_cell" in head:
        yield from _from_cif(file, plausibility)
        return
    if file.name.lower().removesuffix(".gz").endswith(".json"):
        yield from _judged(file, _from_json(file, box), plausibility, box)
        return
    kind = format_of(file)
    if kind == "cif":
        yield from _from_cif(file, plausibility)
    elif kind in ("extxyz", "xyz"):
        yield from _judged(file, _from_xyz(file, box), plausibility, box)
    elif kind == "vasp":
        yield from _judged(file, _from_poscar(file), plausibility)
    else:
        yield from _judged(file, _from_ase(file, box), plausibility, box)


def _judged(
    file: Path, records: Iterable[_Record], plausibility: Plausibility, box: float | None = None
) -> Iterator[_Record]:
    for where, outcome in records:
        if isinstance(outcome, Crystal):
            try:
                outcome = checked(
                    outcome, plausibility, boxed=box is not None, source=f"{file} {where}".strip()
                )
            except CrystalError as error:
                outcome = error
        yield where, outcome


def _named(file: Path, records: Iterator[_Record]) -> Iterator[Outcome]:
    """Say in errors where they come from, and give an id to crystals that have none."""
    stem = file_id(file)
    start = list(islice(records, 2))
    single = len(start) == 1
    for number, (where, outcome) in enumerate(chain(start, records)):
        if isinstance(outcome, CrystalError):
            parts = (str(file), "" if single else where, outcome.source)
            yield CrystalError(outcome.reason, ", ".join(part for part in parts if part))
        elif outcome.id:
            yield outcome
        else:
            yield replace(outcome, id=stem if single else f"{stem}:{number}")


def _from_jsonl(file: Path, box: float | None, plausibility: Plausibility) -> Iterator[_Record]:
    with open_binary(file) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"line {number}"
            try:
                yield where, _record(json.loads(line.decode("utf-8-sig")), box, plausibility)
            except CrystalError as error:
                yield where, error
            except (json.JSONDecodeError, RecursionError) as error:
                yield where, CrystalError(f"not valid JSON ({error})")


def _record(record: Any, box: float | None, plausibility: Plausibility) -> Crystal:
    """A record of ours, or a row of a table with a structure in one column; its numbers are properties."""
    columns = record if isinstance(record, Mapping) and "frac" not in record else {}
    column = next((key for key in STRUCTURE_KEYS if columns.get(key) is not None), None)
    if column is None:
        return from_record(record)
    key = next((key for key in ID_KEYS if columns.get(key) not in (None, "")), "id")
    crystal = from_serialized(columns[column], str(columns.get(key) or ""), box, plausibility)
    crystal.properties.update(
        {
            name: float(value)
            for name, value in columns.items()
            if type(value) in (int, float) and name != key  # bool is an int, but no property
        }
    )
    return crystal


def _from_cif(file: Path, plausibility: Plausibility) -> Iterator[_Record]:
    with open_binary(file) as binary:
        text = decode(binary.read())
    for number, outcome in enumerate(crystals_from_cif(text, plausibility, str(file))):
        yield f"block {number}", outcome


def _from_poscar(file: Path) -> Iterator[_Record]:
    with open_binary(file) as binary:
        text = decode(binary.read())
    if not text.strip():
        return
    try:
        yield "", crystal_from_poscar(text)
    except CrystalError as error:
        yield "", error


def _from_xyz(file: Path, box: float | None) -> Iterator[_Record]:
    for where, frame in xyz_frames(file):
        if isinstance(frame, CrystalError):
            yield where, frame
            continue
        key = next((key for key in ID_KEYS if str(frame.info.get(key, "")).strip()), None)
        id = str(frame.info.pop(key)) if key is not None else ""
        try:
            yield where, from_ase(frame, box, id)
        except CrystalError as error:
            yield where, error


def _from_json(file: Path, box: float | None) -> Iterator[_Record]:
    """A structure as some program writes it, or a list of them; the databases of ASE are JSON too."""
    with open_binary(file) as binary:
        try:
            content: Any = json.loads(decode(binary.read()))
        except (json.JSONDecodeError, RecursionError) as error:
            yield "", CrystalError(f"not valid JSON ({error})")
            return
    if isinstance(content, Mapping) and "ids" in content and "nextid" in content:
        yield from _from_ase(file, box)
        return
    for number, entry in enumerate(content if isinstance(content, list) else [content]):
        try:
            yield f"entry {number}", from_serialized(entry, box=box, plausibility="ignore")
        except CrystalError as error:
            yield f"entry {number}", error


def _from_ase(file: Path, box: float | None) -> Iterator[_Record]:
    try:
        for number, atoms in enumerate(iterate_ase(str(file), None)):
            try:
                yield f"frame {number}", from_ase(atoms, box)
            except CrystalError as error:
                yield f"frame {number}", error
    except CrystalError as error:
        yield "", error
