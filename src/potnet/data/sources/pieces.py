"""Pieces of a file with many crystals: cut without parsing its structures, read in any process.

Whoever cuts does little: it finds the ends of lines, records and frames, or asks for row numbers and ids.
Where a file can be read from any place, a piece says which part it is. Where it cannot (gzip, Parquet with
its large row groups), the piece holds the content itself, still unparsed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from potnet.crystals import Crystal, CrystalError, Plausibility
from potnet.crystals.reading.foreign import open_binary
from potnet.data.errors import DataError
from potnet.data.sources.rows import (
    Rows,
    database,
    database_rows,
    guarded,
    json_rows,
    rows_of_csv,
    rows_of_xyz,
)
from potnet.data.sources.table import TableSource

_MOST_BYTES = 16 * 2**20
"""A piece ends here, whatever its number of crystals."""

_LONGEST = 256 * 2**20
"""A record of text longer than this is none: a quote was not closed."""

Record = tuple[bytes, int]
"""One crystal in a text, and by how much it moves the count of lines or frames."""


@dataclass(frozen=True)
class Piece:
    """Some crystals of a file.

    Attributes:
        file: That holds them.
        first: Number of the first line, frame or row, or id of the first row of a database.
        last: Id of the last row of a database; -1 elsewhere.
        start, stop: Bytes of the file, if `content` is None.
        content: The bytes, or for Parquet the rows as an Arrow stream.
        header: That of a CSV file.
        problem: Why the file cannot be read from here on; then there is nothing else.
    """

    file: Path
    first: int
    last: int = -1
    start: int = 0
    stop: int = 0
    content: bytes | None = None
    header: bytes = b""
    problem: str = ""

    def bytes(self) -> bytes:
        """The content, read if it must be."""
        if self.content is not None:
            return self.content
        with guarded(self.file), self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(self.stop - self.start)


def cut(file: Path, size: int) -> Iterator[Piece]:
    """Cut a table (JSON lines, CSV, XYZ, Parquet, ASE database) into pieces of up to `size` crystals.

    The same file gives the same pieces. What cannot be read on comes as a last piece with a `problem`.
    """
    kind = _kind(file)
    first = {".xyz": 0, ".extxyz": 0, ".parquet": 0}.get(kind, 1)
    try:
        if kind == ".parquet":
            yield from _cut_parquet(file, size)
        elif kind == ".db":
            yield from _cut_database(file, size)
        else:
            for piece in _cut_text(file, size, _RECORDS[kind], first):
                first = piece.first
                yield piece
    except DataError as error:
        yield Piece(file, first, problem=str(error))


def read(
    piece: Piece, box: float | None, plausibility: Plausibility
) -> Iterator[tuple[str, Crystal | CrystalError]]:
    """The crystals of a piece, each with where it stands ("line 3"), or what is wrong with one."""
    try:
        if piece.problem:
            raise DataError(piece.problem)
        table = TableSource(piece.file, box=box, plausibility=plausibility)
        with guarded(piece.file):
            yield from table.located(_rows(piece))
    except DataError as error:
        reason = str(error)
        named = reason.startswith(str(piece.file))
        yield f"from {piece.first} on", CrystalError(reason, "" if named else str(piece.file))


def lines_of(piece: Piece) -> list[str]:
    """The lines of a piece of a text file."""
    return piece.bytes().decode("utf-8").splitlines()


def _kind(file: Path) -> str:
    return Path(file.name.lower().removesuffix(".gz")).suffix


def _rows(piece: Piece) -> Rows:
    kind = _kind(piece.file)
    if kind == ".parquet":
        import pyarrow

        rows = pyarrow.ipc.open_stream(piece.bytes()).read_all().to_pylist()
        return ((f"row {number}", row) for number, row in enumerate(rows, piece.first))
    if kind == ".db":
        return database_rows(piece.file, piece.first, piece.last)
    content = io.BytesIO(piece.header + piece.bytes())
    if kind in (".xyz", ".extxyz"):
        return rows_of_xyz(content, piece.first)
    lines = io.TextIOWrapper(content, encoding="utf-8-sig", newline="" if kind == ".csv" else None)
    if kind == ".csv":
        return rows_of_csv(piece.file, lines, piece.first - 1 - piece.header.count(b"\n"))
    return json_rows(lines, piece.first)


def _cut_text(
    file: Path, size: int, records: Callable[[Iterator[bytes]], Iterator[Record]], first: int
) -> Iterator[Piece]:
    packed = file.name.lower().endswith(".gz")
    with guarded(file), open_binary(file) as lines:
        found = records(iter(lines))
        header, start = b"", 0
        if _kind(file) == ".csv":
            header, amount = next(found, (b"", 0))
            first, start = first + amount, len(header)
        held: list[bytes] = []
        held_bytes, number = 0, first
        for record, amount in found:
            held.append(record)
            held_bytes += len(record)
            number += amount
            if len(held) == size or held_bytes >= _MOST_BYTES:
                yield _text_piece(file, first, start, held, packed, header)
                start, first = start + held_bytes, number
                held, held_bytes = [], 0
        if held:
            yield _text_piece(file, first, start, held, packed, header)


def _text_piece(file: Path, first: int, start: int, held: list[bytes], packed: bool, header: bytes) -> Piece:
    content = b"".join(held)
    stop = start + len(content)
    return Piece(file, first, start=start, stop=stop, content=content if packed else None, header=header)


def _single_lines(lines: Iterator[bytes]) -> Iterator[Record]:
    return ((line, 1) for line in lines)


def _quoted_lines(lines: Iterator[bytes]) -> Iterator[Record]:
    """Records of CSV: a quoted cell may hold the end of a line, and a quote in it is written twice."""
    held: list[bytes] = []
    quotes = length = 0
    for line in lines:
        held.append(line)
        quotes += line.count(b'"')
        length += len(line)
        if quotes % 2 == 0:
            yield b"".join(held), len(held)
            held, quotes, length = [], 0, 0
        elif length > _LONGEST:
            raise DataError("not valid CSV: a quote is not closed")
    if held:
        yield b"".join(held), len(held)


def _frames(lines: Iterator[bytes]) -> Iterator[Record]:
    """Frames of XYZ; what is none ends the file, as for the reader."""
    for line in lines:
        if not line.strip():
            yield line, 0
            continue
        if not line.strip().isdigit():
            yield line, 1
            return
        frame = [line]
        for _ in range(int(line) + 1):
            frame.append(next(lines, b""))
        yield b"".join(frame), 1


_RECORDS = {".jsonl": _single_lines, ".csv": _quoted_lines, ".xyz": _frames, ".extxyz": _frames}


def _cut_parquet(file: Path, size: int) -> Iterator[Piece]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    def piece(rows: pyarrow.Table, first: int) -> Piece:
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, rows.schema) as out:
            out.write_table(rows)
        return Piece(file, first, content=sink.getvalue().to_pybytes())

    first = 0
    try:
        with ParquetFile(file) as content:
            pending = content.schema_arrow.empty_table()
            for batch in content.iter_batches(batch_size=size):
                pending = pyarrow.concat_tables([pending, pyarrow.Table.from_batches([batch])])
                while len(pending) >= size:
                    yield piece(pending.slice(0, size), first)
                    pending, first = pending.slice(size), first + size
            if len(pending):
                yield piece(pending, first)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"not a valid Parquet file ({' '.join(str(error).split())[:200]})") from error


def _cut_database(file: Path, size: int) -> Iterator[Piece]:
    with database(file) as content:
        ids = content.execute("SELECT id FROM systems ORDER BY id")
        while rows := ids.fetchmany(size):
            yield Piece(file, rows[0][0], rows[-1][0])
