"""Do the stresses of cubic crystals strained along an axis follow their energies?

    python benchmarks/stress_offset.py study_data/mlearn.jsonl.gz

Along a uniaxial strain the stress on that axis is dE/dV. A polynomial through the energies of each element is
differentiated and compared with the labels: the median difference in GPa, and the volumes, Å³ an atom, at
which the stress is zero and the energy is least. Plane waves that are not complete give such a difference.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
from _common import print_table

GPA = 160.2176634
LEAST = 9
"""Strains of an element."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="what mend_mlearn.py wrote")
    options = parser.parse_args()
    found: dict[str, dict[float, tuple[float, float, float]]] = {}
    with gzip.open(options.data, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            lattice, n = np.array(row["lattice"]), len(row["z"])
            sides = np.diag(lattice)
            if row["stress"] is None or not np.allclose(lattice, np.diag(sides), atol=1e-6):
                continue
            if np.abs(row["forces"]).max() > 0.05:
                continue
            others = [np.delete(sides, axis) for axis in range(3)]
            axes = [i for i in range(3) if np.ptp(others[i]) < 1e-3 < abs(sides[i] - others[i][0])]
            if len(axes) == 1:
                volume = float(np.prod(sides)) / n
                label = GPA * row["stress"][axes[0]]
                found.setdefault(row["set"], {})[round(volume, 3)] = (volume, row["energy"] / n, label)
    rows = []
    for element, points in found.items():
        if len(points) < LEAST:
            continue
        volume, energy, label = np.array([points[key] for key in sorted(points)]).T
        slope = GPA * np.polyval(
            np.polyder(np.polyfit(volume, energy, 5 if len(volume) > LEAST else 3)), volume
        )
        rows.append(
            {
                "element": element,
                "strains": len(volume),
                "label minus dE/dV, GPa": float(np.median(label - slope)),
                "volume of no stress": float(np.interp(0, label, volume)),
                "volume of least energy": float(np.interp(0, slope, volume)),
            }
        )
    print_table(rows)


if __name__ == "__main__":
    main()
