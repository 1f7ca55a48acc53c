"""Crystals from files: CIF, POSCAR, extended XYZ, whatever else ASE reads, and JSON lines."""

from __future__ import annotations

import gzip
import io
import json
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING

from potnet.crystals.cif import brief, crystals_from_cif
from potnet.crystals.convert import from_ase, from_record
from potnet.crystals.crystal import Crystal, CrystalError
from potnet.crystals.elements import ATOMIC_NUMBERS

if TYPE_CHECKING:
    from ase import Atoms

Outcome = Crystal | CrystalError
_Record = tuple[str, Outcome]
"""Where in the file ("line 3", "frame 0"), and what came of it."""


def read_crystals(path: str | PathLike[str], box: float | None = None) -> list[Crystal]:
    """Read all crystals of a file.

    Formats: `.cif`; POSCAR, CONTCAR, `.vasp`; `.xyz` and `.extxyz`, many frames; `.jsonl`, one record a
    line (see `from_record`); anything else that ASE recognises. Each may be compressed as `.gz`.

    The id is the record's own in JSON lines. Elsewhere it is the name of the file without its ending
    (for POSCAR and CONTCAR with the folder's), followed by `:0`, `:1` ... if the file holds several.

    Args:
        path: The file.
        box: Vacuum in Å around a molecule; None refuses molecules. See `from_ase`.

    Returns:
        At least one crystal.

    Raises:
        CrystalError: At the first one that can't be used, naming file, record and site; also if there is
            no such file or nothing in it.
    """
    crystals = []
    for outcome in iterate_crystals(path, box):
        if isinstance(outcome, CrystalError):
            raise outcome
        crystals.append(outcome)
    return crystals


def iterate_crystals(path: str | PathLike[str], box: float | None = None) -> Iterator[Outcome]:
    """Read the crystals of a file one by one; what can't be used comes as an error in its place.

    A bad record doesn't cost the others, as far as one can tell where the next one begins.

    Args:
        path: The file.
        box: As for `read_crystals`.

    Yields:
        A `Crystal`, or the `CrystalError` that `read_crystals` would raise; at least one of either.
    """
    file = Path(path)
    empty = True
    try:
        for outcome in _named(file, _records(file, box)):
            empty = False
            yield outcome
    except OSError as error:
        yield CrystalError(f"can't be read ({error.strerror or error})", str(file))
    except (EOFError, UnicodeDecodeError, zlib.error) as error:
        yield CrystalError(f"is damaged or no text ({error})", str(file))
    else:
        if empty:
            yield CrystalError("there is no crystal in it", str(file))


def _records(file: Path, box: float | None) -> Iterator[_Record]:
    name = file.name.removesuffix(".gz").lower()
    if name.endswith(".jsonl"):
        return _from_jsonl(file)
    if name.endswith(".cif"):
        return _from_cif(file)
    if name.endswith((".xyz", ".extxyz")):
        return _from_xyz(file, box)
    if name.startswith(("poscar", "contcar")) or name.endswith((".vasp", ".poscar")):
        return _from_ase(file, box, "vasp")
    return _from_ase(file, box, None)


def _named(file: Path, records: Iterator[_Record]) -> Iterator[Outcome]:
    """Say in errors where they come from, and give an id to crystals that have none."""
    stem = Path(file.name.removesuffix(".gz")).stem
    if stem.upper() in ("POSCAR", "CONTCAR") and file.absolute().parent.name:
        stem = f"{file.absolute().parent.name}/{stem}"
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


def _open(file: Path) -> IO[bytes]:
    return gzip.open(file) if file.name.endswith(".gz") else file.open("rb")  # type: ignore[return-value]


def _from_jsonl(file: Path) -> Iterator[_Record]:
    with io.TextIOWrapper(_open(file), encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"line {number}"
            try:
                yield where, from_record(json.loads(line))
            except CrystalError as error:
                yield where, error
            except json.JSONDecodeError as error:
                yield where, CrystalError(f"not valid JSON ({error})")


def _from_cif(file: Path) -> Iterator[_Record]:
    with _open(file) as binary:
        text = binary.read().decode("utf-8", errors="replace")  # names of authors come in any encoding
    for number, outcome in enumerate(crystals_from_cif(text)):
        yield f"block {number}", outcome


def _from_xyz(file: Path, box: float | None) -> Iterator[_Record]:
    for where, frame in xyz_frames(file):
        try:
            yield where, frame if isinstance(frame, CrystalError) else from_ase(frame, box)
        except CrystalError as error:
            yield where, error


def xyz_frames(file: Path) -> Iterator[tuple[str, Atoms | CrystalError]]:
    """Read extended XYZ frame by frame, so that a bad one doesn't end the file.

    Yields:
        Where it stands ("frame 0"), and the frame with its `info`, or what is wrong with it.
    """
    with io.TextIOWrapper(_open(file), encoding="utf-8") as lines:
        for number in range(1_000_000_000):
            first = next((line for line in lines if line.strip()), None)
            if first is None:
                return
            where = f"frame {number}"
            if not first.strip().isdecimal():
                text = first.strip()[:60]
                yield where, CrystalError(f"a frame begins with its number of atoms, got {text!r}")
                return
            count = int(first)
            frame = [first, *islice(lines, count + 1)]
            if len(frame) < count + 2:
                yield (
                    where,
                    CrystalError(f"it breaks off: {count} atoms announced, {max(0, len(frame) - 2)} there"),
                )
                return
            try:
                _check_symbols(frame)
                yield where, read_ase(io.StringIO("".join(frame)), "extxyz")[0]
            except CrystalError as error:
                yield where, error


def _check_symbols(frame: list[str]) -> None:
    """Name the site of an unknown element; ASE would name neither."""
    if "Properties=" in frame[1] and "Properties=species" not in frame[1]:
        return
    for site, line in enumerate(frame[2:]):
        name = (line.split() or [""])[0]
        if not name.isdigit() and name.capitalize() not in ATOMIC_NUMBERS:
            raise CrystalError(f"site {site} is {name!r}, which is no element")


def _from_ase(file: Path, box: float | None, format: str | None) -> Iterator[_Record]:
    with file.open("rb"):
        pass  # a missing file is told from one that ASE can't read
    try:
        images = read_ase(str(file), format)
    except CrystalError as error:
        yield "", error
        return
    for number, atoms in enumerate(images):
        try:
            yield f"frame {number}", from_ase(atoms, box)
        except CrystalError as error:
            yield f"frame {number}", error


def read_ase(source: str | io.StringIO, format: str | None) -> list[Atoms]:
    """All structures that ASE finds in a file or text.

    Raises:
        CrystalError: It can't read it, for whatever reason; the one class in place of many.
    """
    import ase.io

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = ase.io.read(source, index=":", format=format, do_not_split_by_at_sign=True)
    except ase.io.formats.UnknownFileTypeError:
        raise CrystalError(
            "format not recognised: rename it to .cif, .vasp, .extxyz, .jsonl, or an ending that ASE knows"
        ) from None
    except Exception as error:  # its readers raise anything
        as_what = f" as {format}" if format else ""
        raise CrystalError(f"ASE can't read it{as_what} ({brief(error)})") from None
    return list(images)
