"""A table of crystals in one file: a structure, an id and labels a row."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potnet.config.suggest import did_you_mean
from potnet.crystals import Crystal, CrystalError, Plausibility, from_serialized, is_atom_label
from potnet.crystals.labels import shape_problem
from potnet.crystals.reading.names import ID_KEYS, STRUCTURE_KEYS
from potnet.data.errors import DataError
from potnet.data.sources.base import NOT_STATED, Item, ReadableSource, Sample, refused
from potnet.data.sources.labels import Label, label_of
from potnet.data.sources.rows import Row, Rows, csv_rows, reader_of
from potnet.data.sources.where import Where
from potnet.files import file_hash_once

log = logging.getLogger(__name__)

_RECORD = ("lattice", "frac", "z", "positions")


class TableSource(ReadableSource):
    """A table of crystals with labels.

    JSON lines, CSV, extended XYZ (each perhaps with `.gz`), Parquet, or an ASE database. A row holds an id,
    a structure (see `from_serialized`: CIF or POSCAR text, a dictionary of JARVIS, pymatgen or ASE), any
    number of labels (empty or null where missing), and, where the split is given, `split` ("train", "val" or
    "test"; empty or null for neither). In place of one structure column a row may have `lattice` (3x3, rows
    are the lattice vectors, Å), `z` (atomic numbers) and `frac` (fractional coordinates) or `positions`
    (Cartesian, Å). Every other column is a label: of numbers, of arrays (forces, stress), or of short text.

    Args:
        path: The file.
        name: Name of the data set; by default that of the file.
        id: Column of the names; None looks for `id`, `material_id`, `jid` ... Rows of XYZ without one are
            called after file and number.
        structure: Column of the structures; None looks for `structure`, `cif`, `atoms`, `poscar` ...
        split: Column of the split; None looks for `split`.
        targets: Label -> column, for columns that are called otherwise, such as `{k_vrh: bulk_modulus}`; or
            names of columns that have to be there.
        units: Label -> unit. Labels that are not named have no unit.
        where: Which rows to read, such as `'set == "Si"'` or `{set: Si}`; None reads all. See `Where`.
        box: Vacuum around molecules, Å; None refuses them. Extended XYZ and ASE only.
        plausibility: What to do with a structure that cannot be right: "refuse", "warn" or "ignore"; see
            `read_crystals`.
        licence: Licence of the data, printed once a run and kept in its folder.
        citation: What to cite, likewise.
        sha256: Expected checksum of the file; None does not check.

    Raises:
        DataError: Of an unknown kind of table, or a condition that cannot be understood.
    """

    def __init__(
        self,
        path: str | Path,
        name: str | None = None,
        id: str | None = None,
        structure: str | None = None,
        split: str | None = None,
        targets: Mapping[str, str] | Sequence[str] | None = None,
        units: Mapping[str, str] | None = None,
        where: str | Mapping[str, Any] | None = None,
        box: float | None = None,
        plausibility: Plausibility = "refuse",
        licence: str = "",
        citation: str = "",
        sha256: str | None = None,
    ) -> None:
        self.path = Path(path).expanduser()
        self._reader = reader_of(self.path)
        self.name = name or self.path.name.removesuffix(".gz").rpartition(".")[0]
        self.id = id
        self.structure = structure
        self.split = split
        if isinstance(targets, str):
            targets = [targets]
        self.targets = dict(targets) if isinstance(targets, Mapping) else {key: key for key in targets or ()}
        self.units = {**dict.fromkeys(self.targets, ""), **(units or {})}
        self.where = None if where is None else Where(where)
        self.box = box
        self.plausibility: Plausibility = plausibility
        self.licence = licence
        self.citation = citation
        self.sha256 = sha256

    def content_hash(self) -> str:
        """sha256 of the file as it is stored and of how it is read, in hexadecimal.

        Raises:
            DataError: The file is missing, or is not the one whose checksum was given.
        """
        try:
            found = file_hash_once(self.path)
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file (working folder: {Path.cwd()})") from None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        if self.sha256 is not None and found != self.sha256:
            raise DataError(
                f"{self.path}: the file is not what it should be (sha256 {found[:16]}..., "
                f"expected {self.sha256[:16]}...); fetch or install it again"
            )
        how: list[Any] = [self.id, self.structure, self.split, self.targets, self.box]
        if self.plausibility != "refuse":
            how.append(self.plausibility)
        if self.where is not None:
            how.append(self.where.condition)
        return hashlib.sha256(json.dumps([found, self.units, how], sort_keys=True).encode()).hexdigest()

    def read(self, on_error: str = "raise") -> Iterator[Item]:
        """The crystals of the rows, one by one.

        Args:
            on_error: See `Source`.

        Raises:
            DataError: An empty or broken file, an invalid row (its number is named), a column that is not
                there.
        """
        self.content_hash()
        columns: dict[str, None] = {}
        rows = kept = 0
        for where, row in self._reader(self.path):
            rows += 1
            try:
                if isinstance(row, DataError):
                    raise row
                columns.update(dict.fromkeys(row))
                if self.where is not None and not self.where(row):
                    continue
                kept += 1
                yield self.sample(row, where)
            except (DataError, CrystalError) as error:
                name = row.get(self._column(row, self.id, ID_KEYS)) if isinstance(row, dict) else None
                yield refused(
                    str(name or f"{self.path.name}, {where}"),
                    DataError(f"{self.path}, {where}: {error}"),
                    on_error,
                )
        if not rows:
            raise DataError(f"{self.path}: the table is empty; give at least one crystal")
        for key, column in self.targets.items():
            if column not in columns:
                raise DataError(f"data.source.targets.{key}={column}{did_you_mean(column, columns)}")
        if self.where is not None:
            if not kept:
                raise DataError(f"{self.path}: data.source.where={self.where.condition} holds for no row")
            log.info("%s: %d of %d rows are read (data.source.where)", self.path.name, kept, rows)

    def outcomes(self) -> Iterator[Crystal | CrystalError]:
        """The crystals of the rows, as prediction reads them: what cannot be read comes in its place.

        Raises:
            DataError: The file cannot be read, or is empty.
        """
        empty = True
        for _, outcome in self.located(self._reader(self.path)):
            empty = False
            yield outcome
        if empty:
            raise DataError(f"{self.path}: there is no crystal in it")

    def located(self, rows: Rows) -> Iterator[tuple[str, Crystal | CrystalError]]:
        """Crystals of some rows, each with where it stands ("line 3"), or what is wrong with it."""
        for where, row in rows:
            try:
                if isinstance(row, DataError):
                    raise row
                yield where, self.sample(row, where, unnamed=True).crystal
            except (DataError, CrystalError) as error:
                yield where, CrystalError(str(error), f"{self.path}, {where}")

    def sample(self, row: Row, where: str, unnamed: bool = False) -> Sample:
        """The crystal of one row, with its labels and its part.

        Args:
            row: Its columns.
            where: It stands, such as "line 3".
            unnamed: Whether a crystal without an id is called after the file and its place, as frames of XYZ
                always are.

        Raises:
            DataError: No id, or a column that is not there.
            CrystalError: A structure that cannot be used.
        """
        id_column = self._column(row, self.id, ID_KEYS, "id")
        structure_column = self._column(row, self.structure, STRUCTURE_KEYS, "structure")
        split_column = self._column(row, self.split, ("split",), "split")
        name = row.get(id_column)
        if name in (None, "") and self.id is None and (unnamed or "frame" in where):
            name = f"{self.name}:{where.rpartition(' ')[2]}"
        if name in (None, ""):
            raise DataError(
                f"the crystal has no id in {_columns(row)}; give each one a name of its own, or name the "
                "column in data.source.id"
            )
        used = {id_column, structure_column, split_column}
        structure = row.get(structure_column)
        if structure_column not in row:
            record = [key for key in _RECORD if key in row]
            if not record:
                raise DataError(f"no structure in {_columns(row)}; name the column in data.source.structure")
            structure = _record({key: row[key] for key in record})
            used.update(record)
        crystal = from_serialized(structure, str(name), self.box, self.plausibility)
        # Not by a copy of the crystal, which would be checked once more.
        labels = self._labels({key: row[key] for key in row if key not in used})
        for key, label in labels.items():
            if isinstance(label, np.ndarray) and is_atom_label(key) and len(label) != len(crystal):
                raise CrystalError(
                    f"{key} is a label of atoms, so it needs one row for each of the {len(crystal)} atoms, "
                    f"but "
                    f"its shape is {label.shape}",
                    f"crystal {crystal.id!r}",
                )
            if isinstance(label, np.ndarray) and (problem := shape_problem(key, label.shape)):
                raise CrystalError(problem, f"crystal {crystal.id!r}")
        crystal.properties.update(labels)
        return Sample(crystal, _part(row[split_column]) if split_column in row else NOT_STATED)

    def _labels(self, row: Row) -> dict[str, Label]:
        renamed = {column: key for key, column in self.targets.items()}
        found = {}
        for column, value in row.items():
            label = label_of(value, column, from_text=self._reader is csv_rows)
            # A column of another name never hides the one that was chosen for a label.
            if label is not None and (column in renamed or column not in self.targets):
                found[renamed.get(column, column)] = label
        return found

    def _column(self, row: Row, chosen: str | None, guesses: Iterable[str], setting: str = "") -> str:
        """The column that was chosen, or the first guess that is there; the guess itself if none is."""
        if chosen is not None:
            if chosen not in row and setting:
                raise DataError(f"data.source.{setting}={chosen}{did_you_mean(chosen, map(str, row))}")
            return chosen
        lower = {str(column).lower(): column for column in row}
        guesses = list(guesses)
        return next((lower[guess] for guess in guesses if guess in lower), guesses[0])


def _record(columns: Row) -> Row:
    """A structure that is written in several columns, as `from_serialized` reads it."""
    if "frac" not in columns and {"positions", "lattice", "z"} <= set(columns):
        return {
            "positions": columns["positions"],
            "numbers": columns["z"],
            "cell": columns["lattice"],
            "pbc": True,
        }
    return {"frac": None, **columns}


def _part(cell: object) -> str | None:
    """What a cell says of the split; numbers are no parts, and 0 is a number too."""
    return None if cell is None else str(cell) or None


def _columns(row: Mapping[Any, Any]) -> str:
    names = [str(name) for name in row]
    return f"columns {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" if names else "an empty row"
