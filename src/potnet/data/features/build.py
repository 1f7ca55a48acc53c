"""Building a feature cache: which crystals make up each shard, who computes them, what is written last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from potnet.crystals import Crystal
from potnet.data.errors import CacheError, DataError, ProcessKilled
from potnet.data.features.choice import Choice, choose
from potnet.data.features.featurizer import Failure, Featurizer, Progress
from potnet.data.features.label_file import LABELS, REMOVED, write_labels, write_removed
from potnet.data.features.shards import ShardRecord, finished_shard, write_shard
from potnet.data.features.staging import Stage, stage
from potnet.data.features.store import MANIFEST, manifest_file
from potnet.data.features.workers import run_tasks, usable_cores
from potnet.data.sources.base import Source
from potnet.data.table import CrystalTable
from potnet.files import file_hash, replacing, write_whole

log = logging.getLogger(__name__)

# A shard ends at this many crystals, or ordered pairs of the cells as given (about 50 MB with three sums).
_SHARD_CRYSTALS = 1024
_SHARD_PAIRS = 4_000_000
# Starting a process takes about as long as a shard or two of small crystals.
_SHARDS_PER_WORKER = 4
_STAGE = "stage"

#: Opens a progress bar for a number of crystals.
ProgressBar = Callable[[int], AbstractContextManager[Progress | None]]


@dataclass(frozen=True)
class ShardTask:
    """A shard that is still to be made.

    Attributes:
        number: Of the shard.
        rows: Its crystals, as rows of the stage.
        largest: Atoms of the largest, for messages.
        stage: Folder of the stage.
        folder: Of the cache.
        featurizer: What to compute.
        skip: Whether crystals that cannot be featurized are noted in the shard, rather than an error.
    """

    number: int
    rows: np.ndarray
    largest: int
    stage: Path
    folder: Path
    featurizer: Featurizer
    skip: bool

    def __str__(self) -> str:
        return f"shard {self.number} (crystals of up to {self.largest} atoms)"


@dataclass(frozen=True)
class ShardResult:
    """A shard that is made, and the seconds that each stage took."""

    number: int
    record: ShardRecord
    seconds: dict[str, float]


def build(
    folder: Path,
    key: dict[str, Any],
    source: Source,
    featurizer: Featurizer,
    limit: int | None = None,
    max_atoms: int | None = None,
    on_error: str = "raise",
    check: Callable[[CrystalTable], None] | None = None,
    progress_bar: ProgressBar | None = None,
    workers: int | None = None,
    backend: str = "processes",
) -> None:
    """Featurize a data set into a folder; shards that an earlier run finished are kept.

    The source is read once, and its crystals are staged on disk: memory does not grow with the structures.
    The caller holds the lock of the folder. Equal data and settings give equal bytes, whatever the number of
    processes and however often the work was cut off: each shard is computed by one thread, and on its own.

    Args:
        folder: Of the cache; it is made.
        key: All that shaped the features, for the manifest.
        source: The data.
        featurizer: Its `seconds` tell the time of each stage afterwards, summed over processes.
        limit: Keep this many crystals; see `choose`.
        max_atoms: Leave out larger cells; see `choose`.
        on_error: "raise" on the first crystal that cannot be read or featurized, or "skip" it.
        check: Called with the labels before anything is computed, to refuse what would fail afterwards.
        progress_bar: Shows the crystals done.
        workers: Number of processes. None takes one a usable core, as far as there is work for them, and just
            this one where a GPU computes the sums.
        backend: Where the processes are, see `run_tasks`.

    Raises:
        DataError: The data cannot be used, or no crystal could be featurized.
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
        staged = stage(source, folder / _STAGE, on_error)
    choice = choose(staged, source.name, max_atoms, limit, on_error)
    if check is not None:
        check(choice.table)
    plan = list(shard_plan(choice.atoms))
    found = {number: finished_shard(folder, number) for number in range(len(plan))}
    shards = {number: shard for number, shard in found.items() if shard is not None}
    missing = [number for number in range(len(plan)) if number not in shards]
    tasks = (
        ShardTask(
            number,
            choice.rows[slice(*plan[number])],
            int(choice.atoms[slice(*plan[number])].max()),
            staged.folder,
            folder,
            featurizer,
            on_error == "skip",
        )
        for number in missing
    )
    count = _workers(workers, featurizer, len(missing), backend)
    with (progress_bar or _no_bar)(len(choice.rows)) as progress, writing(folder):
        if progress:
            progress(sum(plan[number][1] - plan[number][0] for number in shards))
        if count > 1 or backend != "processes":
            with _advice():
                for result in run_tasks(featurize_shard, tasks, count, backend):
                    shards[result.number] = result.record
                    for name, spent in result.seconds.items():
                        featurizer.seconds[name] += spent
                    if progress:
                        progress(plan[result.number][1] - plan[result.number][0])
        else:
            _import_libraries(featurizer)
            with _one_thread():
                for task in tasks:
                    shards[task.number] = _featurized(task, progress)
    _finish(folder, key, source.name, staged, choice, [shards[number] for number in range(len(plan))])


def shard_plan(atoms: np.ndarray) -> Iterator[tuple[int, int]]:
    """Begin and end of each shard: from the data alone, so an interrupted run finds its place again.

    Args:
        atoms: (n,) atoms of each crystal.
    """
    start = pairs = 0
    for row, size in enumerate(map(int, atoms * atoms)):
        if row > start and (row - start == _SHARD_CRYSTALS or pairs + size > _SHARD_PAIRS):
            yield start, row
            start, pairs = row, 0
        pairs += size
    yield start, len(atoms)


def featurize_shard(task: ShardTask) -> ShardResult:
    """Make a shard, in any process that sees the folders."""
    _import_libraries(task.featurizer)
    task.featurizer.seconds = dict.fromkeys(task.featurizer.seconds, 0.0)
    record = _featurized(task)
    return ShardResult(task.number, record, task.featurizer.seconds)


def _featurized(task: ShardTask, progress: Progress | None = None) -> ShardRecord:
    crystals = Stage(task.stage).crystals(task.rows)
    if task.featurizer.cell != "as_given":
        crystals = [_without_arrays(crystal) for crystal in crystals]
    failures: list[Failure] | None = [] if task.skip else None
    graphs = task.featurizer.featurize(crystals, failures, progress)
    return write_shard(task.folder, task.number, graphs, failures or ())


def _without_arrays(crystal: Crystal) -> Crystal:
    """The crystal without forces and the like, which make no sense in another cell."""
    for key in [key for key, value in crystal.properties.items() if isinstance(value, np.ndarray)]:
        del crystal.properties[key]
    return crystal


def _finish(
    folder: Path, key: dict[str, Any], name: str, staged: Stage, choice: Choice, shards: list[ShardRecord]
) -> None:
    """Write labels and removals, and then the manifest."""
    failed = [failure.id for shard in shards for failure in shard.failures]
    kept = ~np.asarray(pc.is_in(choice.table.ids, value_set=pa.array(failed, pa.string())))
    if not kept.any():
        first = shards[0].failures[0].reason
        raise DataError(f"none of the {len(kept)} crystals of {name} could be featurized: {first}")
    with writing(folder):
        with replacing(folder / LABELS) as part:
            write_labels(part, staged, choice.rows[kept])
        with replacing(folder / REMOVED) as part:
            write_removed(part, choice.table.removed)
        files = {
            file: {"bytes": (folder / file).stat().st_size, "sha256": file_hash(folder / file)}
            for file in (LABELS, REMOVED)
        }
        manifest = {"key": key, "shards": [shard.to_plain() for shard in shards], "labels": files}
        write_whole(folder / MANIFEST, manifest_file(manifest))
    staged.remove()


def _workers(wanted: int | None, featurizer: Featurizer, shards: int, backend: str) -> int:
    """Number of processes for the shards that are missing."""
    if wanted is not None:
        return max(1, min(wanted, shards))
    if backend != "processes":
        return max(1, shards)
    if featurizer.on_gpu:
        return 1
    return min(usable_cores(), shards // _SHARDS_PER_WORKER)


def _import_libraries(featurizer: Featurizer) -> None:
    """Import what the stages use, so that their seconds do not count it."""
    import moyopy  # noqa: F401
    import vesin  # noqa: F401

    if featurizer.potentials is not None:
        import potnet.lattice  # noqa: F401


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


@contextmanager
def _advice() -> Iterator[None]:
    """Say what may be done about a process that was killed."""
    try:
        yield
    except ProcessKilled as error:
        raise CacheError(
            f"{error}; data.featurize_workers=1 works without further processes. Finished shards are kept"
        ) from error


def _no_bar(total: int) -> AbstractContextManager[Progress | None]:
    return nullcontext(None)
