"""Crystals on their way from a source to features: read once, kept on disk, read back in any order.

A source is read from one end to the other, a chunk of crystals at a time. What must be known before the
features are computed (ids, parts of the split, labels, sizes) is then read column by column, so no list of
all crystals is ever in memory, and each shard can be computed by whichever process, from the rows that it is
told.

A folder `stage` in that of the cache holds one Arrow file a chunk and, once the source has been read to its
end, `stage.json`. It is removed when the cache is finished. A start that was cut off in between finds it
again.

Columns of a chunk: `id`, `part`, `formula`, `cell` (9 numbers), `positions` (3 n), `z` (n), `atoms` (n), and
for each label of some crystal of the chunk `number:KEY`, `text:KEY`, or `array:KEY` with its `shape:KEY`.
"""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from potnet.crystals import Crystal, is_atom_label
from potnet.data.sources.base import NOT_STATED, Sample, Source
from potnet.data.table import Columns, Removal, objects
from potnet.files import write_whole

log = logging.getLogger(__name__)

_NOTES = "stage.json"
# A chunk ends at this many crystals or atoms: some megabytes.
_CHUNK_CRYSTALS = 1024
_CHUNK_ATOMS = 100_000


def stage(source: Source, folder: Path, on_error: str) -> Stage:
    """Read a source to its end, unless an earlier start has done so.

    Args:
        source: The data.
        folder: Of the stage.
        on_error: See `Source.read`.

    Raises:
        DataError: As the source does.
        OSError: The folder cannot be written.
    """
    content = {"data": source.content_hash(), "on_error": on_error}
    try:
        found = Stage(folder)
        if found.content == content:
            return found
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sizes: list[int] = []
    shapes: dict[str, tuple[int, ...] | None] = {}
    removed: list[tuple[int, Removal]] = []
    chunk: list[Sample] = []
    atoms = total = 0
    stated = False
    for item in source.read(on_error):
        if isinstance(item, Removal):
            removed.append((total, item))
            continue
        chunk.append(item)
        total += 1
        atoms += len(item.crystal)
        stated |= item.part is not NOT_STATED
        _note_shapes(item.crystal, shapes)
        if len(chunk) == _CHUNK_CRYSTALS or atoms >= _CHUNK_ATOMS:
            _write(folder, len(sizes), chunk)
            sizes.append(len(chunk))
            chunk, atoms = [], 0
    if chunk:
        _write(folder, len(sizes), chunk)
        sizes.append(len(chunk))
    for key in [key for key, shape in shapes.items() if shape is None]:
        log.warning("%s: %s is not a label, as its shape is not the same for all crystals", source.name, key)
    notes = {
        "content": content,
        "arrays": sorted(key for key, shape in shapes.items() if shape is not None),
        "irregular": sorted(key for key, shape in shapes.items() if shape is None),
        "sizes": sizes,
        "units": dict(source.units),
        "has_split": stated,
        "removed": [[row, entry.id, entry.reason, entry.detail] for row, entry in removed],
    }
    write_whole(folder / _NOTES, json.dumps(notes))
    return Stage(folder)


class Stage:
    """The crystals of a source on disk, n of them.

    Args:
        folder: Where `stage` has written them.

    Attributes:
        content: What was read, and how.
        units: Label -> unit, as far as the source knows them.
        has_split: Whether the source says which part each crystal is in.
        arrays: Labels that are arrays of one shape (for each atom, if they are labels of atoms), sorted.
        removed: Crystals that the source has left out, each with the number of crystals before it.

    Raises:
        OSError, ValueError, KeyError: The source was not read to its end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        notes = json.loads((folder / _NOTES).read_text(encoding="utf-8"))
        self.content: dict[str, str] = notes["content"]
        self.units: dict[str, str] = notes["units"]
        self.has_split: bool = notes["has_split"]
        self.arrays: tuple[str, ...] = tuple(notes["arrays"])
        self._irregular = set(notes["irregular"])
        self.removed = [(row, Removal(*entry)) for row, *entry in notes["removed"]]
        self._starts = np.cumsum([0, *notes["sizes"]])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def keys(self) -> list[str]:
        """All labels, sorted."""
        return sorted({*self.units, *self._kinds} - self._irregular)

    def texts(self) -> Columns:
        """Text of all crystals; see `CrystalTable.texts`."""
        return Columns(["id", "formula", *(["part"] if self.has_split else [])], self._texts)

    def atoms(self) -> np.ndarray:
        """(n,) int64, atoms of each crystal."""
        parts = [table.column("atoms").to_numpy() for table in self._tables()]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    def columns(self) -> Columns:
        """The labels that are numbers or text; see `CrystalTable.values`."""
        return Columns([key for key in self.keys if key not in self.arrays], self.label)

    def label(self, key: str) -> np.ndarray:
        """The column of a label that is not an array; see `CrystalTable.values`."""
        if self.is_number(key):
            return np.concatenate([_numbers(table, key) for table in self._tables()])
        return strings(self._texts(f"text:{key}"))

    def crystals(self, rows: Sequence[int] | np.ndarray) -> list[Crystal]:
        """Some crystals, with their labels, in the order given; the files they are in are read alone."""
        rows = np.asarray(rows, dtype=np.int64)
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        found: dict[int, Crystal] = {}
        for chunk in np.unique(chunks).tolist():
            wanted = rows[chunks == chunk]
            table = self._table(chunk).take(pa.array(wanted - self._starts[chunk]))
            found.update(zip(wanted.tolist(), _crystals(table, self._irregular), strict=True))
        return [found[row] for row in rows.tolist()]

    def structures(self, rows: np.ndarray) -> Iterator[Crystal]:
        """Crystals one by one, in the order given; no more than a chunk of them is in memory."""
        for start in range(0, len(rows), _CHUNK_CRYSTALS):
            yield from self.crystals(rows[start : start + _CHUNK_CRYSTALS])

    def is_number(self, key: str) -> bool:
        """Whether a label is a number (text among numbers is missing), rather than text."""
        return "number" in self._kinds.get(key, {"number"})

    def parts(self, rows: np.ndarray, size: int, names: Collection[str]) -> Iterator[pa.Table]:
        """Some of the stored columns of some crystals, ascending, in tables of about `size` crystals."""
        pending: list[pa.Table] = []
        for chunk, (start, stop) in enumerate(itertools.pairwise(self._starts.tolist())):
            low, high = np.searchsorted(rows, [start, stop])
            if low < high:
                table = self._table(chunk)
                table = table.select([name for name in table.column_names if name in names])
                pending.append(table.take(pa.array(rows[low:high] - start)))
            if sum(map(len, pending)) >= size:
                yield pa.concat_tables(pending, promote_options="default")
                pending = []
        if pending:
            yield pa.concat_tables(pending, promote_options="default")

    def remove(self) -> None:
        """Delete the files."""
        # First what says that they are complete.
        (self.folder / _NOTES).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @cached_property
    def _kinds(self) -> dict[str, set[str]]:
        """Label -> "number", "text", "array", or several of these."""
        found: dict[str, set[str]] = {}
        for table in self._tables():
            for name in table.column_names:
                kind, colon, key = name.partition(":")
                if colon and kind != "shape":
                    found.setdefault(key, set()).add(kind)
        return found

    def _texts(self, name: str) -> pa.StringArray:
        chunks: list[pa.Array] = []
        for table in self._tables():
            known = name in table.column_names
            chunks += table.column(name).chunks if known else [pa.nulls(len(table), pa.string())]
        return pa.chunked_array(chunks, type=pa.string()).combine_chunks()

    def _tables(self) -> Iterator[pa.Table]:
        for chunk in range(len(self._starts) - 1):
            yield self._table(chunk)

    def _table(self, chunk: int) -> pa.Table:
        with pa.memory_map(str(_chunk_file(self.folder, chunk))) as file:
            return pa.ipc.open_file(file).read_all()


def _chunk_file(folder: Path, chunk: int) -> Path:
    return folder / f"{chunk:06d}.arrow"


def _note_shapes(crystal: Crystal, shapes: dict[str, tuple[int, ...] | None]) -> None:
    """Shape of each label that is an array (of an atom's share, if it is one of atoms); None if it varies."""
    for key, value in crystal.properties.items():
        if isinstance(value, np.ndarray):
            shape = value.shape[1:] if is_atom_label(key) else value.shape
            shapes[key] = shape if shapes.setdefault(key, shape) == shape else None


def _write(folder: Path, chunk: int, samples: Sequence[Sample]) -> None:
    """Write one chunk."""
    crystals = [sample.crystal for sample in samples]
    atoms = np.array([len(crystal) for crystal in crystals], dtype=np.int32)
    parts = [sample.part for sample in samples]
    positions = np.concatenate([crystal.positions for crystal in crystals]).reshape(-1)
    columns: dict[str, pa.Array] = {
        "id": pa.array([crystal.id for crystal in crystals], pa.string()),
        "part": pa.array(
            [None if part is NOT_STATED or part is None else str(part) for part in parts], pa.string()
        ),
        "formula": pa.array([crystal.formula for crystal in crystals], pa.string()),
        "cell": pa.FixedSizeListArray.from_arrays(
            np.stack([crystal.cell for crystal in crystals]).reshape(-1), 9
        ),
        "positions": _lists(positions, 3 * atoms),
        "z": _lists(np.concatenate([crystal.z for crystal in crystals]).astype(np.uint8), atoms),
        "atoms": pa.array(atoms),
    }
    for key in sorted(set().union(*(crystal.properties for crystal in crystals))):
        columns |= _label_columns(key, [crystal.properties.get(key) for crystal in crystals])
    table = pa.table(columns)
    with pa.OSFile(str(_chunk_file(folder, chunk)), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table)


def _lists(values: np.ndarray, lengths: np.ndarray) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _label_columns(key: str, values: Sequence[Any]) -> dict[str, pa.Array]:
    """A label of one chunk, a column for each kind of value that it has."""
    numbers = [value if isinstance(value, int | float) else None for value in values]
    texts = [value if isinstance(value, str) else None for value in values]
    arrays = [value if isinstance(value, np.ndarray) else None for value in values]
    columns = {}
    if any(value is not None for value in numbers):
        columns[f"number:{key}"] = pa.array(numbers, pa.float64())
    if any(value is not None for value in texts):
        columns[f"text:{key}"] = pa.array(texts, pa.string())
    if any(value is not None for value in arrays):
        flat = [np.zeros(0) if value is None else value.reshape(-1) for value in arrays]
        shapes = [[] if value is None else list(value.shape) for value in arrays]
        columns[f"array:{key}"] = _lists(np.concatenate(flat), np.array([len(value) for value in flat]))
        columns[f"shape:{key}"] = pa.array(shapes, pa.list_(pa.int32()))
    return columns


def _numbers(table: pa.Table, key: str) -> np.ndarray:
    name = f"number:{key}"
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    return np.asarray(table.column(name).to_numpy(), dtype=np.float64)


def _values(table: pa.Table, key: str) -> list[Any]:
    """The label of each crystal of a chunk: a number, text, an array, or None."""
    values: list[Any] = [None] * len(table)
    for kind in ("number", "text"):
        if f"{kind}:{key}" in table.column_names:
            found = table.column(f"{kind}:{key}").to_pylist()
            values = [new if new is not None else old for new, old in zip(found, values, strict=True)]
    if f"array:{key}" in table.column_names:
        shapes = table.column(f"shape:{key}").to_pylist()
        flat = _split(table.column(f"array:{key}"))
        for row, (shape, value) in enumerate(zip(shapes, flat, strict=True)):
            if shape:
                values[row] = value.reshape(shape)
    return values


def _split(column: pa.ChunkedArray) -> list[np.ndarray]:
    """The entries of a column of lists."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    flat = np.array(array.flatten().to_numpy(zero_copy_only=False))
    lengths = array.value_lengths().to_numpy(zero_copy_only=False)
    return np.split(flat, np.cumsum(lengths)[:-1])


def _crystals(table: pa.Table, without: Collection[str]) -> list[Crystal]:
    cells = np.array(table.column("cell").combine_chunks().flatten().to_numpy()).reshape(-1, 3, 3)
    positions = [value.reshape(-1, 3) for value in _split(table.column("positions"))]
    numbers = [value.astype(np.int64) for value in _split(table.column("z"))]
    keys = dict.fromkeys(
        name.partition(":")[2] for name in table.column_names if ":" in name and not name.startswith("shape:")
    )
    labels = {key: _values(table, key) for key in keys if key not in without}
    found = []
    for row, id in enumerate(table.column("id").to_pylist()):
        known = {key: values[row] for key, values in labels.items()}
        properties = {
            key: value for key, value in known.items() if value is not None and not isinstance(value, str)
        }
        found.append(_checked_before(cells[row], positions[row], numbers[row], id, properties))
    return found


def _checked_before(
    cell: np.ndarray, positions: np.ndarray, z: np.ndarray, id: str, properties: dict[str, Any]
) -> Crystal:
    """A crystal whose arrays come from one that was checked: checking takes as long as reading it did."""
    crystal = object.__new__(Crystal)
    for name, value in (("cell", cell), ("positions", positions), ("z", z)):
        value.setflags(write=False)
        object.__setattr__(crystal, name, value)
    object.__setattr__(crystal, "id", id)
    object.__setattr__(crystal, "properties", properties)
    return crystal


def strings(column: pa.StringArray) -> np.ndarray:
    """A column of text as objects, of which equal texts are one; None where there is none."""
    encoded = column.dictionary_encode()
    words = objects([*encoded.dictionary.to_pylist(), None])
    return words[encoded.indices.fill_null(len(words) - 1).to_numpy()]
