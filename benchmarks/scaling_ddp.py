"""Training on several devices against one: crystals a second, at the same global batch.

    python benchmarks/scaling_ddp.py
    python benchmarks/scaling_ddp.py --accelerator gpu --devices 1 2 4 8 --crystals 4273 --batch-size 512

Every row is a run of its own by the command that users have, one thread a process on a CPU. The rows are run
in turns, and of each the fastest epoch counts, the first one aside: what else the machine does only slows it.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _common import machine_info, print_header, print_table, save_json


def epoch_seconds(devices: int, options: argparse.Namespace, folder: Path) -> list[float]:
    """Seconds of training of each epoch but the first, validation aside."""
    subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "potnet.train",
                f"hydra.run.dir={folder}",
                f"data.limit={options.crystals}",
            ),
            *(f"data.batch_size={options.batch_size}", f"trainer.max_epochs={options.epochs + 1}"),
            *("trainer=ddp", f"trainer.accelerator={options.accelerator}", f"trainer.devices={devices}"),
            *(["trainer.strategy=auto"] if devices == 1 else []),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    )
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[1:]
    return [0.8 * options.crystals / float(row["crystals_per_second"]) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--crystals", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=64, help="crystals of a batch, over all devices")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()

    info = machine_info(options.accelerator)
    print_header("Training on several devices", info)
    seconds: dict[int, list[float]] = {devices: [] for devices in options.devices}
    with tempfile.TemporaryDirectory() as name:
        for turn in range(options.turns):
            for devices in options.devices:
                seconds[devices] += epoch_seconds(devices, options, Path(name) / f"{turn}_{devices}")
    rows: list[dict[str, Any]] = []
    for devices, found in seconds.items():
        best = min(found)
        rows.append(
            {
                "devices": devices,
                "crystals/s": round(0.8 * options.crystals / best, 1),
                "speed-up": round(min(seconds[options.devices[0]]) / best, 2),
                "slowest epoch/fastest": round(max(found) / best, 2),
            }
        )
    print_table(rows)
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        save_json(options.json, info, rows, settings=settings)


if __name__ == "__main__":
    main()
