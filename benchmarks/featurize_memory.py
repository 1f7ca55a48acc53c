"""Memory of featurizing a data set, by number of crystals: does it stay flat?

    python benchmarks/featurize_memory.py
    python benchmarks/featurize_memory.py --sizes 10000 40000 --atoms 8 --json featurize_memory_cpu.json

A table of generated crystals (random cells and places; an energy, forces and a stress for each) is written as
JSON lines and featurized by a fresh process into an empty folder: read, staged, neighbours, shards, labels.
Memory is the largest resident set of that process (VmHWM), with and without what the import of the
libraries takes. For comparison, the same crystals as a list in memory (`source.load()`).
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _common import machine_info, print_header, print_table, save_json

_START = """
import json, resource, sys, time
from potnet.data import Featurizer, TableSource
from potnet.data.features.cache import cached_features
import moyopy, vesin, pyarrow.parquet

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

table, folder, how = sys.argv[1:]
before = peak()
start = time.process_time()
source = TableSource(table, plausibility="ignore")
if how == "list":
    kept = source.load()
else:
    featurizer = Featurizer(neighbors={"cutoff": 3.0}, cell="as_given")
    kept = cached_features(source, featurizer, folder, workers=1)
facts = {"crystals": len(kept), "before": before, "peak": peak(), "cpu": time.process_time() - start}
print(json.dumps(facts))
"""


def write_table(path: Path, crystals: int, atoms: int) -> None:
    """Generated crystals: atoms on a jittered grid, so that none overlap."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(atoms ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:atoms] / side
    with gzip.open(path, "wt", compresslevel=1) as file:
        for number in range(crystals):
            length = 3.0 * side * (1 + 0.1 * rng.random())
            record: dict[str, Any] = {
                "id": f"crystal-{number}",
                "lattice": (length * np.eye(3)).round(6).tolist(),
                "z": rng.integers(3, 80, atoms).tolist(),
                "frac": (grid + 0.1 / side * rng.random((atoms, 3))).round(6).tolist(),
                "energy": float(rng.normal()),
                "forces": rng.normal(size=(atoms, 3)).round(6).tolist(),
                "stress": rng.normal(size=6).round(6).tolist(),
                "split": "train",
            }
            file.write(json.dumps(record) + "\n")


def measure(table: Path, how: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _START, str(table), folder, how]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    facts: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--atoms", type=int, default=8, help="of each crystal")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    info = machine_info("cpu")
    print_header(f"Memory of featurizing crystals of {options.atoms} atoms", info)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            table = Path(folder) / f"{size}.jsonl.gz"
            write_table(table, size, options.atoms)
            staged, listed = measure(table, "stage"), measure(table, "list")
            rows.append(
                {
                    "crystals": size,
                    "peak MiB": staged["peak"],
                    "above imports MiB": staged["peak"] - staged["before"],
                    "CPU s": staged["cpu"],
                    "as a list, above imports MiB": listed["peak"] - listed["before"],
                }
            )
    print_table(rows)
    first, last = rows[0], rows[-1]
    more = last["crystals"] - first["crystals"]
    for name in ("peak MiB", "as a list, above imports MiB"):
        print(f"{name}: {(last[name] - first[name]) / more * 1024:.2f} KiB for each further crystal")
    if options.json:
        save_json(options.json, info, rows, atoms=options.atoms)


if __name__ == "__main__":
    main()
