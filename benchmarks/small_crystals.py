"""The small crystals of a table: all cells up to a number of atoms, and perhaps only some for training.

    python benchmarks/small_crystals.py mp_megnet_2018.jsonl.gz mp20.jsonl.gz
    python benchmarks/small_crystals.py mp_megnet_2018.jsonl.gz mp20_12k.jsonl.gz --train 12000

Every row of the validation and test parts is kept, so that errors on them compare. The crystals for training
are those with the smallest sha256 of their id: the same everywhere, and a smaller choice is part of a larger.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path

from _common import save_rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="JSON lines, gzip: id, lattice, z, frac, split, properties")
    parser.add_argument("result", type=Path)
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--train", type=int, help="crystals for training; all by default")
    options = parser.parse_args()
    with gzip.open(options.source, "rt", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if len(row["z"]) <= options.max_atoms]
    training = sorted(
        (row["id"] for row in rows if row["split"] == "train"),
        key=lambda name: hashlib.sha256(name.encode()).digest(),
    )
    chosen = set(training[: options.train])
    rows = [row for row in rows if row["split"] != "train" or row["id"] in chosen]
    save_rows(options.result, rows)
    print(f"{options.result}: {len(rows)} crystals, {dict(Counter(row['split'] for row in rows))}")


if __name__ == "__main__":
    main()
