"""Featurizing in several processes, a shard at a time.

A worker is a Python process with one thread that gets crystals through a socket, writes their shard, and
answers with its record. It is no process of `multiprocessing`, because those run the caller's script again
(which has to be written for that), outlive a parent that is killed, and leave the parent waiting when they
are killed themselves. Here either side sees at once that the other is gone: the socket is closed.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from potnet.crystals import Crystal
from potnet.data.errors import CacheError
from potnet.data.features.featurizer import Failure, Featurizer, Progress
from potnet.data.features.shards import ShardRecord, write_shard

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class ShardTask:
    """The crystals of one shard, which is still to be made."""

    number: int
    crystals: list[Crystal]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def can_be_shared(featurizer: Featurizer) -> bool:
    """Whether other processes can build this featurizer from its settings.

    They cannot where a class is defined in a script or a notebook, and on Windows, where sockets are not
    inherited.
    """
    parts = [*(featurizer.potentials or ()), featurizer.descriptor]
    plain = type(featurizer) is Featurizer and "__main__" not in {type(part).__module__ for part in parts}
    return plain and os.name == "posix" and bool(sys.executable)


def featurize_shards(
    tasks: Iterable[ShardTask],
    count: int,
    folder: Path,
    featurizer: Featurizer,
    skip: bool,
    progress: Progress | None = None,
) -> dict[int, ShardRecord]:
    """Featurize the crystals of each task and write its shard, in several processes.

    However it ends, the processes are gone afterwards. Shards that are finished stay.

    Args:
        tasks: The work; each is taken when a process is free.
        count: Number of processes, not more than tasks.
        folder: Of the cache.
        featurizer: Must be one that `can_be_shared`. Its `seconds` grow by the time that all processes spent.
        skip: Whether crystals that cannot be featurized are noted in the shard, rather than an error.
        progress: Told of crystals done.

    Returns:
        The records of the shards by number.

    Raises:
        CrystalError: A crystal cannot be featurized, and `skip` is false.
        OSError: A shard cannot be written.
        CacheError: A process was killed.
    """
    setup = {
        "settings": featurizer.settings(),
        "how": {"memory_mib": featurizer.memory_mib, "device": featurizer.device},
        "folder": folder,
        "skip": skip,
        "log_level": logging.getLogger("potnet").getEffectiveLevel(),
    }
    records: dict[int, ShardRecord] = {}
    remaining = iter(tasks)
    workers: list[_Worker] = []
    try:
        for _ in range(count):
            workers.append(_Worker(setup))
        # Only now, as a process takes its work when it has started, which takes seconds.
        for worker, task in zip(workers, remaining, strict=False):
            worker.give(task)
        busy = {worker.connection: worker for worker in workers if worker.task is not None}
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                kind, content = busy[connection].answer()
                if kind == "progress" and progress:
                    progress(content)
                elif kind == "log":
                    name, level, text = content
                    logging.getLogger(name).log(level, "%s", text)
                elif kind == "failed":
                    raise content
                elif kind == "done":
                    number, records[number], seconds = content
                    for stage, spent in seconds.items():
                        featurizer.seconds[stage] += spent
                    task_next = next(remaining, None)
                    if task_next is None:
                        del busy[connection]
                    else:
                        busy[connection].give(task_next)
    finally:
        for worker in workers:
            worker.stop()
    return records


class _Worker:
    """A process, as the one that started it sees it."""

    def __init__(self, setup: dict[str, Any]) -> None:
        path = [entry or os.getcwd() for entry in sys.path]
        environment = {**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": os.pathsep.join(path)}
        self.connection, theirs = multiprocessing.Pipe()
        command = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve({theirs.fileno()})"]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
                # Ctrl-C is for the process that was started by the user; it stops this one.
                start_new_session=True,
            )
        except OSError as error:
            raise CacheError(
                f"cannot start a process that featurizes: {error.strerror or error}; "
                "data.featurize_workers=1 works without"
            ) from error
        finally:
            theirs.close()
        self.task: ShardTask | None = None
        self._send(setup)

    def give(self, task: ShardTask) -> None:
        """Hand over work."""
        self.task = task
        self._send(task)

    def answer(self) -> tuple[str, Any]:
        """What the process says next."""
        try:
            answer: tuple[str, Any] = self.connection.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        return answer

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def _send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError:
            raise self._gone() from None

    def _gone(self) -> CacheError:
        status = self.process.wait()
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        at = ""
        if self.task is not None:
            largest = max(len(crystal) for crystal in self.task.crystals)
            at = f" at shard {self.task.number} (crystals of up to {largest} atoms)"
        memory = "; if memory ran out, use fewer processes" if -status == signal.SIGKILL else ""
        return CacheError(
            f"a process that featurizes {how}{at}{memory}: data.featurize_workers=1 works without further "
            "processes. Finished shards are kept"
        )


def serve(descriptor: int) -> None:
    """Be a worker: featurize what comes through a socket until it is closed."""
    import torch

    torch.set_num_threads(1)
    connection = Connection(descriptor)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    setup = inbox.get()
    logger = logging.getLogger("potnet")
    logger.addHandler(_Forward(connection))
    logger.setLevel(setup["log_level"])
    try:
        featurizer = Featurizer.from_settings(setup["settings"], **setup["how"])
        while True:
            _work(connection, inbox.get(), featurizer, setup["folder"], setup["skip"])
    except Exception as error:
        connection.send(("failed", _portable(error)))
        threading.Event().wait()  # to be stopped


def _receive(connection: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    """Pass on what comes, and end the process when the other side is gone, even in the midst of work."""
    while True:
        try:
            inbox.put(connection.recv())
        except (EOFError, OSError):
            os._exit(1)


def _work(connection: Connection, task: ShardTask, featurizer: Featurizer, folder: Path, skip: bool) -> None:
    featurizer.seconds = dict.fromkeys(featurizer.seconds, 0.0)
    failures: list[Failure] | None = [] if skip else None
    graphs = featurizer.featurize(
        task.crystals, failures, progress=lambda amount: connection.send(("progress", amount))
    )
    record = write_shard(folder, task.number, graphs, failures or ())
    connection.send(("done", (task.number, record, featurizer.seconds)))


def _portable(error: Exception) -> Exception:
    """The error as it can be sent; what nobody foresaw brings its traceback along."""
    trace = traceback.format_exc()
    if not isinstance(error, ValueError | OSError):
        error.add_note(f"in a process that featurizes:\n{trace}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"in a process that featurizes:\n{trace}")
    return error


class _Forward(logging.Handler):
    """Sends messages to the process that shows them."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        self.connection.send(("log", (record.name, record.levelno, record.getMessage())))
