"""What a change of the network or its training is worth: its errors minus those of the default, by crystal.

    python benchmarks/paired.py DEFAULT... --others RUNS...
    python benchmarks/paired.py DEFAULT... --others RUNS... --target g_vrh     of networks for several targets

DEFAULT are folders of finished runs of one task, or folders that hold such; RUNS likewise, of the changed
network. For each part: errors of both, averaged over the seeds that both have, and the mean difference of the
absolute errors with a 95 % bootstrap interval over crystals. Negative: the change is better.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from completeness import common, difference_text

from potnet.config import ConfigError
from potnet.runs.report import Run, collect
from potnet.runs.report.rows import mean_errors


def compared(default: list[Run], changed: list[Run], part: str) -> tuple[list[int], np.ndarray]:
    """Seeds that both have, and (crystals, 2) absolute errors in the learned unit: changed, default."""
    here, there = common({"changed": changed, "default": default}, "changed", "default")
    first, second = (mean_errors(runs, part) for runs in (here, there))
    seeds = [run.config["seed"] for run in here]
    return seeds, np.array([(first[name], second[name]) for name in first if name in second])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("default", nargs="+", type=Path)
    parser.add_argument("--others", nargs="+", type=Path, required=True)
    parser.add_argument("--target", metavar="KEY", help="compare this target of runs of any tasks")
    options = parser.parse_args()
    try:
        default, changed = (
            [run for run in collect(folders) if run.metrics is not None]
            for folders in (options.default, options.others)
        )
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    if options.target is None:
        names = {run.config["name"] for run in (*default, *changed)}
        if len(names) != 1:
            raise SystemExit(f"give runs of one task; these are of {', '.join(sorted(names)) or 'none'}")
    else:
        default, changed = (
            [each for run in runs for each in run.by_target() if each.key == options.target]
            for runs in (default, changed)
        )
    for part in ("val", "test"):
        seeds, errors = compared(default, changed, part)
        if not seeds:
            raise SystemExit("no seed has runs of both")
        ours, theirs = errors.mean(0)
        print(
            f"{part}: {ours:.4f}, default {theirs:.4f}, difference {difference_text(errors @ [1, -1])}, "
            f"seeds {', '.join(map(str, seeds))}"
        )


if __name__ == "__main__":
    main()
