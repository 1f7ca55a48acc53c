"""The same function for many tasks, in other processes: on this machine, or on a cluster by Ray.

On this machine the processes are those of loky: they do not run the caller's script again, take functions and
classes that were defined in a notebook, and say so when one of them is killed.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Generic, TypeVar

from potnet.config.suggest import did_you_mean
from potnet.data.errors import DataError, ProcessKilled

log = logging.getLogger(__name__)

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
    address: str | None = None,
    tries: int = 1,
    gpus: bool | None = False,
) -> Iterator[Result]:
    """Call a function for each task in other processes, each with one thread.

    Tasks are taken one by one as processes become free, so `tasks` may be long. However it ends, by an error
    or because the caller stops, the processes are gone afterwards. What the function logs below `potnet` is
    logged here, and an error that it raises is raised here.

    Args:
        function: Called with one task; it and the tasks are pickled (by cloudpickle).
        tasks: Each with a `str` that names it in messages. With Ray, `tasks` is pickled and iterated on the
            cluster, always in the same order; an iterator is made a list first.
        workers: Number of processes at a time. With Ray, which starts as many as the cluster has room for,
            at most.
        backend: "processes" of this machine, or "ray" for a cluster whose machines share the folders that the
            function reads and writes. Ray does a task again whose machine is lost.
        address: Of a Ray cluster, as for `ray.init`; None is that of $RAY_ADDRESS, or a new one on this
            machine.
        tries: How often processes of this machine may be killed before it is an error; their tasks are done
            again. Then a task may be done twice.
        gpus: With Ray, whether each process gets a GPU; None gives it one if the cluster has any.

    Yields:
        Results, in the order in which they are done.

    Raises:
        DataError: An unknown backend, or one that is not installed.
        ProcessKilled: Processes were killed as often as `tries`, or Ray gave up.
    """
    if backend == "ray":
        from potnet.data.features.ray_tasks import run_on_ray

        call = _Call(function, logging.getLogger("potnet").getEffectiveLevel())
        return (outcome.value() for outcome in run_on_ray(call, tasks, workers, address, gpus))
    if backend == "processes":
        return _by_processes(function, iter(tasks), workers, tries)
    raise DataError(f"backend={backend}{did_you_mean(backend, BACKENDS)}")


def _by_processes(
    function: Callable[[Task], Result], tasks: Iterator[Task], workers: int, tries: int
) -> Iterator[Result]:
    for attempt in range(1, tries + 1):
        try:
            yield from _by_one_pool(function, tasks, workers)
            return
        except ProcessKilled as error:
            if attempt == tries:
                raise
            log.warning("%s; %d tasks are done again", error.how, len(error.tasks))
            tasks = chain(error.tasks, tasks)


def _by_one_pool(function: Callable[[Task], Result], tasks: Iterator[Task], workers: int) -> Iterator[Result]:
    """In one pool of processes, which is gone when one of them is killed."""
    import cloudpickle
    from loky import ProcessPoolExecutor
    from loky.process_executor import BrokenProcessPool

    call = _Call(function, logging.getLogger("potnet").getEffectiveLevel())
    executor = ProcessPoolExecutor(
        max_workers=workers,
        initializer=_begin,
        initargs=(os.getpid(), cloudpickle.dumps(call)),
        env=dict.fromkeys(_THREADS, "1"),
    )
    running: dict[Future[_Outcome[Result]], Task] = {}
    try:
        running.update((executor.submit(_done, task), task) for task in islice(tasks, workers))
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    outcome = future.result()
                except BrokenProcessPool as error:
                    # What is done, and not yet reported, is not done again.
                    whole = [other for other in running if other.done() and other.exception() is None]
                    for other in whole:
                        del running[other]
                        yield other.result().value()
                    how = "was killed by SIGKILL" if "SIGKILL" in str(error) else "ended unexpectedly"
                    raise ProcessKilled(f"a process {how}", list(running.values())) from None
                del running[future]
                yield outcome.value()
                running.update((executor.submit(_done, task), task) for task in islice(tasks, 1))
    finally:
        executor.shutdown(wait=True, kill_workers=True)


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


_here: _Call[Any, Any] | None = None


def _done(task: Any) -> Any:
    """What comes of a task, in a process that `_begin` has prepared."""
    assert _here is not None
    return _here(task)


def _begin(parent: int, call: bytes) -> None:
    """In a new process: keep the function, leave Ctrl-C to the starting process, and end when it is gone."""
    global _here
    _here = pickle.loads(call)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.name == "posix":
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)
