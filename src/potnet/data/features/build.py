"""Building a feature cache: which crystals make up each shard, who computes them, what is written last."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from potnet.data.errors import CacheError, DataError
from potnet.data.features.featurizer import Failure, Featurizer, Progress
from potnet.data.features.shards import ShardRecord, finished_shard, write_shard
from potnet.data.features.store import MANIFEST, canonical_json, manifest_file
from potnet.data.features.workers import ShardTask, can_be_shared, featurize_shards, usable_cores
from potnet.data.table import Dataset
from potnet.files import write_whole

log = logging.getLogger(__name__)

# A shard ends at this many crystals, or ordered pairs of the cells as given (about 50 MB with three sums).
_SHARD_CRYSTALS = 1024
_SHARD_PAIRS = 4_000_000
# Starting a process takes about as long as a shard or two of small crystals.
_SHARDS_PER_WORKER = 4
_INDEX = "index.json"

#: Opens a progress bar for a number of crystals.
ProgressBar = Callable[[int], AbstractContextManager[Progress | None]]


def build(
    folder: Path,
    key: dict[str, Any],
    dataset: Dataset,
    featurizer: Featurizer,
    on_error: str = "raise",
    progress_bar: ProgressBar | None = None,
    workers: int | None = None,
) -> None:
    """Featurize a data set into a folder; shards that an earlier run finished are kept.

    The caller holds the lock of the folder. Equal data and settings give equal bytes, whatever the number of
    processes and however often the work was cut off: each shard is computed by one thread, and on its own.

    Args:
        folder: Of the cache; it is made.
        key: All that shaped the features, for the manifest.
        dataset: The crystals.
        featurizer: Its `seconds` tell the time of each stage afterwards, summed over processes.
        on_error: "raise" on the first crystal that cannot be featurized, or "skip" it.
        progress_bar: Shows the crystals done.
        workers: Number of processes. None takes one a usable core, as far as there is work for them, and just
            this one where a GPU computes the sums.

    Raises:
        DataError: No crystal could be featurized.
        CrystalError: A crystal cannot be featurized, with `on_error="raise"`.
        CacheError: The folder cannot be written, the disk is full, or a process was killed.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # While shards are repaired or added, nothing may look finished.
        (folder / MANIFEST).unlink(missing_ok=True)
        for leftover in folder.glob("*.part"):
            log.info("feature cache: removing %s, left by a run that was cut off", leftover)
            leftover.unlink(missing_ok=True)  # a process of that run may just be ending
    plan = list(shard_plan(dataset))
    found = {number: finished_shard(folder, number) for number in range(len(plan))}
    shards = {number: shard for number, shard in found.items() if shard is not None}
    missing = [number for number in range(len(plan)) if number not in shards]
    tasks = (ShardTask(number, dataset.crystals[slice(*plan[number])]) for number in missing)
    count = _workers(workers, featurizer, len(missing))
    with (progress_bar or _no_bar)(len(dataset)) as progress:
        if progress:
            progress(sum(plan[number][1] - plan[number][0] for number in shards))
        if count > 1:
            with writing(folder):
                shards |= featurize_shards(tasks, count, folder, featurizer, on_error == "skip", progress)
        else:
            with _one_thread():
                for task in tasks:
                    failures: list[Failure] | None = [] if on_error == "skip" else None
                    graphs = featurizer.featurize(task.crystals, failures, progress)
                    with writing(folder):
                        shards[task.number] = write_shard(folder, task.number, graphs, failures or ())
    _finish(folder, key, dataset, [shards[number] for number in range(len(plan))])


def shard_plan(dataset: Dataset) -> Iterator[tuple[int, int]]:
    """Begin and end of each shard: from the data alone, so an interrupted run finds its place again."""
    start = pairs = 0
    for row, crystal in enumerate(dataset.crystals):
        size = len(crystal) ** 2
        if row > start and (row - start == _SHARD_CRYSTALS or pairs + size > _SHARD_PAIRS):
            yield start, row
            start, pairs = row, 0
        pairs += size
    yield start, len(dataset)


def _finish(folder: Path, key: dict[str, Any], dataset: Dataset, shards: list[ShardRecord]) -> None:
    """Write the index of labels, and then the manifest."""
    failed = {failure.id for shard in shards for failure in shard.failures}
    rows = [row for row, crystal in enumerate(dataset.crystals) if crystal.id not in failed]
    if not rows:
        first = shards[0].failures[0].reason
        raise DataError(f"none of the {len(dataset)} crystals of {dataset.name} could be featurized: {first}")
    index = canonical_json(dataset.table.take(rows).to_plain())
    manifest = {
        "key": key,
        "shards": [shard.to_plain() for shard in shards],
        "index": {"file": _INDEX, "bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()},
    }
    with writing(folder):
        write_whole(folder / _INDEX, index)
        write_whole(folder / MANIFEST, manifest_file(manifest))


def _workers(wanted: int | None, featurizer: Featurizer, shards: int) -> int:
    """Number of processes for the shards that are missing."""
    if not can_be_shared(featurizer):
        return 1
    if wanted is not None:
        return min(wanted, shards)
    if featurizer.on_gpu:
        return 1
    return min(usable_cores(), shards // _SHARDS_PER_WORKER)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread, as in the worker processes: the last bits of sums can depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
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
