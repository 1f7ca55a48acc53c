"""Why the published network's validation error jumps: what its batch norms do, on trained runs.

    potnet train experiment=mp_bulk_modulus model=potnet_published ... runs_dir=runs/a
    python benchmarks/batchnorm_diagnosis.py runs/a/mp_bulk_modulus/*  [more runs]

For each run of `PublishedPotNet` on the embedded set, weights frozen:
1. the validation MAE after its running statistics alone were updated on 15 more training batches, six times;
2. the MAE when batches are normalised by their own statistics instead (all norms, or one kind);
3. the part of the channels of the norm on complete pairs whose variance is below its eps;
4. the size of what enters the norm after the sum over edges, by number of atoms in the cell.
"""

from __future__ import annotations

import argparse
import copy
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from _common import machine_info, print_header, print_table, save_json
from torch import Tensor, nn

import potnet
from potnet.data import CrystalDataModule, EmbeddedSource
from potnet.inference.predictor import Predictor
from potnet.models import PublishedPotNet
from potnet.nn import BatchNorm

KINDS = {"gate": "gate_norm", "after the sum": ".norm", "pairs": "pair_embedding.norm"}


def kind(name: str) -> str:
    if name.startswith("pair_embedding"):
        return "pairs"
    return "gate" if name.endswith("gate_norm") else "after the sum"


def norms(model: nn.Module) -> dict[str, BatchNorm]:
    return {name: module for name, module in model.named_modules() if isinstance(module, BatchNorm)}


def mae(predictor: Predictor, data: CrystalDataModule, part: str) -> float:
    _, prediction, target = predictor.predict_batches(data.dataloader(part))
    return float((prediction - target).abs().mean())


def own_statistics(predictor: Predictor, data: CrystalDataModule, kinds: set[str], part: str) -> float:
    """MAE with the batches' own statistics in the norms of some kinds; running statistics are kept."""
    saved = copy.deepcopy(predictor.model.state_dict())
    for name, norm in norms(predictor.model).items():
        norm.train(kind(name) in kinds)
    value = mae(predictor, data, part)
    predictor.model.eval()
    predictor.model.load_state_dict(saved)
    return value


def updated_statistics(
    predictor: Predictor, data: CrystalDataModule, rounds: int, batches: int
) -> list[float]:
    """Validation MAE after each of some rounds of updating the running statistics alone."""
    saved = copy.deepcopy(predictor.model.state_dict())
    loader = data.train_dataloader()
    stream = (batch for _ in range(rounds * batches) for batch in loader)
    found = []
    for _ in range(rounds):
        predictor.model.train()
        with torch.no_grad():
            for _ in range(batches):
                predictor.model(next(stream))
        predictor.model.eval()
        found.append(mae(predictor, data, "val"))
    predictor.model.load_state_dict(saved)
    return found


def dead_channels(model: PublishedPotNet) -> float:
    if model.pair_embedding is None:
        return float("nan")
    norm = model.pair_embedding.norm
    assert norm.running_var is not None
    return float((norm.running_var < norm.eps).float().mean())


def scale_by_size(predictor: Predictor, data: CrystalDataModule) -> dict[str, float]:
    """Root mean square of what enters the first norm after a sum, for three sizes of cells."""
    caught: list[Tensor] = []
    model = predictor.model
    handle = model.convolutions[0].norm.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    squares: dict[str, list[Tensor]] = defaultdict(list)
    with torch.no_grad():
        for batch in data.dataloader("val"):
            caught.clear()
            model(batch)
            n = batch.num_atoms[batch.batch]
            for label, low, high in (("1-4", 1, 4), ("5-10", 5, 10), ("11-40", 11, 40)):
                squares[label].append(caught[0][(n >= low) & (n <= high)].square().mean(1))
    handle.remove()
    return {f"rms at {label} atoms": float(torch.cat(part).mean().sqrt()) for label, part in squares.items()}


def diagnose(run: Path) -> dict[str, Any]:
    predictor = potnet.load(run, device="cpu")
    model = predictor.model
    if not isinstance(model, PublishedPotNet):
        raise SystemExit(f"{run}: this looks at PublishedPotNet, got {type(model).__name__}")
    data = CrystalDataModule(EmbeddedSource(), predictor.targets, predictor.featurizer, needs=model.needs)
    data.prepare_data()
    data.setup("fit")
    updated = updated_statistics(predictor, data, rounds=6, batches=15)
    return {
        "run": run.parts[-3] if len(run.parts) > 2 else run.name,
        "pairs": model.pairs,
        "val MAE": mae(predictor, data, "val"),
        "test MAE": mae(predictor, data, "test"),
        "val MAE, statistics updated, min": min(updated),
        "max": max(updated),
        "val MAE, own statistics": own_statistics(predictor, data, set(KINDS), "val"),
        "test MAE, own statistics": own_statistics(predictor, data, set(KINDS), "test"),
        **{
            f"val MAE, own statistics {name}": own_statistics(predictor, data, {name}, "val")
            for name in KINDS
        },
        "dead pair channels": dead_channels(model),
        **scale_by_size(predictor, data),
    }


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--json", help="file for the results")
    args = parser.parse_args()
    info = machine_info()
    print_header("Batch norm in the published network, MAE in log10(GPa)", info)
    rows = [diagnose(run) for run in args.runs]
    # One line a figure: there are more figures than runs.
    names = [str(row["run"]) for row in rows]
    table = [
        {"figure": key, **{name: row[key] for name, row in zip(names, rows, strict=True)}} for key in rows[0]
    ]
    print_table(table[1:])
    if args.json:
        save_json(args.json, info, rows)


if __name__ == "__main__":
    main()
