"""Tasks on a Ray cluster, by Ray Data: it streams them, starts processes where there is room, and does again
what was lost with a machine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from potnet.data.errors import DataError, ProcessKilled

_TASK, _OUTCOME = "task", "outcome"


def run_on_ray(
    call: Callable[[Any], Any], tasks: Iterable[Any], workers: int, address: str | None, gpus: bool | None
) -> Iterator[Any]:
    """See `run_tasks`. A cluster that is started here ends with the last result.

    Args:
        call: Called with each task, in a process that keeps it; it raises nothing.
        tasks, workers, address, gpus: As there.

    Raises:
        DataError: Ray is not installed, or there is no cluster at the address.
        ProcessKilled: Ray gave up.
    """
    if find_spec("ray") is None:
        raise DataError(
            'backend=ray needs Ray, which is not installed: pip install "potnet[ray]", or take '
            "backend=processes"
        )
    import ray

    started = not ray.is_initialized()
    if started:
        _connect(address)
    try:
        for row in _dataset(call, tasks, workers, gpus).iter_batches(
            batch_size=None, prefetch_batches=0, batch_format="pyarrow"
        ):
            for packed in row.column(_OUTCOME).to_pylist():
                yield _unpacked(packed)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1][-300:]
        raise ProcessKilled(f"Ray could not finish ({reason})") from error
    finally:
        if started:
            ray.shutdown()


def _connect(address: str | None) -> None:
    import ray

    # Ray would report on its use over the network.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"address": address}
    if not (address or os.environ.get("RAY_ADDRESS")) or address == "local":
        # Ray's processes have niceness 15 otherwise: beside other work on this machine they hardly begin.
        options |= {"include_dashboard": False, "_system_config": {"worker_niceness": 0}}
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
    except Exception as error:  # also plain ones, such as that it did not start in time
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"address={address}: Ray cannot be reached or started ({reason}). Give auto for the cluster that "
            "this machine belongs to, HOST:PORT for another one, or null to start Ray here"
        ) from error


def _dataset(call: Callable[[Any], Any], tasks: Iterable[Any], workers: int, gpus: bool | None) -> Any:
    """The outcomes, as a data set of Ray that is computed while it is read."""
    import ray.data

    context = ray.data.DataContext.get_current()
    # A task is a block of its own: it is what a process takes, and what is done again when one is lost.
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if isinstance(tasks, Iterator):
        tasks = list(tasks)
    seed = ray.data.from_items([{"all": _packed(tasks)}], override_num_blocks=1)
    # Handing out needs no core of its own, or on a small cluster nobody would be left to work.
    handed = seed.map_batches(_hand_out, batch_size=1, batch_format="pyarrow", num_cpus=0)
    there = ray.cluster_resources()
    if gpus is None:
        gpus = there.get("GPU", 0) >= 1
    room = int(there.get("GPU" if gpus else "CPU", 1))
    strategy = ray.data.ActorPoolStrategy(
        min_size=max(1, min(workers, room)), max_size=workers, max_tasks_in_flight_per_actor=2
    )
    return handed.map_batches(
        _Worker,
        fn_constructor_args=(_packed(call),),
        batch_size=1,
        batch_format="pyarrow",
        compute=strategy,
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )


def _hand_out(batch: Any) -> Iterator[Any]:
    import pyarrow

    for tasks in batch.column("all").to_pylist():
        for task in _unpacked(tasks):
            yield pyarrow.table({_TASK: pyarrow.array([_packed(task)], pyarrow.large_binary())})


class _Worker:
    """What a process of Ray does with the tasks that it gets."""

    def __init__(self, call: bytes) -> None:
        self.call = _unpacked(call)

    def __call__(self, batch: Any) -> Any:
        import pyarrow

        outcomes = [_packed(self.call(_unpacked(task))) for task in batch.column(_TASK).to_pylist()]
        return pyarrow.table({_OUTCOME: pyarrow.array(outcomes, pyarrow.large_binary())})


def _packed(value: Any) -> bytes:
    import cloudpickle

    return cloudpickle.dumps(value)


def _unpacked(value: bytes) -> Any:
    import pickle

    return pickle.loads(value)
