"""From a table of crystals to a ready feature cache: time, memory and size, by number of crystals.

    python benchmarks/featurize.py mp_megnet_2018.jsonl.gz
    python benchmarks/featurize.py mp_megnet_2018.jsonl.gz --sizes 1000 10000 --workers 2
    python benchmarks/featurize.py mp_megnet_2018.jsonl.gz --device cuda --json featurize_gpu.json

Neighbours within 4 Å and the three potential sums of the default network, to 1e-8. Each size is a part of the
table, evenly spaced lines of it, featurized by fresh processes into an empty folder; then a new process opens
the finished cache. Memory is the proportional set size of all processes together, once a second. Processor
time is the sum over all processes: on a busy machine it says more than the seconds on the clock.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _common import machine_info, print_header, print_table, save_json

# One line of JSON; the clock includes imports, as for a user.
_START = """
import json, sys
from potnet.data import Featurizer, TableSource
from potnet.data.features.cache import cached_features

table, folder, device, workers = sys.argv[1:]
potentials = [{"_target_": f"potnet.lattice.{name}"} for name in ("Coulomb", "London", "Pauli")]
featurizer = Featurizer(neighbors={"cutoff": 4.0}, potentials=potentials, accuracy=1e-8, device=device)
store = cached_features(TableSource(table), featurizer, folder, workers=int(workers) or None)
facts = {"pairs": int((store.num_atoms**2).sum()), "MiB": store.bytes / 2**20, "shards": len(store.shards)}
print(json.dumps(facts | featurizer.seconds))
"""


def thinned(lines: list[bytes], size: int, path: Path) -> Path:
    """A table of evenly spaced lines."""
    rows = np.linspace(0, len(lines) - 1, size).round().astype(int)
    path.write_bytes(gzip.compress(b"\n".join(lines[row] for row in rows), compresslevel=1))
    return path


class Start(NamedTuple):
    """What one start of a program took, and what it reported."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    facts: dict[str, Any]


def start(table: Path, folder: Path, options: argparse.Namespace) -> Start:
    command = [
        sys.executable,
        "-c",
        _START,
        str(table),
        str(folder),
        options.device,
        str(options.workers or 0),
    ]
    began, spent = time.perf_counter(), _children_seconds()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watcher.start()
    out, _ = process.communicate()
    seconds = time.perf_counter() - began
    watcher.join()
    if process.returncode:
        raise SystemExit(f"featurizing failed with status {process.returncode}")
    return Start(seconds, _children_seconds() - spent, peak[0], json.loads(out.splitlines()[-1]))


def _children_seconds() -> float:
    """Processor time of all processes that descended from this one and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(_pss_mib(pid) for pid in _family(process.pid)))
        time.sleep(1.0)


def _family(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _pss_mib(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def measure(lines: list[bytes], size: int, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        table = thinned(lines, size, Path(name) / "table.jsonl.gz")
        first = start(table, Path(name) / "cache", options)
        again = start(table, Path(name) / "cache", options)
    stages = ("standardize", "neighbors", "sums")
    assert not any(again.facts[stage] for stage in stages)
    return {
        "crystals": size,
        **{key: first.facts[key] for key in ("pairs", "shards")},
        "seconds": first.seconds,
        "CPU s": first.cpu_seconds,
        "peak MiB": first.peak_mib,
        "cache MiB": first.facts["MiB"],
        **{f"{stage} s": first.facts[stage] for stage in stages},
        "second start s": again.seconds,
        "its CPU s": again.cpu_seconds,
        "its peak MiB": again.peak_mib,
    }


def fit(rows: list[dict[str, Any]], key: str) -> dict[str, float]:
    """Least squares of a quantity = start + slope * crystals, and the largest deviation relative to it.

    Through the three largest sizes: less work is given to fewer processes, which need less memory.
    """
    rows = rows[-3:]
    size = np.array([row["crystals"] for row in rows], dtype=float)
    value = np.array([row[key] for row in rows])
    slope, offset = np.polyfit(size, value, 1)
    exponent = np.polyfit(np.log(size), np.log(value), 1)[0]
    line = offset + slope * size
    return {
        "start": float(offset),
        "per 1000": 1000 * float(slope),
        "exponent": float(exponent),
        "deviation": float(np.abs(value / line - 1).max()),
        "at 1e6": float(offset + slope * 1e6),
        "at 1e7": float(offset + slope * 1e7),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, help="a .jsonl.gz table of crystals")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of crystals; default: 1000 up to all")
    parser.add_argument("--workers", type=int, help="processes; default: as in training")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--scratch", type=Path, help="folder for the caches, which are removed afterwards")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU at hand: run with --device cpu")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    lines = gzip.decompress(options.table.read_bytes()).splitlines()
    steps = [size for size in (1000, 3000, 10_000, 30_000, 100_000, 300_000) if size < len(lines)]
    sizes = options.sizes or [*steps, len(lines)]
    info = machine_info(options.device)
    print_header(f"Features of {options.table.name}: {len(lines)} crystals", info)
    rows = [measure(lines, size, options) for size in sizes]
    print_table(rows)
    fits: dict[str, dict[str, float]] = {}
    if len(rows) > 2:
        fits = {key: fit(rows, key) for key in ("seconds", "CPU s", "peak MiB", "cache MiB", "its peak MiB")}
        print()
        print_table([{"fit": key, **values} for key, values in fits.items()])
    if options.json:
        save_json(options.json, info, rows, table=options.table.name, workers=options.workers, fits=fits)


if __name__ == "__main__":
    main()
