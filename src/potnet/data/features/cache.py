"""Featurize once: a cache whose name is a hash of everything that shaped it.

A cache is a folder `<cache_dir>/<data set>-<key>/` of shards (see `shards`), labels (see `label_file`), and
a manifest. Each file is written aside and renamed, the manifest last, so what is unfinished or was killed
is never read; the next start keeps the shards that are complete and computes the others. A file lock lets
one process work while others wait.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from potnet.crystals import CrystalError
from potnet.data.errors import CacheError, DataError
from potnet.data.features import integrity
from potnet.data.features.build import ProgressBar, build, writing
from potnet.data.features.featurizer import Featurizer
from potnet.data.features.store import MANIFEST, FeatureStore, canonical_json
from potnet.data.sources.base import Source
from potnet.data.table import DUPLICATE, UNREADABLE, CrystalTable
from potnet.files import cache_root

log = logging.getLogger(__name__)

#: Raise it whenever the same settings begin to give other features or another layout.
FORMAT = 5


def cache_folder(
    source: Source,
    featurizer: Featurizer,
    cache_dir: str | Path | None = None,
    limit: int | None = None,
    max_atoms: int | None = None,
) -> tuple[Path, dict[str, Any]]:
    """The folder of a cache, and the settings whose hash is in its name."""
    key = {
        "format": FORMAT,
        "data": source.content_hash(),
        "features": featurizer.settings(),
        "limit": limit,
        "max_atoms": max_atoms,
    }
    digest = hashlib.sha256(canonical_json(key)).hexdigest()
    return cache_root(cache_dir) / f"{source.name}-{digest[:16]}", key


def cached_features(
    source: Source,
    featurizer: Featurizer,
    cache_dir: str | Path | None = None,
    limit: int | None = None,
    on_error: str = "raise",
    check: Callable[[CrystalTable], None] | None = None,
    progress_bar: ProgressBar | None = None,
    max_atoms: int | None = None,
    workers: int | None = None,
    backend: str = "processes",
) -> FeatureStore:
    """The features of a data set: read if they are in the cache, computed once if not.

    Args:
        source: The data.
        featurizer: Its settings are part of the key; its `seconds` tell the time of each stage afterwards.
        cache_dir: See `cache_root`.
        limit: Keep this many crystals (`choose`).
        on_error: "raise" on the first crystal that cannot be read or featurized, or "skip" it and list it
            in `table.removed` or `failures`.
        check: Called with the labels before the work begins, to refuse what would fail afterwards.
        progress_bar: Shows the crystals done.
        max_atoms: Leave out larger cells, and list them in `table.removed` (`choose`).
        workers: Number of processes that featurize; see `build`.
        backend: Where they are; see `run_tasks`.

    Raises:
        DataError: The data cannot be used.
        CrystalError: A crystal cannot be featurized, with `on_error="raise"`.
        CacheError: The cache folder cannot be written, or the disk is full.
    """
    folder, key = cache_folder(source, featurizer, cache_dir, limit, max_atoms)
    store = _open(folder)
    if store is None:
        with _exclusively(folder):
            store = _open(folder)  # another process may have done the work while this one waited
            if store is None:
                build(
                    folder,
                    key,
                    source,
                    featurizer,
                    limit,
                    max_atoms,
                    on_error,
                    check,
                    progress_bar,
                    workers,
                    backend,
                )
                store = FeatureStore(folder)
                integrity.trust(store)
    if on_error == "raise":
        for entry in store.table.removed:
            if entry.reason == UNREADABLE:
                raise DataError(entry.detail)
            if entry.reason == DUPLICATE:
                raise DataError(f"{source.name}: several crystals have the id {entry.id}; give each its own")
    if store.failures and on_error == "raise":
        failure = store.failures[0]
        raise CrystalError(failure.reason, f"crystal {failure.id!r}")
    return store


def _open(folder: Path) -> FeatureStore | None:
    """The finished cache; None if there is none, or it has to be repaired."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        store = FeatureStore(folder)
        integrity.check(store)
    except CacheError as error:
        log.warning("feature cache: %s; what is damaged is computed again", error)
        return None
    return store


@contextmanager
def _exclusively(folder: Path) -> Iterator[None]:
    """Hold the lock of a cache; it is free again when its process ends, however it ends."""
    from filelock import FileLock, Timeout

    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(folder.name + ".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("another process is featurizing this data set (%s); waiting for it", folder)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
