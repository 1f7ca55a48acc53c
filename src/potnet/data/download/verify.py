"""Whether a file is the right one and whole; and the record kept of a file that was."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from potnet.data.download.remote import RemoteFile
from potnet.files import file_hash_once, write_whole

_CHUNK = 2**20


@dataclass(frozen=True)
class FileRecord:
    """What is known of a verified file.

    Attributes:
        bytes: Its size.
        mtime_ns: When it was last changed, as the file system says.
        sha256: Of its content, in hexadecimal.
        url: Where it came from; empty if somebody put it there.
        fetched: When, UTC.
    """

    bytes: int
    mtime_ns: int
    sha256: str
    url: str
    fetched: str

    def untouched(self, path: Path) -> bool:
        """Whether the file looks as it did, by size and time."""
        stat = path.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.bytes, self.mtime_ns)


def read_record(path: Path) -> FileRecord | None:
    """The record of a file; None if there is none that can be read."""
    try:
        return FileRecord(**json.loads(_record_path(path).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(path: Path, record: FileRecord) -> None:
    """Keep a record beside a file.

    Raises:
        OSError: It cannot be written.
    """
    write_whole(_record_path(path), json.dumps(asdict(record), indent=1) + "\n")


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".record")


def problem_of(path: Path, file: RemoteFile, sha256: str) -> str | None:
    """What is wrong with a file, as the end of a sentence about it; None if nothing is.

    The published size and checksum are compared where they are known. Archives are read to their end: their
    own checksums (CRC-32) reveal what is broken, and a web page sent in place of the file.

    Args:
        path: The file, under any name.
        file: What it has to be; the kind of archive follows from its name.
        sha256: Of the file.
    """
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        return f"has {size} bytes where {file.bytes} are expected"
    if file.checksum is not None:
        algorithm, _, expected = file.checksum.partition(":")
        found = sha256 if algorithm == "sha256" else file_hash_once(path, algorithm)
        if found != expected:
            return f"has another checksum ({algorithm} {found[:16]}..., expected {expected[:16]}...)"
        return None
    if file.name.endswith(".zip"):
        return _problem_of_zip(path)
    if file.name.endswith(".gz"):
        return _problem_of_gzip(path)
    if file.name.endswith(".pkl"):
        return _problem_of_pickle(path)
    return None if size else "is empty"


def _problem_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # a broken archive raises anything
        return f"is a broken zip file ({error})"
    return None if broken is None else f"is a broken zip file ({broken} in it fails its checksum)"


def _problem_of_gzip(path: Path) -> str | None:
    try:
        with gzip.open(path) as stream:
            while stream.read(_CHUNK):
                pass
    except (OSError, EOFError, zlib.error) as error:
        return f"is a broken gzip file ({error})"
    return None


def _problem_of_pickle(path: Path) -> str | None:
    """A pickle ends with a full stop, and does not begin like a web page."""
    with path.open("rb") as file:
        begins = file.read(1) not in (b"", b"<")
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        ends = file.read(1) == b"."
    return None if begins and ends else "is not a whole pickle"
