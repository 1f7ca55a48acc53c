"""What a screening reads: its files, listed once on disk, and cut into tasks.

A source may be ten million files, or one file with ten million structures. Neither is held in memory: the
files are written to two lists in the output folder, in the order in which the file system names them, and
tasks are parts of these lists or of the tables in them. So the tasks of a screening are the same at each
start.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from potnet.crystals import Crystal, CrystalError, Plausibility, iterate_crystals
from potnet.crystals.reading.names import file_id
from potnet.data.sources.pieces import Piece, cut, lines_of, read
from potnet.data.sources.structures import walk_structures
from potnet.files import replacing

FILES, TABLES = "_files.jsonl", "_tables.jsonl"
"""Lists of files that are read as a whole, and of tables that are cut."""

_CUT = (".jsonl", ".csv", ".parquet", ".db", ".xyz", ".extxyz")


@dataclass(frozen=True)
class Found:
    """A crystal of the source, or what is wrong with one.

    Attributes:
        source: Where it is from; no two are from one place.
        id: Its name, which others may have too.
        outcome: What came of it.
    """

    source: str
    id: str
    outcome: Crystal | CrystalError


@dataclass(frozen=True)
class Task:
    """Some crystals of the source, which become one Parquet file.

    Attributes:
        name: Of the task, and of its file.
        piece: Of a table, or of the list of files.
        listed: Whether the piece is one of the list.
    """

    name: str
    piece: Piece
    listed: bool

    def __str__(self) -> str:
        return f"part {self.name} ({self.piece.file}, from {self.piece.first} on)"

    def crystals(self, box: float | None, plausibility: Plausibility) -> Iterator[Found]:
        """What is in it, in order."""
        if self.listed:
            for line in lines_of(self.piece):
                yield from _crystals_of(Path(json.loads(line)), box, plausibility)
            return
        file = self.piece.file
        for where, outcome in read(self.piece, box, plausibility):
            name = f"{file_id(file)}:{where.rpartition(' ')[2]}"
            yield Found(f"{file}, {where}", _name(outcome, name), outcome)


@dataclass(frozen=True)
class Tasks:
    """The tasks of a screening that are still to be done, made as they are asked for.

    Args:
        folder: With the lists.
        size: Crystals, or files, of a task.
        done: Names of those that are finished.
    """

    folder: Path
    size: int
    done: frozenset[str]

    def __iter__(self) -> Iterator[Task]:
        for number, piece in enumerate(cut(self.folder / FILES, self.size)):
            name = f"files-{number:07d}"
            if name not in self.done:
                yield Task(name, piece, True)
        with (self.folder / TABLES).open(encoding="utf-8") as tables:
            for table, line in enumerate(tables):
                for number, piece in enumerate(cut(Path(json.loads(line)), self.size)):
                    name = f"table{table:05d}-{number:07d}"
                    if name not in self.done:
                        yield Task(name, piece, False)


def write_lists(source: str | Sequence[str], folder: Path) -> None:
    """Write the lists of the files of a source.

    Args:
        source: Files, folders, patterns.
        folder: Where to; what is in it is no part of the source.

    Raises:
        CrystalError: There is no such file, or no structure file in a folder.
        OSError: From the system.
    """
    with ExitStack() as stack:
        lists = {
            name: stack.enter_context(
                stack.enter_context(replacing(folder / name)).open("w", encoding="utf-8")
            )
            for name in (FILES, TABLES)
        }
        for file in _files(source, folder.absolute()):
            lists[TABLES if _is_table(file) else FILES].write(json.dumps(str(file)) + "\n")


def fingerprint(source: str | Sequence[str], folder: Path) -> str:
    """A text that tells another source from this one, or the same one with other files.

    Names, sizes and times of writing of the files count; their order does not.
    """
    total = count = 0
    for file in _files(source, folder.absolute()):
        status = file.stat()
        fact = f"{file} {status.st_size} {status.st_mtime_ns}"
        digest = hashlib.blake2b(fact.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        total = (total + int.from_bytes(digest)) % 2**64
        count += 1
    return f"{count} files, {total:016x}"


def _files(source: str | Sequence[str], leave_out: Path) -> Iterator[Path]:
    """The files of a source, absolute, one by one."""
    if not isinstance(source, str):
        for entry in source:
            yield from _files(entry, leave_out)
        return
    path = Path(source).expanduser()
    if path.is_dir():
        yield from (file.absolute() for file in walk_structures(path, leave_out))
    elif path.exists():
        yield path.absolute()
    else:
        empty = True
        for name in glob.iglob(str(path), recursive=True):
            file = Path(name).absolute()
            if file.is_file() and not file.is_relative_to(leave_out):
                empty = False
                yield file
        if empty:
            raise CrystalError(f"no such file, and no file matches (working folder: {os.getcwd()})", source)


def _crystals_of(file: Path, box: float | None, plausibility: Plausibility) -> Iterator[Found]:
    """The crystals of a file. One that breaks the code that reads it costs no other file."""
    number = 0
    try:
        for number, outcome in enumerate(iterate_crystals(file, box, plausibility), 1):
            source = str(file) if number == 1 else f"{file}, structure {number}"
            yield Found(source, _name(outcome, file_id(file)), outcome)
    except Exception as error:
        source = f"{file}, from structure {number + 1} on" if number else str(file)
        reason = f"unexpected {type(error).__name__}: {error}"
        yield Found(source, file_id(file), CrystalError(reason, str(file)))


def _is_table(file: Path) -> bool:
    name = file.name.lower()
    return name.removesuffix(".gz").endswith(_CUT) and not name.endswith((".parquet.gz", ".db.gz"))


def _name(outcome: Crystal | CrystalError, otherwise: str) -> str:
    return outcome.id if isinstance(outcome, Crystal) and outcome.id else otherwise
