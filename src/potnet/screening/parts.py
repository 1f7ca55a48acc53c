"""The folder of a screening: one Parquet file a task, and what the screening is."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from potnet.config import ConfigError
from potnet.files import write_whole

log = logging.getLogger(__name__)

MANIFEST = "_screen.json"
"""Settings. Names that begin with _ are passed over by programs that read a folder of Parquet files."""

FAILURE = "failure"
"""Column: why a crystal has no values; empty for all others."""

SOURCE = "source"
"""Column: the file of a crystal, and where in it."""

_PART, _ENDING = "part-", ".parquet"
_UNFINISHED = "_unfinished-"


def part_file(folder: Path, name: str) -> Path:
    """The file of a task."""
    return folder / f"{_PART}{name}{_ENDING}"


def parts(folder: Path) -> list[Path]:
    """The finished files, sorted."""
    return sorted(folder.glob(f"{_PART}*{_ENDING}"))


def finished(folder: Path) -> frozenset[str]:
    """Names of the tasks that are done. Files that are not whole are removed, so that they are done again."""
    for path in parts(folder):
        try:
            pyarrow.parquet.read_metadata(path)
        except pyarrow.ArrowInvalid:
            log.warning("%s is damaged and done again", path)
            path.unlink(missing_ok=True)
    return frozenset(path.name.removeprefix(_PART).removesuffix(_ENDING) for path in parts(folder))


def write_part(table: pyarrow.Table, file: Path) -> None:
    """Write a file whole, under a name of its own until then: two processes may be at the same task.

    Raises:
        OSError: From the system, such as a full disk; it names the folder, and nothing is left.
    """
    part = file.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
    try:
        with part.open("wb") as out:
            pyarrow.parquet.write_table(table, out)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(file.parent)) from error


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed have left."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        path.unlink(missing_ok=True)


def same_screening(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder holds this screening, unfinished or not; False if it holds none.

    Raises:
        ConfigError: It holds another one, whose first setting that differs is named, or other Parquet files.
    """
    file = folder / MANIFEST
    if not file.is_file():
        if parts(folder):
            raise ConfigError(
                f"output={folder}: there are part-*.parquet files of something else; choose another folder"
            )
        return False
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: damaged ({error}); choose another output") from error
    for key, value in settings.items():
        if before.get(key) != value:
            shown = f" ({before.get(key)}, now {value})" if key != "models" else ""
            raise ConfigError(
                f"output={folder}: it holds a screening with other {key}{shown}; choose another folder, or "
                "repeat the command as it was to go on"
            )
    return True


def write_manifest(folder: Path, settings: Mapping[str, Any]) -> None:
    """Say what the folder holds."""
    write_whole(folder / MANIFEST, json.dumps(settings, indent=1) + "\n")


@dataclass
class Summary:
    """What all files of a screening hold.

    Attributes:
        best: The best rows, the best first.
        predicted, flagged, failed: Numbers of crystals; those with flags are among the predicted.
    """

    best: list[dict[str, Any]] = field(default_factory=list)
    predicted: int = 0
    flagged: int = 0
    failed: int = 0


def summary(
    folder: Path,
    condition: Callable[[Mapping[str, Any]], bool] | None,
    key: str,
    count: int,
    smallest: bool = False,
) -> Summary:
    """Count, and find the best rows that fulfil a condition; one file is in memory at a time.

    Args:
        folder: Of the screening.
        condition: On a row; None takes all.
        key: Column of numbers by which rows are ordered.
        count: How many rows.
        smallest: Whether the smallest come first.
    """
    found = Summary()
    sign = -1.0 if smallest else 1.0
    for path in parts(folder):
        table = pyarrow.parquet.read_table(path)
        failed = int(np.count_nonzero(np.asarray(table[FAILURE].to_pylist(), dtype=object) != ""))
        found.failed += failed
        found.predicted += len(table) - failed
        found.flagged += sum(1 for flag in table["flags"].to_pylist() if flag)
        values = sign * table[key].to_numpy().astype(float)
        # Only rows that may be among the best are looked at one by one.
        least = sign * found.best[-1][key] if len(found.best) == count else -np.inf
        rows = np.flatnonzero(values > least) if np.isfinite(least) else np.flatnonzero(~np.isnan(values))
        order = rows[np.argsort(-values[rows], kind="stable")]
        better: list[dict[str, Any]] = []
        for start in range(0, len(order), 64):
            chosen = table.take(pyarrow.array(order[start : start + 64])).to_pylist()
            better += [row for row in chosen if condition is None or condition(row)]
            if len(better) >= count:
                break
        found.best = sorted([*found.best, *better], key=lambda row: -sign * row[key])[:count]
    return found
