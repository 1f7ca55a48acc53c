"""The errors that data can raise, and the hint that goes with a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """A data set, target, split or setting that cannot be used. The message says what to do."""


class CacheError(DataError):
    """The feature cache cannot be written or read. The message names the folder and the setting."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """The nearest of the valid names as a hint, and the list of all of them.

    >>> did_you_mean("k_vhr", ["k_vrh", "g_vrh"])
    "did you mean 'k_vrh'? (valid: g_vrh, k_vrh)"
    """
    options = sorted(options)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}(valid: {', '.join(options) or 'none'})"


def name_some(ids: Iterable[str], limit: int = 5) -> str:
    """The first few ids, and how many more there are."""
    ids = list(ids)
    more = f" and {len(ids) - limit} more" if len(ids) > limit else ""
    return ", ".join(ids[:limit]) + more
