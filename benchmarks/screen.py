"""Screening: crystals a second, and memory of the driver and of the workers by number of crystals.

    python benchmarks/screen.py mp_megnet_2018.jsonl.gz
    python benchmarks/screen.py mp_megnet_2018.jsonl.gz --sizes 10000 100000 --json screen_cpu.json

The crystals of a table that have at most 8 atoms are repeated, each time with another volume (up to 3 % in
each length), until there are as many as asked; `potnet screen` works through them with a model that comes
with the package. Memory is the largest resident set (VmHWM) of the driver, and of any of its workers. With
--backend ray, the driver is the process of the command, and the workers are those of Ray that predict.
"""  # fmt: skip

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from _common import machine_info, print_header, print_table, save_json

TEN_MILLION = 10_000_000


def write_crystals(table: Path, count: int, atoms: int, output: Path) -> None:
    """JSON lines of small crystals, strained so that no two are the same."""
    with gzip.open(table, "rt", encoding="utf-8") as file:
        small = [record for record in map(json.loads, file) if len(record["z"]) <= atoms]
    number = random.Random(0)
    with output.open("w", encoding="utf-8") as file:
        for row in range(count):
            record = small[row % len(small)]
            factor = 1 + 0.03 * (2 * number.random() - 1)
            lattice = [[round(factor * x, 6) for x in vector] for vector in record["lattice"]]
            entry = {
                "id": f"{record['id']}-{row}",
                "lattice": lattice,
                "z": record["z"],
                "frac": record["frac"],
            }
            file.write(json.dumps(entry) + "\n")


def peak(process: psutil.Process) -> float:
    """Largest resident set so far, MiB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        return 0.0


def measure(source: Path, model: str, workers: int, backend: str, piece: int) -> dict[str, float]:
    """Run the command, and look at its processes twice a second."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "potnet.cli", "screen", f"source={source}", f"output={folder}/out"),
            *(f"model={model}", f"workers={workers}", f"backend={backend}", f"piece={piece}", "device=cpu"),
        ]
        start = time.perf_counter()
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        driver = psutil.Process(run.pid)
        facts = {"driver MiB": 0.0, "worker MiB": 0.0}
        seconds: dict[int, float] = {}
        while run.poll() is None:
            facts["driver MiB"] = max(facts["driver MiB"], peak(driver))
            for child in (driver, *_children(driver)):
                try:
                    name, times = " ".join(child.cmdline()), child.cpu_times()
                except psutil.Error:
                    continue
                seconds[child.pid] = times.user + times.system
                if child.pid != run.pid and ("loky" in name or "MapWorker" in name):
                    facts["worker MiB"] = max(facts["worker MiB"], peak(child))
            time.sleep(0.5)
        output, errors = run.communicate()
        if run.returncode:
            raise SystemExit(f"{output}\n{errors}")
        facts["s"] = time.perf_counter() - start
        facts["CPU s"] = sum(seconds.values())
        print(output.splitlines()[-1], flush=True)
    return facts


def _children(driver: psutil.Process) -> list[psutil.Process]:
    try:
        return driver.children(recursive=True)
    except psutil.Error:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, help="JSON lines with lattice, z and frac, compressed")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--atoms", type=int, default=8, help="of the largest crystal")
    parser.add_argument("--model", default="k_vrh")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--backend", default="processes", choices=("processes", "ray"))
    parser.add_argument("--piece", type=int, default=512)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    info = machine_info("cpu")
    print_header(f"Screening with {options.model}, {options.workers} workers, {options.backend}", info)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            source = Path(folder) / f"{size}.jsonl"
            write_crystals(options.table, size, options.atoms, source)
            facts = measure(source, options.model, options.workers, options.backend, options.piece)
            rows.append({"crystals": size, **facts, "crystals/s": size / facts["s"]})
    print_table(rows)
    first, last = rows[0], rows[-1]
    more = max(last["crystals"] - first["crystals"], 1)
    each = {name: (last[name] - first[name]) / more for name in ("CPU s", "s")}
    projection = {
        "crystals/s/core": 1 / each["CPU s"] if each["CPU s"] > 0 else None,
        "10 million, CPU h": each["CPU s"] * TEN_MILLION / 3600,
        "10 million, h here": each["s"] * TEN_MILLION / 3600,
    }
    for name, value in projection.items():
        print(f"{name}: {value:.4g}")
    if options.json:
        kept = {name: getattr(options, name) for name in ("atoms", "model", "workers", "backend", "piece")}
        save_json(options.json, info, rows, **kept, projection=projection)


if __name__ == "__main__":
    main()
