"""Errors of several runs of one kind, each alone and averaged.

    python benchmarks/ensemble.py multirun/transfer/k_vrh_[0-9] --json benchmarks/results/transfer_k_vrh.json
    python benchmarks/ensemble.py multirun/transfer/moduli_[0-9] --target g_vrh

Predictions are averaged in the learned unit, so moduli as logarithms. The members are all runs that are
given, none chosen by its error.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

from _common import machine_info, print_header, print_table, save_json

from potnet.config import ConfigError
from potnet.runs.report import Run, collect


def predictions(run: Run, part: str) -> dict[str, tuple[float, float]]:
    """Label and prediction of each crystal of a part, in the learned unit, by id."""
    log = run.target.get("transform") == "log10"
    pairs = {row.id: row.numbers for row in run.predictions if row.part == part}
    return {
        name: (math.log10(pair[0]), math.log10(pair[1])) if log else pair
        for name, pair in pairs.items()
        if pair is not None
    }


def ensemble_errors(runs: list[Run], part: str) -> dict[str, float]:
    """Absolute error of the members' mean for each crystal of a part, by id."""
    members = [predictions(run, part) for run in runs]
    return {
        name: abs(statistics.fmean(member[name][1] for member in members) - label)
        for name, (label, _) in members[0].items()
    }


def finished(folders: list[Path], target: str | None = None) -> list[Run]:
    """Finished runs in the folders, of one target if it is named.

    Raises:
        SystemExit: There is none, or a folder is not there.
    """
    try:
        runs = [run for run in collect(folders) if run.metrics is not None]
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    if target is not None:
        runs = [each for run in runs for each in run.by_target() if each.key == target]
    if not runs:
        what = "run" if target is None else f"run with target {target}"
        raise SystemExit(f"no finished {what} in {', '.join(map(str, folders))}")
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--target", metavar="KEY", help="of several; the first one by default")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    runs = finished(options.runs, options.target)
    info = machine_info("cpu")
    unit = runs[0].unit("test")
    print_header(f"MAE in {unit}", info)
    rows: list[dict[str, Any]] = []
    for run in runs:
        metrics = run.metrics or {}
        minutes = round(metrics["seconds"]["train"] / 60, 1)
        rows.append(
            {
                "run": run.folder.name,
                **{part: run.error(part) for part in ("val", "test")},
                "training, min": minutes,
            }
        )
    for part in ("val", "test"):
        values = [row[part] for row in rows[: len(runs)]]
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        print(f"{part}: mean of {len(values)} {statistics.fmean(values):.4f}{spread}")
    averages = {part: ensemble_errors(runs, part) for part in ("val", "test")}
    average = {part: statistics.fmean(errors.values()) for part, errors in averages.items()}
    rows.append({"run": f"average of {len(runs)}", **average})
    print()
    print_table(rows)
    if options.json:
        save_json(options.json, info, rows, unit=unit)


if __name__ == "__main__":
    main()
