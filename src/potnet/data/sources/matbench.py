"""Matbench v0.1: a table of pandas as JSON, with structures of pymatgen."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from potnet.config.suggest import did_you_mean
from potnet.crystals import Crystal, from_serialized
from potnet.data.errors import DataError
from potnet.data.sources.downloaded import DownloadedSource, Record
from potnet.data.sources.json_stream import JsonStream


class MatbenchSource(DownloadedSource):
    """One regression task of Matbench (Dunn et al. 2020) on structures.

    Crystals are called as Matbench calls them, `mb-phonons-0001`, by their place in the table.

    Args:
        tasks: Task -> `target`, `column`, `unit`, `scale` as in `Column`, `url`, `checksum`, `crystals` and
            `reference`.
        task: Which; None takes the one that has `target`.
        target: Key of the property to learn.
        name: Of the data set; the task is appended.
        path, cache_dir, licence, citation: As for `DownloadedSource`; the task's reference is appended to
            the last.

    Raises:
        DataError: There is no such task, or it has another target.
    """

    def __init__(
        self,
        tasks: Mapping[str, Mapping[str, Any]],
        target: str,
        task: str | None = None,
        name: str = "matbench",
        path: str | Path | None = None,
        cache_dir: str | Path | None = None,
        licence: str = "",
        citation: str = "",
    ) -> None:
        task = chosen_task(tasks, target, task)
        chosen = tasks[task]
        file = {"name": f"matbench_{task}.json.gz", **{key: chosen.get(key) for key in ("url", "checksum")}}
        column = {key: chosen[key] for key in ("column", "unit", "scale") if key in chosen}
        super().__init__(
            f"{name}_{task}",
            [file],
            {target: column},
            path,
            cache_dir,
            chosen.get("crystals"),
            licence,
            " ".join(filter(None, (citation, chosen.get("reference")))),
        )
        self.task = task

    def records(self, paths: Sequence[Path]) -> Iterator[Record]:
        """The rows of the table."""
        (path,) = paths
        try:
            columns = list(_list(path, "columns"))
            structure = columns.index("structure")
            total = self.crystals or sum(1 for _ in _list(path, "index"))
            for number, row in enumerate(_list(path, "data"), 1):
                labels = dict(zip(columns, row, strict=True))
                yield Record(matbench_id(self.task, number, total), row[structure], labels)
        except (OSError, EOFError, json.JSONDecodeError, KeyError, ValueError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{path}: not a table as Matbench writes it, with columns, index and data ({error})"
            ) from error

    def crystal(self, record: Record) -> Crystal:
        """The crystal of a structure dictionary of pymatgen."""
        return from_serialized(record.structure, record.id)


def _list(path: Path, key: str) -> Iterator[Any]:
    """The elements of one list of the table."""
    with gzip.open(path, "rt", encoding="utf-8") as text:
        stream = JsonStream(text)
        stream.find(key)
        yield from stream.elements()


def matbench_id(task: str, number: int, total: int) -> str:
    """How Matbench calls a crystal of a task: it numbers from 1, with as many digits as `total` has."""
    return f"mb-{task.replace('_', '-')}-{number:0{len(str(total))}d}"


def chosen_task(tasks: Mapping[str, Mapping[str, Any]], target: str, task: str | None) -> str:
    """The task of that name, or the one that has the target.

    Raises:
        DataError: There is none, or the task has another target.
    """
    if task is None:
        by_target = {str(entry["target"]): name for name, entry in tasks.items()}
        if target not in by_target:
            raise DataError(f"no task of Matbench has the target {target!r}{did_you_mean(target, by_target)}")
        return by_target[target]
    task = task.removeprefix("matbench_")
    if task not in tasks:
        raise DataError(f"data.task={task}: there is no such task of Matbench{did_you_mean(task, tasks)}")
    if tasks[task]["target"] != target:
        raise DataError(
            f"data.task={task}: its target is {tasks[task]['target']}, not {target}: add "
            f"target={tasks[task]['target']}"
        )
    return task
