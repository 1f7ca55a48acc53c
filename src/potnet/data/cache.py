"""Featurize once: a cache whose name is a hash of everything that shaped it.

A cache is a folder `<cache_dir>/<data set>-<key>/` of shards (see `shards`), an index of labels, and a
manifest. Each file is written aside and renamed, the manifest last, so what is unfinished or was killed
is never read; the next start keeps the shards that are complete and computes the others. A file lock lets
one process work while others wait.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from potnet.crystals import CrystalError
from potnet.data.dataset import DUPLICATE, UNREADABLE, Dataset
from potnet.data.errors import CacheError, DataError
from potnet.data.featurize import Failure, Featurizer, Progress
from potnet.data.shards import ShardRecord, finished_shard, write_shard
from potnet.data.sources import Source
from potnet.data.store import MANIFEST, FeatureStore
from potnet.files import write_whole

log = logging.getLogger(__name__)

#: Raise it whenever the same settings begin to give other features or another layout.
FORMAT = 2

# A shard ends at this many crystals, or ordered pairs of the cells as given (about 50 MB with three sums).
_SHARD_CRYSTALS = 1024
_SHARD_PAIRS = 4_000_000
# Up to this size, opening a cache compares checksums; a larger one would take seconds, so sizes must do.
_VERIFY_BYTES = 512 * 2**20
_INDEX = "index.json"

#: Opens a progress bar for a number of crystals.
ProgressBar = Callable[[int], AbstractContextManager[Progress | None]]


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """Where caches are: the argument, $POTNET_CACHE, $XDG_CACHE_HOME/potnet or ~/.cache/potnet."""
    chosen = cache_dir or os.environ.get("POTNET_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "potnet"


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
    digest = hashlib.sha256(_json(key)).hexdigest()
    return cache_root(cache_dir) / f"{source.name}-{digest[:16]}", key


def cached_features(
    source: Source,
    featurizer: Featurizer,
    cache_dir: str | Path | None = None,
    limit: int | None = None,
    on_error: str = "raise",
    check: Callable[[Dataset], None] | None = None,
    progress_bar: ProgressBar | None = None,
    max_atoms: int | None = None,
) -> FeatureStore:
    """The features of a data set: read if they are in the cache, computed once if not.

    Args:
        source: The data.
        featurizer: Its settings are part of the key; its `seconds` tell the time of each stage afterwards.
        cache_dir: See `cache_root`.
        limit: Keep this many crystals (`Dataset.limited`).
        on_error: "raise" on the first crystal that cannot be read or featurized, or "skip" it and list it
            in `table.removed` or `failures`.
        check: Called with the data set before the work begins, to refuse what would fail afterwards.
        progress_bar: Shows the crystals done.
        max_atoms: Leave out larger cells, and list them in `table.removed` (`Dataset.up_to`).

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
                dataset = source.load(on_error).up_to(max_atoms).limited(limit)
                if check is not None:
                    check(dataset)
                _build(folder, key, dataset, featurizer, on_error, progress_bar)
                store = FeatureStore(folder)
    if on_error == "raise":
        for entry in store.table.removed:
            if entry.reason in (UNREADABLE, DUPLICATE):
                raise DataError(f"{source.name}: {entry.id}: {entry.detail}")
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
        if store.bytes <= _VERIFY_BYTES:
            store.verify()
    except CacheError as error:
        log.warning("feature cache: %s; what is damaged is computed again", error)
        return None
    return store


def _build(
    folder: Path,
    key: dict[str, Any],
    dataset: Dataset,
    featurizer: Featurizer,
    on_error: str,
    progress_bar: ProgressBar | None,
) -> None:
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # While shards are repaired or added, nothing may look finished.
        (folder / MANIFEST).unlink(missing_ok=True)
        for leftover in folder.glob("*.part"):
            log.info("feature cache: removing %s, left by a run that was cut off", leftover)
            leftover.unlink()
    shards: list[ShardRecord] = []
    with (progress_bar or _no_bar)(len(dataset)) as progress:
        for number, (start, stop) in enumerate(_plan(dataset)):
            shard = finished_shard(folder, number)
            if shard is None:
                failures: list[Failure] | None = [] if on_error == "skip" else None
                graphs = featurizer.featurize(dataset.crystals[start:stop], failures, progress)
                with _writing(folder):
                    shard = write_shard(folder, number, graphs, failures or ())
            elif progress:
                progress(stop - start)
            shards.append(shard)
    failed = {failure.id for shard in shards for failure in shard.failures}
    rows = [row for row, crystal in enumerate(dataset.crystals) if crystal.id not in failed]
    if not rows:
        first = shards[0].failures[0].reason
        raise DataError(f"none of the {len(dataset)} crystals of {dataset.name} could be featurized: {first}")
    table = dataset.table.take(rows)
    index = _json(table.to_plain())
    manifest = {
        "key": key,
        "shards": [shard.to_plain() for shard in shards],
        "index": {"file": _INDEX, "bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()},
    }
    with _writing(folder):
        write_whole(folder / _INDEX, index)
        write_whole(folder / MANIFEST, _json(manifest))


def _plan(dataset: Dataset) -> Iterator[tuple[int, int]]:
    """Begin and end of each shard: from the data alone, so an interrupted run finds its place again."""
    start = pairs = 0
    for row, crystal in enumerate(dataset.crystals):
        size = len(crystal) ** 2
        if row > start and (row - start == _SHARD_CRYSTALS or pairs + size > _SHARD_PAIRS):
            yield start, row
            start, pairs = row, 0
        pairs += size
    yield start, len(dataset)


@contextmanager
def _exclusively(folder: Path) -> Iterator[None]:
    """Hold the lock of a cache; it is free again when its process ends, however it ends."""
    from filelock import FileLock, Timeout

    with _writing(folder):
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


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn errors of the file system into one that says where, and what to do."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"cannot write the feature cache in {folder}: {error.strerror or error}. "
            "Make room, or choose another folder with data.cache_dir or POTNET_CACHE"
        ) from error


def _no_bar(total: int) -> AbstractContextManager[Progress | None]:
    return nullcontext(None)


def _json(value: Any) -> bytes:
    """Canonical JSON: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
