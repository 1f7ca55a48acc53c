"""In which order are the shear stresses of a table? A potential that never saw them says.

    python benchmarks/stress_order.py study_data/mlearn.jsonl.gz --elements Li Ni

A small cluster expansion is fitted to energies and forces alone, and its stresses are compared with the
labels, in each order of yz, xz and xy, for each group of configurations: the mean absolute error in GPa of
the three shear components. An order is told where the others miss by much more.
"""

from __future__ import annotations

import argparse
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import print_table

from potnet.config import compose, plain
from potnet.forcefield import derivatives
from potnet.models import ClusterExpansion
from potnet.training import setup
from potnet.training.closed_form import fit_progress

GPA = 160.2176634
SHEAR = ("yz", "xz", "xy")


def rows_of(data_path: Path, element: str) -> list[dict[str, Any]]:
    """One row for each group of an element."""
    words = ["experiment=mlearn", f"data.path={data_path}", f"data.element={element}"]
    config = plain(compose("train", [*words, "model=cluster_expansion"]))
    model = ClusterExpansion(config["features"]["neighbors"]["cutoff"], (10, 10, 8))
    data = setup.build_data(config, model)
    data.prepare_data()
    data.setup()
    batches = list(data.dataloader("train"))
    mean = float(torch.cat([b.targets["energy"] / b.num_atoms for b in batches]).mean())
    labels = [
        {"energy": b.targets["energy"] - mean * b.num_atoms, "forces": b.targets["forces"]} for b in batches
    ]
    with fit_progress() as report:
        model.fit_labels(batches, labels, {"energy": 1.0, "forces": 1.0}, report)
    groups = data.store.table.values("group")[data.split.rows("train")]
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    order = iter(groups)
    for batch in batches:
        stress = derivatives(lambda b: model(b)["energy"], batch, forces=False)["stress"]
        for label, value in zip(batch.targets["stress"], stress, strict=True):
            pair = GPA * label[3:].numpy(), GPA * value[3:].numpy()
            found.setdefault(str(next(order)), []).append(pair)
    rows = []
    for group, pairs in sorted(found.items()):
        labelled, predicted = (np.stack(side) for side in zip(*pairs, strict=True))
        known = ~np.isnan(labelled).any(1)
        row: dict[str, Any] = {"element": element, "group": group, "stresses": int(known.sum())}
        for turn in permutations(range(3)):
            error = np.abs(labelled[known][:, turn] - predicted[known]).mean()
            row[" ".join(SHEAR[i] for i in turn)] = float(error)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--elements", nargs="+", default=["Ni", "Cu", "Li", "Mo", "Si", "Ge"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for element in options.elements for row in rows_of(options.data.absolute(), element)]
    print("\nGPa, the labels taken as")
    print_table(rows)


if __name__ == "__main__":
    main()
