"""Force fields of Li, Mo, Cu, Ni, Si and Ge with equal budgets of processor time: one table, one command.

    python benchmarks/mend_mlearn.py forces_mlearn.jsonl.gz study_data/mlearn.jsonl.gz
    python benchmarks/mlearn.py study_data/mlearn.jsonl.gz --json benchmarks/results/mlearn_cpu.json

A network first measures the processor time of some training steps, and then trains for as many epochs as fit
into the budget (`--minutes`; the learning rate falls to zero in the last one). What is fitted in closed form
takes what it takes. Finished runs are skipped and stopped ones go on, so the same command can be given
again; `--only REGEX` chooses runs, `--list` prints them, and without DATA the table of what has been done is
printed. `--cores` runs as many at a time, with one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import machine_info, print_table, save_json

ELEMENTS = ("Ni", "Cu", "Li", "Mo", "Si", "Ge")

STEPS = 40
"""By which the processor time of an epoch is measured."""

# Least squares choose what they choose within the training part, so none of it is kept for validation.
# Networks have widths at which an epoch of both takes about as long.
MODELS: dict[str, list[str]] = {
    "pair_splines": ["model=pair_splines", "data.split.val=0"],
    "cluster_expansion": ["model=cluster_expansion", "data.split.val=0"],
    "potnet_ff": [],
    "leignn": ["model=leignn", "model.width=48", "model.layers=2", "model.bins=24"],
}


# The stress of copper and nickel is some 2.7 GPa off the derivative of their energies (stress_offset.py), as
# with plane waves that are not complete. Energies of strained cells can follow where it has a low weight.
STRESS_WEIGHT = {"Ni": 0.005, "Cu": 0.05}


# Where errors are large: three sets of functions. The cutoff of the one with most of them, Å, was chosen by
# cross-validation (docs/forces.md).
MIDDLE = {"Mo": 4.5, "Si": 5.5, "Ge": 5.5}


def jobs() -> dict[str, list[str]]:
    """Settings of each run by its name."""
    found = {}
    for model, given in MODELS.items():
        for element in ELEMENTS:
            words = given
            also = [f"target.stress.weight={STRESS_WEIGHT[element]}"] if element in STRESS_WEIGHT else []
            if model == "cluster_expansion" and element in MIDDLE:
                also += ["features.neighbors.cutoff=7", f"model.more.0.cutoff={MIDDLE[element]}"]
                words = [word.replace("=cluster_expansion", "=cluster_expansion_large") for word in words]
            elif model == "cluster_expansion" and element == "Li":
                also.append("model.degrees=[12,12,12,12]")
            found[f"{model}_{element}"] = [f"data.element={element}", *words, *also]
    return found


def work(name: str, data: str, folder: Path, minutes: float) -> None:
    """Train one run in this process, or go on with it, and add up the processor time that it takes."""
    import torch

    torch.set_num_threads(1)
    import potnet

    folder.parent.mkdir(parents=True, exist_ok=True)
    account = folder.with_suffix(".json")
    spent = json.loads(account.read_text())["cpu_s"] if account.is_file() else 0.0
    words = [
        "experiment=mlearn",
        *jobs()[name],
        f"data.path={data}",
        "data.featurize_workers=1",
        "trainer.accelerator=cpu",
    ]
    started = time.process_time()
    try:
        if (folder / "checkpoints" / "last.ckpt").is_file():
            potnet.train(f"resume={folder}")
            return
        shutil.rmtree(folder, ignore_errors=True)
        if "data.split.val=0" not in words:
            words.append(f"trainer.max_epochs={epochs_of(words, folder, minutes)}")
            started = time.process_time()
        potnet.train(*words, folder=folder)
    finally:
        account.write_text(json.dumps({"cpu_s": spent + time.process_time() - started}))


def epochs_of(words: list[str], folder: Path, minutes: float) -> int:
    """How many epochs fit into the budget."""
    import potnet

    trial = folder.with_name(f"{folder.name}_trial")
    seconds = []
    for steps in (2, 2, STEPS):  # the first one imports and featurizes
        shutil.rmtree(trial, ignore_errors=True)
        begin = time.process_time()
        limits = [
            f"+trainer.limit_train_batches={steps}",
            "+trainer.limit_val_batches=2",
            "trainer.max_epochs=1",
        ]
        potnet.train(*words, *limits, folder=trial)
        seconds.append(time.process_time() - begin)
    split = json.loads((trial / "split.json").read_text())
    train, val = (len(split[part]) for part in ("train", "val"))
    shutil.rmtree(trial)
    # Validation of an energy with its first derivatives takes about 0.4 of a training step.
    epoch = (train + 0.4 * val) * (seconds[2] - seconds[1]) / (STEPS - 2)
    epochs = max(2, int(60 * minutes / epoch))
    print(f"{folder.name}: {epoch:.1f} s an epoch, {epochs} epochs", flush=True)
    return epochs


def start(name: str, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Begin a run in a process of its own."""
    options.runs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, options.data, "--work", name, "--runs", str(options.runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with (options.runs / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--minutes", str(options.minutes)], env=environment, stdout=log, stderr=log
        )


def finished(folder: Path) -> bool:
    """Whether a run is complete."""
    return (folder / "metrics.json").is_file()


def rows(runs: Path) -> Iterator[dict[str, Any]]:
    """Errors of finished runs."""
    for name in jobs():
        folder = runs / name
        if not finished(folder):
            continue
        content = json.loads((folder / "metrics.json").read_text())
        row: dict[str, Any] = {"model": name.rpartition("_")[0], "element": name.rpartition("_")[2]}
        for part in ("test", "val"):
            for key in ("energy", "forces", "stress"):
                found = (content.get(part) or {}).get(key) or {}
                row[f"{part}_{key}"] = found.get("mae") if found.get("labels", 1) else None
        table = folder / "metrics.csv"
        row["epochs"] = len(table.read_text().splitlines()) - 1 if table.is_file() else 0
        row["cpu_min"] = json.loads(folder.with_suffix(".json").read_text())["cpu_s"] / 60
        yield row


def report(runs: Path, result: Path | None) -> None:
    """A table of the errors: energy and forces on the test part, the stress on the validation part."""
    found = list(rows(runs))
    print_table(
        [
            {
                "model": row["model"],
                "element": row["element"],
                "meV/atom": f"{row['test_energy']:.2f}",
                "meV/Å": f"{row['test_forces']:.1f}",
                "GPa (validation)": f"{row['val_stress']:.3f}" if row["val_stress"] else None,
                "epochs": row["epochs"],
                "CPU min": f"{row['cpu_min']:.1f}",
            }
            for row in found
        ]
    )
    if result is not None:
        # Rows of runs that are elsewhere stay.
        here = {(row["model"], row["element"]) for row in found}
        before = json.loads(result.read_text())["rows"] if result.is_file() else []
        kept = [row for row in before if (row["model"], row["element"]) not in here]
        order = list(jobs())
        save_json(
            result,
            machine_info(),
            sorted([*kept, *found], key=lambda row: order.index(f"{row['model']}_{row['element']}")),
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", help="what mend_mlearn.py wrote")
    parser.add_argument("--minutes", type=float, default=8.0, help="of one core, for each network")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("multirun/mlearn"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", help="regular expression of names")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:24} {' '.join(words)}" for name, words in jobs().items()))
        return
    if options.data is None:
        report(options.runs, options.json)
        return
    options.runs, options.data = options.runs.absolute(), str(Path(options.data).absolute())
    if options.work:
        work(options.work, options.data, options.runs / options.work, options.minutes)
        return
    waiting = [name for name in jobs() if re.search(options.only, name) and not finished(options.runs / name)]
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            for name, process in list(running.items()):
                if process.poll() is not None:
                    print(f"{name}: status {process.returncode}", flush=True)
                    del running[name]
            while waiting and len(running) < options.cores:
                name = waiting.pop(0)
                running[name] = start(name, options)
            time.sleep(0.5)
    finally:
        for process in running.values():
            process.terminate()
    report(options.runs, options.json)


if __name__ == "__main__":
    main()
