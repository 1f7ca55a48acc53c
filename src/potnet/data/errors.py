"""The errors that data can raise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


class DataError(ValueError):
    """A data set, target, split or setting that cannot be used. The message says what to do."""


class CacheError(DataError):
    """The feature cache cannot be written or read. The message names the folder and the setting."""


class ProcessKilled(CacheError):
    """A process was killed, mostly because memory ran out.

    Args:
        how: It ended.
        tasks: That were being done.
    """

    def __init__(self, how: str, tasks: Sequence[Any] = ()) -> None:
        self.how = how
        self.tasks = list(tasks)
        at = f" at {' or '.join(map(str, tasks))}" if tasks else ""
        super().__init__(f"{how}{at}: use fewer processes at a time")


def name_some(ids: Iterable[str], limit: int = 5) -> str:
    """The first few ids, and how many more there are."""
    ids = [str(id) for id in ids]
    more = f" and {len(ids) - limit} more" if len(ids) > limit else ""
    return ", ".join(ids[:limit]) + more
