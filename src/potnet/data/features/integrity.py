"""Whether the files of a cache are still those that were written, without reading all of it at every start.

Checksums tell it for certain, but a large cache takes minutes to read. So beside the cache folder stands a
record of what the file system said of each file when its checksum was last right: size, time of the last
write, time of the last change of any kind (which programs cannot set back), and inode. A file of which this
is still true has not been written to since, and one of which it isn't is read and compared. What remains is a
disk that returns other bytes than were written to it: `potnet data verify` reads everything.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from potnet.data.errors import CacheError
from potnet.data.features.store import FeatureStore
from potnet.files import write_whole

log = logging.getLogger(__name__)

# Up to this size all is read at every start, which takes a second or two.
_READ_BYTES = 256 * 2**20

Stamp = list[int]


def check(store: FeatureStore, everything: bool = False) -> None:
    """Compare the checksum of each shard that may have changed since it was last compared.

    Args:
        store: The cache.
        everything: Compare all, whatever the record says; small caches always are.

    Raises:
        CacheError: Names the first damaged file.
    """
    known = _read(store.folder)
    stamps = {name: _stamp(store.folder / name) for name in store.checksums}
    if everything or store.bytes <= _READ_BYTES:
        doubtful = list(stamps)
    else:
        doubtful = [name for name, stamp in stamps.items() if known.get(name) != stamp]
        if doubtful:
            log.info("feature cache: %d of %d files are read to check them", len(doubtful), len(stamps))
    # The stamps were taken before: what is written while this reads is doubtful next time.
    store.verify(doubtful)
    if known != stamps:
        _write(store.folder, stamps)


def trust(store: FeatureStore) -> None:
    """Record that the files are right: whoever calls this has just written or compared them."""
    _write(store.folder, {name: _stamp(store.folder / name) for name in store.checksums})


def forget(folder: Path) -> None:
    """Remove the record of a cache."""
    record_of(folder).unlink(missing_ok=True)


def record_of(folder: Path) -> Path:
    """The file of the record. It is beside the folder, in which equal caches have equal files."""
    return folder.with_name(folder.name + ".verified")


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror or error}") from error
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(folder: Path) -> dict[str, Stamp]:
    try:
        content = json.loads(record_of(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(folder: Path, stamps: dict[str, Stamp]) -> None:
    try:
        write_whole(record_of(folder), json.dumps(stamps))
    except OSError as error:
        # A cache that others own can be read all the same: it is checked at every start.
        log.debug("feature cache: %s cannot be written: %s", record_of(folder), error)
