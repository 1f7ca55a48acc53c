"""Splits from files of ids."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from potnet.config.suggest import did_you_mean
from potnet.data.errors import DataError
from potnet.data.splits.recipes import ListedSplit, Split
from potnet.data.table import PARTS, CrystalTable

_ID = ("id", "name", "material_id", "jid")
_PART = ("split", "part", "set")
_EMPTY = ("", "none", "null")


class FileSplit:
    """The split that a file lists.

    JSON: part -> ids, as in the `split.json` of a run (whose folder may be given), or with `id_train`,
    `id_val` and `id_test` as ALIGNN writes; or part -> {id: label}, as in the JARVIS leaderboard. CSV:
    columns `id` and `split`, a line a crystal.
    Crystals of the data that are not listed are not used, and counted.

    Args:
        path: The file, or the folder of a run.

    Raises:
        DataError: There is no such file, or it is something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if self.path.is_dir():
            self.path /= "split.json"
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise DataError(
                f"data.split.path={self.path}: no such file (working folder: {Path.cwd()})"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"data.split.path={self.path}: cannot be read ({error})") from error
        reader = {".json": _from_json, ".csv": _from_csv}.get(self.path.suffix.lower())
        if reader is None:
            raise DataError(
                f"data.split.path={self.path}: give a .json file (part -> ids) or .csv (id,split)"
            )
        try:
            self._listed = ListedSplit(reader(text))
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error

    def __call__(self, table: CrystalTable) -> Split:
        """The listed ids; those that were removed from the table for a reason on record are left out.

        Raises:
            DataError: Others are not in the data.
        """
        try:
            return self._listed(table)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error


def _from_json(text: str) -> dict[str, list[str]]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"expected an object with train, val and test; got {type(content).__name__}")
    parts = {str(key).removeprefix("id_"): ids for key, ids in content.items() if key != "hash"}
    parts = {part: list(ids) if isinstance(ids, dict) else ids for part, ids in parts.items()}
    for part, ids in parts.items():
        if not isinstance(ids, list) or not all(isinstance(id, str | int) for id in ids):
            raise DataError(f"{part} must be a list of ids")
    return {part: [str(id) for id in ids] for part, ids in parts.items()}


def _from_csv(text: str) -> dict[str, list[str]]:
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    header = [str(name).strip() for name in rows.fieldnames or ()]
    rows.fieldnames = header
    id_column = _column(header, _ID)
    part_column = _column(header, _PART)
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    try:
        for row in rows:
            id, part = _cell(row, id_column), _cell(row, part_column)
            if part.lower() in _EMPTY:
                continue
            if part not in parts:
                raise DataError(
                    f"line {rows.line_num}: unknown part {part!r} of the split{did_you_mean(part, PARTS)}"
                )
            parts[part].append(id)
    except csv.Error as error:
        raise DataError(f"line {rows.line_num}: not valid CSV ({error})") from error
    return parts


def _column(header: list[str], names: tuple[str, ...]) -> str:
    found = next((column for name in names for column in header if column.lower() == name), None)
    if found is None:
        raise DataError(f"the header needs columns id and split; it has {', '.join(header) or 'nothing'}")
    return found


def _cell(row: dict[str, Any], column: str) -> str:
    return str(row[column] or "").strip()
