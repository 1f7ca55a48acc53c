"""Does loading keep up with training? Crystals a second out of the feature cache, and through the network.

    python benchmarks/loading.py                                    the embedded set
    python benchmarks/loading.py mp_megnet_2018.jsonl.gz --target e_form --cache-dir CACHE
    python benchmarks/loading.py --device cuda --json loading_gpu.json

Loading is an epoch of training batches, in a new order, from the memory-mapped cache: by the training process
itself, and by processes that load ahead. Training is forward, backward and AdamW of the default network on
the same kind of batches. Large tables are featurized first, unless the cache folder holds them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from _common import machine_info, print_header, print_table, save_json, synchronize
from torch import nn

from potnet.crystals import CrystalBatch
from potnet.data import CrystalDataModule, EmbeddedSource, Featurizer, ShuffledSplit, TableSource, Target
from potnet.models import PotNet


def make_data(options: argparse.Namespace) -> CrystalDataModule:
    source = EmbeddedSource() if options.table is None else TableSource(options.table)
    potentials = [{"_target_": f"potnet.lattice.{name}"} for name in ("Coulomb", "London", "Pauli")]
    data = CrystalDataModule(
        source,
        Target(options.target, on_missing="drop"),
        Featurizer(neighbors={"cutoff": 4.0}, potentials=potentials),
        split=ShuffledSplit(),
        batch_size=options.batch_size,
        max_pairs=options.max_pairs,
        cache_dir=options.cache_dir,
    )
    data.prepare_data()
    return data


def loading(data: CrystalDataModule, workers: int, batches: int) -> dict[str, Any]:
    data.num_workers = workers
    loader = data.train_dataloader()
    crystals = pairs = 0
    first = start = time.perf_counter()
    iterator = iter(loader)
    for number in range(batches + 1):
        batch = next(iterator, None)
        if batch is None:
            break
        if number == 0:  # starts the processes, reads the sizes of all crystals
            first = time.perf_counter()
            continue
        crystals += batch.num_crystals
        pairs += int((batch.num_atoms**2).sum())
    seconds = time.perf_counter() - first
    return {
        "what": f"loading, {workers} processes" if workers else "loading, in the training process",
        "crystals/s": crystals / seconds,
        "pairs/s": pairs / seconds,
        "first batch s": first - start,
        "batches": number,
    }


def training(data: CrystalDataModule, device: torch.device, steps: int) -> dict[str, Any]:
    data.num_workers = 0
    iterator = iter(data.train_dataloader())
    batches = [batch for batch, _ in zip(iterator, range(steps + 1), strict=False)]
    torch.manual_seed(0)
    model = PotNet().to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(batch: CrystalBatch) -> None:
        batch = batch.to(device)
        target = torch.zeros(batch.num_crystals, device=device)
        loss = nn.functional.l1_loss(model(batch)["value"], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    wait = synchronize(device) or (lambda: None)
    step(batches[0])
    wait()
    start = time.perf_counter()
    for batch in batches[1:]:
        step(batch)
    wait()
    seconds = time.perf_counter() - start
    crystals = sum(batch.num_crystals for batch in batches[1:])
    pairs = sum(int((batch.num_atoms**2).sum()) for batch in batches[1:])
    return {
        "what": f"training on {device.type}",
        "crystals/s": crystals / seconds,
        "pairs/s": pairs / seconds,
        "batches": len(batches) - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, nargs="?", help="a table of crystals; default: the embedded set")
    parser.add_argument("--target", default="k_vrh")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-pairs", type=int, default=500_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="processes that load")
    parser.add_argument("--batches", type=int, default=200, help="most batches to load")
    parser.add_argument("--steps", type=int, default=10, help="training steps")
    parser.add_argument("--cache-dir", help="of the features")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU at hand: run with --device cpu")

    data = make_data(options)
    data.setup()
    info = machine_info(options.device)
    name = data.source.name
    size = data.split.sizes["train"]
    print_header(f"Loading {name}: {size} crystals, batches of {options.batch_size}", info)
    rows = [loading(data, workers, options.batches) for workers in options.workers]
    rows.append(training(data, torch.device(options.device), options.steps))
    for row in rows:
        row["of training"] = row["crystals/s"] / rows[-1]["crystals/s"]
    print_table(rows)
    if options.json:
        save_json(options.json, info, rows, data=name, batch_size=options.batch_size)


if __name__ == "__main__":
    main()
