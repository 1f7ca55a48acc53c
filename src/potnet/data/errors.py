"""The errors that data can raise."""

from __future__ import annotations

from collections.abc import Iterable


class DataError(ValueError):
    """A data set, target, split or setting that cannot be used. The message says what to do."""


class CacheError(DataError):
    """The feature cache cannot be written or read. The message names the folder and the setting."""


def name_some(ids: Iterable[str], limit: int = 5) -> str:
    """The first few ids, and how many more there are."""
    ids = [str(id) for id in ids]
    more = f" and {len(ids) - limit} more" if len(ids) > limit else ""
    return ", ".join(ids[:limit]) + more
