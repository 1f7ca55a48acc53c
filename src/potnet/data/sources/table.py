"""A table of crystals in one file: a structure, an id and properties a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from potnet.crystals import Crystal, CrystalError, Plausibility, from_serialized
from potnet.crystals.reading.names import ID_KEYS, STRUCTURE_KEYS
from potnet.data.errors import DataError, did_you_mean
from potnet.data.sources.collector import NOT_STATED, Collector
from potnet.data.sources.rows import Row, csv_rows, number_of, reader_of
from potnet.data.table import Dataset

_RECORD = ("lattice", "frac", "z")


class TableSource:
    """A table of crystals with properties.

    JSON lines, CSV, extended XYZ (each perhaps with `.gz`), Parquet, or an ASE database. A row holds an id,
    a structure (see `from_serialized`: CIF or POSCAR text, a dictionary of JARVIS, pymatgen or ASE), any
    number of properties (numbers; empty or null where missing), and, where the split is given, `split`
    ("train", "val" or "test"; empty or null for neither). In place of one structure column a row may have
    `lattice` (3x3, rows are the lattice vectors, Å), `z` (atomic numbers) and `frac` (fractional
    coordinates). Every column of numbers is a property.

    Args:
        path: The file.
        name: Name of the data set; by default that of the file.
        id: Column of the names; None looks for `id`, `material_id`, `jid` ... Rows of XYZ without one are
            called after file and number.
        structure: Column of the structures; None looks for `structure`, `cif`, `atoms`, `poscar` ...
        split: Column of the split; None looks for `split`.
        targets: Property key -> column, for columns that are called otherwise, such as
            `{k_vrh: bulk_modulus}`.
        units: Property key -> unit. Properties that are not named have no unit.
        box: Vacuum around molecules, Å; None refuses them. Extended XYZ and ASE only.
        plausibility: What to do with a structure that cannot be right: "refuse", "warn" or "ignore"; see
            `read_crystals`.
        licence: Licence of the data, printed once a run and kept in its folder.
        citation: What to cite, likewise.
        sha256: Expected checksum of the file; None does not check.

    Raises:
        DataError: Of an unknown kind of table.
    """

    def __init__(
        self,
        path: str | Path,
        name: str | None = None,
        id: str | None = None,
        structure: str | None = None,
        split: str | None = None,
        targets: Mapping[str, str] | None = None,
        units: Mapping[str, str] | None = None,
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
        self.targets = dict(targets or {})
        self.units = dict(units or {})
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
            with self.path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
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
        return hashlib.sha256(json.dumps([found, self.units, how], sort_keys=True).encode()).hexdigest()

    def load(self, on_error: str = "raise") -> Dataset:
        """Read all crystals.

        Args:
            on_error: See `Source`.

        Raises:
            DataError: An empty or broken file, an invalid row (its number is named), duplicate ids, an
                unknown part, a column that is not there.
        """
        content_hash = self.content_hash()
        found = Collector(self.name, on_error)
        keys: dict[str, None] = {}
        columns: dict[str, None] = {}
        for where, row in self._reader(self.path):
            try:
                if isinstance(row, DataError):
                    raise row
                columns.update(dict.fromkeys(row))
                crystal, part = self._crystal(row, where)
            except (DataError, CrystalError) as error:
                name = row.get(self._column(row, self.id, ID_KEYS)) if isinstance(row, dict) else None
                found.refuse(
                    str(name or f"{self.path.name}, {where}"), DataError(f"{self.path}, {where}: {error}")
                )
                continue
            keys.update(dict.fromkeys(crystal.properties))
            found.add(crystal, part)
        if not found.crystals and not found.removed:
            raise DataError(f"{self.path}: the table is empty; give at least one crystal")
        for key, column in self.targets.items():
            if column not in columns:
                raise DataError(f"data.source.targets.{key}={column}: {did_you_mean(column, columns)}")
        targets = {key: self.units.get(key, "") for key in sorted({*keys, *self.units, *self.targets})}
        return found.dataset(content_hash, targets, self.licence, self.citation)

    def _crystal(self, row: Row, where: str) -> tuple[Crystal, object]:
        """The crystal of one row, and its part."""
        id_column = self._column(row, self.id, ID_KEYS, "id")
        structure_column = self._column(row, self.structure, STRUCTURE_KEYS, "structure")
        split_column = self._column(row, self.split, ("split",), "split")
        name = row.get(id_column)
        if name in (None, "") and "frame" in where and self.id is None:
            name = f"{self.name}:{where.rpartition(' ')[2]}"
        if name in (None, ""):
            raise DataError(
                f"the crystal has no id in {_columns(row)}; give each one a name of its own, or name the "
                "column in data.source.id"
            )
        structure = row.get(structure_column)
        record = [key for key in _RECORD if key in row]
        if structure_column not in row:
            if not record:
                raise DataError(f"no structure in {_columns(row)}; name the column in data.source.structure")
            structure = {"frac": None, **{key: row[key] for key in record}}
        crystal = from_serialized(structure, str(name), self.box, self.plausibility)
        used = {id_column, structure_column, split_column}
        # Not by a copy of the crystal, which would be checked once more.
        crystal.properties.update(
            self._properties({key: value for key, value in row.items() if key not in used})
        )
        return crystal, _part(row[split_column]) if split_column in row else NOT_STATED

    def _properties(self, row: Row) -> dict[str, float]:
        renamed = {column: key for key, column in self.targets.items()}
        found = {}
        for column, value in row.items():
            number = number_of(value, from_text=self._reader is csv_rows)
            # A column of another name never hides the one that was chosen for a property.
            if number is not None and (column in renamed or column not in self.targets):
                found[renamed.get(column, column)] = number
        return found

    def _column(self, row: Row, chosen: str | None, guesses: Iterable[str], setting: str = "") -> str:
        """The column that was chosen, or the first guess that is there; the guess itself if none is."""
        if chosen is not None:
            if chosen not in row and setting:
                raise DataError(f"data.source.{setting}={chosen}: {did_you_mean(chosen, map(str, row))}")
            return chosen
        lower = {str(column).lower(): column for column in row}
        guesses = list(guesses)
        return next((lower[guess] for guess in guesses if guess in lower), guesses[0])


def _part(cell: object) -> str | None:
    """What a cell says of the split; numbers are no parts, and 0 is a number too."""
    return None if cell is None else str(cell) or None


def _columns(row: Mapping[Any, Any]) -> str:
    names = [str(name) for name in row]
    return f"columns {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" if names else "an empty row"
