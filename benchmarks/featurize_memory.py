"""Memory of featurizing a data set and of setting up a training on it, by number of crystals: is it flat?

    python benchmarks/featurize_memory.py
    python benchmarks/featurize_memory.py --sizes 10000 40000 --atoms 8 --json featurize_memory_cpu.json

A table of generated crystals (random cells and places; an energy, forces and a stress for each) is written as
JSON lines. Fresh processes then
- featurize it into an empty folder: read, staged, split, neighbours, shards, labels;
- open the finished cache, split it by formula, and go through the batches of an epoch without loading them,
  as a training does that begins;
- hold the same crystals as a list (`source.load()`), without features, for comparison.

Memory is anonymous memory (RssAnon), looked at every 2 ms, above what the imports and one thousand crystals
take: pages of the mapped files of a cache come and go as the system has room for them, and are not counted.
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
import gc, json, sys, threading, time
from potnet.data import CrystalDataModule, RatioSplit, TableSource, Target
import moyopy, vesin, pyarrow.parquet

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.002)

def run(table, folder, how):
    source = TableSource(table, plausibility="ignore")
    if how == "list":
        return source.load()
    data = CrystalDataModule(
        source, Target("energy", extensive=True), {"neighbors": {"cutoff": 3.0}, "cell": "as_given"},
        RatioSplit(by="formula"), cache_dir=folder, needs=("edges",), featurize_workers=1,
    )
    data.prepare_data()
    if how == "setup":
        data.setup()
        for batch in data.train_dataloader().batch_sampler:
            pass
    return data

small, table, folder, how = sys.argv[1:]
peak = 0
run(small, folder, how)
gc.collect()
peak = before = anonymous()
threading.Thread(target=watch, daemon=True).start()
start = time.process_time()
kept = run(table, folder, how)
seconds = time.process_time() - start
gc.collect()
pyarrow.default_memory_pool().release_unused()
print(json.dumps({"peak": max(peak, anonymous()) - before, "kept": anonymous() - before, "cpu": seconds}))
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


def measure(small: Path, table: Path, folder: str, how: str) -> dict[str, float]:
    command = [sys.executable, "-c", _START, str(small), str(table), folder, how]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    facts: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 20_000, 100_000])
    parser.add_argument("--atoms", type=int, default=4, help="of each crystal")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    info = machine_info("cpu")
    print_header(f"Memory of crystals of {options.atoms} atoms", info)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.jsonl.gz"
        write_table(small, 1000, options.atoms)
        for size in options.sizes:
            table = Path(folder) / f"{size}.jsonl.gz"
            write_table(table, size, options.atoms)
            row: dict[str, float] = {"crystals": size}
            for how in ("featurize", "setup", "list"):
                facts = measure(small, table, folder, how)
                row |= {f"{how}, peak MiB": facts["peak"], f"{how}, kept MiB": facts["kept"]}
                row |= {f"{how}, CPU s": facts["cpu"]}
            rows.append(row)
    print_table(rows)
    first, last = rows[0], rows[-1]
    more = last["crystals"] - first["crystals"]
    each = {name: (last[name] - first[name]) / more * 2**20 for name in first if name.endswith("MiB")}
    for name, value in each.items():
        print(f"{name.removesuffix(' MiB')}: {value:.0f} bytes for each further crystal")
    if options.json:
        save_json(options.json, info, rows, atoms=options.atoms, bytes_a_crystal=each)


if __name__ == "__main__":
    main()
