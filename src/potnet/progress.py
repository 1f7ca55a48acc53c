"""Progress bars on the terminal: one way to show them, for crystals, bytes and steps of a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

#: Called with the amount done since the last call; fractions are allowed.
Progress = Callable[[float], None]


@contextmanager
def progress_bar(
    total: float | None,
    title: str,
    unit: str = "crystals",
    shown: bool | None = None,
    console: Console | None = None,
) -> Iterator[Progress]:
    """A bar on stderr.

    Args:
        total: Amount in all; None if it is not known.
        title: What is being done, such as "Featurizing".
        unit: Of the amount; "bytes" are shown as MB.
        shown: None shows the bar if the console is a terminal.
        console: Where to write; stderr by default.

    Yields:
        A function to be called with the amount done since its last call.
    """
    from rich.console import Console

    console = console or Console(stderr=True)
    if not (console.is_terminal if shown is None else shown):
        yield lambda amount: None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    amount: list[Any] = [MofNCompleteColumn(), TextColumn(unit)]
    columns = [TextColumn(title), BarColumn(), *([DownloadColumn()] if unit == "bytes" else amount)]
    with Bar(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda amount: bar.advance(task, amount)
