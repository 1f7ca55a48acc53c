"""Rows of a table, one by one and never all in memory: JSON lines, CSV, Parquet, extended XYZ, ASE database.

A row is a dictionary of columns. What cannot be read comes as an error in its place; an error that ends the
file is raised.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TextIO

from potnet.crystals import CrystalError
from potnet.data.errors import DataError
from potnet.data.sources.labels import labels_of_atoms

Row = dict[str, Any]
#: Where it stands ("line 3"), and the row, or what is wrong with it.
Rows = Iterator[tuple[str, Row | DataError]]

_PARQUET_ROWS = 256


def reader_of(path: Path) -> Callable[..., Rows]:
    """What reads the rows of a file, by its ending.

    Raises:
        DataError: No reader knows this ending.
    """
    name = path.name.lower().removesuffix(".gz")
    for ending, reader in READERS.items():
        if name.endswith(ending) and (reader not in _BINARY or not path.name.lower().endswith(".gz")):
            return reader
    raise DataError(
        f"{path}: cannot read this kind of table; give a .jsonl, .csv, .xyz or .extxyz file (or one of these "
        "with .gz), a .parquet file, or a .db file of ASE"
    )


def json_lines(path: Path) -> Rows:
    """One object a line; empty lines are skipped."""
    with _text(path) as lines:
        yield from json_rows(lines)


def json_rows(lines: Iterable[str], first: int = 1) -> Rows:
    """The same of some lines, of which the first has this number."""
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            yield f"line {number}", DataError(f"not valid JSON ({error})")
            continue
        if isinstance(row, dict):
            yield f"line {number}", row
        else:
            yield (
                f"line {number}",
                DataError(f"expected an object with id, lattice, z and frac; got {type(row).__name__}"),
            )


def csv_rows(path: Path) -> Rows:
    """Comma-separated, with a header; cells are text, None where empty."""
    with _text(path) as lines:
        yield from rows_of_csv(path, lines)


def rows_of_csv(path: Path, lines: Iterable[str], left_out: int = 0) -> Rows:
    """The same of some lines, the header first; after it so many lines of the file were left out."""
    csv.field_size_limit(2**31 - 1)  # a structure is longer than the 128 KiB that Python allows
    reader = csv.reader(lines, skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"line {reader.line_num + left_out}"
            if len(cells) != len(header):
                yield where, DataError(f"{len(cells)} values for {len(header)} columns")
            else:
                values = [cell.strip() or None for cell in cells]
                yield where, dict(zip(header, values, strict=True))
    except csv.Error as error:
        line = reader.line_num + left_out
        raise DataError(f"{path}, line {line}: not valid CSV ({error})") from error


def _check_header(path: Path, header: list[str]) -> None:
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: the header names {repeated[0]!r} twice; give each column a name of its own")
    if len(header) == 1 and any(sign in header[0] for sign in ";\t|"):
        raise DataError(f"{path}: one column only, {header[0][:60]!r}; separate columns by commas")


def parquet_rows(path: Path) -> Rows:
    """Columns as Parquet has them."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            start = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for number, row in enumerate(batch.to_pylist(), start):
                    yield f"row {number}", row
                start += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a valid Parquet file ({_brief(error)})") from error


def xyz_rows(path: Path) -> Rows:
    """Frames of extended XYZ: the comment line and the results of a calculation are the columns."""
    from potnet.crystals.reading.foreign import open_binary

    with guarded(path), open_binary(path) as lines:
        yield from rows_of_xyz(lines)


def rows_of_xyz(lines: Iterable[bytes], first: int = 0) -> Rows:
    """The same of some lines, whose first frame has this number."""
    from potnet.crystals.reading.xyz import frames_of

    for where, frame in frames_of(lines, first):
        if isinstance(frame, CrystalError):
            yield where, DataError(frame.reason)
        else:
            yield where, {**labels_of_atoms(frame), "structure": frame}


def database_rows(path: Path, first: int | None = None, last: int | None = None) -> Rows:
    """Rows of an ASE database (SQLite): its key-value pairs and numbers are the columns.

    Args:
        path: The file.
        first, last: Ids of the rows to read; None reads all.
    """
    from ase.db import connect

    chosen = None if first is None else f"id>={first},id<={last}"
    try:
        with database(path):  # ASE would make its tables in the database of another program
            pass
        with connect(path, type="db") as content:
            for row in content.select(chosen):
                atoms = row.toatoms()
                known = {"unique_id": row.unique_id, **labels_of_atoms(atoms), **row.key_value_pairs}
                yield f"row {row.id}", {"id": str(row.id), **known, "structure": atoms}
    except DataError:
        raise
    except Exception as error:  # ASE passes on whatever SQLite and its decoders raise
        raise DataError(f"{path}: ASE cannot read this database ({_brief(error)})") from error


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to an ASE database, which is not changed.

    Raises:
        DataError: It is none.
    """
    with guarded(path), path.open("rb") as file:
        if not file.read(16).startswith(b"SQLite format 3"):
            raise DataError(f"{path}: not a database of ASE (its .db files are SQLite)")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as plain:
            own = plain.execute("SELECT 1 FROM sqlite_master WHERE name = 'systems'").fetchone() is not None
            if not own:
                raise DataError(
                    f"{path}: ASE cannot read this database (it has no table of systems, so another program "
                    "made it)"
                )
            yield plain
    except sqlite3.Error as error:
        raise DataError(f"{path}: ASE cannot read this database ({_brief(error)})") from error


READERS: Mapping[str, Callable[..., Rows]] = {
    ".jsonl": json_lines,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
    ".extxyz": xyz_rows,
    ".xyz": xyz_rows,
    ".db": database_rows,
}
_BINARY = (parquet_rows, database_rows)


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """A text file in UTF-8, perhaps compressed; a byte order mark is skipped."""
    with (
        guarded(path),
        gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig") as text,
    ):
        yield text


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn the errors of reading a file into one that names it."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: broken gzip file ({error}); fetch it again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8 ({error})") from error
    except FileNotFoundError:
        raise DataError(f"{path}: no such file (working folder: {Path.cwd()})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
