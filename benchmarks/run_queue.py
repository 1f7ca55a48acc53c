"""Run a list of trainings, several at a time and each on a core of its own, as long as time allows.

    python benchmarks/run_queue.py benchmarks/queues/device.txt --cores 16 --seconds 480 --runs multirun

A line of the list is `MINUTES FOLDER OVERRIDES...`: how long the run takes on a core, roughly, its folder
below --runs, and what `potnet train` is told; `#` begins a comment. Lines are begun in their order,
but none that would not end in time. A finished run is skipped and one that stopped goes on, so the same
command can be given again. A run with `finetune.from=FOLDER` below --runs waits for the run there. At the end
of the time, or at Ctrl-C, what runs is told to stop, and keeps its last checkpoint.

--gpu-workers N lets N of the cores use the GPU. --results FILE.tar.gz collects the small files of all runs,
--weights FILE.tar.gz the networks, in half precision, of the runs whose folder fits the pattern --export.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SMALL = (
    "metrics.json",
    "metrics.csv",
    "predictions.csv",
    "config.yaml",
    "error.txt",
    ".hydra/overrides.yaml",
)
"""Files of a run that tell its result."""

STOPPING = 20.0
"""Seconds that runs have to write their last checkpoint."""


@dataclass
class Job:
    minutes: float
    folder: str
    overrides: list[str]
    state: str = "waiting"


class Queue:
    """Jobs, handed out to workers."""

    def __init__(self, jobs: list[Job], runs: Path, end: float, pinned: bool) -> None:
        self.jobs, self.runs, self.end, self.pinned = jobs, runs, end, pinned
        self.lock = threading.Lock()
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.factor = {"cpu": 1.0, "gpu": 0.3}
        """Time that runs took on each kind of device, divided by what the list says; at first a guess."""

    def next(self, kind: str) -> Job | None:
        while True:
            with self.lock:
                left = self.end - time.monotonic()
                late = False
                for job in self.jobs:
                    if job.state != "waiting" or 60 * job.minutes * self.factor[kind] > left:
                        continue
                    if self.begins_with(job) in {other.folder for other in self.unfinished()}:
                        late = True
                        continue
                    job.state = "running"
                    return job
            if not late:
                return None
            time.sleep(0.5)

    def unfinished(self) -> list[Job]:
        return [job for job in self.jobs if job.state in ("waiting", "running")]

    def begins_with(self, job: Job) -> str | None:
        """The folder, below `runs`, of the run whose weights a job begins with."""
        given = [word.partition("=")[2] for word in job.overrides if word.startswith("finetune.from=")]
        path = Path(given[0]).absolute() if given else None
        return str(path.relative_to(self.runs)) if path and path.is_relative_to(self.runs) else None

    def work(self, core: int, kind: str) -> None:
        failures = 0
        while (job := self.next(kind)) is not None:
            if (self.runs / job.folder / "metrics.json").is_file():
                job.state = "finished"
                continue
            started = time.monotonic()
            status = self.run(job, core, kind)
            took = time.monotonic() - started
            done = (self.runs / job.folder / "metrics.json").is_file()
            job.state = "finished" if done else "stopped" if time.monotonic() >= self.end else "failed"
            print(f"{job.state}: {job.folder} on {kind} {core}, {took:.0f} s, status {status}", flush=True)
            if done:
                with self.lock:
                    self.factor[kind] = took / (60 * job.minutes)
            elif job.state == "failed" and kind == "gpu":
                # It may be the GPU: another worker gets the job, and after two such this one does without.
                failures += 1
                job.state = "waiting"
                kind = "gpu" if failures < 2 else "cpu"

    def run(self, job: Job, core: int, kind: str) -> int:
        folder, name = os.path.split(job.folder)
        command = [
            *(sys.executable, "-m", "potnet.train", "-m", *job.overrides, f"trainer.accelerator={kind}"),
            *(f"hydra.sweep.dir={self.runs / folder}", f"hydra.sweep.subdir='{name}'"),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if kind == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""  # or every run would open the GPU to pin memory
        log = self.runs / "logs" / f"{job.folder.replace('/', '_')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *command] if self.pinned else command,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        with self.lock:
            self.processes.add(process)
        status = process.wait()
        with self.lock:
            self.processes.discard(process)
        return status

    def stop(self) -> None:
        with self.lock:
            self.end = min(self.end, time.monotonic())
            running = list(self.processes)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in running:
                if process.poll() is None:
                    os.killpg(process.pid, number)
            limit = time.monotonic() + STOPPING
            while time.monotonic() < limit and any(process.poll() is None for process in running):
                time.sleep(0.1)


def read(file: Path) -> list[Job]:
    """The jobs of a list.

    Raises:
        SystemExit: A line that is not `MINUTES FOLDER OVERRIDES...`.
    """
    jobs = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        words = shlex.split(line, comments=True)
        if not words:
            continue
        try:
            jobs.append(Job(float(words[0]), words[1], words[2:]))
        except (ValueError, IndexError):
            raise SystemExit(f"{file}:{number}: {line!r}: give MINUTES FOLDER OVERRIDES...") from None
    return jobs


def collect(jobs: list[Job], runs: Path, result: Path) -> None:
    """The small files of all runs in one archive."""
    with tarfile.open(result, "w:gz") as archive:
        for job in jobs:
            for name in SMALL:
                if (runs / job.folder / name).is_file():
                    archive.add(runs / job.folder / name, f"{job.folder}/{name}")
        for log in (runs / "logs").glob("*.log"):
            archive.add(log, f"logs/{log.name}")


def export(jobs: list[Job], runs: Path, result: Path, pattern: str, limit: float) -> None:
    """Best checkpoints in half precision, with what prediction and fine-tuning need, up to a limit in MiB."""
    import torch

    with tarfile.open(result, "w:gz") as archive:
        for job in jobs:
            file = runs / job.folder / "checkpoints" / "best.ckpt"
            if job.state != "finished" or not file.is_file() or not fnmatch.fnmatch(job.folder, pattern):
                continue
            whole = torch.load(file, map_location="cpu", weights_only=True)
            kept = {key: whole[key] for key in ("state_dict", "hyper_parameters", "potnet")}
            # The network in half precision; mean and deviation of the target stay as they are.
            kept["state_dict"] = {
                name: value.half() if value.dtype == torch.float32 else value
                for name, value in kept["state_dict"].items()
            }
            buffer = io.BytesIO()
            torch.save(kept, buffer)
            if result.stat().st_size + buffer.tell() > limit * 2**20:
                print(f"no room for the weights of {job.folder}", flush=True)
                continue
            entry = tarfile.TarInfo(f"{job.folder}/best.ckpt")
            entry.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(entry, buffer)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("list", type=Path)
    parser.add_argument(
        "--cores", required=True, help="how many, from core 0 on, or which: 1 or 0,2,3 with a comma"
    )
    parser.add_argument("--gpu-workers", type=int, default=0)
    parser.add_argument("--unpinned", action="store_true", help="runs may use all cores")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--runs", type=Path, default=Path("multirun"))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--export", default="*", metavar="PATTERN")
    parser.add_argument("--limit-mib", type=float, default=15.0, help="of the archive of weights")
    options = parser.parse_args()
    several = "," in options.cores
    cores = [int(n) for n in options.cores.split(",") if n] if several else list(range(int(options.cores)))
    jobs = read(options.list)
    options.runs = options.runs.absolute()
    queue = Queue(jobs, options.runs, time.monotonic() + options.seconds, not options.unpinned)
    workers = [
        threading.Thread(target=queue.work, args=(core, "gpu" if n < options.gpu_workers else "cpu"))
        for n, core in enumerate(cores)
    ]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: queue.stop())
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers) and time.monotonic() < queue.end:
        time.sleep(0.5)
    queue.stop()
    for worker in workers:
        worker.join()
    for job in jobs:
        print(f"{job.state:9} {job.folder}")
    if options.results:
        collect(jobs, options.runs, options.results)
    if options.weights:
        export(jobs, options.runs, options.weights, options.export, options.limit_mib)


if __name__ == "__main__":
    main()
