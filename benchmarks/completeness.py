"""What complete sums are worth, from the runs of `potnet train -m study=completeness`.

    python benchmarks/completeness.py multirun/completeness --json benchmarks/results/completeness.json

For each task and each kind of pairs: MAE of every seed, its mean and standard deviation, and the difference
complete minus this row, over the seeds that both have, with a 95 % bootstrap interval over crystals (errors
are averaged over seeds, crystals are drawn with replacement). Negative: complete is better. Rows without
fields of charges (`ablation=fields_none`) are compared with complete pairs without fields, and with the
default, which has both. Then the same by class of crystal: ionic (formal charges from the composition,
electronegativities 1.5 apart), metallic (metals only), other; layered (bonded in two dimensions); by atoms
in the cell.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from _common import machine_info, print_header, print_table, save_json

from potnet.config import build
from potnet.crystals import Crystal
from potnet.runs.report import Run, collect
from potnet.runs.report.rows import mean_errors

RADII = ("complete", "8 Å", "6 Å", "4 Å")
WITHOUT = ", no fields"
SPLIT = ", near and far apart"
PAIRS = (*RADII, "none", *(name + WITHOUT for name in RADII), "complete" + WITHOUT + SPLIT)
RESAMPLES = 4000


def pairs_of(config: Mapping[str, Any]) -> str:
    """How a run uses pairs."""
    if config["model"].get("pairs") == "none":
        return "none"
    cutoff = config["features"].get("pair_cutoff")
    name = "complete" if cutoff is None else f"{cutoff:g} Å"
    fields = "" if config["model"].get("charges") else WITHOUT
    return name + fields + SPLIT * bool(config["features"].get("pair_split"))


def grouped(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """Finished runs by task and kind of pairs."""
    found: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.metrics is not None:
            found[run.config["name"]][pairs_of(run.config)].append(run)
    return found


def interval(differences: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(seed)
    means = [
        differences[rng.integers(len(differences), size=(100, len(differences)))].mean(1)
        for _ in range(RESAMPLES // 100)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def reference(pairs: str) -> str:
    """What a kind of pairs is compared with: complete ones, without fields for cut ones without fields."""
    return "complete" + WITHOUT * (WITHOUT in pairs and pairs != "complete" + WITHOUT)


def common(rows: Mapping[str, list[Run]], first: str, second: str) -> tuple[list[Run], list[Run]]:
    """Runs of two kinds of pairs, of the seeds that both have."""
    here, there = ({run.config["seed"]: run for run in rows.get(key, [])} for key in (first, second))
    seeds = sorted(here.keys() & there.keys())
    return [here[seed] for seed in seeds], [there[seed] for seed in seeds]


def differences(
    rows: Mapping[str, list[Run]], pairs: str, part: str, first: str | None = None
) -> dict[str, float]:
    """Absolute error of complete (or `first`) minus that of other pairs, by crystal, over common seeds."""
    here, there = (mean_errors(runs, part) for runs in common(rows, first or reference(pairs), pairs))
    return {name: here[name] - there[name] for name in here if name in there}


def spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{deviation}"


def difference_text(values: np.ndarray) -> str:
    low, high = interval(values)
    return f"{values.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def table(rows: Mapping[str, list[Run]]) -> list[dict[str, Any]]:
    """A row for each kind of pairs."""
    result = []
    for pairs in (name for name in PAIRS if name in rows):
        runs = sorted(rows[pairs], key=lambda run: run.config["seed"])
        metrics = [run.metrics or {} for run in runs]
        row: dict[str, Any] = {
            "pairs": pairs,
            "parameters": metrics[0].get("parameters"),
            "seeds": ", ".join(str(run.config["seed"]) for run in runs),
            "epochs": metrics[0].get("epochs"),
        }
        for part, name in (("val", "validation MAE"), ("test", "test MAE")):
            row[name] = spread([error for run in runs if (error := run.error(part)) is not None])
        for part in ("val", "test"):
            found = differences(rows, pairs, part) if pairs != "complete" else {}
            key = f"complete minus this, {'validation' if part == 'val' else part}"
            row[key] = difference_text(np.array(list(found.values()))) if found else None
            if reference(pairs) != "complete":
                found = differences(rows, pairs, part, "complete")
                key = key.replace("complete", "default")
                row[key] = difference_text(np.array(list(found.values()))) if found else None
        row["training, min"] = round(statistics.fmean(m["seconds"]["train"] for m in metrics) / 60, 1)
        result.append(row)
    return result


def at_equal_epochs(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Validation MAE of runs of one task and seed after as many epochs as all have, finished or not."""
    curves: dict[int, dict[str, dict[int, float]]] = defaultdict(dict)
    planned: dict[int, int] = {}
    for run in runs:
        if curve := dict(run.curve("val")):
            curves[run.config["seed"]][pairs_of(run.config)] = curve
            planned[run.config["seed"]] = run.config["trainer"]["max_epochs"]
    result = []
    for seed, found in sorted(curves.items()):
        last = min(max(curve) for curve in found.values())
        errors = {name: found[name].get(last) for name in PAIRS if name in found}
        result.append({"seed": seed, "after epoch": f"{last} of {planned[seed]}", **errors})
    return result


@cache
def crystals(kind: str, path: str | None) -> dict[str, Crystal]:
    source = build({"_target_": kind, **({} if path is None else {"path": path})}, "data.source")
    return {crystal.id: crystal for crystal in source.load().crystals}


def crystals_of(run: Run, folder: Path) -> dict[str, Crystal]:
    """The crystals of a run by id; files are looked for in `folder`, where they are not where they were."""
    source = run.config["data"]["source"]
    path = source.get("path")
    if path is not None and not Path(path).is_file():
        path = str(folder / Path(path).name)
    return crystals(source["_target_"], path)


def bonding(z: tuple[int, ...]) -> str:
    """The class of a composition: ionic, metallic or other."""
    from pymatgen.core import Composition, Element

    elements = [Element.from_Z(number) for number in z]
    kinds = set(elements)
    if all(e.is_metal for e in kinds):
        return "metallic"
    known = [e.X for e in kinds if not np.isnan(e.X)]
    if len(kinds) < 2 or len(kinds) > 5 or max(known, default=0) - min(known, default=0) < 1.5:
        return "other"
    composition = Composition({e.symbol: elements.count(e) for e in kinds})
    guesses = composition.oxi_state_guesses(max_sites=-1)
    return "ionic" if guesses and any(guesses[0].values()) else "other"


def layered(crystal: Crystal) -> bool:
    """Whether the strongest bonds form sheets (ASE, rank determination of Larsen et al. 2019)."""
    from ase import Atoms
    from ase.geometry.dimensionality import analyze_dimensionality

    atoms = Atoms(numbers=crystal.z, cell=crystal.cell, positions=crystal.positions, pbc=True)
    try:
        found = analyze_dimensionality(atoms, method="RDA", merge=True)
    except TypeError:  # of crystals without any bond, such as solid helium
        return False
    return bool(found[0].dimtype == "2D")


def classes_of(crystal: Crystal) -> list[str]:
    n = len(crystal.z)
    size = "1 to 4 atoms" if n <= 4 else "5 to 10 atoms" if n <= 10 else "11 atoms and more"
    return [bonding(tuple(map(int, crystal.z))), *(["layered"] if layered(crystal) else []), size]


CLASSES = ("ionic", "metallic", "other", "layered", "1 to 4 atoms", "5 to 10 atoms", "11 atoms and more")


def by_class(rows: Mapping[str, list[Run]], classes: Callable[[str], list[str]]) -> list[dict[str, Any]]:
    """Complete minus each, validation and test crystals together, for each class."""
    result = []
    for name in CLASSES:
        row: dict[str, Any] = {"class": name}
        for pairs in PAIRS[1:]:
            if pairs not in rows:
                continue
            found = differences(rows, pairs, "val") | differences(rows, pairs, "test")
            values = np.array([value for crystal, value in found.items() if name in classes(crystal)])
            row["crystals"] = len(values)
            row[f"complete minus {pairs}"] = difference_text(values) if len(values) >= 10 else None
        result.append(row)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, default=Path("study_data"), help="where data files are now")
    parser.add_argument("--no-classes", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    runs = collect(options.folder)
    tasks = grouped(runs)
    info = machine_info("cpu")
    print_header("Complete pairs against pairs within a radius and none", info)
    tables: dict[str, Any] = {}
    for task in sorted({run.config["name"] for run in runs}):
        rows = tasks[task]
        unit = next(iter(rows.values()))[0].unit("test") if rows else "the learned unit"
        print(f"\n{task}, MAE in {unit}\n")
        tables[task] = {"unit": unit, "rows": table(rows)}
        print_table(tables[task]["rows"])
        tables[task]["equal epochs"] = at_equal_epochs(run for run in runs if run.config["name"] == task)
        print("\nvalidation MAE after as many epochs as all have\n")
        print_table(tables[task]["equal epochs"])
        if options.no_classes or len(rows) < 2 or "complete" not in rows or task == "coulomb_random":
            continue
        structures = crystals_of(rows["complete"][0], options.data)
        classes = cache(lambda name, structures=structures: classes_of(structures[name]))
        tables[task]["classes"] = by_class(rows, classes)
        print()
        print_table(tables[task]["classes"])
    unfinished = [f"{run.folder.name}: {run.status}" for run in runs if run.metrics is None]
    print("\nnot finished: " + ("; ".join(unfinished) or "none that was begun"))
    if options.json:
        save_json(options.json, info, [], tasks=tables, unfinished=unfinished)


if __name__ == "__main__":
    main()
