"""What is kept on disk: feature caches and downloads, to be listed, verified and removed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from potnet.config.suggest import did_you_mean
from potnet.data.download.verify import read_record
from potnet.data.errors import CacheError, DataError
from potnet.data.features import integrity
from potnet.data.features.shards import SUFFIX
from potnet.data.features.store import MANIFEST, FeatureStore
from potnet.files import file_hash

DOWNLOADS = "downloads"
_CACHE_NAME = re.compile(r".+-[0-9a-f]{16}")
# Files that stand beside what they are about, and go with it.
_COMPANIONS = (".lock", ".verified", ".record", ".new", ".part.json")


@dataclass(frozen=True)
class Entry:
    """A feature cache (a folder), or any other file below the root of all caches.

    Attributes:
        name: Path relative to the root.
        kind: "features", "download" or "other".
        path: Where it is.
        bytes: Size on disk.
        state: "finished", "unfinished" (the next start goes on with it), "damaged", or "" for a whole file.
        crystals: How many a finished cache holds.
    """

    name: str
    kind: str
    path: Path
    bytes: int
    state: str = ""
    crystals: int | None = None


def entries(root: Path) -> list[Entry]:
    """All that is kept below a root, caches first; nothing of it is read but manifests."""
    if not root.is_dir():
        return []
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and _CACHE_NAME.fullmatch(path.name)]
    caches = [_cache(path) for path in folders]
    files = [
        Entry(
            str(path.relative_to(root)),
            _kind(path, root),
            path,
            path.stat().st_size,
            "unfinished" if path.suffix == ".part" else "",
        )
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(_COMPANIONS) and not set(folders) & set(path.parents)
    ]
    return caches + files


def select(root: Path, names: list[str]) -> list[Entry]:
    """The entries that names mean: whole names, or their beginnings, such as that of a data set.

    Raises:
        DataError: A name that nothing has.
    """
    found = entries(root)
    chosen: list[Entry] = []
    for name in names:
        exact = [entry for entry in found if entry.name == name]
        meant = exact or [entry for entry in found if entry.name.startswith(name)]
        if not meant:
            raise DataError(
                f"{root}: nothing is called {name!r}{did_you_mean(name, (e.name for e in found))}"
            )
        chosen += [entry for entry in meant if entry not in chosen]
    return chosen


def verify(entry: Entry) -> str:
    """Read all of an entry and compare checksums.

    Returns:
        "whole"; "unfinished"; "no checksum is known"; or what is damaged. The next start computes again what
        is damaged in a cache, and fetches a damaged download again.
    """
    if entry.kind == "features":
        if entry.state == "unfinished":
            return entry.state
        try:
            integrity.check(FeatureStore(entry.path), everything=True)
        except CacheError as error:
            # So the next start reads all of it, finds this, and repairs it.
            integrity.forget(entry.path)
            return str(error)
        return "whole"
    record = read_record(entry.path)
    if record is None:
        return "no checksum is known"
    return "whole" if file_hash(entry.path) == record.sha256 else f"{entry.path} is damaged"


def remove(entry: Entry) -> None:
    """Delete an entry, with the files that belong to it.

    Raises:
        CacheError: Another process is writing it, or it cannot be deleted.
    """
    try:
        with _unused(entry.path):
            if entry.path.is_dir():
                # The manifest first: what is left of a removal that was cut off must not look finished.
                (entry.path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(entry.path)
            else:
                entry.path.unlink()
            for suffix in _COMPANIONS:
                entry.path.with_name(entry.path.name + suffix).unlink(missing_ok=True)
            if entry.path.suffix == ".part":  # of a download: beside it lies which version it is of
                entry.path.with_name(entry.path.name + ".json").unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(f"{entry.path} cannot be deleted: {error.strerror or error}") from error


@contextmanager
def _unused(path: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        with FileLock(path.with_name(path.name + ".lock"), timeout=0):
            yield
    except Timeout:
        raise CacheError(f"{path} is being written by another process: wait for it or stop it") from None


def _kind(path: Path, root: Path) -> str:
    return "download" if path.relative_to(root).parts[0] == DOWNLOADS else "other"


def _cache(folder: Path) -> Entry:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if not (folder / MANIFEST).is_file():
        return Entry(folder.name, "features", folder, size, "unfinished")
    try:
        return Entry(folder.name, "features", folder, size, "finished", len(FeatureStore(folder)))
    except CacheError:
        return Entry(folder.name, "features", folder, size, "damaged")


def shards_of(folder: Path) -> int:
    """Number of shards that a cache holds so far."""
    return len(list(folder.glob(f"*{SUFFIX}")))
