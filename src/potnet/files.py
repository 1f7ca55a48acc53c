"""Where files are kept, and writing them so that they are whole or not there."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """Where caches are: the argument, $POTNET_CACHE, $XDG_CACHE_HOME/potnet or ~/.cache/potnet."""
    chosen = cache_dir or os.environ.get("POTNET_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "potnet"


def write_whole(path: Path, content: bytes | memoryview | str) -> None:
    """Write a file so that it is complete whenever it is there: part file beside it, fsync, rename.

    The part file is in the same folder, as a rename between disks would be a copy. What is no regular
    file (a pipe, /dev/stdout) is written as it is.

    Args:
        path: Of the file; its folder exists.
        content: Text is written as UTF-8.

    Raises:
        OSError: From the system, such as a full disk; it names the file, and the part file is removed.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    part = _part(path)
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def check_writable(path: Path) -> None:
    """Find out that a file cannot be written before the work, not after it. Its folder is made.

    Raises:
        OSError: It cannot be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, give the name of a file", str(path))
    if not path.exists() or path.is_file():
        try:
            _part(path).touch()
            _part(path).unlink()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
