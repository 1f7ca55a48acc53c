"""The embedded moduli with further crystals for training, from a part of matbench_log_gvrh.

    python benchmarks/more_shear_moduli.py matbench_gvrh_part.jsonl.gz study_data/more_shear_moduli.jsonl.gz

Validation and test parts are those of the embedded set. Added are crystals whose formula is in no part of it
(`embedded_split` is "new"), up to --max-atoms atoms; they have a shear modulus and no bulk modulus.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from pathlib import Path

from _common import embedded_rows, save_rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--max-atoms", type=int, default=40)
    options = parser.parse_args()
    rows = embedded_rows()
    with gzip.open(options.source, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            if row["embedded_split"] == "new" and len(row["z"]) <= options.max_atoms:
                kept = {key: row[key] for key in ("lattice", "z", "frac", "g_vrh")}
                rows.append({"id": f"matbench {row['id']}", **kept, "split": "train"})
    save_rows(options.result, rows)
    print(f"{options.result}: {len(rows)} crystals, {dict(Counter(row['split'] for row in rows))}")


if __name__ == "__main__":
    main()
