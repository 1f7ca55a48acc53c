"""What a run logs, kept in its folder as log.txt."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from potnet.process_rank import rank
from potnet.runs.folder import RunFolder


@contextmanager
def log_in(folder: Path) -> Iterator[None]:
    """Append what is logged inside to the log of a run, with the time; an error that ends it, too.

    Args:
        folder: Of the run. On several devices the first process writes.
    """
    if rank() > 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(RunFolder(folder).log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    except Exception as error:
        handler.handle(
            logging.LogRecord(
                "potnet", logging.ERROR, "", 0, "%s", (f"{type(error).__name__}: {error}",), None
            )
        )
        raise
    finally:
        root.removeHandler(handler)
        handler.close()
