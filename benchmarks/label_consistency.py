"""Whether labelled forces and stress of a table are derivatives of its energies, set by set.

    python benchmarks/label_consistency.py forces_mlearn.jsonl.gz

Prints, for each value of the column `set`, the factors with which forces and stress fit the differences of
energies of near configurations (1 if they are right), and whether the same stress in kbar is recognised.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace

from potnet.crystals import Crystal
from potnet.data import TableSource
from potnet.data.consistency import KBAR, compare, problems


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table")
    options = parser.parse_args()
    sets: dict[str, list[Crystal]] = defaultdict(list)
    for crystal in TableSource(options.table, plausibility="ignore").load().crystals:
        sets[str(crystal.properties.get("set", "all"))].append(crystal)
    print(f"{'set':24} {'pairs':>6} {'stress':>8} {'forces':>8}   stress in kbar")
    for name, crystals in sets.items():
        found = compare(crystals)
        vasp = [
            replace(one, properties={**one.properties, "stress": -KBAR * one.properties["stress"]})
            for one in crystals
        ]
        said = problems(compare(vasp))
        known = "recognised" if said and "as VASP writes them" in said[0] else "not recognised"
        print(f"{name:24} {found.pairs:6} {found.stress:8.3f} {found.forces:8.3f}   {known}")
        for problem in problems(found):
            print(f"    {problem}")


if __name__ == "__main__":
    main()
