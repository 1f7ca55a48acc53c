"""Predict very many crystals, on this machine or on a cluster: `potnet screen --help`.

The source is cut into tasks, workers read and predict them, and each task becomes one Parquet file, written
whole and then renamed. What is there is not done again, so the same command goes on where it stopped: no
crystal is lost, and none is there twice.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from potnet.config import ConfigError, check_arguments, did_you_mean, entry_point, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from potnet.screening.parts import Summary

TRIES = 3
"""How often workers may be killed before a screening gives up."""


def screen(
    source: str | Sequence[str],
    output: str,
    models: str | Sequence[str] | None = None,
    registry: str | None = None,
    where: str | None = None,
    sort: str | None = None,
    best: int = 20,
    workers: int | None = None,
    backend: Literal["processes", "ray"] = "processes",
    address: str | None = None,
    piece: int = 512,
    level: float = 0.9,
    device: str = "auto",
    box: float | None = None,
    plausibility: Literal["refuse", "warn", "ignore"] = "refuse",
    max_memory_gib: float | None = None,
) -> Summary:
    """Predict all crystals of a source into a folder of Parquet files, and find the best.

    Neither the crystals nor their names are held in memory, however many there are.

    Args:
        source: Files (CIF, POSCAR, JSON lines, CSV, Parquet, extended XYZ, ASE databases), folders, patterns.
        output: Folder; what an earlier call has finished in it is kept.
        models: See `potnet.load`; None is all models of the registry.
        registry: See `potnet.load`.
        where: Condition on the columns, such as "k_vrh>200 and formation_energy_per_atom<0"; of the best
            alone.
        sort: Column by which the best are chosen, the largest first; "-NAME" the smallest first. None is the
            first one of numbers.
        best: How many.
        workers: Processes that predict; None is one a usable core, with Ray as many as the cluster has room
            for.
        backend: "processes" of this machine, or "ray"; then all machines see `source` and `output` under the
            same names.
        address: Of the Ray cluster, as for `ray.init`; None is that of $RAY_ADDRESS, or Ray on this machine.
        piece: Crystals (or files) of one Parquet file.
        level: Of intervals.
        device: "cpu", "cuda", or "auto"; with Ray "auto" gives each worker a GPU if the cluster has any.
        box, plausibility, max_memory_gib: See `Predictor.predict`. Workers of a machine share its memory.

    Returns:
        The best rows, and how many crystals there are.

    Raises:
        ConfigError: A setting that makes no sense, or a folder of another screening.
        CrystalError: No such file, or none in a folder.
        DataError: Ray is not installed or cannot be reached, or a condition on a column that is not there.
        RuntimeError: Workers died again and again; what is finished is kept.
    """
    from filelock import FileLock

    from potnet.data.errors import ProcessKilled
    from potnet.data.features.workers import run_tasks, usable_cores
    from potnet.data.sources.where import Where
    from potnet.inference.intervals import check_level
    from potnet.predict import chosen_model
    from potnet.progress import progress_bar
    from potnet.screening.listing import Tasks, fingerprint, write_lists
    from potnet.screening.parts import (
        finished,
        remove_unfinished,
        same_screening,
        summary,
        write_manifest,
    )
    from potnet.screening.work import Worker

    for name, value in (("workers", workers), ("piece", piece), ("best", best)):
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value}: give at least 1")
    if not output or not source:
        raise ConfigError("source= and output= must not be empty: give paths")
    if address is not None and backend != "ray":
        raise ConfigError(f"address={address}: processes of this machine have none; give backend=ray too")
    check_level(level)
    condition = None if where is None else Where(where, "where")
    predictor, _ = chosen_model(None, models, registry, "cpu", ())
    empty = predictor.empty_table().columns
    numbers = [name for name, values in empty.items() if values.dtype != object]
    key = sort.removeprefix("-") if sort else numbers[0]
    if key not in numbers:
        raise ConfigError(f"sort={sort}: there is no column of numbers {key}{did_you_mean(key, numbers)}")
    if condition is not None:
        condition.check_columns(("id", "source", *empty, "flags"))
    folder = Path(output).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "source": fingerprint(source, folder),
        "targets": list(predictor.targets),
        "models": _identity(predictor),
        "piece": piece,
        "level": level,
        "box": box,
        "plausibility": plausibility,
    }
    lock = FileLock(folder / "_lock", blocking=False)
    with _alone(lock, folder):
        if not same_screening(folder, settings):
            write_lists(source, folder)
            write_manifest(folder, settings)
        remove_unfinished(folder)
        done = finished(folder)
        if done:
            print(f"{len(done)} parts are done already", file=sys.stderr)
        if backend == "processes":
            workers = workers or usable_cores()
        share = workers if backend == "processes" else None
        worker = Worker(predictor, folder, level, device, box, plausibility, max_memory_gib, share)
        tasks = Tasks(folder, piece, done)
        gpus = {"cpu": False, "auto": None}.get(device, True)
        try:
            with progress_bar(None, "Screening") as advance:
                if workers == 1 and backend == "processes":
                    for task in tasks:
                        advance(worker(task))
                else:
                    most = workers or 2**20
                    for count in run_tasks(worker, tasks, most, backend, address, TRIES, gpus):
                        advance(count)
        except ProcessKilled as error:
            raise RuntimeError(
                f"{error.how}, again and again; {folder} has what is finished. If memory ran out, take fewer "
                "workers or a smaller piece; give the command again to go on"
            ) from error
        for task in Tasks(folder, piece, finished(folder)):
            raise RuntimeError(f"{task} was not finished; give the command again to go on")
    return summary(folder, condition, key, best, smallest=(sort or "").startswith("-"))


@contextmanager
def _alone(lock: Any, folder: Path) -> Iterator[None]:
    """Be the only one who screens into a folder."""
    from filelock import Timeout

    try:
        with lock:
            yield
    except Timeout:
        raise ConfigError(f"output={folder}: another process is screening into it; wait for it") from None


def _identity(predictor: Any) -> str:
    """Of the weights: a folder is not gone on with by other networks."""
    digest = hashlib.sha256()
    models = getattr(predictor, "models", {"": predictor})
    for name, model in models.items():
        digest.update(name.encode())
        members = getattr(model, "members", [(model.model, model.scalers)])
        for network, scalers in members:
            for part in (network, scalers):
                for key, value in part.state_dict().items():
                    digest.update(key.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


@entry_point("screen")
def main(config: DictConfig) -> None:
    """Screen as the command line says."""
    from potnet.screening.parts import FAILURE

    settings = plain(config)
    check_arguments(screen, settings)
    found = screen(**settings)
    if found.best:
        names = [name for name in found.best[0] if name != FAILURE]
        texts = [names, *([_shown(row[name]) for name in names] for row in found.best)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        for line in texts:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    else:
        print("no crystal fulfils the condition")
    print(
        f"{found.predicted} crystals ({found.flagged} with flags), {found.failed} failures: "
        f"{settings['output']}/part-*.parquet"
    )


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


if __name__ == "__main__":
    main()
