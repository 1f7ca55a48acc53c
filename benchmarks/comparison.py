"""The table of docs/comparison.md from the runs of a comparison.

    potnet train -m comparison=embedded hydra.sweep.dir=multirun/comparison
    python benchmarks/comparison.py multirun/comparison

Errors, parameters, epochs and seconds come from the folders of the runs. Time and memory of a prediction are
measured here, from the best checkpoint of one run of each model and target: crystals in memory to values,
features included, each model in a process of its own, whose memory before (torch, the network, two crystals
predicted) does not count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from _common import machine_info, median_time, peak_memory, print_header, print_table, save_json

import potnet
from potnet.data import EmbeddedSource
from potnet.runs.report import Run, collect
from potnet.runs.report.markdown import error_text
from potnet.runs.report.rows import Spread

#: Test MAE in log10(GPa) as PotNet's paper quotes it, on another release of the Materials Project.
PUBLISHED = {
    "CGCNN": {"k_vrh": 0.047, "g_vrh": 0.077},
    "SchNet": {"k_vrh": 0.066, "g_vrh": 0.099},
    "MEGNet": {"k_vrh": 0.060, "g_vrh": 0.099},
    "GATGNN": {"k_vrh": 0.045, "g_vrh": 0.075},
    "ALIGNN": {"k_vrh": 0.051, "g_vrh": 0.078},
    "Matformer": {"k_vrh": 0.043, "g_vrh": 0.073},
    "PotNet": {"k_vrh": 0.040, "g_vrh": 0.065},
    "PublishedPotNet": {"k_vrh": 0.040, "g_vrh": 0.065},
}


def finished_runs(folders: Iterable[Path]) -> dict[tuple[str, str], list[Run]]:
    """Finished runs by class of the model and key of the target."""
    found: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in collect(folders):
        if run.metrics is not None:
            found[run.config["model"]["_target_"].rpartition(".")[2], run.target["key"]].append(run)
    return found


def prediction_cost(run: Path, crystals: int, threads: int) -> dict[str, float]:
    """ms a crystal from its structure, and MiB at the peak."""
    torch.set_num_threads(threads)
    predictor = potnet.load(run, device="cpu")
    dataset = EmbeddedSource().load()
    chosen = list(dataset.crystals)[:: len(dataset.crystals) // crystals][:crystals]
    predictor.predict(chosen[:2])  # what is imported or compiled at the first call
    with peak_memory("cpu") as memory:
        timing = median_time(lambda: predictor.predict(chosen), repeats=3, warmup=0)
    return {"ms / crystal": 1e3 * timing.median / len(chosen), "MiB": memory["mib"]}


def row(model: str, target: str, runs: list[Run], options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    metrics = [run.metrics for run in runs if run.metrics is not None]
    seconds = [run.epoch_seconds for run in runs if run.epoch_seconds is not None]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        cost = pool.submit(prediction_cost, runs[0].folder, options.crystals, options.threads).result()
    return {
        "model": model,
        "target": target,
        "seeds": len(runs),
        "val MAE": error_text(Spread.of(m["val"][target]["mae"] for m in metrics)),
        "test MAE": error_text(Spread.of(m["test"][target]["mae"] for m in metrics)),
        "published": PUBLISHED.get(model, {}).get(target),
        "parameters": metrics[0].get("parameters"),
        "epochs": metrics[0].get("epochs"),
        "s / epoch": statistics.median(seconds) if seconds else None,
        "training s": statistics.median(m["seconds"]["train"] for m in metrics),
        **cost,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="+", type=Path, help="of the comparison, or of single runs")
    parser.add_argument("--crystals", type=int, default=64, help="predicted to measure time and memory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    runs = finished_runs(options.folder)
    if not runs:
        raise SystemExit(f"no finished run in {', '.join(map(str, options.folder))}: metrics.json is missing")
    info = machine_info("cpu")
    print_header("Comparison: MAE in the learned unit, mean ± standard deviation over the seeds", info)
    rows = [row(model, target, found, options) for (model, target), found in sorted(runs.items())]
    rows.sort(key=lambda r: (r["target"], r["test MAE"]))
    for target in sorted({r["target"] for r in rows}):
        print(f"\n{target}\n")
        print_table([r for r in rows if r["target"] == target])
    if options.json:
        save_json(options.json, info, rows)


if __name__ == "__main__":
    main()
