"""A folder of structure files with their properties in `id_prop.csv`."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from potnet.config.suggest import did_you_mean
from potnet.crystals import Crystal, CrystalError, Plausibility, read_crystals
from potnet.data.errors import DataError
from potnet.data.sources.base import NOT_STATED, Item, ReadableSource, Sample, refused
from potnet.data.sources.labels import label_of, number_of
from potnet.data.sources.rows import guarded
from potnet.data.table import Removal
from potnet.files import file_hash_once

#: Endings of structure files; a name in the table may leave them out.
ENDINGS = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz")
NOT_LISTED = "not in the table"

_EMPTY = ("", "na", "nan", "none", "null", "-")


class FolderSource(ReadableSource):
    """Files in CIF, POSCAR or extended XYZ, and a table of their properties.

    The layout of CGCNN, ALIGNN and the JARVIS leaderboard: `id_prop.csv` beside the files, a line a crystal,
    `name,value` or `name,value,value...`, the name that of a file with or without its ending; values are
    numbers, or words for classes. A first line
    whose values are not numbers names the columns; a column `split` holds "train", "val" or "test". Files may
    be compressed (`.gz`) and lie in folders below (`name` is then a path). Files that the table does not name
    are not used, and listed.

    Args:
        path: The folder.
        table: Name of the table in it.
        targets: Names of the value columns, in order (or one name), if the table has no header; or a mapping
            label -> column, if they should be called otherwise than in the header.
        units: Label -> unit. Labels that are not named have no unit.
        name: Name of the data set; by default that of the folder.
        box: Vacuum around molecules, Å; None refuses them.
        plausibility: What to do with a structure that cannot be right: "refuse", "warn" or "ignore"; see
            `read_crystals`.
        licence: Licence of the data, printed once a run and kept in its folder.
        citation: What to cite, likewise.
    """

    def __init__(
        self,
        path: str | Path,
        table: str = "id_prop.csv",
        targets: Sequence[str] | Mapping[str, str] | None = None,
        units: Mapping[str, str] | None = None,
        name: str | None = None,
        box: float | None = None,
        plausibility: Plausibility = "refuse",
        licence: str = "",
        citation: str = "",
    ) -> None:
        self.path = Path(path).expanduser()
        self.table = table
        self.targets: Sequence[str] | Mapping[str, str] | None = (
            [targets] if isinstance(targets, str) else targets
        )
        self._units = dict(units or {})
        self.name = name or self.path.absolute().name
        self.box = box
        self.plausibility: Plausibility = plausibility
        self.licence = licence
        self.citation = citation

    def content_hash(self) -> str:
        """sha256 of the table, of the files that it names, and of how they are read, in hexadecimal.

        Raises:
            DataError: There is no such folder or table.
        """
        files = _Files(self.path)
        table = self._read_table(files)
        how: list[object] = [table.keys, self._units, self.box]
        if self.plausibility != "refuse":
            how.append(self.plausibility)
        digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode())
        for entry in table.entries:
            file = files.find(entry.name)
            content = _hash(file) if isinstance(file, Path) else file
            digest.update(json.dumps([entry.name, entry.values, entry.part, content], default=str).encode())
        # Files that are not named are listed in `removed`.
        digest.update(json.dumps([str(file) for file in files.unused]).encode())
        return digest.hexdigest()

    @property
    def units(self) -> dict[str, str]:
        """Label -> unit, for every column of the table."""
        return {key: self._units.get(key, "") for key in self._read_table(_Files(self.path)).keys}

    def read(self, on_error: str = "raise") -> Iterator[Item]:
        """The crystals that the table names, one by one; then the files that it does not name.

        Args:
            on_error: See `Source`.

        Raises:
            DataError: There is no such folder or table, or (with "raise") a name without a file or a file
                that cannot be read.
        """
        files = _Files(self.path)
        table = self._read_table(files)
        for entry in table.entries:
            where = f"{self.path / self.table}, line {entry.line}"
            try:
                crystal = self._crystal(entry, table.keys, files)
            except (CrystalError, DataError) as error:
                yield refused(entry.name, DataError(f"{where}: {error}"), on_error)
            else:
                yield Sample(crystal, NOT_STATED if entry.part is None else entry.part or None)
        for file in files.unused:
            name = str(file.relative_to(self.path))
            yield Removal(name, NOT_LISTED, f"{self.table} does not name it")

    def _crystal(self, entry: _Entry, keys: Sequence[str], files: _Files) -> Crystal:
        if len(entry.values) != len(keys):
            named = ", ".join(keys)
            raise DataError(f"{len(entry.values)} values are given, wanted are {len(keys)}: {named}")
        file = files.find(entry.name)
        if not isinstance(file, Path):
            raise DataError(file)
        crystals = read_crystals(file, self.box, self.plausibility)
        if len(crystals) > 1:
            raise DataError(f"{file} holds {len(crystals)} structures; one is wanted (or use data=table)")
        labels = {
            key: label_of(text, key, from_text=True)
            for key, text in zip(keys, entry.values, strict=True)
            if text.lower() not in _EMPTY
        }
        known = {key: label for key, label in labels.items() if label is not None}
        return replace(crystals[0], id=entry.name, properties=known)

    def _read_table(self, files: _Files) -> _Table:
        if not self.path.is_dir():
            what = "is not a folder (data=table reads files)" if self.path.exists() else "no such folder"
            raise DataError(f"{self.path}: {what} (working folder: {Path.cwd()})")
        file = self.path / self.table
        if not file.is_file():
            raise DataError(
                f"{self.path}: there is no {self.table} in this folder: write one, a line a crystal, "
                "`name of the file,value`"
            )
        with guarded(file), file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, skipinitialspace=True, strict=True)
            try:
                rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
            except csv.Error as error:
                raise DataError(f"{file}, line {reader.line_num}: not valid CSV ({error})") from error
        rows = [(line, cells) for line, cells in rows if any(cells) and not cells[0].startswith("#")]
        if not rows:
            raise DataError(f"{file}: the table is empty; give at least one crystal")
        if len(rows[0][1]) < 2:
            raise DataError(
                f"{file}, line {rows[0][0]}: one column only ({rows[0][1][0][:60]!r}); write `name,value`, "
                "separated by a comma"
            )
        # A crystal whose values are all mistaken is no header.
        is_header = _is_header(rows[0][1]) and not files.knows(rows[0][1][0])
        header = rows.pop(0)[1] if is_header else None
        if not rows:
            raise DataError(f"{file}: there is a header and no crystal below it")
        return self._named(file, header, rows)

    def _named(self, file: Path, header: list[str] | None, rows: list[tuple[int, list[str]]]) -> _Table:
        """Give the columns their keys, and take the split apart."""
        width = len(rows[0][1])
        keys = self._keys(file, width, header)
        part = next((place for place, key in enumerate(keys) if key.lower() == "split"), None)
        entries = []
        for line, (name, *values) in rows:
            own = None
            if part is not None:
                own = values.pop(part) if part < len(values) else ""
            entries.append(_Entry(line, name, tuple(values), own))
        return _Table(tuple(key for place, key in enumerate(keys) if place != part), tuple(entries))

    def _keys(self, file: Path, width: int, header: list[str] | None) -> list[str]:
        columns = header[1:] if header else None
        if isinstance(self.targets, Mapping):
            if columns is None:
                raise DataError(
                    f"{file} has no header, so data.source.targets cannot map columns: give a list of names"
                )
            for key, column in self.targets.items():
                if column not in columns:
                    raise DataError(f"data.source.targets.{key}={column}{did_you_mean(column, columns)}")
            renamed = {column: key for key, column in self.targets.items()}
            return [renamed.get(column, column) for column in columns]
        names = list(self.targets) if self.targets is not None else columns
        if names is None:
            raise DataError(
                f"{file} has no header: name its {width - 1} value column{'s' if width > 2 else ''}, such "
                "as 'data.source.targets=[k_vrh]'"
            )
        if len(names) != width - 1 or len(set(names)) != len(names):
            raise DataError(
                f"{file} has {width - 1} columns of values, but the names are {', '.join(names)}: give each "
                "column its own"
            )
        return names


@dataclass(frozen=True)
class _Entry:
    """A line of the table; `part` is None if there is no split."""

    line: int
    name: str
    values: tuple[str, ...]
    part: str | None


@dataclass(frozen=True)
class _Table:
    keys: tuple[str, ...]
    entries: tuple[_Entry, ...]


class _Files:
    """The structure files of a folder, found by name with or without ending.

    Attributes:
        unused: Those that are no target.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_name: dict[str, list[Path]] = {}
        self._unused: dict[Path, None] = {}
        for file in sorted(folder.rglob("*")):
            stem = _stem(file.name)
            if stem is None or not file.is_file():
                continue
            place = file.relative_to(folder).parent
            self._unused[file] = None
            for name in {stem, file.name, file.name.removesuffix(".gz")}:
                self._by_name.setdefault((place / name).as_posix(), []).append(file)

    def knows(self, name: str) -> bool:
        """Whether there is a file, or several, of this name."""
        return Path(name).as_posix() in self._by_name

    def find(self, name: str) -> Path | str:
        """The file of a name, or what is wrong."""
        exact = self.folder / name
        files = self._by_name.get(Path(name).as_posix(), [])
        if exact in files or (not files and exact.is_file()):
            files = [exact]
        if not files:
            return f"there is no file {name} ({', '.join(ENDINGS)}) in {self.folder}"
        if len(files) > 1:
            return f"{name} may be {' or '.join(file.name for file in files)}: write the ending too"
        self._unused.pop(files[0], None)
        return files[0]

    @property
    def unused(self) -> list[Path]:
        return list(self._unused)


def _stem(name: str) -> str | None:
    """A file's name without its ending; None if it is not a structure file."""
    name = name.removesuffix(".gz")
    for ending in ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name if name.upper().startswith(("POSCAR", "CONTCAR")) else None


def _is_header(cells: list[str]) -> bool:
    """Whether no value of the first line is a number or missing."""
    return all(value.lower() not in _EMPTY and not _is_number(value) for value in cells[1:])


def _is_number(text: str) -> bool:
    return number_of(text, from_text=True) is not None


def _hash(file: Path) -> str:
    with guarded(file):
        return file_hash_once(file)
