"""The labels of a finished cache: a Parquet file, of which each column is read when it is asked for.

`labels.parquet` has a row for each crystal of the cache, in order: `id`, `part`, `formula`, and a column for
each label that is a number (`number:KEY`) or text (`text:KEY`). Units, the names of labels that are arrays
(they are in the shards), and whether there is a split are in its metadata. `removed.parquet` lists the
crystals that were left out, and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from potnet.data.features.staging import Stage, strings
from potnet.data.table import CrystalTable, Removal, objects

LABELS = "labels.parquet"
REMOVED = "removed.parquet"
_ROWS = 16_384
_NOTES = b"potnet"
_TYPES = {"number": pa.float64(), "text": pa.string()}


def write_labels(path: Path, stage: Stage, rows: np.ndarray) -> None:
    """Write the labels of some crystals, a part at a time; equal crystals give equal bytes.

    Args:
        path: Of the file.
        stage: The crystals.
        rows: Which, ascending.

    Raises:
        OSError: It cannot be written.
    """
    columns = stage.columns()
    kinds = {key: "number" if stage.is_number(key) else "text" for key in columns}
    notes = {
        "units": {key: stage.units.get(key, "") for key in stage.keys},
        "arrays": list(stage.arrays),
        "has_split": stage.has_split,
    }
    schema = pa.schema(
        [(name, pa.string()) for name in ("id", "part", "formula")]
        + [(f"{kind}:{key}", _TYPES[kind]) for key, kind in kinds.items()],
        metadata={_NOTES: json.dumps(notes, sort_keys=True)},
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for part in stage.parts(rows, _ROWS, schema.names):
            arrays = [
                part.column(field.name)
                if field.name in part.column_names
                else pa.nulls(len(part), field.type)
                for field in schema
            ]
            file.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=_ROWS)


def write_removed(path: Path, removed: Sequence[Removal]) -> None:
    """Write what was left out, and why.

    Raises:
        OSError: It cannot be written.
    """
    names = ("id", "reason", "detail")
    columns = {name: pa.array([getattr(entry, name) for entry in removed], pa.string()) for name in names}
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_labels(folder: Path) -> CrystalTable:
    """The table of a cache; its labels are read when they are asked for.

    Raises:
        OSError, KeyError, ValueError: A file is missing or damaged.
    """
    # Not read_table, which brings along the machinery for data sets of many files: 16 MiB.
    labels = pq.ParquetFile(folder / LABELS)
    schema = labels.schema_arrow
    notes = json.loads(schema.metadata[_NOTES])
    texts = labels.read(columns=["id", "part", "formula"])
    removed = pq.ParquetFile(folder / REMOVED).read().to_pylist()
    return CrystalTable(
        ids=texts.column("id").to_pylist(),
        targets=_Columns(folder / LABELS, schema.names),
        units=notes["units"],
        split=strings(texts.column("part")) if notes["has_split"] else None,
        formulas=strings(texts.column("formula")),
        removed=tuple(Removal(**entry) for entry in removed),
        arrays=tuple(notes["arrays"]),
    )


class _Columns(Mapping[str, np.ndarray]):
    """Columns of a Parquet file, kept once they have been read."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path = path
        self._names = {name.partition(":")[2]: name for name in names if ":" in name}
        self._read: dict[str, np.ndarray] = {}

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._read:
            name = self._names[key]
            column = pq.ParquetFile(self.path).read(columns=[name]).column(name)
            text = name.startswith("text:")
            self._read[key] = objects(strings(column)) if text else np.array(column.to_numpy(), dtype=float)
        return self._read[key]

    def __contains__(self, key: object) -> bool:
        return key in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
