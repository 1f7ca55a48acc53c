"""Force fields of Li, Mo, Cu, Ni, Si and Ge with equal budgets: one run a core, as long as there is time.

    python benchmarks/mlearn.py DATA --cores 16 --seconds 540 --runs multirun/mlearn --output mlearn.tar.gz

DATA is `forces_mlearn.jsonl.gz`. Every run has one thread on a core of its own. It first measures its speed
on a few batches, then trains for as many epochs as fit (the learning rate falls to zero in the last one), and
evaluates its best checkpoint. Finished runs are skipped and stopped ones go on, so the same command can be
given again. The archive has metrics, logs and exported weights of all runs. `--only REGEX` chooses runs,
`--list` prints them; without DATA it prints the table of what has been done.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

RESERVE = 45.0
"""Seconds at the end: for the evaluation, a margin, and packing."""

STOP = 35.0
"""Seconds before the end when a run that still trains is told to stop; it then evaluates what it has."""

TRIAL = 40
"""Batches by which the speed is measured."""

SMALL = ("metrics.json", "metrics.csv", "config.yaml", "error.txt", "weights.safetensors", "run.log")


def jobs() -> dict[str, list[str]]:
    """Settings of each run by its name, the most telling first."""
    elements = ("Si", "Cu", "Mo", "Ni", "Ge", "Li")
    # Sizes at which an epoch of both takes about as long.
    leignn = ["model=leignn", "model.width=48", "model.layers=2", "model.bins=24"]
    found = {f"potnet_ff_{element}": [f"data.element={element}"] for element in elements}
    found |= {f"leignn_{element}": [f"data.element={element}", *leignn] for element in elements}
    found |= {f"potnet_ff_Si_seed{seed}": ["data.element=Si", f"seed={seed}"] for seed in (1, 2)}
    found["leignn_direct_Si"] = [
        "data.element=Si",
        *leignn,
        "target.forces.derived_from=null",
        "~target.stress",
    ]
    found["potnet_ff_long_Si"] = ["data.element=Si", "model=potnet_ff", "model.long_range=[coulomb,london]"]
    return found


def work(name: str, data: str, folder: Path, end: float) -> None:
    """Train one run in this process until `end` (seconds since the epoch)."""
    import torch

    torch.set_num_threads(1)
    import potnet
    from potnet.runs.checkpoint import export

    words = [
        "experiment=mlearn",
        *jobs()[name],
        f"data.path={data}",
        "data.featurize_workers=1",
        "trainer.accelerator=cpu",
    ]
    last = folder / "checkpoints" / "last.ckpt"
    table, wanted = folder / "metrics.csv", [0]

    def stop() -> None:
        # Only while it trains: the signal would end an evaluation.
        rows = len(table.read_text().splitlines()) - 1 if table.is_file() else 0
        if wanted[0] and rows < wanted[0]:
            os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(max(1.0, end - STOP - time.time()), stop)
    timer.daemon = True
    timer.start()
    if last.is_file():
        with (folder / "config.yaml").open() as file:
            wanted[0] = int(re.search(r"max_epochs: (\d+)", file.read()).group(1))  # type: ignore[union-attr]
        potnet.train(f"resume={folder}")
    else:
        trial = folder.with_name(f"{folder.name}_trial")
        for old in (trial, folder):
            shutil.rmtree(old, ignore_errors=True)
        limits = [f"+trainer.limit_{part}_batches={TRIAL}" for part in ("train", "val")]
        potnet.train(*words, *limits, "trainer.max_epochs=1", folder=trial)
        with (trial / "metrics.csv").open() as file:
            row = next(csv.DictReader(file))
        with (trial / "split.json").open() as file:
            split = json.load(file)
        train, val = (len(split[part]) for part in ("train", "val"))
        # Validation of an energy with its first derivatives takes about 0.4 of a training step.
        epoch = (train + 0.4 * val) / float(row["crystals_per_second"])
        epochs = max(2, int(0.93 * (end - RESERVE - time.time()) / epoch))
        print(f"{name}: {epoch:.1f} s an epoch, {epochs} epochs", flush=True)
        wanted[0] = epochs
        potnet.train(*words, f"trainer.max_epochs={epochs}", folder=folder)
        shutil.rmtree(trial, ignore_errors=True)
    export(folder, folder / "weights.safetensors")


def start(name: str, core: int | None, options: argparse.Namespace, end: float) -> subprocess.Popen[bytes]:
    """Begin a run on a core."""
    folder = options.runs / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        __file__,
        options.data,
        "--work",
        name,
        "--end",
        str(end),
        "--runs",
        str(options.runs),
    ]
    if core is not None and shutil.which("taskset"):
        command = ["taskset", "-c", str(core), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with (options.runs / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, process_group=0
        )


def finished(folder: Path) -> bool:
    """Whether a run is complete."""
    return (folder / "metrics.json").is_file() and (folder / "weights.safetensors").is_file()


def pack(options: argparse.Namespace, limit: int = 9_500_000) -> None:
    """Small files and weights of all runs, up to a size; metrics come first."""
    with tarfile.open(options.output, "w:gz") as archive:
        for small in (True, False):
            for name in jobs():
                files = [options.runs / f"{name}.log"] if small else []
                files += [
                    options.runs / name / file for file in SMALL if file.endswith("safetensors") != small
                ]
                for file in files:
                    if file.is_file() and options.output.stat().st_size + file.stat().st_size < limit:
                        archive.add(file, str(file.relative_to(options.runs)))
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB", flush=True)


def report(runs: Path) -> None:
    """A table of the errors on the test part."""
    print(f"{'run':24} {'meV/atom':>9} {'meV/Å':>8} {'GPa':>8} {'epochs':>6} {'min':>5}")
    for name in jobs():
        file = runs / name / "metrics.json"
        if not file.is_file():
            continue
        content = json.loads(file.read_text())
        figures = [
            content["test"].get(key, {}).get("mae", float("nan")) for key in ("energy", "forces", "stress")
        ]
        with (runs / name / "metrics.csv").open() as table:
            rows = list(csv.DictReader(table))
        minutes = sum(float(row["seconds"]) for row in rows) / 60
        print(f"{name:24} {figures[0]:9.3f} {figures[1]:8.2f} {figures[2]:8.3f} {len(rows):6} {minutes:5.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", help="forces_mlearn.jsonl.gz")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=540.0, help="for everything")
    parser.add_argument("--runs", type=Path, default=Path("multirun/mlearn"))
    parser.add_argument("--output", type=Path, default=Path("mlearn.tar.gz"))
    parser.add_argument("--only", default="", help="regular expression of names")
    parser.add_argument("--unpinned", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--end", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:24} {' '.join(words)}" for name, words in jobs().items()))
        return
    if options.data is None:
        report(options.runs)
        return
    if options.work:
        work(options.work, options.data, (options.runs / options.work).absolute(), options.end)
        return
    options.runs, options.data = options.runs.absolute(), str(Path(options.data).absolute())
    end = time.time() + options.seconds
    waiting = [name for name in jobs() if re.search(options.only, name) and not finished(options.runs / name)]
    # Each core gets its share of the time for each of its runs.
    rounds = -(-len(waiting) // options.cores)
    share = options.seconds / max(rounds, 1)
    running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
    while (waiting or running) and time.time() < end - 8:
        for core in range(options.cores):
            if core in running:
                name, process = running[core]
                if process.poll() is None:
                    continue
                print(f"{name}: status {process.returncode}", flush=True)
                del running[core]
            if waiting and end - time.time() > 0.7 * share:
                name, limit = waiting.pop(0), min(end, time.time() + share)
                running[core] = name, start(name, None if options.unpinned else core, options, limit)
        time.sleep(1)
    for _, process in running.values():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    pack(options)
    report(options.runs)


if __name__ == "__main__":
    main()
