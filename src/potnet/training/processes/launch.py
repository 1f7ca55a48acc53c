"""Starting the ranks of a run: one process for each device of this node.

Every run has ranks of its own, which get their settings in *their* environment: so neither environment nor
arguments nor process group of one job of a sweep can leak into the next. Where torchrun or srun starts the
ranks, this is not used.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GRACE = 20.0
"""Seconds that the other ranks have to end after one has failed, before they are killed."""

PROGRAM = "potnet.training.processes.worker"
"""Module that is run in each rank."""

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals passed on to the ranks, which see to them (`preemption.StopOnSignal`)."""

_ORDERLY = {0, *(128 + int(number) for number in FORWARDED)}
"""Exit statuses of ranks that ended normally or after a signal."""


class RankError(RuntimeError):
    """A rank failed or was killed. The message says which, why, and how to continue."""


def launch(config: Mapping[str, Any], folder: Path, resume: bool, count: int) -> float | None:
    """Run `potnet.train.train` in several ranks on this node, and wait for them.

    SIGTERM, SIGUSR1 and Ctrl-C are passed on, and the ranks keep everything before they end. If a rank fails
    or is killed, the others are ended. If this process is killed, the ranks end too.

    Args:
        config: Plain config of the run.
        folder: Of the run.
        resume: Continue from the folder's last checkpoint.
        count: Number of ranks.

    Returns:
        What `train` returns on the first rank.

    Raises:
        RankError: A rank failed; the first one to do so is named.
        SystemExit: The ranks ended because of a signal.
    """
    from torch.distributed import TCPStore

    # The ranks meet here; the system chooses a port that is free, and it is free again on return.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory(prefix="potnet_ranks_") as name:
        notes = Path(name)
        run = {"config": config, "folder": str(folder), "resume": resume}
        (notes / "run.json").write_text(json.dumps(run), encoding="utf-8")
        processes: list[subprocess.Popen[bytes]] = []
        orderly = set(_ORDERLY)
        failed: list[int] = []
        try:
            with _forwarding(processes, count, orderly) as send_late:
                for number in range(count):
                    processes.append(_start(number, count, store.port, notes))
                send_late()
                failed = _wait(processes, orderly)
        except SystemExit:
            # Raised by another's handler of a signal, such as submitit's before a job runs out of time.
            for process in processes:
                process.terminate()
            deadline = time.monotonic() + GRACE
            while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
                time.sleep(0.05)
            raise
        finally:
            _kill(processes)
        statuses = [process.returncode for process in processes]
        if failed:
            raise RankError(_explain(failed, processes, notes, folder))
        if any(statuses):
            sys.exit(max(status if status >= 0 else 128 - status for status in statuses))
        result: float | None = json.loads((notes / "result.json").read_text(encoding="utf-8"))
        return result


def _start(number: int, count: int, port: int, notes: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # As torchrun does: Lightning starts no processes of its own, and torch joins our store.
        "TORCHELASTIC_RUN_ID": "potnet",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    if sys.platform == "linux":  # whatever the name of this host resolves to
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return subprocess.Popen(
        [sys.executable, "-m", PROGRAM, str(notes)],
        env=environment,
        stdin=subprocess.PIPE,  # it closes when this process ends, however it ends
        process_group=0,  # Ctrl-C comes from here alone, once
    )


def _wait(processes: Sequence[subprocess.Popen[bytes]], orderly: set[int]) -> list[int]:
    """Return when all have ended; after a failure the others get SIGTERM, and have GRACE seconds.

    So they have where a signal ended a rank that did not listen yet: others may be waiting for it.

    Returns:
        The ranks that failed of themselves.
    """
    failed: list[int] = []
    deadline: float | None = None
    while True:
        statuses = [process.poll() for process in processes]
        signalled = any(status in orderly and status < 0 for status in statuses if status is not None)
        if not failed and not signalled:  # after either, failures of others follow from it
            failed = [n for n, status in enumerate(statuses) if status not in (None, *orderly)]
            if failed:
                for process in processes:
                    process.terminate()
        if None not in statuses:
            return failed
        if failed or signalled:
            deadline = deadline or time.monotonic() + GRACE
            if time.monotonic() > deadline:
                return failed
        time.sleep(0.05)


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


@contextmanager
def _forwarding(
    processes: Sequence[subprocess.Popen[bytes]], count: int, orderly: set[int]
) -> Iterator[Callable[[], None]]:
    """Pass signals on to the ranks; a second Ctrl-C ends this process, and so them, at once.

    A rank that a signal of ours ends, as it was not training yet, ended in an orderly way.

    Yields:
        To be called when all `count` ranks have been started: sends them what came before.
    """
    interrupts = 0
    late: list[int] = []

    def send(number: int) -> None:
        for process in processes:
            process.send_signal(number)

    def send_late() -> None:
        for number in late:
            send(number)

    def forward(number: int, frame: object) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            raise KeyboardInterrupt
        orderly.add(-number)
        if len(processes) < count:
            late.append(number)
        else:
            send(number)

    if threading.current_thread() is not threading.main_thread():
        yield send_late
        return

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield send_late
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _explain(
    failed: Sequence[int], processes: Sequence[subprocess.Popen[bytes]], notes: Path, folder: Path
) -> str:
    """Of several failures the first: the others follow from it, as ranks that wait for a dead one fail."""
    from potnet.config import pasteable
    from potnet.runs.folder import LAST, RunFolder

    errors = [json.loads(file.read_text(encoding="utf-8")) for file in notes.glob("error_*.json")]
    told = {error["rank"] for error in errors}
    silent = [number for number in failed if number not in told]
    foreseen = [error for error in errors if error["foreseen"]]
    if foreseen:
        return str(foreseen[0]["message"])
    if silent:
        process = processes[silent[0]]
        status = process.returncode
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        hint = ", perhaps for want of memory" if status == -signal.SIGKILL else ""
        message = f"rank {silent[0]} of {len(processes)} (process {process.pid}) {how}{hint}"
    else:
        error = min(errors, key=lambda error: error["time"])
        print(error["traceback"], file=sys.stderr)
        message = f"rank {error['rank']} of {len(processes)} failed ({error['message']})"
    message += "; the other ranks were ended."
    if RunFolder(folder).checkpoint((LAST,)) is None:
        return f"{message} There is no checkpoint yet: start a new run"
    return f"{message} Continue from the last checkpoint with potnet train {pasteable('resume', folder)}"
