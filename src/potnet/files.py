"""Where files are kept, their checksums, and writing them so that they are whole or not there."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """Where caches are: the argument, $POTNET_CACHE, or the user's cache folder (by platformdirs)."""
    chosen = cache_dir or os.environ.get("POTNET_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("potnet", appauthor=False)


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Checksum of a file, in hexadecimal; the file is read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def file_hash_once(path: Path, algorithm: str = "sha256") -> str:
    """Checksum of a file, in hexadecimal; it is read once as long as the system says that it is unchanged."""
    key = _stamp(path, algorithm)
    if key not in _HASHES:
        remember_hash(path, file_hash(path, algorithm), algorithm)
    return _HASHES[key]


def remember_hash(path: Path, digest: str, algorithm: str = "sha256") -> None:
    """Note the checksum of a file for `file_hash_once`, as after a rename."""
    if len(_HASHES) >= 100_000:  # folders may hold any number of files
        _HASHES.clear()
    _HASHES[_stamp(path, algorithm)] = digest


_HASHES: dict[tuple[Any, ...], str] = {}


def _stamp(path: Path, algorithm: str) -> tuple[Any, ...]:
    """What the system says of a file; a file that is written to leaves another stamp."""
    status = path.stat()
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (algorithm, path.absolute(), status.st_ino, status.st_size, *times)


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
    with replacing(path) as part:
        part.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A part file to be written, which then takes the place of a file; see `write_whole`.

    Raises:
        OSError: From the system; it names the file, and the part file is removed.
    """
    part = _part(path)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in errors of the system, which do not say it when what was written is flushed.

    Raises:
        OSError: As in the block, with the file.
    """
    try:
        yield
    except OSError as error:
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
        with naming(path):
            _part(path).touch()
            _part(path).unlink()


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
