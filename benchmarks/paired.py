"""What a change of the network or its training is worth: its errors minus those of the default, by crystal.

    python benchmarks/paired.py DEFAULT... --others RUNS...
    python benchmarks/paired.py DEFAULT... --others RUNS... --target g_vrh
    python benchmarks/paired.py DEFAULT... --others RUNS... --average

DEFAULT are folders of finished runs of one task, one a seed, or folders that hold such; RUNS likewise, of the
changed network. With --target that one target is compared, and the tasks may differ. For each part: errors of
both, averaged over the seeds that both have, or with --average those of their mean predictions; and the mean
difference of the absolute errors with a 95 % bootstrap interval over crystals, negative if the change is
better.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from completeness import common, difference_text
from ensemble import ensemble_errors, finished

from potnet.runs.report import Run
from potnet.runs.report.rows import mean_errors


def compared(default: list[Run], changed: list[Run], part: str, average: bool) -> np.ndarray:
    """(crystals, 2) absolute errors in the learned unit: changed, default."""
    errors_of = ensemble_errors if average else mean_errors
    first, second = errors_of(changed, part), errors_of(default, part)
    return np.array([(first[name], second[name]) for name in first if name in second])


def check_comparable(default: list[Run], changed: list[Run], target: str | None) -> None:
    """Refuse what cannot be compared.

    Raises:
        SystemExit: Several tasks although no target is named, or two runs of one seed on one side.
    """
    names = {run.config["name"] for run in (*default, *changed)}
    if target is None and len(names) != 1:
        raise SystemExit(f"give runs of one task, or --target; these are of {', '.join(sorted(names))}")
    for runs in (default, changed):
        seeds = [run.config["seed"] for run in runs]
        if len(set(seeds)) != len(seeds):
            folders = ", ".join(str(run.folder) for run in runs)
            raise SystemExit(f"give one run of each seed on either side; these are {folders}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("default", nargs="+", type=Path)
    parser.add_argument("--others", nargs="+", type=Path, required=True)
    parser.add_argument(
        "--target", metavar="KEY", help="compare this one; the runs may be of different tasks"
    )
    parser.add_argument(
        "--average", action="store_true", help="compare the means of predictions, of all runs given"
    )
    options = parser.parse_args()
    default, changed = (finished(folders, options.target) for folders in (options.default, options.others))
    check_comparable(default, changed, options.target)
    if not options.average:
        changed, default = common({"changed": changed, "default": default}, "changed", "default")
    if not changed:
        raise SystemExit("no seed has runs of both")
    seeds = ", ".join(str(run.config["seed"]) for run in changed)
    print(f"{len(changed)} and {len(default)} runs, seeds {seeds}")
    for part in ("val", "test"):
        errors = compared(default, changed, part, options.average)
        ours, theirs = errors.mean(0)
        difference = difference_text(errors @ [1, -1])
        print(f"{part}: {ours:.4f}, default {theirs:.4f}, difference {difference}")


if __name__ == "__main__":
    main()
