"""The same function for many tasks, in other processes: on this machine, or on a cluster by Ray.

On this machine the processes are those of loky: they do not run the caller's script again, take functions and
classes that were defined in a notebook, and say so when one of them is killed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any, Generic, TypeVar

from potnet.config.suggest import did_you_mean
from potnet.data.errors import CacheError, DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

BACKENDS = ("processes", "ray")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_WATCH_SECONDS = 0.5


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    backend: str = "processes",
) -> Iterator[Result]:
    """Call a function for each task in other processes, each with one thread.

    Tasks are taken one by one as processes become free, so `tasks` may be a long generator. However it ends,
    by an error or because the caller stops, the processes are gone afterwards. What the function logs below
    `potnet` is logged here, and an error that it raises is raised here.

    Args:
        function: Called with one task; it and the tasks are pickled (by cloudpickle).
        tasks: Each with a `str` that names it in messages.
        workers: Number of processes at a time.
        backend: "processes" of this machine, or "ray" for a cluster whose machines share the folders that the
            function reads and writes.

    Yields:
        Results, in the order in which they are done.

    Raises:
        DataError: An unknown backend, or one that is not installed.
        CacheError: A process was killed.
    """
    if backend == "ray":
        return _by_ray(function, iter(tasks), workers)
    if backend == "processes":
        return _by_processes(function, iter(tasks), workers)
    raise DataError(f"data.featurize_backend={backend}{did_you_mean(backend, BACKENDS)}")


def _by_processes(
    function: Callable[[Task], Result], tasks: Iterator[Task], workers: int
) -> Iterator[Result]:
    from loky import ProcessPoolExecutor
    from loky.process_executor import BrokenProcessPool

    executor = ProcessPoolExecutor(
        max_workers=workers,
        initializer=_begin,
        initargs=(os.getpid(),),
        env=dict.fromkeys(_THREADS, "1"),
    )
    call = _Call(function, logging.getLogger("potnet").getEffectiveLevel())
    running: dict[Future[_Outcome[Result]], Task] = {}
    try:
        running.update((executor.submit(call, task), task) for task in islice(tasks, workers))
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    outcome = future.result()
                except BrokenProcessPool as error:
                    raise _killed(error, list(running.values())) from None
                del running[future]
                yield outcome.value()
                running.update((executor.submit(call, task), task) for task in islice(tasks, 1))
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def _by_ray(function: Callable[[Task], Result], tasks: Iterator[Task], workers: int) -> Iterator[Result]:
    if find_spec("ray") is None:
        raise DataError(
            'data.featurize_backend=ray needs Ray, which is not installed: pip install "potnet[ray]", or '
            "take "
            "data.featurize_backend=processes"
        )
    import ray

    if not ray.is_initialized():
        # RAY_ADDRESS names a cluster; without it Ray starts one on this machine.
        ray.init(log_to_driver=False, include_dashboard=False)
    wrapped = _Call(function, logging.getLogger("potnet").getEffectiveLevel())

    def call(task: Task) -> _Outcome[Result]:
        return wrapped(task)

    remote = ray.remote(num_cpus=1, max_retries=3)(call)
    running = {remote.remote(task): task for task in islice(tasks, workers)}
    try:
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            task = running.pop(ready)
            try:
                outcome = ray.get(ready)
            except ray.exceptions.RayError as error:
                raise CacheError(
                    f"Ray could not finish {task}: {' '.join(str(error).split())[:300]}. Finished shards are "
                    f"kept"
                ) from error
            yield outcome.value()
            running.update((remote.remote(task), task) for task in islice(tasks, 1))
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


@dataclass(frozen=True)
class _Outcome(Generic[Result]):
    """What came of a task: a result or an error, and what was logged."""

    result: Result | None
    error: Exception | None
    messages: tuple[tuple[str, int, str], ...]

    def value(self) -> Result:
        for name, level, text in self.messages:
            logging.getLogger(name).log(level, "%s", text)
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


@dataclass(frozen=True)
class _Call(Generic[Task, Result]):
    """The function, as another process calls it."""

    function: Callable[[Task], Result]
    log_level: int

    def __call__(self, task: Task) -> _Outcome[Result]:
        import torch

        torch.set_num_threads(1)
        logger = logging.getLogger("potnet")
        handler = _Keep()
        logger.addHandler(handler)
        logger.setLevel(self.log_level)
        try:
            return _Outcome(self.function(task), None, tuple(handler.messages))
        except Exception as error:
            if not isinstance(error, ValueError | OSError):
                error.add_note(f"in another process:\n{traceback.format_exc()}")
            return _Outcome(None, error, tuple(handler.messages))
        finally:
            logger.removeHandler(handler)


class _Keep(logging.Handler):
    """Keeps messages for the process that shows them."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append((record.name, record.levelno, record.getMessage()))


def _begin(parent: int) -> None:
    """In a new process: leave Ctrl-C to the one that started it, and end when that one is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.name == "posix":
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _killed(error: BaseException, tasks: Sequence[Any]) -> CacheError:
    text = str(error)
    how = "was killed by SIGKILL" if "SIGKILL" in text else "ended unexpectedly"
    memory = "; if memory ran out, use fewer processes" if "SIGKILL" in text else ""
    at = " or ".join(map(str, tasks))
    return CacheError(
        f"a process {how} at {at}{memory}: data.featurize_workers=1 works without further processes. "
        f"Finished "
        "shards are kept"
    )
