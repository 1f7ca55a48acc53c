"""The table of forces_mlearn without the stress labels that cannot be right.

    python benchmarks/mend_mlearn.py forces_mlearn.jsonl.gz study_data/mlearn.jsonl.gz

Faults of the table, as found on 2026-11-27 (docs/forces.md):

1. The last rows of each element, most of them the test part, have the stress of the element's first rows, to
   the last digit, although these are other configurations. Such a stress is left out (null), once for each
   later row; the first one is kept, as it fits the energies and forces.
2. yz and xz are exchanged in all stresses of lithium and in the elastic configurations of silicon and
   germanium. In the latter a strain e_yz alone comes with a stress xz alone; they are exchanged back wherever
   such a configuration shows it. Of lithium `benchmarks/stress_order.py` shows it.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from _common import save_rows


def repeated(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the stress of an earlier row of the same element."""
    seen: set[tuple[Any, ...]] = set()
    found = []
    for row in rows:
        key = (row["set"], *row["stress"])
        if any(row["stress"]) and key in seen:
            found.append(row)
        seen.add(key)
    return found


def exchanged(row: dict[str, Any]) -> bool:
    """Whether it is lithium, or a cubic crystal sheared by e_yz alone, or e_xz, that has the other stress
    alone.
    """
    if row["set"] == "Li":
        return True
    lattice, stress = np.array(row["lattice"]), np.abs(row["stress"][3:])
    metric = lattice @ lattice.T
    shear = np.abs([metric[1, 2], metric[0, 2], metric[0, 1]]) / np.trace(metric)
    strained, stressed = int(shear.argmax()), int(stress.argmax())
    alone = sorted(shear)[1] < 1e-3 < shear[strained] and sorted(stress)[1] < 1e-3 < stress[stressed]
    return alone and {strained, stressed} == {0, 1}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("result", type=Path)
    options = parser.parse_args()
    with gzip.open(options.source, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    wrong, turned = repeated(rows), [row for row in rows if exchanged(row)]
    for row in turned:
        xx, yy, zz, yz, xz, xy = row["stress"]
        row["stress"] = [xx, yy, zz, xz, yz, xy]
    for row in wrong:
        row["stress"] = None
    save_rows(options.result, rows)
    for what, some in (("left out", wrong), ("yz and xz exchanged", turned)):
        counts = Counter((row["set"], row["split"], row["group"]) for row in some)
        print(f"stress {what}: {len(some)}")
        for (element, split, group), count in sorted(counts.items(), key=str):
            print(f"    {element} {split:5} {group or 'no group'}: {count}")


if __name__ == "__main__":
    main()
