"""Where the time of a training step goes, for every network as conf/model has it, on embedded crystals.

    python benchmarks/model_profile.py
    python benchmarks/model_profile.py --model cgcnn alignn --crystals 64 --json FILE

For each model: the time of featurizing a crystal, of a step (forward, backward, optimizer) and of an epoch of
the embedded set; how much of the step is matrix products, and the ratio of the rest to them. As layers run
once for each class of equal atoms and edges here, and layers on [x_i, x_j, e] are split, products are several
times cheaper than in the published networks, which makes that ratio larger and the step shorter; so step and
products of the same network when every layer runs on every edge stand beside them. CPU time of one thread,
which means something on a busy machine, too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from _common import machine_info, print_header, print_table, save_json
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from potnet.config import build, compose, plain
from potnet.crystals import CrystalBatch, collate
from potnet.data import EmbeddedSource, Featurizer
from potnet.nn import EdgeLinear, Edges

MODELS = ["potnet", "cgcnn", "schnet", "megnet", "gatgnn", "alignn", "matformer"]
PRODUCTS = {f"aten::{name}" for name in ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv")}
TRAINING_CRYSTALS = 3360


def prepared(name: str, crystals: int) -> tuple[nn.Module, CrystalBatch, float]:
    """The network, a batch of every n-th embedded crystal with what it needs, and ms a crystal for that."""
    config = compose("train", [f"model={name}"])
    model = build(plain(config.model), "model", nested=False)
    dataset = EmbeddedSource().load()
    chosen = list(dataset.crystals)[:: len(dataset.crystals) // crystals][:crystals]
    featurizer = Featurizer(**plain(config.features), device="cpu").restricted(model.needs)
    start = time.process_time()
    batch = collate(featurizer.featurize(chosen))
    return model, batch, 1e3 * (time.process_time() - start) / len(chosen)


class ConcatenatingLinear(EdgeLinear):
    """The layer as published: the concatenation of every edge, and one large product."""

    def forward(self, x: Tensor, edges: Edges, of_atoms: Tensor | None = None) -> Tensor:
        z = torch.cat([x[edges.target], x[edges.source], edges.per_edge(edges.features)], -1)
        result = nn.functional.linear(z, self.weight, self.bias)
        return result if of_atoms is None else result + of_atoms[edges.target]


def as_published(model: nn.Module) -> nn.Module:
    """The same network without shared work: every layer on an edge runs on every edge."""
    for module in model.modules():
        if isinstance(module, EdgeLinear):
            module.__class__ = ConcatenatingLinear
    return model


def profiled(step: Callable[[], None], repeats: int) -> tuple[float, float, list[tuple[str, float]]]:
    """Seconds a step in matrix products and outside them, and the latter by operation, largest first."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as record:
        for _ in range(repeats):
            step()
    events = record.key_averages()
    seconds = {event.key: event.self_cpu_time_total * 1e-6 / repeats for event in events}
    rest = sorted(((key, s) for key, s in seconds.items() if key not in PRODUCTS), key=lambda item: -item[1])
    products = sum(s for key, s in seconds.items() if key in PRODUCTS)
    return products, sum(s for _, s in rest), rest


def step_seconds(step: Callable[[], None], repeats: int) -> float:
    """Median CPU time of a step, after two."""
    step()
    step()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def measure(name: str, crystals: int, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    torch.manual_seed(0)
    model, batch, features = prepared(name, crystals)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        loss = model(batch)["value"].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    median = step_seconds(step, repeats)
    products, outside, rest = profiled(step, repeats)
    as_published(model)
    model.fold = False
    published_step = step_seconds(step, repeats)
    published, _, _ = profiled(step, repeats)
    return {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "atoms": len(batch.z),
        "edges": 0 if batch.edge_index is None else batch.edge_index.shape[1],
        "features ms": features,
        "step s": median,
        "published step s": published_step,
        "s/epoch": median * TRAINING_CRYSTALS / crystals,
        "products %": 100 * products / (products + outside),
        "rest / products": outside / products,
        "rest / published products": outside / published,
        "largest of the rest": ", ".join(
            f"{key.removeprefix('aten::')} {100 * s / (products + outside):.0f} %" for key, s in rest[:3]
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--crystals", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    info = machine_info("cpu")
    print_header(f"Training step on {options.crystals} embedded crystals, one thread, CPU time", info)
    rows = [measure(name, options.crystals, options.repeats) for name in options.model]
    print_table(rows)
    if options.json:
        save_json(options.json, info, rows)


if __name__ == "__main__":
    main()
