"""The work on one task of a screening, in whichever process it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow

from potnet.crystals import CrystalError, Plausibility
from potnet.data.features.featurizer import Failure
from potnet.data.features.workers import usable_cores
from potnet.inference.inputs import CHUNK, CHUNK_PAIRS
from potnet.inference.limits import Limits
from potnet.inference.predictor import Predictor
from potnet.screening.listing import Found, Task
from potnet.screening.parts import FAILURE, SOURCE, part_file, write_part


@dataclass
class Worker:
    """Predicts tasks and writes their files. It can be pickled.

    Args:
        predictor: On the CPU.
        folder: For the files.
        level: Of intervals.
        device: To predict on, by the process that does.
        box, plausibility: See `Predictor.predict`.
        max_memory_gib: See `Predictor.predict`.
        share: Processes that share the memory of this machine; None is one a core.
    """

    predictor: Predictor
    folder: Path
    level: float
    device: str
    box: float | None
    plausibility: Plausibility
    max_memory_gib: float | None
    share: int | None
    _ready: bool = field(default=False, repr=False)

    def __call__(self, task: Task) -> int:
        """Do a task; the number of crystals, and of inputs that are none."""
        if not self._ready:
            self.predictor.to(self.device)
            self._ready = True
        file = part_file(self.folder, task.name)
        if file.exists():  # by a process that was thought to be lost
            return 0
        limits = Limits(level=self.level, memory_gib=self.max_memory_gib, share=self.share or usable_cores())
        tables = [self._table(chunk, limits) for chunk in _chunks(task.crystals(self.box, self.plausibility))]
        table = pyarrow.concat_tables(tables or [self._table([], limits)])
        write_part(table, file)
        return len(table)

    def _table(self, found: list[Found], limits: Limits) -> pyarrow.Table:
        """Rows of some crystals, and of what could not be read between them."""
        by_name: dict[str, Found] = {}
        crystals = []
        unread: list[tuple[Found, str]] = []
        for entry in found:
            if isinstance(entry.outcome, CrystalError):
                unread.append((entry, str(entry.outcome)))
                continue
            name = entry.id
            while name in by_name:
                name += "'"
            by_name[name] = entry
            crystals.append(entry.outcome if name == entry.outcome.id else replace(entry.outcome, id=name))
        predictions = self._predictions(crystals, limits)
        done = [by_name[name] for name in predictions.ids]
        failed = [(by_name[failure.id], failure.reason) for failure in predictions.failures] + unread
        return rows(predictions, done, failed)

    def _predictions(self, crystals: list[Any], limits: Limits) -> Any:
        """The table of some crystals. A crystal that breaks the code costs no other one."""
        try:
            return self.predictor.table(crystals, [], True, limits)
        except Exception as error:
            if len(crystals) > 1:
                from potnet.inference.predictions import joined

                return joined([self._predictions([crystal], limits) for crystal in crystals])
            if not crystals:
                raise
            empty = self.predictor.table([], [], True, limits)
            empty.failures = [Failure(crystals[0].id, f"unexpected {type(error).__name__}: {error}")]
            return empty


def rows(predictions: Any, done: list[Found], failed: list[tuple[Found, str]]) -> pyarrow.Table:
    """A table of Arrow: the predicted crystals, and below them those that could not be.

    Args:
        predictions: Of n crystals.
        done: n, where they are from.
        failed: The others, and why.
    """
    entries = [*done, *(entry for entry, _ in failed)]
    empty = len(failed)
    columns = {
        "id": pyarrow.array([entry.id for entry in entries], pyarrow.string()),
        SOURCE: pyarrow.array([_text(entry.source) for entry in entries], pyarrow.string()),
    }
    for name, values in predictions.columns.items():
        kind = pyarrow.string() if values.dtype == object else pyarrow.float64()
        columns[name] = pyarrow.array([*values.tolist(), *[None] * empty], kind)
    columns["flags"] = pyarrow.array([*predictions.flags, *[""] * empty], pyarrow.string())
    columns[FAILURE] = pyarrow.array(
        [*[""] * len(done), *(_text(why) for _, why in failed)], pyarrow.string()
    )
    return pyarrow.table(columns)


def _chunks(found: Iterator[Found]) -> Iterator[list[Found]]:
    """What is featurized at a time: memory stays bounded, whatever the sizes of the crystals."""
    held: list[Found] = []
    pairs = 0
    for entry in found:
        more = 0 if isinstance(entry.outcome, CrystalError) else len(entry.outcome) ** 2
        if held and (len(held) == CHUNK or pairs + more > CHUNK_PAIRS):
            yield held
            held, pairs = [], 0
        held.append(entry)
        pairs += more
    if held:
        yield held


def _text(value: str) -> str:
    """Text that Arrow takes: file names may hold bytes that are no text."""
    return value.encode("utf-8", "replace").decode("utf-8")
