"""The labels of a finished cache: a Parquet file, of which each column is read when it is asked for.

`labels.parquet` has a row for each crystal of the cache, in order: `id`, `part`, `formula`, and a column for
each label that is a number (`number:KEY`) or text (`text:KEY`). Units, the names of labels that are arrays
(they are in the shards), and whether there is a split are in its metadata. `removed.parquet` lists the
crystals that were left out, and why.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from potnet.data.features.staging import Stage, strings
from potnet.data.table import Columns, CrystalTable, Removals

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


def write_removed(path: Path, removed: Removals) -> None:
    """Write what was left out, and why.

    Raises:
        OSError: It cannot be written.
    """
    text = pa.schema([(name, pa.string()) for name in Removals.SCHEMA.names])
    pq.write_table(removed.columns.cast(text), path, compression="zstd")


def read_labels(folder: Path) -> CrystalTable:
    """The table of a cache; its columns are read when they are asked for.

    Raises:
        OSError, KeyError, ValueError: A file is missing or damaged.
    """
    # Not read_table, which brings along the machinery for data sets of many files: 16 MiB.
    labels = pq.ParquetFile(folder / LABELS)
    schema = labels.schema_arrow
    notes = json.loads(schema.metadata[_NOTES])
    names = {name.partition(":")[2]: name for name in schema.names if ":" in name}

    def column(name: str) -> pa.Array:
        file = pq.ParquetFile(folder / LABELS)
        return file.read(columns=[name], use_threads=False).column(name).combine_chunks()

    def label(key: str) -> np.ndarray:
        values = column(names[key])
        if names[key].startswith("text:"):
            return strings(values)
        return np.array(values.to_numpy(zero_copy_only=False), dtype=float)

    return CrystalTable(
        texts=Columns(["id", "formula", *(["part"] if notes["has_split"] else [])], column),
        targets=Columns(names, label),
        units=notes["units"],
        removed=Removals(pq.ParquetFile(folder / REMOVED, read_dictionary=["reason", "detail"]).read()),
        arrays=tuple(notes["arrays"]),
    )
