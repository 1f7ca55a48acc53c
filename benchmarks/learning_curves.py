# ruff: noqa: E501  (lines of text)
"""Learning curves from 20 to 1 000 labels: new networks against ones fine-tuned from `formation_energy`.

    python benchmarks/learning_curves.py --data DATA                     # what is not finished, and the report
    python benchmarks/learning_curves.py --data DATA --only 'gap-.*-0$'  # some of the runs
    python benchmarks/learning_curves.py --report                          # table and plot of what is finished

DATA is a folder with matbench_phonons.jsonl.gz and jarvis_dft_3d_small.jsonl.gz; shear moduli come with potnet.
Writes benchmarks/results/learning_curves.json, docs/learning_curves.md and docs/images/learning_curves.png.

A run has a budget of N labels: 80 % of them train, 20 % choose the best epoch. The N labels of a seed are the
first N of one order of all labels, so that smaller budgets are parts of larger ones, and both methods get the
same. The test part is the same for all runs of a task; no formula of it is among the labels. Both methods do
the same number of optimizer steps, chosen beforehand, with the learning rates of `potnet train` (new) and
`potnet finetune`. Runs are those of `potnet.train`; finished ones are skipped, and features are computed once.
"""  # fmt: skip

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _common import machine_info, print_header, save_json

SIZES = (20, 50, 100, 200, 500, 1000)
SEEDS = (0, 1, 2)
STEPS = {20: 150, 50: 200, 100: 250, 200: 300, 500: 400, 1000: 600}
"""Optimizer steps of a run by its labels."""
METHODS = {"new": ("optimizer.learning_rate=2e-3",),
           "finetuned": ("finetune.from=formation_energy", "optimizer.learning_rate=1e-3")}  # fmt: skip
BATCH = 16
VALIDATIONS = 12
"""How often a run is validated, at most."""

COST = "cost.json"
"""In the folder of a run, written last: its processor time."""

RESULTS = Path("benchmarks/results/learning_curves.json")
PAGE = Path("docs/learning_curves.md")
PLOT = Path("docs/images/learning_curves.png")


@dataclass(frozen=True)
class Task:
    """What is learned.

    Attributes:
        title: For people.
        unit: Of the error.
        file: In the folder of data; None is the embedded set.
        column: Of the label there.
        target: Option of conf/target.
        test: Crystals of the test part, about; of the embedded set it is the one that comes with it.
    """

    title: str
    unit: str
    file: str | None
    column: str
    target: str
    test: int = 0


TASKS = {
    "g_vrh": Task("shear modulus (embedded set)", "log10(GPa)", None, "g_vrh", "g_vrh"),
    "phonons": Task(
        "phonon peak (matbench_phonons)",
        "cm⁻¹",
        "matbench_phonons.jsonl.gz",
        "last_phdos_peak",
        "phonon_peak",
        265,
    ),
    "gap": Task(
        "band gap (JARVIS-DFT, part)",
        "eV",
        "jarvis_dft_3d_small.jsonl.gz",
        "optb88vdw_bandgap",
        "band_gap_opt",
        139,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One run."""

    task: str
    labels: int
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Such as g_vrh-0100-finetuned-0."""
        return f"{self.task}-{self.labels:04}-{self.method}-{self.seed}"


def jobs() -> list[Job]:
    """All runs; those that complete a seed first."""
    return [Job(task, n, method, seed)
            for seed in SEEDS for task in TASKS for n in SIZES for method in METHODS]  # fmt: skip


def reduced_formula(z: list[int]) -> str:
    """Elements with their numbers, divided by what divides all of them."""
    counts = Counter(z)
    divisor = math.gcd(*counts.values())
    return " ".join(f"{element}:{count // divisor}" for element, count in sorted(counts.items()))


def parts_of(task: Task, tables: Path | None) -> tuple[list[str], list[str]]:
    """Ids that may be labels, and those of the test part."""
    if task.file is None:
        from potnet.data import EmbeddedSource

        split = EmbeddedSource().load().split or {}
        return [id for id, part in split.items() if part != "test"], [
            id for id, part in split.items() if part == "test"
        ]
    if tables is None:
        raise SystemExit(f"--data FOLDER is needed: it holds {task.file}")
    groups: dict[str, list[str]] = {}
    with gzip.open(tables / task.file, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            if row[task.column] is not None:
                groups.setdefault(reduced_formula(row["z"]), []).append(row["id"])
    pool: list[str] = []
    test: list[str] = []
    for formula in sorted(groups, key=lambda formula: hashlib.sha256(formula.encode()).digest()):
        (test if len(test) + len(groups[formula]) <= task.test else pool).extend(groups[formula])
    return pool, test


def split_of(job: Job, pool: list[str], test: list[str]) -> dict[str, list[str]]:
    """The parts of a run; every fifth label validates."""
    order = sorted(pool, key=lambda id: hashlib.sha256(f"{job.seed}:{id}".encode()).digest())[: job.labels]
    return {
        "train": [id for n, id in enumerate(order) if n % 5],
        "val": order[::5],
        "test": test,
    }


def words_of(job: Job, split: Path, cache: Path, tables: Path | None) -> list[str]:
    """Words of `potnet train`."""
    task = TASKS[job.task]
    steps_an_epoch = math.ceil(0.8 * job.labels / BATCH)
    epochs = math.ceil(STEPS[job.labels] / steps_an_epoch)
    every = math.ceil(epochs / VALIDATIONS)
    data = (
        ["data=embedded"]
        if task.file is None
        else [
            "data=table",
            f"data.source.path={tables and (tables / task.file).absolute()}",
            f"data.source.targets={{{task.target}: {task.column}}}",
        ]
    )
    return [
        *data,
        f"target={task.target}",
        "split=file",
        f"data.split.path={split.absolute()}",
        f"data.cache_dir={cache.absolute()}",
        "data.featurize_workers=1",
        f"data.batch_size={BATCH}",
        f"seed={job.seed}",
        f"trainer.max_epochs={every * math.ceil(epochs / every)}",  # so that the last epoch is validated
        f"trainer.check_val_every_n_epoch={every}",
        "trainer.accelerator=cpu",
        *METHODS[job.method],
    ]


def run(job: Job, folder: Path, tables: Path | None, parts: dict[str, Any]) -> None:
    """Train, unless it is finished. What an interrupted run left is begun anew: a run takes half a minute."""
    import potnet

    place = folder / "runs" / job.name
    if (place / COST).is_file():
        return
    shutil.rmtree(place, ignore_errors=True)
    if job.task not in parts:
        parts[job.task] = parts_of(TASKS[job.task], tables)
    split = folder / "splits" / f"{job.task}-{job.labels:04}-{job.seed}.json"
    split.parent.mkdir(parents=True, exist_ok=True)
    split.write_text(json.dumps(split_of(job, *parts[job.task])))
    said = io.StringIO()
    started = time.process_time()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            potnet.train(*words_of(job, split, folder / "cache", tables), folder=place)
    except BaseException:
        print(said.getvalue()[-2000:])
        raise
    (place / COST).write_text(json.dumps({"cpu_seconds": round(time.process_time() - started, 1)}))
    row = row_of(job, folder)
    assert row is not None
    print(
        f"{job.name}: test MAE {row['test_mae']:.4g} {TASKS[job.task].unit}, {row['cpu_seconds']:.0f} s",
        flush=True,
    )


def row_of(job: Job, folder: Path) -> dict[str, Any] | None:
    """Figures of a finished run."""
    from potnet.runs.folder import RunFolder

    place = folder / "runs" / job.name
    metrics = RunFolder(place).metrics() if (place / COST).is_file() else None
    if metrics is None:
        return None
    target = TASKS[job.task].target
    return {
        "task": job.task,
        "labels": job.labels,
        "method": job.method,
        "seed": job.seed,
        "val_mae": metrics["val"][target]["mae"],
        "test_mae": metrics["test"][target]["mae"],
        "test_n": metrics["test"][target]["n"],
        "parameters": metrics["parameters"],
        "cpu_seconds": json.loads((place / COST).read_text())["cpu_seconds"],
    }


def means(rows: list[dict[str, Any]], task: str, method: str) -> dict[int, list[float]]:
    """Test errors of the seeds by the number of labels."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row["task"] == task and row["method"] == method:
            found.setdefault(row["labels"], []).append(row["test_mae"])
    return dict(sorted(found.items()))


def labels_for(error: float, curve: dict[int, float]) -> str:
    """How many labels a curve needs for an error: between its points straight in the logarithms."""
    sizes = sorted(curve)
    if not sizes:
        return "-"
    if curve[sizes[0]] <= error:
        return f"≤ {sizes[0]}"
    for low, high in itertools.pairwise(sizes):
        if curve[high] <= error:
            share = math.log(curve[low] / error) / math.log(curve[low] / curve[high])
            return f"{math.exp(math.log(low) + share * math.log(high / low)):.0f}"
    return f"> {sizes[-1]}"


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3g}{deviation}"


def page(rows: list[dict[str, Any]], info: dict[str, Any]) -> str:
    """docs/learning_curves.md."""
    lines = [
        "# How many labels fine-tuning saves",
        "",
        f"    {COMMAND}",
        "",
        f"{info['date'][:10]}, {info['cpu']}, one thread, torch {info['versions']['torch']}; {len(rows)} of "
        f"{len(jobs())} runs, {sum(row['cpu_seconds'] for row in rows) / 60:.0f} min of processor time. "
        "Written by that command.",
        "",
        "Test MAE, mean ± standard deviation over seeds (other labels, other initial weights). A budget of N "
        "labels is divided into 80 % that train and 20 % that choose the best epoch; smaller budgets are parts "
        "of larger ones; no formula of the test part is among the labels. new: random weights. fine-tuned: from "
        "`formation_energy` (its `finetune_member`), all weights trained. Both have the same network and the same "
        f"number of optimizer steps ({', '.join(f'{n} labels: {steps}' for n, steps in STEPS.items())}), with "
        f"batches of {BATCH}. The last column: the labels with which a new network has the error of the "
        "fine-tuned one, read off its curve.",
        "",
        "Many of these crystals, test parts included, are in the Materials Project too, so that the source has "
        "seen their structure with its formation energy, though never these labels.",
        "",
        f"![learning curves]({PLOT.relative_to(PAGE.parent)})",
    ]
    for key, task in TASKS.items():
        new, tuned = (means(rows, key, method) for method in METHODS)
        if not new and not tuned:
            continue
        count = next(row["test_n"] for row in rows if row["task"] == key)
        curve = {n: statistics.fmean(values) for n, values in new.items()}
        lines += ["", f"## {task.title[0].upper()}{task.title[1:]}", "",
                  f"{task.unit}; {count} test crystals.", "",
                  "| labels | new | fine-tuned | new needs |", "|---:|---|---|---:|"]  # fmt: skip
        for n in sorted({*new, *tuned}):
            needed = labels_for(statistics.fmean(tuned[n]), curve) if n in tuned else "-"
            cells = [spread(values[n]) if n in values else "-" for values in (new, tuned)]
            lines.append(f"| {n:,} | {cells[0]} | {cells[1]} | {needed} |")
    return "\n".join([*lines, ""])


COMMAND = "python benchmarks/learning_curves.py --data DATA"


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """One panel a task: mean over seeds, with each seed as a dot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (key, task) in zip(figure.subplots(1, len(TASKS)), TASKS.items(), strict=True):
        for method, label, color in (("new", "new", "C7"), ("finetuned", "fine-tuned", "C0")):
            errors = means(rows, key, method)
            if not errors:
                continue
            axes.plot(
                list(errors), [statistics.fmean(v) for v in errors.values()], "-o", color=color, label=label
            )
            for n, values in errors.items():
                axes.plot([n] * len(values), values, ".", color=color, alpha=0.4)
        axes.set(
            xscale="log", yscale="log", title=task.title, xlabel="labels", ylabel=f"test MAE, {task.unit}"
        )
        axes.set_xticks(SIZES, [str(n) for n in SIZES])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
        axes.tick_params(axis="y", which="both", labelsize=8)
        if axes.lines:
            axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def report(folder: Path) -> None:
    """Write what is finished."""
    info = machine_info("cpu")
    rows = [row for job in jobs() if (row := row_of(job, folder)) is not None]
    if not rows:
        raise SystemExit(f"{folder}: no run is finished")
    print_header("Learning curves", info)
    text = page(rows, info)
    print(text)
    plot(rows, PLOT)
    PAGE.write_text(text, encoding="utf-8")
    save_json(RESULTS, info, rows, command=COMMAND, steps=STEPS, batch=BATCH)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of the two tables")
    parser.add_argument("--folder", type=Path, default=Path("study_data/learning_curves"), help="of the runs")
    parser.add_argument("--only", default="", metavar="REGEX", help="runs whose name has this")
    parser.add_argument("--list", action="store_true", help="print the names of the runs, * if finished")
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()
    chosen = [job for job in jobs() if re.search(options.only, job.name)]
    if not chosen:
        raise SystemExit(f"--only {options.only}: no run has such a name; --list prints them")
    if options.list:
        for job in chosen:
            done = (options.folder / "runs" / job.name / COST).is_file()
            print(f"{job.name}{' *' if done else ''}")
        return
    if not options.report:
        parts: dict[str, Any] = {}
        for job in chosen:
            run(job, options.folder, options.data, parts)
    report(options.folder)


if __name__ == "__main__":
    main()
